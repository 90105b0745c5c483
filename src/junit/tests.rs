//! Tests of writing reports and reading them back.

use std::collections::HashMap;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::time::Duration;

use super::escape::{allowed, is_forbidden};
use super::merged::{Recorded, Word, previous_durations, read_merged};
use super::read::{Caps, read};
use super::write::{Entry, Frame, Totals, write};
use crate::model::{Attempt, CaseResult, Details, Outcome, Place, Verdict};

struct Test {
    id: String,
    file: Option<String>,
    line: Option<u32>,
    verdict: Verdict,
    attempts: Vec<Attempt>,
}

fn test(id: &str, verdict: Verdict, attempts: Vec<Attempt>) -> Test {
    Test { id: id.to_owned(), file: None, line: None, verdict, attempts }
}

fn attempt(number: u32, outcome: Outcome, message: &str) -> Attempt {
    let result = CaseResult::stated(outcome, Duration::from_millis(u64::from(number) * 100), message);
    Attempt { number, batch: number + 10, result }
}

fn written(tests: &[Test]) -> String {
    let entries = || {
        tests.iter().map(|test| Entry {
            id: &test.id,
            file: test.file.as_deref(),
            line: test.line,
            group: "all",
            verdict: &test.verdict,
            attempts: &test.attempts,
        })
    };
    let mut bytes = Vec::new();
    write(&mut bytes, Frame { time: Duration::from_millis(1500), ..Frame::default() }, entries).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn read_again(text: &str) -> Vec<Recorded> {
    let mut found = Vec::new();
    let end = read_merged(text.as_bytes(), Caps::default(), &mut |test| {
        found.push(test);
        ControlFlow::Continue(())
    });
    assert_eq!(end.error, None);
    found
}

/// A small seeded generator, so that failures can be reproduced.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }

    fn text(&mut self) -> String {
        let palette: Vec<char> =
            "ab\\{}u[]<>&;\"'\n\r\t]]>\0\u{1}\u{1b}\u{7f}\u{85}é日😀\u{fffd}\u{fffe}\u{ffff}\u{feff} -!?=/"
                .chars()
                .collect();
        (0..self.below(12)).map(|_| palette[self.below(palette.len())]).collect()
    }

    fn maybe(&mut self) -> Option<String> {
        if self.below(2) == 0 { None } else { Some(self.text()) }
    }

    fn attempt(&mut self, number: u32, outcome: Outcome) -> Attempt {
        let duration = Duration::from_micros(self.below(100_000_000) as u64);
        let details = Details {
            place: None,
            properties: Vec::new(),
            kind: self.maybe(),
            message: self.maybe(),
            text: self.maybe(),
            stdout: self.maybe(),
            stderr: self.maybe(),
            is_stated: false,
        };
        let mut result = CaseResult::new(outcome, duration);
        result.details = Some(Box::new(details));
        Attempt { number, batch: self.below(1000) as u32, result }
    }

    fn test(&mut self) -> Test {
        const BAD: [Outcome; 3] = [Outcome::Failed, Outcome::Errored, Outcome::TimedOut];
        let mut attempts: Vec<Attempt> = Vec::new();
        let bad = self.below(3) as u32;
        for number in 0..bad {
            let outcome = BAD[self.below(3)];
            attempts.push(self.attempt(number + 1, outcome));
        }
        let verdict = match self.below(4) {
            0 if bad == 0 => Verdict::NotRun(self.text().into()),
            1 if bad == 0 => {
                let outcome = [Outcome::Skipped, Outcome::ExpectedFailure][self.below(2)];
                attempts.push(self.attempt(1, outcome));
                Verdict::Skipped
            }
            2 if bad > 0 => Verdict::Failed,
            _ => {
                attempts.push(self.attempt(bad + 1, Outcome::Passed));
                if bad == 0 { Verdict::Passed } else { Verdict::Flaky }
            }
        };
        Test { id: self.text(), file: self.maybe(), line: self.below(2).try_into().ok(), verdict, attempts }
    }
}

/// The expected word for a test, and the attempt whose duration the report must have.
fn expected(test: &Test) -> (Word, Option<&Attempt>) {
    match &test.verdict {
        Verdict::Passed => (Word::Passed, test.attempts.last()),
        Verdict::Flaky => (Word::Flaky, test.attempts.last()),
        Verdict::NotRun(_) => (Word::NotRun, None),
        Verdict::Failed | Verdict::Skipped => {
            let shown = &test.attempts[0];
            let word = match shown.result.outcome {
                Outcome::Failed => Word::Failed,
                Outcome::Errored => Word::Errored,
                Outcome::TimedOut => Word::TimedOut,
                Outcome::ExpectedFailure => Word::ExpectedFailure,
                _ => Word::Skipped,
            };
            (word, Some(shown))
        }
    }
}

