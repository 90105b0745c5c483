//! Reads reports as a stream: each case is handed out when its element ends, and memory is bounded by the caps, not
//! by the size of the report.

use std::io::Read;
use std::ops::ControlFlow;

use xml::reader::{EventReader, ParserConfig, XmlEvent};

use super::Case;
use super::case::{Builder, Record};
use super::tidy::Tidy;

/// Replaces the parser's own message, which quotes the tidied text.
const OUTSIDE: &str = "text outside the root element";
/// The maximum nesting depth of elements.
const DEEPEST: usize = 1000;
/// By how many bytes a text may exceed its cap, for the line that says how much was left out.
pub(super) const MARK: usize = 64;

/// How much of a report is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Maximum size in bytes of each text of a case: message, failure text, stdout, stderr. A longer text loses its
    /// middle, which is replaced by a line that says how much is missing.
    pub text: usize,
}

impl Default for Caps {
    fn default() -> Caps {
        Caps { text: 64 * 1024 }
    }
}

/// How the reading of a report ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadEnd {
    /// The number of cases handed out.
    pub cases: usize,
    /// What is wrong with the report; `None` if it is complete. The cases before the error were handed out.
    pub error: Option<String>,
}

/// Reads a report of any known dialect and hands each case to `each`, in order.
///
/// If a report is broken, an unfinished case is handed out only if it is known to have failed. A failure outside any
/// case becomes an errored case named after its suite. A report that is empty or has no suite is broken.
pub fn read(input: impl Read, each: &mut dyn FnMut(Case)) -> ReadEnd {
    read_within(Caps::default(), input, each)
}

/// Like [`read`], with other caps.
pub fn read_within(caps: Caps, mut input: impl Read, each: &mut dyn FnMut(Case)) -> ReadEnd {
    read_records(&mut input, caps, &mut |record| {
        each(record.case);
        ControlFlow::Continue(())
    })
}

/// Reads any report, including merged ones, until `each` breaks.
pub(super) fn read_records(
    input: &mut dyn Read,
    caps: Caps,
    each: &mut dyn FnMut(Record) -> ControlFlow<()>,
) -> ReadEnd {
    let mut end = ReadEnd::default();
    let mut last = String::new();
    let mut hand_out = |record: Record| {
        end.cases += 1;
        last.clone_from(&record.case.name);
        each(record)
    };
    let mut builder = Builder::new(caps.text.max(MARK) + MARK);
    let error = match parse(input, caps, &mut builder, &mut hand_out) {
        Parsed::Whole | Parsed::Stopped => None,
        Parsed::Broken(error) => {
            builder.abandon(&mut hand_out);
            Some(error)
        }
    };
    end.error = error.map(|error| match end.cases {
        0 => error,
        1 => format!("{error} (after one case, `{last}`)"),
        cases => format!("{error} (after {cases} cases, the last one `{last}`)"),
    });
    end
}

enum Parsed {
    Whole,
    Stopped,
    Broken(String),
}

fn parse(
    input: &mut dyn Read,
    caps: Caps,
    builder: &mut Builder,
    each: &mut dyn FnMut(Record) -> ControlFlow<()>,
) -> Parsed {
    let config = ParserConfig::new().max_attributes(256).max_name_length(4096);
    let mut events = EventReader::new_with_config(Tidy::new(input, caps.text.max(MARK)), config);
    loop {
        match events.next() {
            Ok(XmlEvent::StartElement { name, mut attributes, .. }) => {
                for attribute in &mut attributes {
                    attribute.value = events.source_mut().take(&attribute.value);
                }
                builder.open(&name.local_name, attributes);
                if builder.depth() > DEEPEST {
                    return Parsed::Broken(format!("elements are nested more than {DEEPEST} deep"));
                }
            }
            Ok(XmlEvent::EndElement { .. }) => {
                if let Some(record) = builder.close()
                    && each(record).is_break()
                {
                    return Parsed::Stopped;
                }
            }
            Ok(XmlEvent::Characters(number)) => builder.text(&events.source_mut().take(&number)),
            Ok(XmlEvent::EndDocument) if builder.saw_suite() => return Parsed::Whole,
            Ok(XmlEvent::EndDocument) => return Parsed::Broken("it has no `<testsuite>`".to_owned()),
            Ok(_) => {}
            Err(error) => return Parsed::Broken(explain(&error, builder)),
        }
    }
}

/// What is wrong, without the parser's positions, which refer to the tidied text.
fn explain(error: &xml::reader::Error, builder: &Builder) -> String {
    use xml::reader::ErrorKind;
    let message = match error.kind() {
        ErrorKind::Io(error) => return format!("cannot read it: {error}"),
        ErrorKind::Syntax(message) if !message.starts_with("Unexpected end of stream") => message,
        _ if builder.is_untouched() => return "it is empty".to_owned(),
        _ => return "it is truncated".to_owned(),
    };
    let message = if message.contains("outside the root element") { OUTSIDE } else { message.as_ref() };
    let what = if builder.is_untouched() { "not a JUnit report" } else { "broken XML" };
    let mut letters = message.chars();
    let first = letters.next().unwrap_or_default().to_lowercase();
    format!("{what}: {first}{}", letters.as_str())
}
