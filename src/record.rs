//! The record of a batch: JSON lines that a reporter of ours appends while its runner works, one by one, so that they
//! survive the runner. DESIGN.md describes the lines.

use std::io::BufRead;

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The version of records that this program reads.
pub const VERSION: u32 = 1;
/// The maximum size of a line in bytes; a longer one is skipped and makes the record incomplete.
const LONGEST_LINE: usize = 16 * 1024 * 1024;

/// How a test, or a part of one, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It passed.
    Passed,
    /// It failed.
    Failed,
    /// Something around it failed: a fixture, a hook.
    Error,
    /// It was skipped.
    Skipped,
    /// It failed as expected.
    Xfailed,
}

/// A name and a value that a test or a suite recorded.
pub type Property = (String, String);

/// The texts of a failure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    /// The type, for example `AssertionError`.
    pub kind: Option<String>,
    /// The reason, in one line.
    pub message: Option<String>,
    /// A longer text, for example a backtrace.
    pub text: Option<String>,
}

/// A test, or a part of it, failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The native ID.
    pub id: String,
    /// Failed or error.
    pub outcome: Outcome,
    /// What was wrong.
    pub texts: Texts,
    /// The runner itself runs the test again.
    pub retried: bool,
}

/// A test ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// The native ID.
    pub id: String,
    /// The worst outcome of its parts.
    pub outcome: Outcome,
    /// How long it took.
    pub seconds: f64,
    /// Why it was skipped, or failed as expected.
    pub texts: Texts,
    /// Its stdout.
    pub stdout: Option<String>,
    /// Its stderr.
    pub stderr: Option<String>,
    /// What it recorded.
    pub properties: Vec<Property>,
}

/// An error outside tests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Error {
    /// The kind: `collection`, `usage`, `hook` and so on.
    pub what: String,
    /// The file or the hook.
    pub name: Option<String>,
    /// The reason, in one line.
    pub message: Option<String>,
    /// A longer text.
    pub text: Option<String>,
    /// Files whose tests cannot have passed, as they were listed.
    pub files: Vec<String>,
    /// The native IDs of other tests that cannot have passed.
    pub tests: Vec<String>,
}

impl Error {
    /// The error in one text: its name, its message and its longer text, without saying anything twice.
    pub fn to_text(&self) -> String {
        let filled = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
        let (name, message, text) = (filled(&self.name), filled(&self.message), filled(&self.text));
        let mut whole = match (message, text) {
            (Some(message), Some(text)) if text.contains(message.trim()) => text,
            (Some(message), Some(text)) => format!("{message}\n{text}"),
            (message, text) => message.or(text).unwrap_or_else(|| format!("an error ({})", self.what)),
        };
        if let Some(name) = name.filter(|name| !whole.contains(name.as_str())) {
            whole = format!("{name}: {whole}");
        }
        whole.trim_end().to_owned()
    }
}

/// One line of a record.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The reporter is loaded.
    Begin {
        /// The version of the record.
        version: u32,
    },
    /// The runner is about to load a file.
    Loading {
        /// The file, as it was listed.
        file: String,
    },
    /// The runner does not have a test that it was asked for.
    Missing {
        /// The native ID.
        id: String,
    },
    /// A test starts.
    Start {
        /// The native ID.
        id: String,
        /// Seconds since the record began.
        at: f64,
    },
    /// A test, or a part of it, failed.
    Failure(Failure),
    /// A test ended.
    End(Box<Ended>),
    /// Something went wrong outside tests.
    Error(Error),
    /// What the suite recorded.
    Properties {
        /// Names and values.
        properties: Vec<Property>,
    },
    /// A part of a file that goes home with the results.
    Data {
        /// The name of the file; parts of the same name follow each other.
        name: String,
        /// The part, in base64.
        content: String,
    },
    /// The runner ended by its own decision.
    Finish {
        /// Its exit status.
        exit: i32,
    },
    /// What this version does not know.
    Unknown,
}

/// All that a line may have. One flat shape is a third of the code that an enum with tags would be.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields {
    event: String,
    version: Option<u32>,
    id: Option<String>,
    at: Option<f64>,
    outcome: Option<Outcome>,
    kind: Option<String>,
    message: Option<String>,
    text: Option<String>,
    retried: bool,
    seconds: Option<f64>,
    stdout: Option<String>,
    stderr: Option<String>,
    properties: Option<Vec<Property>>,
    what: Option<String>,
    name: Option<String>,
    file: Option<String>,
    files: Vec<String>,
    tests: Vec<String>,
    content: Option<String>,
    exit: Option<i32>,
}

