//! Environment variables in configured texts: `${VAR}` and `${VAR:-default}`. All other shell syntax is left
//! alone, so that commands can use it.

/// Why a text cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ExpandError {
    /// This variable is not set and has no default.
    Unset(String),
    /// The default of this variable has no closing brace.
    Unclosed(String),
}

/// Replaces `${VAR}` with the value of the variable, and `${VAR:-default}` with the value or, if the variable is
/// not set, the default. `$${` gives `${`. Everything else stays: any other `$`, and any `${` that is not followed
/// by a name and `}` or `:-`.
///
/// A default may contain balanced braces, as in `${JSON:-{"a": {}}}`. It is expanded, but only if it is used.
/// Values of variables are not expanded.
///
/// # Errors
/// The first variable that cannot be replaced.
pub(super) fn expand(
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<String, ExpandError> {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        result.push_str(&rest[..dollar]);
        rest = &rest[dollar..];
        if let Some(after) = rest.strip_prefix("$${") {
            result.push_str("${");
            rest = after;
        } else if let Some((name, after)) = reference(rest) {
            if let Some(after) = after.strip_prefix('}') {
                result.push_str(&environment(name).ok_or_else(|| ExpandError::Unset(name.to_owned()))?);
                rest = after;
            } else {
                let after = &after[":-".len()..];
                let end = closing_brace(after).ok_or_else(|| ExpandError::Unclosed(name.to_owned()))?;
                match environment(name) {
                    Some(value) => result.push_str(&value),
                    None => result.push_str(&expand(&after[..end], environment)?),
                }
                rest = &after[end + 1..];
            }
        } else {
            result.push('$');
            rest = &rest[1..];
        }
    }
    result.push_str(rest);
    Ok(result)
}

/// The name of a `${NAME` at the start of `text`, and what follows it: `}…` or `:-…`.
fn reference(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix("${")?;
    let end = inner.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
    let (name, after) = inner.split_at(end);
    let named = name.starts_with(|c: char| !c.is_ascii_digit());
    (named && (after.starts_with('}') || after.starts_with(":-"))).then_some((name, after))
}

/// The byte offset of the first unbalanced `}`.
fn closing_brace(text: &str) -> Option<usize> {
    let mut open = 0_usize;
    for (index, character) in text.char_indices() {
        match character {
            '{' => open += 1,
            '}' if open == 0 => return Some(index),
            '}' => open -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn environment(name: &str) -> Option<String> {
        match name {
            "A" => Some("1".to_owned()),
            "_b2" => Some("two".to_owned()),
            "EMPTY" => Some(String::new()),
            "NEST" => Some("${A}".to_owned()),
            _ => None,
        }
    }

    fn expanded(text: &str) -> String {
        expand(text, &environment).unwrap()
    }

    /// Random texts made of the pieces that matter, the same ones each time.
    fn texts() -> impl Iterator<Item = String> {
        let pieces = ["$", "{", "}", "${", "A", "no", ":-", "%%:*", " ", "ü", "'", "$$", "(", "1"];
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        (0..5000).map(move |_| (0..random.below(12)).map(|_| random.pick(&pieces)).collect())
    }

    #[test]
    fn set_variables_are_replaced_and_unset_ones_need_a_default() {
        assert_eq!(expanded("x${A}y${_b2}z"), "x1ytwoz");
        assert_eq!(expanded("${A:-other} ${NO:-other} ${NO:-}"), "1 other ");
        assert_eq!(expanded("[${EMPTY}] [${EMPTY:-other}]"), "[] []");
        assert_eq!(expand("a ${NO} b", &environment), Err(ExpandError::Unset("NO".to_owned())));
    }

    #[test]
    fn values_are_not_expanded_again() {
        assert_eq!(expanded("${NEST}"), "${A}");
    }

    #[test]
    fn shell_text_stays_as_it_is() {
        for text in [
            "$",
            "$$",
            "$A",
            "$$A",
            "$(date)",
            "${p%%:*}",
            "${p:=x}",
            "${p:+x}",
            "${p-x}",
            "${#p}",
            "${1}",
            "${1:-x}",
            "${}",
            "${:-x}",
            "${A",
            "${A:",
            "${ A}",
            "a$",
            "${@}",
            "kill $$ && echo ${x[0]}",
            "${ü}",
        ] {
            assert_eq!(expanded(text), text);
        }
    }

    #[test]
    fn a_double_dollar_before_a_brace_is_a_literal_dollar() {
        assert_eq!(expanded("$${A}"), "${A}");
        assert_eq!(expanded("$${A:-x} ${A}"), "${A:-x} 1");
        assert_eq!(expanded("$$${A}"), "$${A}");
        assert_eq!(expanded("$${"), "${");
    }

    #[test]
    fn a_default_ends_at_its_own_brace_and_is_expanded_where_used() {
        assert_eq!(expanded(r#"${NO:-{"a": {}}}!"#), r#"{"a": {}}!"#);
        assert_eq!(expanded("${NO:-${A}}!"), "1!");
        assert_eq!(expanded("${NO:-${NO2:-deep}}!"), "deep!");
        assert_eq!(expanded("${A:-${NO}}"), "1");
        assert_eq!(expanded("${NO:-$${A}}"), "${A}");
        assert_eq!(expanded("${NO:-a:-b}"), "a:-b");
        assert_eq!(expand("${NO:-${NO2}}", &environment), Err(ExpandError::Unset("NO2".to_owned())));
        assert_eq!(expand("${A:-x", &environment), Err(ExpandError::Unclosed("A".to_owned())));
        assert_eq!(expand("${NO:-{}", &environment), Err(ExpandError::Unclosed("NO".to_owned())));
    }

    #[test]
    fn escaping_every_reference_keeps_any_text() {
        for text in texts() {
            assert_eq!(expanded(&text.replace("${", "$${")), text);
        }
    }

    #[test]
    fn the_text_around_a_reference_does_not_matter() {
        for text in texts().filter(|text| expand(text, &environment).is_ok()) {
            // A `$` at the end would combine with what follows, and an open brace would include it.
            if text.ends_with('$') || text.contains('{') {
                continue;
            }
            assert_eq!(expanded(&format!("{text}${{A}}{text}")), format!("{text}1{text}"));
        }
    }

    #[test]
    fn text_without_a_dollar_and_brace_is_never_changed() {
        for text in texts().map(|text| text.replace("${", "$")).filter(|text| !text.contains("${")) {
            assert_eq!(expanded(&text), text);
        }
    }
}
