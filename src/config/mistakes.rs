//! The mistakes in a configuration and their positions: all of them, not just the first.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

use crate::error::{Problem, Status};

/// A position in a text; both numbers count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub line: usize,
    /// In characters, not bytes.
    pub column: usize,
}

impl Place {
    /// The position of byte `offset` in `text`; the end of the text if `offset` is beyond it.
    fn of(text: &str, offset: usize) -> Place {
        let before = text.get(..offset).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Place { line, column }
    }
}

/// One mistake in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The file, as named on the command line.
    pub file: String,
    /// `None` if the file could not be read.
    pub place: Option<Place>,
    /// The path of the key, e.g. `groups.all.retry_cuont`; empty if the mistake is not about a key.
    pub key: String,
    /// What is wrong, without the file and position.
    pub message: String,
    /// A similar key or value that is valid, if there is one.
    pub nearest: Option<String>,
}

impl fmt::Display for Mistake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Place { line, column }) = self.place {
            write!(formatter, "{}:{line}:{column}: ", self.file)?;
        }
        formatter.write_str(&self.message)?;
        match &self.nearest {
            Some(nearest) => write!(formatter, ", did you mean `{nearest}`?"),
            None => Ok(()),
        }
    }
}

/// All mistakes in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes {
    /// In file order; never empty.
    pub list: Vec<Mistake>,
    /// What the user can do about it.
    pub hint: Option<String>,
}

impl Mistakes {
    /// For a file that cannot be read.
    pub(super) fn unreadable(file: &str, error: &std::io::Error) -> Mistakes {
        let message = format!("cannot read config `{file}`: {error}");
        let mistake =
            Mistake { file: file.to_owned(), place: None, key: String::new(), message, nearest: None };
        let hint = (error.kind() == std::io::ErrorKind::NotFound).then(|| match file {
            "offload.toml" => "run `offload init` to write one".to_owned(),
            _ => format!("run `offload -c {} init` to write one", shell_words::quote(file)),
        });
        Mistakes { list: vec![mistake], hint }
    }
}

/// One line per mistake.
impl fmt::Display for Mistakes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.list.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(formatter, "{end}{mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

impl From<Mistakes> for Problem {
    fn from(mut mistakes: Mistakes) -> Problem {
        let hint = mistakes.hint.take();
        Problem { hint, ..Problem::new(Status::Usage, mistakes) }
    }
}

/// Collects the mistakes in a text while it is read.
pub(super) struct Notes<'t> {
    file: &'t str,
    text: &'t str,
    list: RefCell<Vec<Mistake>>,
}

impl<'t> Notes<'t> {
    pub(super) fn new(file: &'t str, text: &'t str) -> Notes<'t> {
        Notes { file, text, list: RefCell::default() }
    }

    /// Adds a mistake about the key with the path `key`, located at `span`.
    pub(super) fn add(&self, span: &Range<usize>, key: impl Into<String>, message: String) {
        self.add_near(span, key, message, None);
    }

    /// The same, suggesting the most similar valid word.
    pub(super) fn add_near(
        &self,
        span: &Range<usize>,
        key: impl Into<String>,
        message: String,
        nearest: Option<&str>,
    ) {
        self.list.borrow_mut().push(Mistake {
            file: self.file.to_owned(),
            place: Some(Place::of(self.text, span.start)),
            key: key.into(),
            message,
            nearest: nearest.map(str::to_owned),
        });
    }

    /// `value`, unless there are mistakes. A `None` must have been reported as one.
    pub(super) fn settle<T>(self, value: Option<T>) -> Result<T, Mistakes> {
        let mut list = self.list.into_inner();
        if let Some(value) = value.filter(|_| list.is_empty()) {
            return Ok(value);
        }
        list.sort_by_key(|mistake| mistake.place);
        Err(Mistakes { list, hint: None })
    }
}

/// The word of `known` that is most similar to `word`, if any is similar enough. Jaro–Winkler similarity
/// tolerates a missing ending (`test_timeout` for `test_timeout_secs`), which an edit distance does not.
pub(super) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let likeness = |name: &str| strsim::jaro_winkler(&word.to_lowercase(), name);
    let best = known.into_iter().map(|name| (likeness(name), name)).max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(likeness, _)| *likeness >= 0.8).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_not_bytes() {
        let text = "a = 1\nüü = 2\n";
        assert_eq!(Place::of(text, 0), Place { line: 1, column: 1 });
        assert_eq!(Place::of(text, text.find('2').unwrap()), Place { line: 2, column: 6 });
        assert_eq!(Place::of(text, 999), Place { line: 3, column: 1 });
    }

    #[test]
    fn the_nearest_word_tolerates_typos_and_missing_endings() {
        let known = ["max_parallel", "test_timeout_secs", "working_dir"];
        assert_eq!(nearest("max_paralel", known), Some("max_parallel"));
        assert_eq!(nearest("test_timeout", known), Some("test_timeout_secs"));
        assert_eq!(nearest("Working_Dir", known), Some("working_dir"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("", known), None);
    }

    #[test]
    fn a_missing_file_hints_at_init_for_that_file() {
        let error = std::io::Error::from_raw_os_error(2);
        let problem = Problem::from(Mistakes::unreadable("a b.toml", &error));
        assert_eq!(
            problem.error.to_string(),
            "cannot read config `a b.toml`: No such file or directory (os error 2)"
        );
        assert_eq!(problem.hint.as_deref(), Some("run `offload -c 'a b.toml' init` to write one"));
        assert_eq!(problem.status, Status::Usage);
    }
}
