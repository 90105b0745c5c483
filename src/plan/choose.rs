//! Tries several plans in simulated runs and takes the best one.

use rayon::prelude::*;

use super::Conditions;
use super::pack::{self, Candidate, Draft, Groups, Unit};
use super::shape::{Amount, Shape};
use super::simulate::{Scenario, Scenarios, Timed};
use super::work::Work;

/// How much longer than the shortest plan, as a fraction, a plan may be on equal machines if it copes better with a
/// slow one.
const PREMIUM: f64 = 0.02;
/// The assumed probability of a slow machine.
const RISK: f64 = 0.1;
/// The number of shapes that are tried in every way.
const FINALISTS: usize = 3;

/// The mean makespans of a candidate, relative to the bound.
struct Score {
    candidate: Candidate,
    calm: f64,
    stressed: f64,
}

impl Score {
    fn risk(&self) -> f64 {
        (1.0 - RISK) * self.calm + RISK * self.stressed
    }
}

/// The batches of the best plan.
pub(super) fn choose(work: &Work<'_>, conditions: &Conditions, scenarios: &Scenarios) -> Vec<Draft> {
    let amount = Amount {
        total: work.total(),
        shared: work.shared(),
        machines: u32::try_from(conditions.machines).unwrap_or(u32::MAX),
    };
    let shapes = Shape::all(amount, conditions.overhead.per_batch.as_secs_f64());
    let judge = Judge { work, conditions, amount, scenarios };
    let simple = |shape| Candidate { shape, unit: units(work)[0], groups: Groups::Before };
    let mut scores = judge.all(shapes.into_iter().map(simple).collect());
    scores.sort_by(|one, other| one.risk().total_cmp(&other.risk()));
    // The simplest plan is always tried, so that the result is never much worse.
    let plain = Candidate { shape: Shape::Equal(1), unit: Unit::Test, groups: Groups::After };
    let mut more = Vec::new();
    for shape in scores.iter().take(FINALISTS).map(|score| score.candidate.shape).chain([plain.shape]) {
        for (unit, groups) in ways(work) {
            let candidate = Candidate { shape, unit, groups };
            if !more.contains(&candidate) && scores.iter().all(|score| score.candidate != candidate) {
                more.push(candidate);
            }
        }
    }
    scores.extend(judge.all(more));
    let shortest = scores.iter().map(|score| score.calm).fold(f64::INFINITY, f64::min);
    let allowed = shortest * (1.0 + PREMIUM);
    let eligible = scores.iter().filter(|score| score.calm <= allowed);
    let best = eligible.min_by(|one, other| one.risk().total_cmp(&other.risk()));
    pack::pack(work, best.map_or(plain, |score| score.candidate), amount, conditions.grain)
}

/// The ways to fill the batches of a shape.
fn ways(work: &Work<'_>) -> impl Iterator<Item = (Unit, Groups)> {
    let several = work.suite.groups().len() > 1;
    let ways = units(work).iter().flat_map(|unit| [(*unit, Groups::Before), (*unit, Groups::After)]);
    ways.filter(move |(_, groups)| several || *groups == Groups::Before)
}

/// Without files, keeping them together changes nothing.
fn units(work: &Work<'_>) -> &'static [Unit] {
    if work.has_files() { &[Unit::File, Unit::Test] } else { &[Unit::Test] }
}

struct Judge<'a> {
    work: &'a Work<'a>,
    conditions: &'a Conditions,
    amount: Amount,
    scenarios: &'a Scenarios,
}

impl Judge<'_> {
    fn all(&self, candidates: Vec<Candidate>) -> Vec<Score> {
        candidates.into_par_iter().map(|candidate| self.score(candidate)).collect()
    }

    fn score(&self, candidate: Candidate) -> Score {
        let drafts = pack::pack(self.work, candidate, self.amount, self.conditions.grain);
        let drafts = super::weigh(self.work, drafts, self.conditions.overhead);
        let timed: Vec<Timed<'_>> =
            drafts.iter().map(|weighed| timed(self.work, &weighed.draft, self.conditions)).collect();
        let mean = |scenarios: &[Scenario]| {
            let ratios = scenarios.iter().map(|one| one.makespan(&timed, self.conditions) / one.bound);
            ratios.sum::<f64>() / scenarios.len().max(1) as f64
        };
        Score { candidate, calm: mean(&self.scenarios.calm), stressed: mean(&self.scenarios.stressed) }
    }
}

