//! A TOML text as a tree: every key and value has its position, tables are in file order, environment variables
//! are expanded.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::expand::{ExpandError, expand};
use super::mistakes::Notes;

/// A value and its byte range in the text; for a table with a header, the range of the header.
pub(super) struct Node {
    pub(super) span: Range<usize>,
    pub(super) data: Data,
}

/// A key and its value.
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) span: Range<usize>,
    pub(super) value: Node,
}

pub(super) enum Data {
    Text(String),
    /// `None` if it does not fit in 64 bits.
    Integer(Option<i64>),
    Float(f64),
    Boolean(bool),
    Date(String),
    Array(Vec<Node>),
    Table(Vec<Entry>),
    /// A text that could not be expanded; already reported.
    Broken,
}

/// Reads `text`. Syntax errors and unset variables are added to `notes`. After a syntax error the result is `None`,
/// since whatever could still be read would be guesswork.
pub(super) fn parse(
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
    notes: &Notes<'_>,
) -> Option<Node> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut line = None;
    for error in &errors {
        let span = error.span().unwrap_or(0..0);
        // One error often causes others on the same line.
        let this_line = text.get(..span.start).map(|before| before.matches('\n').count());
        if line.is_none() || line != Some(this_line) {
            notes.add(&span, "", format!("invalid TOML: {}", error.message().replace('\n', ", ")));
        }
        line = Some(this_line);
    }
    let builder = Builder { environment, notes };
    errors
        .is_empty()
        .then(|| Node { span: 0..0, data: Data::Table(builder.entries(document.into_inner(), "")) })
}

struct Builder<'a> {
    environment: &'a dyn Fn(&str) -> Option<String>,
    notes: &'a Notes<'a>,
}

impl Builder<'_> {
    fn entries(&self, table: DeTable<'_>, path: &str) -> Vec<Entry> {
        let mut entries: Vec<Entry> = table
            .into_iter()
            .map(|(key, value)| {
                let span = key.span();
                let key = key.into_inner().into_owned();
                let value = self.node(value, path, &key);
                Entry { key, span, value }
            })
            .collect();
        entries.sort_by_key(|entry| entry.span.start);
        entries
    }

    fn node(&self, value: Spanned<DeValue<'_>>, path: &str, key: &str) -> Node {
        let span = value.span();
        let data = match value.into_inner() {
            DeValue::String(text) => self.text(&text, &span, path, key),
            DeValue::Integer(integer) => {
                Data::Integer(i64::from_str_radix(integer.as_str(), integer.radix()).ok())
            }
            DeValue::Float(float) => Data::Float(float.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(boolean) => Data::Boolean(boolean),
            DeValue::Datetime(date) => Data::Date(date.to_string()),
            DeValue::Array(array) => Data::Array(
                array
                    .into_iter()
                    .enumerate()
                    .map(|(index, item)| self.node(item, path, &format!("{key}[{index}]")))
                    .collect(),
            ),
            DeValue::Table(table) => Data::Table(self.entries(table, &join(path, key))),
        };
        Node { span, data }
    }

    fn text(&self, text: &str, span: &Range<usize>, path: &str, key: &str) -> Data {
        let message = match expand(text, self.environment) {
            Ok(text) if text.contains('\0') => "must not contain a NUL character".to_owned(),
            Ok(text) => return Data::Text(text),
            Err(ExpandError::Unset(name)) => format!("uses the variable `{name}`, which is not set"),
            Err(ExpandError::Unclosed(name)) => format!("has no closing `}}` for `${{{name}:-`"),
        };
        self.notes.add(span, join(path, key), format!("{} {message}", placed(path, key)));
        Data::Broken
    }
}

/// The path of `key` in the table at `path` in TOML syntax; array items keep their index.
pub(super) fn join(path: &str, key: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || "-_[]".contains(c);
    let key = if key.is_empty() || !key.chars().all(is_bare) { format!("{key:?}") } else { key.to_owned() };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

/// How messages name `key` in the table at `path`.
pub(super) fn placed(path: &str, key: &str) -> String {
    if path.is_empty() { format!("`{key}`") } else { format!("`{key}` in [{path}]") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_keep_the_order_of_the_file() {
        let text = "[groups.z]\n[groups.a]\nb = 1\na = 2\n[env]\n\"x y\" = 1\n";
        let notes = Notes::new("x.toml", text);
        let Data::Table(root) = parse(text, &|_| None, &notes).unwrap().data else { panic!() };
        let keys = |entries: &[Entry]| entries.iter().map(|entry| entry.key.clone()).collect::<Vec<_>>();
        assert_eq!(keys(&root), ["groups", "env"]);
        let Data::Table(groups) = &root[0].value.data else { panic!() };
        assert_eq!(keys(groups), ["z", "a"]);
        let Data::Table(group) = &groups[1].value.data else { panic!() };
        assert_eq!(keys(group), ["b", "a"]);
    }

    #[test]
    fn every_line_with_a_syntax_error_is_named_once() {
        let text = "[a]\nb = = 1\nc = 1\nd = [1,\n";
        let notes = Notes::new("x.toml", text);
        assert!(parse(text, &|_| None, &notes).is_none());
        let lines: Vec<_> =
            notes.settle(Some(())).unwrap_err().list.iter().map(|one| one.place.unwrap().line).collect();
        assert_eq!(lines.first(), Some(&2));
        assert!(lines.windows(2).all(|pair| pair[0] < pair[1]), "{lines:?}");
    }

    #[test]
    fn paths_quote_what_toml_would_quote() {
        assert_eq!(join("groups", "my group"), r#"groups."my group""#);
        assert_eq!(join("", "paths[0]"), "paths[0]");
    }
}