#[test]
fn whatever_is_written_can_be_read_back() {
    let mut dice = Dice(20);
    for round in 0..300 {
        let tests: Vec<Test> = (0..dice.below(20)).map(|_| dice.test()).collect();
        let text = written(&tests);
        assert!(!text.contains(is_forbidden));
        let again = read_again(&text);
        assert_eq!(again.len(), tests.len(), "round {round}: {text}");
        for (test, recorded) in tests.iter().zip(again) {
            let (word, shown) = expected(test);
            assert_eq!((&recorded.id, recorded.word), (&test.id, word), "round {round}: {text}");
            let batches: Vec<u32> = test.attempts.iter().map(|attempt| attempt.batch).collect();
            let noted = test.verdict != Verdict::Passed;
            assert_eq!(recorded.batches, if noted { batches } else { Vec::new() });
            let Some(shown) = shown else { continue };
            assert_eq!(recorded.result.duration, shown.result.duration);
            let found = recorded.result.details.unwrap_or_default();
            let wanted = shown.result.details.as_deref().unwrap();
            let plain = |text: &Option<String>| {
                text.as_deref().filter(|text| !text.trim().is_empty()).map(|text| allowed(text).into_owned())
            };
            assert_eq!(
                (plain(&found.stdout), plain(&found.stderr)),
                (plain(&wanted.stdout), plain(&wanted.stderr))
            );
            if matches!(word, Word::Failed | Word::Errored | Word::TimedOut | Word::Skipped) {
                assert_eq!(found.message, wanted.message.as_deref().map(|text| allowed(text).into_owned()));
            }
        }
    }
}

#[test]
fn each_case_has_the_place_of_its_test() {
    let placed = |verdict, attempts| Test {
        file: Some("a/\"b\".py".into()),
        line: Some(12),
        ..test("t", verdict, attempts)
    };
    let not_run = Verdict::NotRun("no sandbox".into());
    for placed in [
        placed(Verdict::Passed, vec![attempt(1, Outcome::Passed, "")]),
        placed(Verdict::Failed, vec![attempt(1, Outcome::Failed, "no")]),
        placed(Verdict::Skipped, Vec::new()),
        placed(not_run.clone(), Vec::new()),
    ] {
        let report = written(&[placed]);
        let place =
            "name=\"t\" classname=\"a/&quot;b&quot;.py\" file=\"a/&quot;b&quot;.py\" line=\"12\" time=";
        assert!(report.contains(place), "{report}");
    }
    let report = written(&[test("t", not_run, Vec::new())]);
    assert!(!report.contains(" file=") && !report.contains(" line="), "{report}");
    // Where the list knows no file, that of the runner's own report is kept.
    let mut passed = attempt(1, Outcome::Passed, "");
    let place = Place { file: "a.cc".into(), line: Some(7) };
    passed.result.details = Some(Box::new(Details { place: Some(place), ..Details::default() }));
    let report = written(&[test("t", Verdict::Passed, vec![passed])]);
    assert!(report.contains("classname=\"all\" file=\"a.cc\" line=\"7\" time="), "{report}");
}

#[test]
fn a_skip_stays_a_skip_under_any_type() {
    let mut skipped = attempt(1, Outcome::Skipped, "later");
    skipped.result.details.as_mut().unwrap().kind = Some("pytest.xfail".into());
    let again = read_again(&written(&[test("a", Verdict::Skipped, vec![skipped])]));
    assert_eq!(again[0].word, Word::Skipped);
}

