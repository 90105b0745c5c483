//! How vitest reads and writes names: globs, `-t` expressions, attributes of its XML.

/// `file` as a glob that matches it alone.
pub(super) fn escape_glob(file: &str) -> String {
    let mut glob = String::with_capacity(file.len());
    for letter in file.chars() {
        if "\\[](){}!*?+@|".contains(letter) {
            glob.push('\\');
        }
        glob.push(letter);
    }
    glob
}

/// Joined titles as an expression for `-t`. Titles are matched as joined by a space until vitest 4 and by
/// ` > ` since vitest 5; a space may stand for another white space of the title.
pub(super) fn escape(name: &str) -> String {
    let mut pattern = String::with_capacity(name.len() + 16);
    for (place, part) in name.split(" > ").enumerate() {
        if place > 0 {
            pattern.push_str("(?: >)? ");
        }
        for letter in part.chars() {
            match letter {
                ' ' | '\n' | '\r' | '\t' => pattern.push_str("\\s"),
                letter if letter.is_control() => pattern.push_str(&format!("\\u{:04x}", u32::from(letter))),
                letter if "\\^$.|?*+()[]{}/".contains(letter) => pattern.extend(['\\', letter]),
                letter => pattern.push(letter),
            }
        }
    }
    pattern
}

/// The text as it comes back through vitest's XML, in which white space of attributes is a space and
/// characters that XML forbids or discourages are gone.
pub(super) fn clean(text: &str) -> String {
    let kept = text.chars().filter(|&letter| {
        !matches!(letter,
            '\0'..='\x08' | '\x0B' | '\x0C' | '\x0E'..='\x1F' | '\x7F'..='\u{84}' | '\u{86}'..='\u{9F}'
            | '\u{FDD0}'..='\u{FDDF}' | '\u{FFFD}')
            && (u32::from(letter) & 0xFFFE) != 0xFFFE
    });
    kept.map(|letter| if matches!(letter, '\n' | '\r' | '\t') { ' ' } else { letter }).collect()
}

/// Whether [`clean`] takes letters away, so that the text cannot be told from what comes back.
pub(super) fn loses_letters(text: &str) -> bool {
    clean(text).chars().count() < text.chars().count()
}

/// The text without the colours of a terminal.
pub(super) fn plain(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\x1B' {
            kept.push(letter);
        } else if letters.next() == Some('[') {
            letters.by_ref().find(|letter| letter.is_ascii_alphabetic());
        }
    }
    kept
}
