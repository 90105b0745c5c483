//! Readers for texts that must have a particular form.

use std::path::Path;

use super::read::Value;

/// Words, split as a shell would but without expansions; may be empty.
pub(super) fn words(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    match shell_words::split(&text) {
        Ok(_) => Some(text),
        Err(_) => value.fail("has an unclosed quote"),
    }
}

/// A program and its arguments, split as a shell would.
pub(super) fn program(value: &Value<'_>) -> Option<String> {
    value.filled()?;
    words(value)
}

/// Environment variables.
pub(super) fn variables(value: &Value<'_>) -> Option<Vec<(String, String)>> {
    value.entries(|name, value| match name.is_empty() || name.contains(['=', '\0']) {
        true => value.fail("is not a valid variable name"),
        false => Some((name.to_owned(), value.text()?)),
    })
}

/// An array of texts that are not blank.
pub(super) fn names(value: &Value<'_>) -> Option<Vec<String>> {
    value.list(Value::filled)
}

/// `local:remote` pairs.
pub(super) fn copy_dirs(value: &Value<'_>) -> Option<Vec<String>> {
    value.list(|item| {
        let text = item.text()?;
        match split_copy_dir(&text) {
            Some(_) => Some(text),
            None => item.fail("must have the form `local:remote`"),
        }
    })
}

/// The two sides of `local:remote`, split at the first colon; `None` if one is missing.
pub fn split_copy_dir(text: &str) -> Option<(&str, &str)> {
    text.split_once(':').filter(|(local, remote)| !local.is_empty() && !remote.is_empty())
}

/// An array of glob patterns.
pub(super) fn globs(value: &Value<'_>) -> Option<Vec<String>> {
    value.list(|item| {
        let text = item.filled()?;
        match glob::Pattern::new(&text) {
            Ok(_) => Some(text),
            Err(error) => {
                item.fail(&format!("is not a glob pattern: {} at position {}", error.msg, error.pos))
            }
        }
    })
}

/// A file name without a directory.
pub(super) fn file_name(value: &Value<'_>) -> Option<String> {
    let text = value.filled()?;
    match Path::new(&text).file_name().is_some_and(|name| name == text.as_str()) {
        true => Some(text),
        false => value.fail("must be a file name without a directory"),
    }
}

/// A `test_id_format`; it must contain something that distinguishes tests.
pub(super) fn id_format(value: &Value<'_>) -> Option<String> {
    let text = value.filled()?;
    match text.contains("{name}") || text.contains("{classname}") {
        true => Some(text),
        false => value.fail("must contain `{name}` or `{classname}`"),
    }
}
