//! `offload logs`: shows the results of the last run, from its merged report.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::ops::ControlFlow;
use std::path::Path;

use anyhow::{Context, anyhow};
use regex_lite::Regex;

use crate::error::{Problem, Status, one_line};
use crate::junit::{self, Caps, Recorded, Word};
use crate::model::Details;

/// How many ids are named that may have been meant.
const NEAREST: usize = 3;
/// Ids that are less alike than this are not named.
const LEAST_LIKENESS: f64 = 0.6;

/// Which tests are shown: those that meet every condition.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only failed ones.
    pub failures: bool,
    /// Only errored, timed-out and not-run ones.
    pub errors: bool,
    /// Only those with one of these ids; empty for any id.
    pub ids: Vec<String>,
    /// Only those in whose id this regular expression is found.
    pub pattern: Option<String>,
}

/// Shows what `report` says of the tests that `filter` lets through. The status is [`Status::Passed`]
/// also where tests failed, and [`Status::Usage`] where the report has none of the wanted ids.
///
/// # Errors
/// A missing or broken report, a malformed pattern; an error of `out` as the [`io::Error`] it is.
pub fn run(report: &Path, filter: &Filter, out: &mut dyn Write) -> Result<Status, Problem> {
    let pattern = filter.pattern.as_deref().map(compile).transpose()?;
    let mut found = vec![false; filter.ids.len()];
    let mut broken_pipe: io::Result<()> = Ok(());
    let end = junit::read_merged(open(report)?, Caps { text: 1 << 20 }, &mut |test| {
        let wanted = is_wanted(&test, filter, pattern.as_ref(), &mut found);
        if wanted && let Err(error) = show(&test, out) {
            broken_pipe = Err(error);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    broken_pipe.and_then(|()| out.flush()).map_err(anyhow::Error::from)?;
    if let Some(error) = end.error {
        return Err(anyhow!("report `{}` is broken: {error}", report.display()).into());
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
            true => Problem::from(problem).hint("`offload run` writes it"),
            false => problem.into(),
        }
    })
}

/// Whether `test` is shown; notes which of the wanted ids it has.
fn is_wanted(test: &Recorded, filter: &Filter, pattern: Option<&Regex>, found: &mut [bool]) -> bool {
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

fn show(test: &Recorded, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "=== {} [{}] ===", one_line(&test.id), test.word)?;
    if let Some(details) = &test.result.details {
        show_details(details, out)?;
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

/// Warns of ids that the report does not have, with those that may have been meant.
fn warn_of(missing: &[&str], report: &Path) -> Result<(), Problem> {
    if missing.is_empty() {
        return Ok(());
    }
    let mut nearest: Vec<Vec<(f64, String)>> = vec![Vec::new(); missing.len()];
    let file = File::open(report).context("cannot read the report again")?;
    junit::read_merged(file, Caps { text: 0 }, &mut |test| {
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
        let hint = if names.is_empty() { String::new() } else { format!("; nearest: {}", names.join(", ")) };
        log::warn!("no test `{wanted}` in `{}`{hint}", report.display());
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
</testsuite></testsuites>"#;

    fn shown_of(text: &str, filter: &Filter) -> Result<(Status, String), Problem> {
        let directory = tempfile::tempdir().unwrap();
        let report = directory.path().join("junit.xml");
        std::fs::write(&report, text).unwrap();
        let mut out = Vec::new();
        let status = run(&report, filter, &mut out)?;
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
    fn a_malformed_pattern_is_a_usage_error() {
        let filter = Filter { pattern: Some("(".into()), ..Filter::default() };
        assert_eq!(shown_of(REPORT, &filter).unwrap_err().status, Status::Usage);
    }

    #[test]
    fn a_missing_report_says_how_to_get_one() {
        let problem = run(Path::new("/nowhere/junit.xml"), &Filter::default(), &mut io::sink()).unwrap_err();
        assert_eq!(problem.status, Status::NothingRun);
        assert_eq!(problem.hint.as_deref(), Some("`offload run` writes it"));
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
        let problem = run(&report, &Filter::default(), &mut Closed).unwrap_err();
        let cause = problem.error.downcast_ref::<io::Error>().unwrap();
        assert_eq!(cause.kind(), ErrorKind::BrokenPipe);
    }
}