/// What the simulation needs to know about a batch.
pub(super) fn timed<'a>(work: &Work<'_>, draft: &'a Draft, conditions: &Conditions) -> Timed<'a> {
    let overhead = conditions.overhead;
    let files = f64::from(work.count_files(&draft.pieces));
    let longest = match work.longest(draft.pieces.iter().copied()) {
        Some((_, longest)) if overhead.pace < 1.0 => longest,
        _ => 0.0,
    };
    Timed {
        pieces: &draft.pieces,
        overhead: overhead.per_batch.as_secs_f64() + files * overhead.per_file.as_secs_f64(),
        longest,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::framework::Grain;
    use crate::plan::Overhead;
    use crate::plan::simulate::scenarios;
    use crate::plan::tests::{self, Row, suite};
    use crate::random::Random;

    const PLAIN: Candidate = Candidate { shape: Shape::Equal(1), unit: Unit::Test, groups: Groups::After };

    fn conditions(pace: f64) -> Conditions {
        let overhead = Overhead { pace, ..Overhead::new(Duration::from_secs(1), Duration::from_secs(2)) };
        Conditions { machines: 2, grain: Grain::Test, overhead, noise: Some(0.0) }
    }

    fn rows() -> Vec<Row> {
        (0..4).map(|number| Row::new(Some("f"), format!("f::t{number}"), 3000)).collect()
    }

    #[test]
    fn a_slow_machine_counts_for_a_tenth() {
        assert!((Score { candidate: PLAIN, calm: 1.0, stressed: 3.0 }.risk() - 1.2).abs() < 1e-9);
    }

    #[test]
    fn groups_and_files_matter_only_if_there_are_several() {
        let (one, two) = (suite(&rows(), &[false]), suite(&rows(), &[false, false]));
        let count = |suite| ways(&Work::new(suite)).count();
        assert_eq!((count(&one), count(&two)), (2, 4));
        let without_files = suite(&[Row::new(None, "t", 3000)], &[false]);
        assert_eq!(ways(&Work::new(&without_files)).collect::<Vec<_>>(), [(Unit::Test, Groups::Before)]);
        assert!(ways(&Work::new(&one)).all(|(_, groups)| groups == Groups::Before));
    }

    #[test]
    fn a_score_is_the_mean_makespan_relative_to_the_bound() {
        let suite = suite(&rows(), &[false]);
        let (work, conditions) = (Work::new(&suite), conditions(1.0));
        let scenarios = scenarios(&work, &conditions);
        let amount = Amount { total: work.total(), shared: work.shared(), machines: 2 };
        let score =
            Judge { work: &work, conditions: &conditions, amount, scenarios: &scenarios }.score(PLAIN);
        // Each of two machines takes 1 s to start, 2 s for the file and 6 s for tests; the bound is 1 s and 6 s.
        assert!((score.calm - 9.0 / 7.0).abs() < 1e-6, "{}", score.calm);
        // One machine takes three times as long; together they have the speed of 4/3 machines.
        assert!((score.stressed - 27.0 / 10.0).abs() < 1e-6, "{}", score.stressed);
    }

    #[test]
    fn no_choice_is_much_worse_than_any_way_to_fill_equal_batches() {
        let mut random = Random(5);
        for round in 0..60 {
            let count = 2 + random.below(12);
            let suite = suite(&tests::rows(&mut random, count), &[false, true, false]);
            let (work, conditions) = (Work::new(&suite), conditions(1.0));
            let scenarios = scenarios(&work, &conditions);
            let amount = Amount { total: work.total(), shared: work.shared(), machines: 2 };
            let judge = Judge { work: &work, conditions: &conditions, amount, scenarios: &scenarios };
            let drafts =
                crate::plan::weigh(&work, choose(&work, &conditions, &scenarios), conditions.overhead);
            let timed: Vec<_> =
                drafts.iter().map(|weighed| timed(&work, &weighed.draft, &conditions)).collect();
            let ratios = scenarios.calm.iter().map(|one| one.makespan(&timed, &conditions) / one.bound);
            let chosen = ratios.sum::<f64>() / scenarios.calm.len() as f64;
            for (unit, groups) in ways(&work) {
                let other = judge.score(Candidate { unit, groups, ..PLAIN }).calm;
                assert!(
                    chosen <= other * (1.0 + PREMIUM) + 1e-9,
                    "round {round}: {chosen} > {other} {unit:?} {groups:?}"
                );
            }
        }
    }

    #[test]
    fn the_longest_test_bounds_a_batch_of_a_parallel_runner() {
        let suite = suite(&rows(), &[false]);
        let work = Work::new(&suite);
        for (pace, longest) in [(1.0, 0.0), (0.5, 3.0)] {
            let draft = Draft { pieces: vec![work.whole()], group: work.group(work.whole()) };
            let timed = timed(&work, &draft, &conditions(pace));
            assert_eq!((timed.overhead, timed.longest), (3.0, longest));
        }
    }
}
