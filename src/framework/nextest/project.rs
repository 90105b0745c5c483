//! The project's own `nextest.toml`: where a named profile has a JUnit path of its own, a copy for one
//! batch in which that path is another. All else stays, letter for letter.

/// `text` with the JUnit path of `profile` replaced; `None` where that profile sets none, so that a tool
/// configuration can set it. Reads the forms that people write: a table `[profile.P.junit]`, a key
/// `junit.path` or an inline table `junit = { … }` in `[profile.P]`.
pub(super) fn redirect(text: &str, profile: &str, path: &str) -> Option<String> {
    let mut table: Vec<String> = Vec::new();
    let mut lines = Vec::new();
    let mut found = false;
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.starts_with('[') {
            table = header(trimmed);
        }
        let inside: Vec<&str> = table.iter().map(String::as_str).collect();
        let key = trimmed.split_once('=').map(|(key, _)| keys(key)).unwrap_or_default();
        let key: Vec<&str> = key.iter().map(String::as_str).collect();
        let full = [inside.as_slice(), &key].concat();
        if full == ["profile", profile, "junit", "path"] {
            let (name, _) = line.split_once('=').unwrap_or((line, ""));
            lines.push(format!("{name}= {path}"));
            found = true;
        } else if full == ["profile", profile, "junit"] && trimmed.contains("path") && !key.is_empty() {
            let (name, _) = line.split_once('=').unwrap_or((line, ""));
            lines.push(format!("{name}= {{ path = {path} }}"));
            found = true;
        } else {
            lines.push(line.to_owned());
        }
    }
    found.then(|| lines.join("\n") + "\n")
}

/// The names in a table's header; none for an array of tables.
fn header(line: &str) -> Vec<String> {
    match line.strip_prefix('[').and_then(|rest| rest.rfind(']').map(|end| &rest[..end])) {
        Some(inner) if !inner.starts_with('[') => keys(inner),
        _ => Vec::new(),
    }
}

/// The parts of a dotted key, without their quotes.
fn keys(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut quote = None;
    for letter in text.trim().chars() {
        match (quote, letter) {
            (Some(open), letter) if letter == open => quote = None,
            (None, '"' | '\'') => quote = Some(letter),
            (None, '.') => parts.push(String::new()),
            (None, ' ' | '\t') => {}
            (_, letter) => {
                if let Some(last) = parts.last_mut() {
                    last.push(letter);
                }
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_the_profile_alone_is_replaced() {
        let text =
            "[profile.default.junit]\npath = 'a.xml'\n\n[profile.ci.junit] # ours\n  path = \"b.xml\"\n";
        let changed = redirect(text, "ci", "\"/s/j.xml\"").unwrap();
        assert_eq!(changed, text.replace("\"b.xml\"", "\"/s/j.xml\""));
    }

    #[test]
    fn dotted_keys_inline_tables_and_quoted_names_are_understood() {
        let dotted = redirect("[profile.\"a b\"]\njunit.path = 'x'\n", "a b", "'y'").unwrap();
        assert_eq!(dotted, "[profile.\"a b\"]\njunit.path = 'y'\n");
        let inline = redirect("[profile.ci]\njunit = { path = 'x' }\n", "ci", "'y'").unwrap();
        assert_eq!(inline, "[profile.ci]\njunit = { path = 'y' }\n");
    }

    #[test]
    fn a_profile_without_a_path_is_left_alone() {
        let text = "[profile.ci]\nretries = 1\n[[profile.ci.overrides]]\npath = 'no'\n\
                    [profile.ci.junit]\nreport-name = 'x'\n";
        assert_eq!(redirect(text, "ci", "'y'"), None);
    }
}