#[test]
fn not_run_is_a_failure_in_the_words_of_ctest_alone() {
    for (attributes, inside, outcome) in [
        (
            "name='a' classname='a' status='notrun'",
            "<skipped message='Required Files Missing'/>",
            Outcome::Failed,
        ),
        (
            "name='a' classname='a' status='notrun'",
            "<skipped message='SKIP_RETURN_CODE=77'/>",
            Outcome::Skipped,
        ),
        ("name='a' classname='a' status='notrun'", "", Outcome::Skipped),
        ("name='a' classname='a' status='notrun'", "<skipped/>", Outcome::Skipped),
        (
            "name='a' classname='a' status='notrun' result='suppressed'",
            "<skipped message='x'/>",
            Outcome::Skipped,
        ),
        ("name='a' classname='a'", "<skipped message='Required Files Missing'/>", Outcome::Skipped),
        ("name='a' classname='b' status='notrun'", "<skipped message='not here'/>", Outcome::Skipped),
        ("name='a' classname='a' status='notrun'", "<skipped message='x'/><error/>", Outcome::Errored),
    ] {
        let report = format!("<testsuite><testcase {attributes}>{inside}</testcase></testsuite>");
        let mut found = Vec::new();
        read(report.as_bytes(), &mut |case| found.push(case.result.outcome));
        assert_eq!(found, [outcome], "{report}");
    }
}

#[test]
fn the_parser_accepts_what_is_written() {
    let mut dice = Dice(21);
    let tests: Vec<Test> = (0..200).map(|_| dice.test()).collect();
    let text = written(&tests);
    for event in xml::EventReader::new(text.as_bytes()) {
        event.unwrap();
    }
}

#[test]
fn attempts_follow_the_convention_of_the_field() {
    let tests = [
        test(
            "passes",
            Verdict::Passed,
            vec![Attempt { number: 1, batch: 0, result: CaseResult::new(Outcome::Passed, Duration::ZERO) }],
        ),
        test(
            "flaky",
            Verdict::Flaky,
            vec![attempt(1, Outcome::TimedOut, "slow"), attempt(2, Outcome::Passed, "")],
        ),
        test(
            "fails",
            Verdict::Failed,
            vec![attempt(1, Outcome::Failed, "one"), attempt(2, Outcome::Errored, "two")],
        ),
        test("lost", Verdict::NotRun("no sandbox".into()), Vec::new()),
    ];
    let expected = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="offload" tests="4" failures="1" errors="1" skipped="0" time="1.500000">
  <testsuite name="offload" tests="4" failures="1" errors="1" skipped="0" time="1.500000">
    <testcase name="passes" classname="all" time="0.000000"/>
    <testcase name="flaky" classname="all" time="0.200000">
      <properties><property name="offload.batches" value="11 12"/></properties>
      <flakyError time="0.100000" type="timeout" message="slow"></flakyError>
    </testcase>
    <testcase name="fails" classname="all" time="0.100000">
      <properties><property name="offload.batches" value="11 12"/></properties>
      <failure message="one"></failure>
      <rerunError time="0.200000" message="two"></rerunError>
    </testcase>
    <testcase name="lost" classname="all" time="0.000000">
      <error type="not-run" message="no sandbox"/>
    </testcase>
  </testsuite>
</testsuites>
"#;
    assert_eq!(written(&tests), expected);
}

#[test]
fn flaky_is_read_back_no_matter_who_retried() {
    let mut in_runner = attempt(1, Outcome::Passed, "first try");
    in_runner.result.flaky_in_runner = true;
    let tests = [
        test("in the runner", Verdict::Passed, vec![in_runner.clone()]),
        test("in the runner, reported", Verdict::Flaky, vec![in_runner]),
        test("without a trace", Verdict::Flaky, vec![attempt(1, Outcome::Passed, "")]),
    ];
    for recorded in read_again(&written(&tests)) {
        assert_eq!(recorded.word, Word::Flaky, "{}", recorded.id);
        assert!(recorded.result.flaky_in_runner);
    }
}

#[test]
fn a_failed_verdict_is_never_written_as_a_pass() {
    let tests = [
        test("no attempt", Verdict::Failed, Vec::new()),
        test(
            "odd attempts",
            Verdict::Failed,
            vec![attempt(1, Outcome::Passed, ""), attempt(2, Outcome::Skipped, "")],
        ),
    ];
    for recorded in read_again(&written(&tests)) {
        assert_eq!(recorded.word, Word::Errored);
    }
}

#[test]
fn an_id_of_any_characters_survives() {
    let ids =
        ["\0", "a\u{1b}[31m\\u{1b}", "\u{ffff}", "two\nlines\r\n", " spaces ", "", "\\n", "<![CDATA[x]]>"];
    let tests: Vec<Test> = ids.iter().map(|id| test(id, Verdict::NotRun("".into()), Vec::new())).collect();
    let again = read_again(&written(&tests));
    assert_eq!(again.iter().map(|test| test.id.as_str()).collect::<Vec<_>>(), ids);
}

