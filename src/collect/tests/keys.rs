//! Claims about tests that stay together.

use super::*;

/// A suite with a test for each key, of which an empty one is none.
fn suite_of(keys: &[&str], max_attempts: u32) -> Suite {
    let group = Group { name: "g".into(), filters: String::new(), max_attempts, solo: false };
    let mut suite = Suite::new(vec![group]);
    for (number, key) in keys.iter().enumerate() {
        let key = (!key.is_empty()).then(|| (*key).into());
        suite.add(Listed { key, ..Listed::new(GroupIndex(0), format!("t{number}"), None) });
    }
    suite
}

/// What a batch has: its tests and its companions.
type Content = (Vec<u32>, Vec<u32>);

fn content(batch: &Batch) -> Content {
    let numbers = |tests: &[TestIndex]| tests.iter().map(|test| test.0).collect();
    (numbers(&batch.tests), numbers(&batch.companions))
}

/// Runs everything with a runner that gives the outcomes of all tests of a batch, or breaks without a report.
fn contents(
    collector: &mut Collector<'_>,
    suite: &Suite,
    outcomes: &mut dyn FnMut(&[u32]) -> Option<Vec<Outcome>>,
) -> Vec<Content> {
    let mut ran = Vec::new();
    drive(collector, all(suite), &mut |batch| {
        ran.push(content(batch));
        let tests: Vec<u32> = batch.all().iter().map(|test| test.0).collect();
        match outcomes(&tests) {
            Some(outcomes) => {
                let bad = outcomes.iter().any(|outcome| outcome.is_bad());
                let found: Vec<_> = tests.into_iter().zip(outcomes).collect();
                let reading = Reading { meaning: Meaning::TestsFailed, ..reading(&found) };
                (Exit::Code(i32::from(bad)), reading)
            }
            None => (Exit::Signal(9), broken(&[])),
        }
    });
    ran
}

#[test]
fn a_retry_brings_along_what_comes_before_and_counts_only_its_own_result() {
    let suite = suite_of(&["k", "l", "k", "", "k", "k", ""], 2);
    let mut collector = Collector::new(&suite, policy(false), 1);
    let mut round = 0;
    let ran = contents(&mut collector, &suite, &mut |tests| {
        round += 1;
        let outcome = |test: &u32| match (round, test) {
            // A companion that fails beside the retry keeps its result.
            (1, 4 | 6) | (2, 2) => Outcome::Failed,
            _ => Outcome::Passed,
        };
        Some(tests.iter().map(outcome).collect())
    });
    assert_eq!(ran[0].1, Vec::<u32>::new());
    assert_eq!(ran[1..], [(vec![4], vec![0, 2]), (vec![6], vec![])]);
    let summary = collector.finish();
    let attempts: Vec<usize> = summary.attempts.iter().map(Vec::len).collect();
    assert_eq!(attempts, [1, 1, 1, 1, 2, 1, 2]);
    assert_eq!((summary.counts.flaky, summary.counts.failed, summary.counts.passed), (2, 0, 5));
    assert!(summary.errors.is_empty(), "{:?}", summary.errors);
}

#[test]
fn several_retries_of_a_key_are_one_batch() {
    let suite = suite_of(&["k", "k", "k", "k"], 2);
    let mut collector = Collector::new(&suite, policy(false), 1);
    let mut round = 0;
    let ran = contents(&mut collector, &suite, &mut |tests| {
        round += 1;
        let outcome =
            |test: &u32| if round == 1 && test % 2 == 1 { Outcome::Failed } else { Outcome::Passed };
        Some(tests.iter().map(outcome).collect())
    });
    assert_eq!(ran[1..], [(vec![1, 3], vec![0, 2])]);
}

#[test]
fn a_broken_batch_is_divided_between_keys_and_then_within_one_with_what_comes_before() {
    let suite = suite_of(&["k", "l", "k", "l", "l"], 1);
    let mut collector = Collector::new(&suite, policy(false), 1);
    let ran = contents(&mut collector, &suite, &mut |tests| {
        (!tests.contains(&4)).then(|| tests.iter().map(|_| Outcome::Passed).collect())
    });
    let nothing = Vec::<u32>::new;
    let expected = [
        (vec![0, 1, 2, 3, 4], nothing()),
        (vec![0, 2], nothing()),
        (vec![1, 3, 4], nothing()),
        (vec![1, 3], nothing()),
        (vec![4], vec![1, 3]),
    ];
    assert_eq!(ran, expected);
    let summary = collector.finish();
    assert_eq!((summary.counts.passed, summary.counts.failed), (4, 1));
    assert!(matches!(verdict_of(&summary, 4), Verdict::Failed));
}

#[test]
fn a_test_that_ended_its_runner_is_no_companion() {
    let suite = suite_of(&["k", "k", "k"], 1);
    let mut collector = Collector::new(&suite, policy(false), 1);
    let batch = Batch { tests: vec![TestIndex(1)], companions: vec![TestIndex(0)], ..all(&suite) };
    assert!(
        collector
            .finished(&batch, &execution(Exit::Signal(9)), Results::Report(broken(&[])))
            .batches
            .is_empty()
    );
    assert_eq!(collector.companions(&[TestIndex(2)]), [TestIndex(0)]);
}

#[test]
fn tests_of_one_key_that_are_too_many_for_a_command_are_not_divided() {
    let suite = suite_of(&["k", "k", ""], 1);
    let mut collector = Collector::new(&suite, policy(false), 1);
    let parts = collector.refused(&all(&suite), "too long").batches;
    assert_eq!(parts.iter().map(content).collect::<Vec<_>>(), [(vec![0, 1], vec![]), (vec![2], vec![])]);
    assert!(collector.refused(&parts[0], "too long").batches.is_empty());
    let pass = reading(&[(2, Outcome::Passed)]);
    collector.finished(&parts[1], &execution(Exit::Code(0)), Results::Report(pass));
    let summary = collector.finish();
    assert_eq!((summary.counts.passed, summary.counts.failed, summary.counts.not_run), (1, 2, 0));
}
