//! `offload logs`: shows the results of the last run, from its merged report.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::ops::ControlFlow;
use std::path::Path;

use anyhow::{Context, anyhow};
use regex_lite::Regex;

use crate::color::Palette;
use crate::error::{Problem, Status, one_line};
use crate::junit::{self, Caps, Recorded, Word};
use crate::model::Details;

/// How many similar IDs are suggested.
const NEAREST: usize = 3;
/// IDs that are less similar than this are not suggested.
const LEAST_LIKENESS: f64 = 0.6;

/// Which tests are shown: those that meet every condition.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only failed ones.
    pub failures: bool,
    /// Only errored, timed-out and not-run ones, and errors outside tests.
    pub errors: bool,
    /// Only those with one of these ids; empty for any id.
    pub ids: Vec<String>,
    /// Only those whose ID matches this regular expression.
    pub pattern: Option<String>,
}

/// Shows the tests of `report` that pass `filter`. The status is [`Status::Passed`] even if tests failed, and
/// [`Status::Usage`] if the report has none of the given IDs.
///
/// # Errors
/// A missing or broken report, or a malformed pattern; an error of `out` as the [`io::Error`] it is.
pub fn run(report: &Path, filter: &Filter, palette: Palette, out: &mut dyn Write) -> Result<Status, Problem> {
    let pattern = filter.pattern.as_deref().map(compile).transpose()?;
    let mut found = vec![false; filter.ids.len()];
    let mut broken_pipe: io::Result<()> = Ok(());
    let end = junit::read_merged(open(report)?, Caps { text: 1 << 20 }, &mut |test| {
        let wanted = is_wanted(&test, filter, pattern.as_ref(), &mut found);
        if wanted && let Err(error) = show(&test, palette, out) {
            broken_pipe = Err(error);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    broken_pipe.and_then(|()| out.flush()).map_err(anyhow::Error::from)?;
    if let Some(error) = end.error {
        return Err(anyhow!("report `{}` is corrupt: {error}", report.display()).into());
    }
    let missing = filter.ids.iter().zip(&found).filter(|(_, found)| !**found).map(|(id, _)| id.as_str());
    let missing: Vec<&str> = missing.collect();
    warn_of(&missing, report)?;
    let none = !filter.ids.is_empty() && missing.len() == filter.ids.len();
    Ok(if none { Status::Usage } else { Status::Passed })
}

fn compile(pattern: &str) -> Result<Regex, Problem> {
    Regex::new(pattern).map_err(|error| Problem::usage(format!("`--test-regex {pattern}`: {error}")))
}

fn open(report: &Path) -> Result<File, Problem> {
    File::open(report).map_err(|error| {
        let missing = error.kind() == ErrorKind::NotFound;
        let problem =
            anyhow::Error::from(error).context(format!("cannot read report `{}`", report.display()));
        match missing {
            true => Problem::from(problem).hint("create it with `offload run`"),
            false => problem.into(),
        }
    })
}

/// Whether `test` is shown; marks its ID as found.
fn is_wanted(test: &Recorded, filter: &Filter, pattern: Option<&Regex>, found: &mut [bool]) -> bool {
    if test.word == Word::RunError {
        // It has a reason, not an ID.
        return !filter.failures && filter.ids.is_empty() && filter.pattern.is_none();
    }
    let mut named = filter.ids.is_empty();
    for (id, found) in filter.ids.iter().zip(found) {
        if *id == test.id {
            *found = true;
            named = true;
        }
    }
    named
        && (!filter.failures || test.word == Word::Failed)
        && (!filter.errors || matches!(test.word, Word::Errored | Word::TimedOut | Word::NotRun))
        && pattern.is_none_or(|pattern| pattern.is_match(&test.id))
}

fn show(test: &Recorded, palette: Palette, out: &mut dyn Write) -> io::Result<()> {
    let word = match test.word {
        Word::Passed => palette.green(test.word).to_string(),
        Word::Flaky => palette.yellow(test.word).to_string(),
        Word::Skipped | Word::ExpectedFailure => palette.dim(test.word).to_string(),
        _ => palette.red(test.word).to_string(),
    };
    writeln!(out, "=== {} [{word}] ===", one_line(&test.id))?;
    match &test.result.details {
        // Its message is its name.
        Some(details) if test.word == Word::RunError => {
            show_details(&Details { message: None, ..(**details).clone() }, out)?;
        }
        Some(details) => show_details(details, out)?,
        None => {}
    }
    if test.batches.len() > 1 {
        let batches: Vec<String> = test.batches.iter().map(u32::to_string).collect();
        writeln!(out, "({} attempts, in batches {})", batches.len(), batches.join(", "))?;
    }
    Ok(())
}

fn show_details(details: &Details, out: &mut dyn Write) -> io::Result<()> {
    let text = details.text.as_deref().unwrap_or_default().trim_end();
    let message = details.message.as_deref().unwrap_or_default().trim_end();
    // Many runners begin the text with the message.
    if !text.starts_with(message) {
        writeln!(out, "{message}")?;
    }
    if !text.is_empty() {
        writeln!(out, "{text}")?;
    }
    for (name, output) in [("stdout", &details.stdout), ("stderr", &details.stderr)] {
        if let Some(output) = output {
            let output = output.trim_start_matches(['\r', '\n']).trim_end();
            writeln!(out, "--- {name} ---\n{output}")?;
        }
    }
    Ok(())
}

/// Warns about IDs that are not in the report, with similar ones that are.
fn warn_of(missing: &[&str], report: &Path) -> Result<(), Problem> {
    if missing.is_empty() {
        return Ok(());
    }
    let mut nearest: Vec<Vec<(f64, String)>> = vec![Vec::new(); missing.len()];
    let file = File::open(report).context("cannot read the report again")?;
    junit::read_merged(file, Caps { text: 0 }, &mut |test| {
        if test.word == Word::RunError {
            return ControlFlow::Continue(());
        }
        for (wanted, nearest) in missing.iter().zip(&mut nearest) {
            let likeness = strsim::jaro_winkler(wanted, &test.id);
            if likeness >= LEAST_LIKENESS {
                let place = nearest.partition_point(|(other, _)| *other >= likeness);
                nearest.insert(place, (likeness, test.id.clone()));
                nearest.truncate(NEAREST);
            }
        }
        ControlFlow::Continue(())
    });
    for (wanted, nearest) in missing.iter().zip(nearest) {
        let names: Vec<String> = nearest.into_iter().map(|(_, id)| format!("`{id}`")).collect();
        let hint = if names.is_empty() { String::new() } else { format!("; similar: {}", names.join(", ")) };
        log::warn!("report `{}` has no test `{wanted}`{hint}", report.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"<testsuites><testsuite name="offload">
<testcase name="t.py::test_add"><system-out>out</system-out></testcase>
<testcase name="t.py::test_div"><failure message="AssertionError: expected 2 got 3">t.py:10: in test_div
    assert 1 / 0 == 2
E   AssertionError: expected 2 got 3
</failure><system-err>
err
</system-err></testcase>
<testcase name="t.py::test_error"><error message="boom">boom at t.py:3</error></testcase>
<testcase name="t.py::test_flaky"><properties><property name="offload.batches" value="0 7"/></properties>
<flakyFailure message="once"/></testcase>
<testcase name="t.py::test_skip"><skipped message="not now"/></testcase>
<testcase name="t.py::test_xfail"><skipped type="pytest.xfail"/></testcase>
<testcase name="t.py::test_slow"><error type="timeout" message="after 2 s"/></testcase>
<testcase name="t.py::test_lost"><error type="not-run" message="no sandbox"/></testcase>
</testsuite><testsuite name="run-errors"><testcase name="it broke"><properties>
<property name="offload.run-error" value="true"/></properties><error message="it broke">batch 3</error></testcase>
</testsuite></testsuites>"#;

    fn shown_of(text: &str, filter: &Filter) -> Result<(Status, String), Problem> {
        let directory = tempfile::tempdir().unwrap();
        let report = directory.path().join("junit.xml");
        std::fs::write(&report, text).unwrap();
        let mut out = Vec::new();
        let status = run(&report, filter, Palette::default(), &mut out)?;
        Ok((status, String::from_utf8(out).unwrap()))
    }

    /// The last part of each shown id.
    fn names(filter: &Filter) -> String {
        let (_, text) = shown_of(REPORT, filter).unwrap();
        let ids = text.lines().filter_map(|line| line.strip_prefix("=== t.py::test_"));
        ids.filter_map(|line| line.split(' ').next()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_result_has_its_banner_and_its_texts() {
        let (status, text) = shown_of(REPORT, &Filter::default()).unwrap();
        let expected = "\
=== t.py::test_add [PASSED] ===
--- stdout ---
out
=== t.py::test_div [FAILED] ===
AssertionError: expected 2 got 3
t.py:10: in test_div
    assert 1 / 0 == 2
E   AssertionError: expected 2 got 3
--- stderr ---
err
=== t.py::test_error [ERROR] ===
boom at t.py:3
=== t.py::test_flaky [FLAKY] ===
once
(2 attempts, in batches 0, 7)
=== t.py::test_skip [SKIPPED] ===
not now
=== t.py::test_xfail [XFAILED] ===
=== t.py::test_slow [TIMED OUT] ===
after 2 s
=== t.py::test_lost [NOT RUN] ===
no sandbox
=== it broke [RUN ERROR] ===
batch 3
";
        assert_eq!((status, text.as_str()), (Status::Passed, expected));
    }

    #[test]
    fn every_condition_must_be_met() {
        let all = Filter::default();
        assert_eq!(names(&Filter { failures: true, ..all.clone() }), "div");
        assert_eq!(names(&Filter { errors: true, ..all.clone() }), "error slow lost");
        assert_eq!(names(&Filter { failures: true, errors: true, ..all.clone() }), "");
        assert_eq!(names(&Filter { pattern: Some("_s(low|kip)$".into()), ..all.clone() }), "skip slow");
        let ids = vec!["t.py::test_lost".to_owned(), "t.py::test_add".to_owned()];
        assert_eq!(names(&Filter { ids: ids.clone(), ..all.clone() }), "add lost");
        assert_eq!(names(&Filter { ids, errors: true, ..all }), "lost");
    }

    #[test]
    fn only_unknown_ids_are_a_usage_error() {
        let unknown = "t.py::test_ad".to_owned();
        let filter = Filter { ids: vec![unknown.clone()], ..Filter::default() };
        assert_eq!(shown_of(REPORT, &filter).unwrap(), (Status::Usage, String::new()));
        let filter = Filter { ids: vec![unknown, "t.py::test_add".to_owned()], ..Filter::default() };
        assert_eq!(shown_of(REPORT, &filter).unwrap().0, Status::Passed);
    }

    #[test]
    fn an_error_of_the_run_is_shown_but_never_picked() {
        let shows = |filter: Filter| shown_of(REPORT, &filter).unwrap().1.contains("[RUN ERROR]");
        let all = Filter::default();
        assert!(shows(all.clone()) && shows(Filter { errors: true, ..all.clone() }));
        assert!(!shows(Filter { failures: true, ..all.clone() }));
        assert!(!shows(Filter { pattern: Some("broke".into()), ..all.clone() }));
        let named = Filter { ids: vec!["it broke".into()], ..all };
        assert_eq!(shown_of(REPORT, &named).unwrap(), (Status::Usage, String::new()));
    }

    #[test]
    fn a_malformed_pattern_is_a_usage_error() {
        let filter = Filter { pattern: Some("(".into()), ..Filter::default() };
        assert_eq!(shown_of(REPORT, &filter).unwrap_err().status, Status::Usage);
    }

    #[test]
    fn a_missing_report_says_how_to_get_one() {
        let path = Path::new("/nowhere/junit.xml");
        let problem = run(path, &Filter::default(), Palette::default(), &mut io::sink()).unwrap_err();
        assert_eq!(problem.status, Status::NothingRun);
        assert_eq!(problem.hint.as_deref(), Some("create it with `offload run`"));
    }

    #[test]
    fn a_broken_report_shows_what_can_be_read_and_fails() {
        assert_eq!(shown_of(&REPORT[..400], &Filter::default()).unwrap_err().status, Status::NothingRun);
    }

    #[test]
    fn a_closed_output_is_passed_on() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let directory = tempfile::tempdir().unwrap();
        let report = directory.path().join("junit.xml");
        std::fs::write(&report, REPORT).unwrap();
        let problem = run(&report, &Filter::default(), Palette::default(), &mut Closed).unwrap_err();
        let cause = problem.error.downcast_ref::<io::Error>().unwrap();
        assert_eq!(cause.kind(), ErrorKind::BrokenPipe);
    }
}