impl TryFrom<Fields> for Event {
    type Error = String;

    fn try_from(fields: Fields) -> Result<Event, String> {
        fn need<T>(field: Option<T>, name: &str) -> Result<T, String> {
            field.ok_or_else(|| format!("missing field `{name}`"))
        }
        let texts = Texts { kind: fields.kind, message: fields.message, text: fields.text };
        Ok(match fields.event.as_str() {
            "begin" => Event::Begin { version: need(fields.version, "version")? },
            "loading" => Event::Loading { file: need(fields.file, "file")? },
            "missing" => Event::Missing { id: need(fields.id, "id")? },
            "start" => Event::Start { id: need(fields.id, "id")?, at: fields.at.unwrap_or_default() },
            "failure" => Event::Failure(Failure {
                id: need(fields.id, "id")?,
                outcome: need(fields.outcome, "outcome")?,
                texts,
                retried: fields.retried,
            }),
            "end" => Event::End(Box::new(Ended {
                id: need(fields.id, "id")?,
                outcome: need(fields.outcome, "outcome")?,
                seconds: fields.seconds.unwrap_or_default(),
                texts,
                stdout: fields.stdout,
                stderr: fields.stderr,
                properties: fields.properties.unwrap_or_default(),
            })),
            "error" => Event::Error(Error {
                what: fields.what.unwrap_or_default(),
                name: fields.name,
                message: texts.message,
                text: texts.text,
                files: fields.files,
                tests: fields.tests,
            }),
            "properties" => Event::Properties { properties: need(fields.properties, "properties")? },
            "data" => {
                Event::Data { name: need(fields.name, "name")?, content: need(fields.content, "content")? }
            }
            "finish" => Event::Finish { exit: need(fields.exit, "exit")? },
            "" => return Err("missing field `event`".to_owned()),
            _ => Event::Unknown,
        })
    }
}

/// Parses a line. An event that this version does not know may have any other fields.
fn parse_event(line: &[u8]) -> Result<Event, String> {
    #[derive(Deserialize)]
    struct Tag {
        event: String,
    }
    match parse::<Fields>(line) {
        Ok(fields) => fields.try_into(),
        Err(failure) => {
            match parse::<Tag>(line).map(|tag| Fields { event: tag.event, ..Fields::default() }.try_into()) {
                Ok(Ok(Event::Unknown)) => Ok(Event::Unknown),
                _ => Err(failure.to_string()),
            }
        }
    }
}

impl Event {
    /// Whether it tells of a failure or an error.
    pub fn is_bad(&self) -> bool {
        match self {
            Event::Failure(failure) => !failure.retried,
            Event::End(ended) => matches!(ended.outcome, Outcome::Failed | Outcome::Error),
            Event::Error(_) => true,
            _ => false,
        }
    }
}

/// Reads a record line by line. Returns what is wrong with it, if anything; what could be read was handed out. A last
/// line without its end is what a killed runner leaves, and no error.
pub fn read(mut input: impl BufRead, each: &mut dyn FnMut(Event)) -> Option<String> {
    let mut error = None;
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let is_whole = match read_line(&mut input, &mut line) {
            Ok(Line::None) => break,
            Ok(Line::Cut) => break,
            Ok(Line::Whole) => true,
            Ok(Line::TooLong) => false,
            Err(failure) => return error.or(Some(format!("cannot read it: {failure}"))),
        };
        let parsed = match is_whole {
            true => parse_event(&line),
            false => Err(format!("it has more than {LONGEST_LINE} bytes")),
        };
        match parsed {
            Ok(Event::Begin { version }) if version > VERSION => {
                return Some(format!("its version is {version}, but this program reads version {VERSION}"));
            }
            Ok(event) => each(event),
            Err(failure) => error = error.or(Some(format!("line {number}: {failure}"))),
        }
    }
    error
}

/// Parses what a reporter wrote. JSON may escape halves of characters, which are no text: each becomes U+FFFD.
///
/// # Errors
/// If it is not JSON, or something else than wanted.
pub fn parse<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(text).or_else(|error| match without_halves(text) {
        Some(text) => serde_json::from_slice(&text),
        None => Err(error),
    })
}

