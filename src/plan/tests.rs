//! Tests of whole plans.

use std::collections::HashMap;

use super::*;
use crate::model::{Group, Listed};
use crate::random::Random;

const NONE: Overhead = Overhead::new(Duration::ZERO, Duration::ZERO);
const SMALL: Overhead = Overhead::new(Duration::from_millis(10), Duration::from_millis(1));
const UNLIMITED: Limits<'_> = Limits { timeout: Duration::from_secs(1_000_000), fits: &|_, _| true };

/// A plan for tests whose durations never vary.
fn plan(suite: &Suite, machines: usize, overhead: Overhead) -> Plan {
    let conditions = Conditions { machines, grain: Grain::Test, overhead, noise: Some(0.0) };
    Plan::new(suite, &conditions, &UNLIMITED)
}

/// A test of a suite.
#[derive(Clone)]
pub(super) struct Row {
    pub(super) group: u16,
    pub(super) file: Option<String>,
    pub(super) id: String,
    /// The measured duration, if any.
    pub(super) millis: Option<u64>,
    /// What it shares with tests that it stays with.
    pub(super) key: Option<&'static str>,
}

impl Row {
    /// A test of group 0.
    pub(super) fn new(file: Option<&str>, id: impl Into<String>, millis: impl Into<Option<u64>>) -> Row {
        Row { group: 0, file: file.map(str::to_owned), id: id.into(), millis: millis.into(), key: None }
    }
}

pub(super) fn suite(rows: &[Row], solo: &[bool]) -> Suite {
    let group = |(number, solo): (usize, &bool)| Group {
        name: format!("g{number}").into(),
        filters: String::new(),
        max_attempts: 1,
        solo: *solo,
    };
    let mut suite = Suite::new(solo.iter().enumerate().map(group).collect());
    let mut known = HashMap::new();
    for Row { group, file, id, millis, key } in rows {
        let listed = Listed::new(GroupIndex(*group), id.as_str(), file.as_deref().map(Into::into));
        suite.add(Listed { key: key.map(Into::into), ..listed });
        known.extend(millis.map(|millis| (id.clone(), Duration::from_millis(millis))));
    }
    estimate(&mut suite, &known, Duration::from_secs(1));
    suite
}

pub(super) fn rows(random: &mut Random, count: u64) -> Vec<Row> {
    let row = |number| {
        let file = random.below(4);
        let file = (file > 0).then(|| format!("f{file}.py"));
        let id = format!("{}::t{}[{number}]", file.as_deref().unwrap_or("x"), random.below(5));
        let group = u16::try_from(random.below(3)).unwrap();
        let millis = (random.below(5) > 0).then(|| random.below(3000));
        Row { group, file, id, millis, key: random.pick(&[None, None, None, Some("k"), Some("l")]) }
    };
    (0..count).map(row).collect()
}

fn ids(suite: &Suite, plan: &Plan) -> Vec<Vec<String>> {
    let ids = |batch: &Batch| {
        let mut ids: Vec<String> =
            batch.tests.iter().map(|index| suite.test(*index).id.to_string()).collect();
        ids.sort();
        ids
    };
    plan.batches.iter().map(ids).collect()
}

/// The group and key of the tests in a batch, each once; `None` for each test that does not stay with others.
fn keys<'a>(suite: &'a Suite, batch: &Batch) -> Vec<Option<(GroupIndex, &'a str)>> {
    let tests = batch.tests.iter().map(|index| suite.test(*index));
    let mut keys: Vec<_> = tests.map(|test| Some((test.group, test.shared_key()?))).collect();
    keys.sort_unstable();
    keys.dedup_by(|one, other| one.is_some() && one == other);
    keys
}

#[test]
fn every_test_is_planned_once_with_its_key_and_groups_and_solo_tests_are_not_mixed() {
    let mut random = Random(7);
    for round in 0..150 {
        let count = random.below(90);
        let rows = rows(&mut random, count);
        let suite = suite(&rows, &[false, true, false]);
        for grain in [Grain::Test, Grain::File] {
            let machines = usize::try_from(1 + random.below(9)).unwrap();
            let overhead = Overhead::new(Duration::from_millis(random.below(3000)), Duration::ZERO);
            let noise = [None, Some(0.0), Some(0.7)][usize::try_from(random.below(3)).unwrap()];
            let limits = Limits { timeout: Duration::from_secs(8), fits: &|tests, _| tests.len() <= 12 };
            let plan = Plan::new(&suite, &Conditions { machines, grain, overhead, noise }, &limits);
            let makespan = plan.makespan(machines) + Duration::from_millis(1);
            assert!(rows.is_empty() || plan.bound.duration <= makespan, "round {round}");
            let mut seen: Vec<TestIndex> =
                plan.batches.iter().flat_map(|batch| batch.tests.clone()).collect();
            seen.sort_unstable();
            assert_eq!(seen, suite.indices().collect::<Vec<_>>(), "round {round}");
            assert!(plan.batches.is_sorted_by(|one, other| one.load >= other.load), "round {round}");
            let mut kept: Vec<_> =
                plan.batches.iter().flat_map(|batch| keys(&suite, batch).into_iter().flatten()).collect();
            let all = kept.len();
            kept.sort_unstable();
            kept.dedup();
            assert_eq!(kept.len(), all, "round {round}: a key is in two batches");
            for (index, batch) in (0..).zip(&plan.batches) {
                assert!(batch.index == index && batch.tests.is_sorted());
                assert!(batch.tests.len() <= 12 || keys(&suite, batch).len() == 1, "round {round}");
                assert!(batch.tests.iter().all(|test| suite.test(*test).group == batch.group));
                assert!(batch.tests.len() == 1 || batch.group != GroupIndex(1));
            }
        }
    }
}

