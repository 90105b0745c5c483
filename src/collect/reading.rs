//! Turns a report on this machine into results of known tests.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use super::recorded::Session;
use crate::files;
use crate::framework::{Matcher, Meaning};
use crate::junit::{self, Case};
use crate::mask::{Cut, Mask};
use crate::model::{CaseResult, Details, Outcome, TestIndex};
use crate::summary::Extra;

/// Number of unknown names shown with a test that has no result.
const NEAREST: usize = 3;

/// What a report says.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Results of known tests, one for each case of the report.
    pub found: Vec<(TestIndex, CaseResult)>,
    /// Results of unknown tests.
    pub extras: Vec<Extra>,
    /// What is wrong with the report. What could be read is kept.
    pub error: Option<String>,
    /// Up to three unknown names, quoted, for messages about missing results.
    pub nearest: Vec<String>,
    /// Why the runner ran no test at all, if its report says so.
    pub blocked: Option<String>,
    /// The tests in the report that the runner seems to have ended when it had to end itself.
    pub ended: Vec<TestIndex>,
    /// What the runner means by its exit status.
    pub meaning: Meaning,
    /// What only a record says; `None` for JUnit.
    pub session: Option<Box<Session>>,
    /// The last test in the report, if it passed and may not have ended when its runner was interrupted.
    pub unfinished: Option<TestIndex>,
}

/// Opens the report at `path`.
pub(super) fn open(path: &Path) -> Result<File, String> {
    files::open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => "it left no report".to_owned(),
        _ => format!("its report cannot be read: {error}"),
    })
}

/// Reads the JUnit report at `path`.
pub fn read(path: &Path, matcher: &dyn Matcher, mask: &Mask) -> Reading {
    let mut reading = Reading::default();
    let file = match open(path) {
        Ok(file) => file,
        Err(error) => return Reading { error: Some(error), ..reading },
    };
    let mut take = |mut case: Case| {
        if !mask.is_empty() {
            hide(&mut case.result, mask);
        }
        let is_bad = case.result.outcome.is_bad();
        if let Some(index) = matcher.find(&case) {
            if is_bad && matcher.is_ended(&case) {
                reading.ended.push(index);
            }
            reading.unfinished = (!is_bad && matcher.may_report_too_early()).then_some(index);
            reading.found.push((index, case.result));
            return;
        }
        reading.unfinished = None;
        if is_bad {
            reading.blocked = reading.blocked.take().or_else(|| matcher.blocks(&case));
            for index in matcher.covers(&case) {
                reading.found.push((index, CaseResult { outcome: Outcome::Errored, ..case.result.clone() }));
            }
        }
        // pytest writes such a case for the test that an interrupt ended.
        let is_nothing = case.name.is_empty() && case.classname.is_empty() && !is_bad;
        if !is_nothing && matcher.is_extra(&case) {
            reading.extra(mask.hide(&matcher.name(&case)), &case.result);
        }
    };
    let end = junit::read::read(file, &mut take);
    reading.error = end.error.map(|error| mask.hide(&format!("its report is broken: {error}")));
    reading
}

impl Reading {
    fn extra(&mut self, name: String, result: &CaseResult) {
        if self.nearest.len() < NEAREST {
            self.nearest.push(quoted(&name));
        }
        self.extras.push(Extra {
            name,
            outcome: result.outcome,
            message: result.message().map(str::to_owned),
        });
    }
}

/// How messages refer to the case `name` of a report.
pub(super) fn quoted(name: &str) -> String {
    if name.is_empty() { "a test case without a name".into() } else { format!("`{name}`") }
}

/// Masks all texts of a result.
pub(super) fn hide(result: &mut CaseResult, mask: &Mask) {
    let Some(details) = &mut result.details else {
        return;
    };
    let Details { kind, message, text, stdout, stderr, properties, place, is_stated: _ } = &mut **details;
    let texts = [kind, message, text, stdout, stderr].into_iter().flatten();
    let recorded = properties.iter_mut().flat_map(|(name, value)| [name, value]);
    for text in texts.chain(recorded).chain(place.as_mut().map(|place| &mut place.file)) {
        *text = hide_parts(text, mask);
    }
}

/// Masks a text that may have been cut in the middle of a secret.
fn hide_parts(text: &str, mask: &Mask) -> String {
    let (mut hidden, mut rest, mut cut) = (String::new(), text, None);
    while let Some((part, line, end)) = junit::cut::parts(rest) {
        hidden += &mask.hide_part(part, cut.map_or(Cut::Behind, |_| Cut::Both));
        hidden += line;
        (rest, cut) = (end, Some(Cut::Before));
    }
    hidden + &cut.map_or_else(|| mask.hide(rest), |cut| mask.hide_part(rest, cut))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Names;

    impl Matcher for Names {
        fn find(&self, case: &Case) -> Option<TestIndex> {
            (case.name == "known").then_some(TestIndex(0))
        }

        fn name(&self, case: &Case) -> String {
            case.name.clone()
        }

        fn is_extra(&self, case: &Case) -> bool {
            case.name != "left out"
        }

        fn covers(&self, case: &Case) -> Vec<TestIndex> {
            if case.name == "around" { vec![TestIndex(1)] } else { Vec::new() }
        }
    }

    #[test]
    fn no_report_one_that_cannot_be_read_and_a_broken_one_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("report.xml");
        let error = |path: &Path| read(path, &Names, &Mask::default()).error.unwrap();
        assert_eq!(error(&path), "it left no report");
        assert!(error(directory.path()).starts_with("its report cannot be read: "));
        std::fs::write(&path, "<testsuite><testcase name='known'").unwrap();
        assert!(error(&path).starts_with("its report is broken: "));
    }

    #[test]
    fn a_failure_around_tests_is_an_error_of_each_and_a_pass_around_them_is_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("report.xml");
        let others: String = ["a", "b", "c", "d"].map(|name| format!("<testcase name='{name}'/>")).concat();
        for (inside, covered) in [("<failure/>", vec![(TestIndex(1), Outcome::Errored)]), ("", Vec::new())] {
            let report =
                format!("<testsuite><testcase name='around'>{inside}</testcase>{others}</testsuite>");
            std::fs::write(&path, report).unwrap();
            let reading = read(&path, &Names, &Mask::default());
            let found: Vec<_> =
                reading.found.iter().map(|(index, result)| (*index, result.outcome)).collect();
            assert_eq!(found, covered);
            assert_eq!(
                (reading.extras.len(), reading.nearest),
                (5, ["`around`", "`a`", "`b`"].map(str::to_owned).into())
            );
        }
    }

    #[test]
    fn secrets_are_masked_in_all_texts_and_what_was_left_out_is_no_extra() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("report.xml");
        let report = "<testsuite><testcase name='known'><failure message='is s3cret'>s3cret</failure>\
            <system-out>s3cret</system-out></testcase><testcase name='left out'/>\
            <testcase name='a s3cret'/></testsuite>";
        std::fs::write(&path, report).unwrap();
        let reading = read(&path, &Names, &Mask::new(["s3cret".into()]));
        assert_eq!(reading.error, None);
        let details = reading.found[0].1.details.as_deref().unwrap();
        let texts = [&details.message, &details.text, &details.stdout].map(|text| text.as_deref().unwrap());
        assert_eq!(texts, ["is ***", "***", "***"]);
        let names: Vec<&str> = reading.extras.iter().map(|extra| extra.name.as_str()).collect();
        assert_eq!((names, reading.nearest), (vec!["a ***"], vec!["`a ***`".to_owned()]));
    }
}