/// The text with U+FFFD in place of escaped halves of characters; `None` if there are none.
fn without_halves(text: &[u8]) -> Option<Vec<u8>> {
    let code = |place: usize| {
        let escape = text.get(place..place + 6)?;
        let digits = std::str::from_utf8(escape.strip_prefix(b"\\u")?).ok()?;
        u32::from_str_radix(digits, 16).ok()
    };
    let (mut mended, mut place, mut is_changed) = (Vec::with_capacity(text.len()), 0, false);
    while let Some(next) = memchr::memchr(b'\\', &text[place..]) {
        mended.extend_from_slice(&text[place..place + next]);
        place += next;
        let length = match (code(place), code(place + 6)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdfff), _) => 0,
            _ => 2,
        };
        if length == 0 {
            mended.extend_from_slice(b"\\ufffd");
            is_changed = true;
            place += 6;
        } else {
            let end = (place + length).min(text.len());
            mended.extend_from_slice(&text[place..end]);
            place = end;
        }
    }
    mended.extend_from_slice(&text[place..]);
    is_changed.then_some(mended)
}

enum Line {
    None,
    Whole,
    Cut,
    TooLong,
}

/// Reads up to a line feed, which is left out; keeps no more than the longest line.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<Line> {
    let mut is_long = false;
    loop {
        let buffer = input.fill_buf()?;
        if buffer.is_empty() {
            return Ok(if line.is_empty() && !is_long { Line::None } else { Line::Cut });
        }
        let end = memchr::memchr(b'\n', buffer);
        let part = &buffer[..end.unwrap_or(buffer.len())];
        is_long |= line.len() + part.len() > LONGEST_LINE;
        if is_long {
            line.clear();
        } else {
            line.extend_from_slice(part);
        }
        let used = part.len() + usize::from(end.is_some());
        input.consume(used);
        if end.is_some() {
            return Ok(if is_long { Line::TooLong } else { Line::Whole });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(text: &str) -> (Vec<Event>, Option<String>) {
        let mut events = Vec::new();
        let error = read(text.as_bytes(), &mut |event| events.push(event));
        (events, error)
    }

    #[test]
    fn what_is_unknown_is_left_out_and_a_cut_last_line_is_no_error() {
        let text = "{\"event\":\"begin\",\"version\":1,\"tool\":\"x\"}\n{\"event\":\"new\",\"id\":5}\n\
                    {\"event\":\"start\",\"id\":\"a\",\"at\":1.5,\"new\":[]}\n{\"event\":\"end\",\"id\":\"a";
        let (events, error) = events(text);
        let start = Event::Start { id: "a".into(), at: 1.5 };
        assert_eq!((events, error), (vec![Event::Begin { version: 1 }, Event::Unknown, start], None));
    }

    #[test]
    fn a_broken_or_endless_line_costs_that_line_and_is_told() {
        let long = "x".repeat(LONGEST_LINE + 1);
        for line in ["{\"event\":\"start\"}", "nonsense", "", &long] {
            let (events, error) = events(&format!("{line}\n{{\"event\":\"finish\",\"exit\":0}}\n"));
            assert_eq!(events, [Event::Finish { exit: 0 }]);
            assert!(error.unwrap().starts_with("line 1: "));
        }
    }

    #[test]
    fn halves_of_characters_are_replaced_and_nothing_else() {
        let parsed = |text: &str| parse::<String>(text.as_bytes()).ok();
        for (text, wanted) in [
            (r#""a\ud800b""#, Some("a\u{fffd}b")),
            (r#""\udc00\ud83d\ude00\ud83d""#, Some("\u{fffd}\u{1f600}\u{fffd}")),
            (r#""\\ud800 \udfff""#, Some("\\ud800 \u{fffd}")),
            (r#""\ud83d\ude00""#, Some("\u{1f600}")),
            (r#""\ud80""#, None),
            (r#""\ud800"#, None),
        ] {
            assert_eq!(parsed(text).as_deref(), wanted, "{text}");
        }
    }

    #[test]
    fn a_newer_version_is_not_read() {
        let (events, error) =
            events("{\"event\":\"begin\",\"version\":2}\n{\"event\":\"finish\",\"exit\":0}\n");
        assert_eq!((events, error.is_some()), (vec![], true));
    }

    #[test]
    fn an_error_says_nothing_twice() {
        let error = |name: &str, message: &str, text: &str| {
            let own = |text: &str| Some(text.to_owned());
            Error { name: own(name), message: own(message), text: own(text), ..Error::default() }.to_text()
        };
        assert_eq!(error("a.py", "no b", "a.py:1: no b\n"), "a.py:1: no b");
        assert_eq!(error("a.py", "no b", ""), "a.py: no b");
        assert_eq!(error("", "no b", "line 1"), "no b\nline 1");
    }
}
