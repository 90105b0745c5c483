//! Escapes for XML text and attribute values, and a reversible one for ids that XML cannot express.

use std::borrow::Cow;

/// Where a text occurs in the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Between tags.
    Text,
    /// In an attribute value in double quotes.
    Value,
}

const REPLACEMENT: &str = "\u{FFFD}";

/// Whether XML 1.0 cannot express `character`, not even as a reference.
pub(super) fn is_forbidden(character: char) -> bool {
    matches!(character, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}')
}

/// Whether `text` may contain a forbidden character: a cheap check that can give false positives.
pub(super) fn may_be_forbidden(text: &str) -> bool {
    text.bytes().fold(false, |found, byte| {
        found | (byte < 0x20 && byte != b'\n' && byte != b'\t' && byte != b'\r') | (byte == 0xEF)
    })
}

/// Appends `text` so that a reader gets the same text, with U+FFFD for each forbidden character.
pub(super) fn escape(text: &str, place: Place, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    let mut done = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if !IS_SPECIAL[usize::from(*byte)] {
            continue;
        }
        let (escaped, width) = match byte {
            b'&' => ("&amp;", 1),
            b'<' => ("&lt;", 1),
            b'>' => ("&gt;", 1),
            b'"' if place == Place::Value => ("&quot;", 1),
            b'\n' if place == Place::Value => ("&#10;", 1),
            b'\t' if place == Place::Value => ("&#9;", 1),
            b'\r' => ("&#13;", 1),
            b'"' | b'\n' | b'\t' => continue,
            0xEF if matches!(bytes[at..], [_, 0xBF, 0xBE | 0xBF, ..]) => (REPLACEMENT, 3),
            0xEF => continue,
            _ => (REPLACEMENT, 1),
        };
        out.extend_from_slice(&bytes[done..at]);
        out.extend_from_slice(escaped.as_bytes());
        done = at + width;
    }
    out.extend_from_slice(&bytes[done..]);
}

/// The bytes that [`escape`] has to look at.
const IS_SPECIAL: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = true;
        byte += 1;
    }
    table[b'&' as usize] = true;
    table[b'<' as usize] = true;
    table[b'>' as usize] = true;
    table[b'"' as usize] = true;
    table[0xEF] = true;
    table
};

/// `text` in characters that XML can express: `\\` for a backslash, `\u{1b}` for a forbidden character. `None` if
/// `text` has no forbidden character and needs no escapes.
pub(super) fn reversible(text: &str) -> Option<String> {
    if !may_be_forbidden(text) || !text.contains(is_forbidden) {
        return None;
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '\\' => escaped.push_str("\\\\"),
            _ if is_forbidden(character) => escaped.push_str(&format!("\\u{{{:x}}}", u32::from(character))),
            _ => escaped.push(character),
        }
    }
    Some(escaped)
}

/// Undoes [`reversible`]; anything that is not one of its escapes stays as it is.
pub(super) fn reverse(escaped: &str) -> String {
    let mut text = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('\\') {
            text.push('\\');
            rest = after;
        } else if let Some((character, after)) = code_point(rest) {
            text.push(character);
            rest = after;
        } else {
            text.push('\\');
        }
    }
    text.push_str(rest);
    text
}

fn code_point(text: &str) -> Option<(char, &str)> {
    let (digits, rest) = text.strip_prefix("u{")?.split_once('}')?;
    let character = char::from_u32(u32::from_str_radix(digits, 16).ok()?)?;
    Some((character, rest))
}

/// `text` with U+FFFD for each forbidden character.
pub(super) fn allowed(text: &str) -> Cow<'_, str> {
    if may_be_forbidden(text) && text.contains(is_forbidden) {
        Cow::Owned(text.replace(is_forbidden, REPLACEMENT))
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaping_for_ids_is_undone_exactly() {
        for id in ["\u{1b}[31m", "a\\u{1b}\0", "\\\u{ffff}\\\\", "ü\u{1}日"] {
            let escaped = reversible(id).unwrap();
            assert!(!escaped.contains(is_forbidden));
            assert_eq!(reverse(&escaped), id);
        }
        assert_eq!(reversible("plain\\n[\u{ff01}\t]"), None);
    }

    #[test]
    fn each_place_has_its_escapes() {
        let text = "a<b>&\"\n\t\r\u{7}\u{ffff}\u{fffd}é";
        let mut out = Vec::new();
        escape(text, Place::Text, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "a&lt;b&gt;&amp;\"\n\t&#13;\u{fffd}\u{fffd}\u{fffd}é");
        let mut out = Vec::new();
        escape(text, Place::Value, &mut out);
        let expected = "a&lt;b&gt;&amp;&quot;&#10;&#9;&#13;\u{fffd}\u{fffd}\u{fffd}é";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
