//! Takes values out of the tree of a configuration. There is no list of known keys: a key that no reader asks for
//! is unknown.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::kinds::{self, Choice};
use super::mistakes::{Notes, nearest};
use super::tree::{Data, Entry, Node, join, placed};

/// A value with its position, for error messages.
#[derive(Clone)]
pub(super) struct Value<'t> {
    node: &'t Node,
    table: String,
    key: String,
    notes: &'t Notes<'t>,
}

impl<'t> Value<'t> {
    /// The whole file.
    pub(super) fn root(node: &'t Node, notes: &'t Notes<'t>) -> Value<'t> {
        Value { node, table: String::new(), key: String::new(), notes }
    }

    /// Adds the mistake that the value `message`, e.g. "must not be empty".
    pub(super) fn fail<T>(&self, message: &str) -> Option<T> {
        let path = join(&self.table, &self.key);
        self.notes.add(&self.node.span, path, format!("{} {message}", placed(&self.table, &self.key)));
        None
    }

    fn mismatch<T>(&self, expected: &str) -> Option<T> {
        let found = match self.node.data {
            Data::Text(_) => "a string",
            Data::Integer(_) => "an integer",
            Data::Float(_) => "a float",
            Data::Boolean(_) => "a boolean",
            Data::Date(_) => "a date",
            Data::Array(_) => "an array",
            Data::Table(_) => "a table",
            Data::Broken => return None,
        };
        self.fail(&format!("must be {expected}, found {found}"))
    }

    /// Any text, even an empty one.
    pub(super) fn text(&self) -> Option<String> {
        match &self.node.data {
            Data::Text(text) => Some(text.clone()),
            _ => self.mismatch("a string"),
        }
    }

    /// A text that is not blank.
    pub(super) fn filled(&self) -> Option<String> {
        let text = self.text()?;
        if text.trim().is_empty() { self.fail("must not be empty") } else { Some(text) }
    }

    /// A text; a blank one counts as not set.
    pub(super) fn optional(&self) -> Option<Option<String>> {
        self.text().map(|text| Some(text).filter(|text| !text.trim().is_empty()))
    }

    /// A path; it need not exist.
    pub(super) fn path(&self) -> Option<PathBuf> {
        self.filled().map(PathBuf::from)
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        match self.node.data {
            Data::Boolean(boolean) => Some(boolean),
            _ => self.mismatch("a boolean"),
        }
    }

    /// An integer within `range`.
    pub(super) fn integer(&self, range: RangeInclusive<u32>) -> Option<u32> {
        let Data::Integer(found) = self.node.data else {
            return self.mismatch("an integer");
        };
        match found.and_then(|found| u32::try_from(found).ok()).filter(|found| range.contains(found)) {
            Some(found) => Some(found),
            None if found.is_some_and(|found| found < i64::from(*range.start())) => {
                self.fail(&format!("must be at least {}, found {}", range.start(), found.unwrap_or_default()))
            }
            None => self.fail(&format!("must be at most {}", range.end())),
        }
    }

    /// A count of at least `least`.
    pub(super) fn count(&self, least: u32) -> Option<usize> {
        self.integer(least..=u32::MAX).and_then(|count| usize::try_from(count).ok())
    }

    /// Whole seconds, at least 1. The upper bound keeps clock arithmetic from overflowing.
    pub(super) fn seconds(&self) -> Option<Duration> {
        self.integer(1..=u32::MAX).map(|seconds| Duration::from_secs(seconds.into()))
    }

    /// A finite number of at least 0, float or integer.
    pub(super) fn amount(&self) -> Option<f64> {
        let found = match self.node.data {
            Data::Float(found) => found,
            #[expect(clippy::cast_precision_loss, reason = "amounts are small, and floats by nature")]
            Data::Integer(Some(found)) => found as f64,
            _ => return self.mismatch("a float"),
        };
        match found.is_finite() && found >= 0.0 {
            true => Some(found.abs()),
            false => self.fail(&format!("must be a finite number of at least 0, found {found}")),
        }
    }

    /// An array; items that `read` rejects are left out.
    pub(super) fn list<T>(&self, read: impl Fn(&Value<'t>) -> Option<T>) -> Option<Vec<T>> {
        let Data::Array(items) = &self.node.data else {
            return self.mismatch("an array");
        };
        let item = |(index, node)| Value { node, key: format!("{}[{index}]", self.key), ..self.clone() };
        Some(items.iter().enumerate().map(item).filter_map(|item| read(&item)).collect())
    }

    /// A table with arbitrary keys, in file order.
    pub(super) fn entries<T>(&self, read: impl Fn(&str, &Value<'t>) -> Option<T>) -> Option<Vec<T>> {
        let Data::Table(entries) = &self.node.data else {
            return self.mismatch("a table");
        };
        let table = join(&self.table, &self.key);
        let entry = |entry: &'t Entry| {
            let value =
                Value { node: &entry.value, table: table.clone(), key: entry.key.clone(), notes: self.notes };
            read(&entry.key, &value)
        };
        Some(entries.iter().filter_map(entry).collect())
    }

    /// Whether it is an empty table or array.
    pub(super) fn is_empty(&self) -> bool {
        match &self.node.data {
            Data::Array(items) => items.is_empty(),
            Data::Table(entries) => entries.is_empty(),
            _ => false,
        }
    }

    /// One of a few words.
    pub(super) fn choice<C: Choice>(&self) -> Option<C> {
        let text = self.text()?;
        if let Some(choice) = kinds::find(&text) {
            return Some(choice);
        }
        let near = nearest(&text, C::ALL.iter().map(|choice| choice.name()));
        let mut message = format!("unknown {} `{text}`", self.key);
        if !self.table.is_empty() {
            message += &format!(" in [{}]", self.table);
        }
        if near.is_none() {
            message += &format!(", expected one of {}", kinds::known::<C>());
        }
        self.notes.add_near(&self.node.span, join(&self.table, &self.key), message, near);
        None
    }

    /// A table whose keys are those that `read` asks for; all others are reported as unknown.
    pub(super) fn table<T>(&self, read: impl FnOnce(&mut Table<'t>) -> T) -> Option<T> {
        let Data::Table(entries) = &self.node.data else {
            return self.mismatch("a table");
        };
        let path = if self.key.is_empty() { String::new() } else { join(&self.table, &self.key) };
        let mut table = Table { value: self.clone(), path, entries, known: Vec::new(), open: false };
        let result = read(&mut table);
        table.report_unknown();
        Some(result)
    }

    /// The value as JSON, for options that are passed on to a provider.
    pub(super) fn json(&self) -> Option<serde_json::Value> {
        Some(match &self.node.data {
            Data::Text(text) | Data::Date(text) => text.clone().into(),
            Data::Integer(Some(integer)) => (*integer).into(),
            Data::Integer(None) => return self.fail("must fit in 64 bits"),
            Data::Float(float) => match serde_json::Number::from_f64(*float) {
                Some(number) => number.into(),
                None => return self.fail("must be a finite number"),
            },
            Data::Boolean(boolean) => (*boolean).into(),
            Data::Array(_) => self.list(Value::json)?.into(),
            Data::Table(_) => {
                let entries = self.entries(|key, value| Some((key.to_owned(), value.json()?)))?;
                serde_json::Value::Object(entries.into_iter().collect())
            }
            Data::Broken => return None,
        })
    }
}

/// A table that is being read.
pub(super) struct Table<'t> {
    value: Value<'t>,
    path: String,
    entries: &'t [Entry],
    known: Vec<&'static str>,
    open: bool,
}

impl<'t> Table<'t> {
    /// The value of `key`, read by `read`; `None` where it is missing or wrong.
    pub(super) fn read<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Value<'t>) -> Option<T>,
    ) -> Option<T> {
        self.known.push(key);
        let node = &self.entries.iter().find(|entry| entry.key == key)?.value;
        read(&Value { node, table: self.path.clone(), key: key.to_owned(), notes: self.value.notes })
    }

    /// The same for a required key.
    pub(super) fn need<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Value<'t>) -> Option<T>,
    ) -> Option<T> {
        if !self.has(key) {
            let message = match self.path.is_empty() {
                true => format!("missing table [{key}]"),
                false => format!("missing key `{key}` in [{}]", self.path),
            };
            self.value.notes.add(&self.value.node.span, join(&self.path, key), message);
        }
        self.read(key, read)
    }

    /// Whether `key` is set, valid or not.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key)
    }

    /// Adds the mistake that the value of `key`, or the table if that is missing, `message`.
    pub(super) fn fail(&mut self, key: &'static str, message: &str) {
        if self.has(key) {
            self.read(key, |value| value.fail::<()>(message));
        } else {
            self.value.fail::<()>(message);
        }
    }

    /// Reports no key of this table as unknown, since which keys are valid cannot be known.
    pub(super) fn leave_open(&mut self) {
        self.open = true;
    }

    fn report_unknown(&self) {
        let is_unknown = |entry: &&Entry| !self.open && !self.known.contains(&entry.key.as_str());
        for entry in self.entries.iter().filter(is_unknown) {
            let path = join(&self.path, &entry.key);
            let message = match (&entry.value.data, self.path.is_empty()) {
                (Data::Table(_), _) => format!("unknown table [{path}]"),
                (_, true) => format!("unknown key `{}` outside any table", entry.key),
                (_, false) => format!("unknown key `{}` in [{}]", entry.key, self.path),
            };
            let near = nearest(&entry.key, self.known.iter().copied());
            self.value.notes.add_near(&entry.span, path, message, near);
        }
    }
}