#[test]
fn the_order_of_discovery_does_not_matter() {
    let mut random = Random(11);
    for _ in 0..60 {
        let mut rows = rows(&mut random, 40);
        let first = suite(&rows, &[false, true, false]);
        let first = ids(&first, &plan(&first, 5, SMALL));
        for place in (1..rows.len()).rev() {
            rows.swap(place, usize::try_from(random.below(place as u64 + 1)).unwrap());
        }
        let second = suite(&rows, &[false, true, false]);
        assert_eq!(first, ids(&second, &plan(&second, 5, SMALL)));
    }
}

/// The shortest possible makespan, by exhaustive search.
fn optimum(loads: &[u64], bins: &mut Vec<u64>) -> u64 {
    let Some((first, rest)) = loads.split_first() else {
        return bins.iter().copied().max().unwrap_or(0);
    };
    let mut best = u64::MAX;
    for bin in 0..bins.len() {
        if bins[..bin].contains(&bins[bin]) {
            continue;
        }
        bins[bin] += first;
        best = best.min(optimum(rest, bins));
        bins[bin] -= first;
    }
    best
}

#[test]
fn the_makespan_is_within_four_thirds_of_the_best_and_the_tolerance() {
    let mut random = Random(3);
    for _ in 0..150 {
        let (count, machines) = (1 + random.below(9), 1 + random.below(4));
        let loads: Vec<u64> = (0..count).map(|_| 1 + random.below(50)).collect();
        let rows: Vec<Row> = loads
            .iter()
            .enumerate()
            .map(|(number, load)| Row::new(Some(&format!("f{}", number % 3)), format!("t{number}"), *load))
            .collect();
        let suite = suite(&rows, &[false]);
        let machines = usize::try_from(machines).unwrap();
        let best = optimum(&loads, &mut vec![0; machines]);
        let makespan = plan(&suite, machines, NONE).makespan(machines).as_micros();
        let bound = u128::from(best) * 1000 * (4 * machines as u128 - 1) / (3 * machines as u128);
        assert!(makespan <= bound * 102 / 100 + 1000, "{makespan} > {bound} for {loads:?} on {machines}");
    }
}

#[test]
fn files_stay_together_when_the_balance_allows_it() {
    let rows: Vec<Row> = (0..40)
        .map(|number| Row::new(Some(&format!("f{}", number % 4)), format!("f{}::t{number}", number % 4), 10))
        .collect();
    let suite = suite(&rows, &[false]);
    for (machines, files_a_batch) in [(2, 2), (4, 1), (8, 1)] {
        let plan = plan(&suite, machines, SMALL);
        assert_eq!(plan.batches.len(), machines);
        for batch in &plan.batches {
            let files: std::collections::HashSet<_> =
                batch.tests.iter().map(|test| &suite.test(*test).file).collect();
            assert_eq!(files.len(), files_a_batch);
        }
    }
}

#[test]
fn a_file_is_split_only_if_its_tests_can_be_selected() {
    let mut rows: Vec<Row> =
        (0..20).map(|number| Row::new(Some("big"), format!("big::t{number}"), 1000)).collect();
    rows.extend((0..12).map(|number| Row::new(Some(&format!("f{}", number / 2)), format!("t{number}"), 500)));
    let suite = suite(&rows, &[false]);
    let batches_of_big = |grain| {
        let conditions = Conditions { machines: 4, grain, overhead: SMALL, noise: Some(0.3) };
        let plan = Plan::new(&suite, &conditions, &UNLIMITED);
        ids(&suite, &plan).iter().filter(|ids| ids.iter().any(|id| id.starts_with("big"))).count()
    };
    assert_eq!(batches_of_big(Grain::File), 1);
    assert!(batches_of_big(Grain::Test) >= 3);
}

#[test]
fn tests_of_zero_duration_are_spread_over_all_machines() {
    let rows: Vec<Row> = (0..12).map(|number| Row::new(Some("f"), format!("t{number:02}"), 0)).collect();
    let suite = suite(&rows, &[false]);
    let sizes: Vec<usize> = plan(&suite, 4, SMALL).batches.iter().map(|batch| batch.tests.len()).collect();
    assert_eq!(sizes, [3, 3, 3, 3]);
    assert_eq!(plan(&suite, usize::MAX, NONE).batches.len(), 12);
}

