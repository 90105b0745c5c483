//! How vitest reads and writes names: in `-t` expressions and in its XML.

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