#[test]
fn durations_of_passed_tests_are_known_for_the_next_run() {
    let tests = [
        test("passes", Verdict::Passed, vec![attempt(0, Outcome::Passed, "")]),
        test("flaky", Verdict::Flaky, vec![attempt(1, Outcome::Failed, ""), attempt(2, Outcome::Passed, "")]),
        test("fails", Verdict::Failed, vec![attempt(1, Outcome::Failed, "")]),
        test("skipped", Verdict::Skipped, vec![attempt(1, Outcome::Skipped, "")]),
    ];
    let durations = [("passes".to_owned(), Duration::ZERO), ("flaky".to_owned(), Duration::from_millis(200))];
    assert_eq!(previous_durations(written(&tests).as_bytes()), HashMap::from(durations));
}

#[test]
fn totals_count_tests_not_attempts() {
    let attempts = vec![attempt(1, Outcome::Failed, ""), attempt(2, Outcome::Failed, "")];
    let verdict = Verdict::Failed;
    let entry =
        Entry { id: "a", file: None, line: None, group: "all", verdict: &verdict, attempts: &attempts };
    let time = Duration::from_secs(3);
    let totals = Totals::count([entry, entry], time);
    assert_eq!(totals, Totals { tests: 2, failures: 2, errors: 0, skipped: 0, time });
}

/// A report with one endless text.
struct Endless {
    start: &'static [u8],
    left: u64,
    end: &'static [u8],
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.start.is_empty() {
            return self.start.read(buffer);
        }
        if self.left > 0 {
            let count = buffer.len().min(usize::try_from(self.left).unwrap());
            buffer[..count].fill(b'x');
            self.left -= count as u64;
            return Ok(count);
        }
        self.end.read(buffer)
    }
}

#[test]
fn an_endless_text_is_shortened_and_the_rest_is_read() {
    let frames: [(&[u8], &[u8]); 4] = [
        (b"<testsuite><testcase><system-out>", b"</system-out><failure/></testcase></testsuite>"),
        (b"<testsuite><testcase><failure><![CDATA[", b"]]></failure></testcase></testsuite>"),
        (b"<testsuite><testcase><failure message='", b"'/></testcase></testsuite>"),
        (b"<testsuite><!--", b"--><testcase><failure/></testcase></testsuite>"),
    ];
    for (start, end) in frames {
        let mut outcomes = Vec::new();
        let read_end = read(Endless { start, left: 20_000_000, end }, &mut |case| {
            let details = case.result.details.unwrap_or_default();
            let longest = [details.message, details.text, details.stdout].into_iter().flatten();
            assert!(longest.map(|text| text.len()).max().unwrap_or_default() < 70_000);
            outcomes.push(case.result.outcome);
        });
        assert_eq!((outcomes, read_end.error), (vec![Outcome::Failed], None));
    }
}

#[test]
fn endless_nesting_is_rejected() {
    for (element, deep) in [("a", true), ("testsuite", true), ("testcase", true), ("a", false)] {
        let (count, closed) =
            if deep { (100_000, String::new()) } else { (20, format!("</{element}>").repeat(20)) };
        let text = format!("<testsuite>{}{closed}</testsuite>", format!("<{element}>").repeat(count));
        let error = read(text.as_bytes(), &mut |_| {}).error;
        assert_eq!(error.is_some_and(|error| error.contains("nested")), deep, "{element}");
    }
}

#[test]
fn texts_of_all_failures_and_errors_are_kept_except_before_the_runners_own_retries() {
    for (inside, text, message) in [
        ("<error message='e'>two</error><failure message='f'>one</failure>", "two\none", "f"),
        ("<failure message='f'>one</failure><error message='e'>two</error>", "one\ntwo", "f"),
        ("<failure message='f'>one</failure><error message='e'/>", "one\ne", "f"),
        ("<rerunFailure message='r'>zero</rerunFailure><failure message='f'>one</failure>", "one", "f"),
        ("<skipped message='s'>no</skipped><failure message='f'>one</failure>", "one", "f"),
        ("<failure message='f'>\n   <stackTrace>one</stackTrace></failure>", "one", "f"),
    ] {
        let report = format!("<testsuite><testcase name='a'>{inside}</testcase></testsuite>");
        let mut found = Vec::new();
        read(report.as_bytes(), &mut |case| found.push(case.result.details.unwrap()));
        let [details] = &found[..] else { panic!("{found:?}") };
        assert_eq!(details.text.as_deref().map(str::trim), Some(text), "{inside}");
        assert_eq!(details.message.as_deref(), Some(message), "{inside}");
    }
}
