//! Readers for texts that must have a certain form.

use std::path::Path;

use super::read::Value;

/// Words split as sh splits them, without variables and the like; may be none.
pub(super) fn words(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    match shell_words::split(&text) {
        Ok(_) => Some(text),
        Err(_) => value.fail("has a quote that is not closed"),
    }
}

/// A program and its arguments, split as sh splits them.
pub(super) fn program(value: &Value<'_>) -> Option<String> {
    value.filled()?;
    words(value)
}

/// Variables for processes.
pub(super) fn variables(value: &Value<'_>) -> Option<Vec<(String, String)>> {
    value.entries(|name, value| match name.is_empty() || name.contains(['=', '\0']) {
        true => value.fail("is not a name that a variable can have"),
        false => Some((name.to_owned(), value.text()?)),
    })
}

/// Texts that are not empty.
pub(super) fn names(value: &Value<'_>) -> Option<Vec<String>> {
    value.list(Value::filled)
}

/// `local:remote` pairs.
pub(super) fn copy_dirs(value: &Value<'_>) -> Option<Vec<String>> {
    value.list(|item| {
        let text = item.text()?;
        match split_copy_dir(&text) {
            Some(_) => Some(text),
            None => item.fail("must be of the form `local:remote`"),
        }
    })
}

/// The two sides of `local:remote`, split at the first colon; `None` if one is missing.
pub fn split_copy_dir(text: &str) -> Option<(&str, &str)> {
    text.split_once(':').filter(|(local, remote)| !local.is_empty() && !remote.is_empty())
}

/// Patterns of the crate `glob`.
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

/// The name of a file, without a directory.
pub(super) fn file_name(value: &Value<'_>) -> Option<String> {
    let text = value.filled()?;
    match Path::new(&text).file_name().is_some_and(|name| name == text.as_str()) {
        true => Some(text),
        false => value.fail("must be a file name without a directory"),
    }
}

/// A `test_id_format`, which must hold something to tell tests apart.
pub(super) fn id_format(value: &Value<'_>) -> Option<String> {
    let text = value.filled()?;
    match text.contains("{name}") || text.contains("{classname}") {
        true => Some(text),
        false => value.fail("must hold `{name}` or `{classname}`"),
    }
}
