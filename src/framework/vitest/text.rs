//! How vitest reads and writes names: in globs, in `-t` expressions and in its XML.

/// A glob that matches only `file`.
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

/// An expression for `-t` that matches joined titles. vitest joins titles with a space up to version 4 and with ` >
/// ` since version 5. A space may stand for any white space in the title.
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

/// The text as it comes back from vitest's XML: white space is replaced by spaces, and characters that XML forbids or
/// discourages are removed.
pub(super) fn clean(text: &str) -> String {
    let kept = text.chars().filter(|&letter| {
        !matches!(letter,
            '\0'..='\x08' | '\x0B' | '\x0C' | '\x0E'..='\x1F' | '\x7F'..='\u{84}' | '\u{86}'..='\u{9F}'
            | '\u{FDD0}'..='\u{FDDF}' | '\u{FFFD}')
            && (u32::from(letter) & 0xFFFE) != 0xFFFE
    });
    kept.map(|letter| if matches!(letter, '\n' | '\r' | '\t') { ' ' } else { letter }).collect()
}

/// Whether [`clean`] removes characters, so that the text cannot be restored from the report.
pub(super) fn loses_letters(text: &str) -> bool {
    clean(text).chars().count() < text.chars().count()
}

/// The text without terminal colors.
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