#[test]
fn an_unknown_test_is_expected_to_be_among_the_slow_ones_of_its_group() {
    for (count, millis) in [(1, 0), (10, 90), (30, 270)] {
        let mut rows: Vec<Row> =
            (0..count).map(|number| Row::new(None, format!("a{number}"), number * 10)).collect();
        rows.push(Row::new(None, "new", None));
        rows.push(Row { group: 1, ..Row::new(None, "other", None) });
        let suite = suite(&rows, &[false, false]);
        let expected = |id: &str| suite.test(suite.find(id).unwrap()).expected;
        assert_eq!(expected("new"), Duration::from_millis(millis));
        assert_eq!(expected("other"), Duration::from_millis(millis));
    }
}

#[test]
fn a_plan_is_reproducible_and_predicts_more_time_if_tests_vary() {
    let mut random = Random(23);
    let suite = suite(&rows(&mut random, 300), &[false, false, false]);
    let plan = |noise| {
        let conditions = Conditions { machines: 8, grain: Grain::Test, overhead: SMALL, noise };
        Plan::new(&suite, &conditions, &UNLIMITED)
    };
    assert_eq!(plan(Some(0.3)), plan(Some(0.3)));
    assert!(plan(Some(0.9)).predicted > plan(Some(0.0)).predicted);
    assert!(plan(Some(0.0)).predicted >= plan(Some(0.0)).bound.duration / 2);
}

#[test]
fn batches_are_small_only_if_overheads_are() {
    let rows: Vec<Row> = (0..800)
        .map(|number| Row::new(Some(&format!("f{}", number / 10)), format!("t{number}"), 500))
        .collect();
    let suite = suite(&rows, &[false]);
    let batches = |overhead, noise| {
        let conditions = Conditions { machines: 8, grain: Grain::Test, overhead, noise };
        Plan::new(&suite, &conditions, &UNLIMITED).batches.len()
    };
    let costly = Overhead::new(Duration::from_secs(10), Duration::ZERO);
    assert_eq!(batches(costly, Some(0.4)), 8);
    assert!(batches(SMALL, Some(0.4)) > 24);
}

#[test]
fn the_bound_names_the_test_that_sets_it() {
    let mut rows: Vec<Row> = (0..50).map(|number| Row::new(None, format!("t{number}"), 100)).collect();
    rows.push(Row::new(None, "long", 9000));
    let suite = suite(&rows, &[false]);
    let bound = plan(&suite, 8, SMALL).bound;
    assert_eq!((bound.set_by, bound.duration), (suite.find("long"), Duration::from_millis(9010)));
    let bound = plan(&suite, 1, SMALL).bound;
    assert_eq!((bound.set_by, bound.duration), (None, Duration::from_millis(14_010)));
    // Each of the two files has to be opened once, and the long test needs its own.
    let in_files = [Row::new(Some("f"), "f", 4000), Row::new(Some("g"), "g", 1000)];
    let suite = self::suite(&in_files, &[false]);
    let bound = |machines| {
        let bound =
            plan(&suite, machines, Overhead::new(Duration::from_secs(10), Duration::from_secs(2))).bound;
        (bound.set_by, bound.duration.as_millis())
    };
    assert_eq!(bound(1), (None, 10_000 + 5000 + 4000));
    assert_eq!(bound(2), (suite.find("f"), 10_000 + 4000 + 2000));
    // A runner that runs two tests at a time takes half as long.
    let side_by_side = Overhead { pace: 0.5, ..NONE };
    assert_eq!(plan(&self::suite(&rows[..50], &[false]), 1, side_by_side).bound.duration.as_millis(), 2500);
}

#[test]
fn batches_of_measured_tests_stay_within_half_of_the_timeout() {
    let limits = Limits { timeout: Duration::from_secs(8), fits: &|_, _| true };
    let loads = |count: u64, millis, is_known: bool| {
        let length = |_| is_known.then_some(millis);
        let rows: Vec<Row> =
            (0..count).map(|number| Row::new(None, format!("t{number}"), length(number))).collect();
        let suite = suite(&rows, &[false]);
        let conditions = Conditions { machines: 1, grain: Grain::Test, overhead: NONE, noise: Some(0.0) };
        let plan = Plan::new(&suite, &conditions, &limits);
        plan.batches.iter().map(|batch| batch.load.as_millis()).collect::<Vec<_>>()
    };
    assert_eq!(loads(4, 1000, true), [4000]);
    assert_eq!(loads(5, 1000, true), [3000, 2000]);
    assert_eq!(loads(2, 5000, true), [5000, 5000]);
    assert_eq!(loads(1, 50_000, true), [50_000]);
    // Estimates that were not measured, here one second each, do not split a batch.
    assert_eq!(loads(20, 1000, false), [20_000]);
}
