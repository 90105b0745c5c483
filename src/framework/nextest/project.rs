//! The project's own `nextest.toml`. Its JUnit path outranks the one of a tool configuration, so a batch gets
//! a copy with another path and everything else unchanged.

use toml::de::{DeTable, DeValue};

/// `text` with the JUnit path of `profile` replaced by the TOML value `path`. `None` if the profile sets no
/// path, or if `text` is not valid TOML, which nextest reports itself.
pub(super) fn redirect(text: &str, profile: &str, path: &str) -> Option<String> {
    let document = DeTable::parse(text).ok()?;
    let mut value = document.get_ref().get("profile")?;
    for key in [profile, "junit", "path"] {
        let DeValue::Table(table) = value.get_ref() else { return None };
        value = table.get(key)?;
    }
    let span = value.span();
    Some([&text[..span.start], path, &text[span.end..]].concat())
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
    fn an_inline_table_keeps_its_other_keys() {
        for (text, expected) in [
            (
                "[profile.ci]\njunit = { report-name = 'n', path = 'x', store-success-output = true }\n",
                "[profile.ci]\njunit = { report-name = 'n', path = 'y', store-success-output = true }\n",
            ),
            (
                "profile.ci = { junit = { path = 'x' }, retries = 2 }\n",
                "profile.ci = { junit = { path = 'y' }, retries = 2 }\n",
            ),
            ("[profile.ci]\njunit = { report-name = 'path' }\n", ""),
        ] {
            assert_eq!(redirect(text, "ci", "'y'").unwrap_or_default(), expected);
        }
    }

    #[test]
    fn a_profile_without_a_path_is_left_alone() {
        let text = "[profile.ci]\nretries = 1\n[[profile.ci.overrides]]\npath = 'no'\n\
                    [profile.ci.junit]\nreport-name = 'x'\n";
        assert_eq!(redirect(text, "ci", "'y'"), None);
    }
}
