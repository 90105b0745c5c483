//! The limits that plans are to keep, over all cases that they speak of.

use crate::case::{Case, Result};
use crate::policy::Policy;
use crate::trace::{self, Trace};

const SEEDS: u64 = 16;
/// For limits over many cases.
const FEW_SEEDS: u64 = 6;
const MANY_CASES: usize = 25;

struct Limit {
    name: &'static str,
    most: f64,
    cases: Vec<Case>,
    /// Which traces the limit speaks of.
    holds_for: fn(&Trace, Case) -> bool,
    /// What is compared with `most`, from a run of ours and one of LPT with one bin a machine.
    measure: Measure,
}

fn grid(machines: &[u32], overheads: &[f64], noise: f64, unknown: f64, slow: f64) -> Vec<Case> {
    let case = |machines, overhead| Case { machines, overhead, noise, unknown, slow };
    machines
        .iter()
        .flat_map(|machines| overheads.iter().map(move |overhead| case(*machines, *overhead)))
        .collect()
}

/// Work of one machine at least a hundred times the overhead of a batch.
fn is_large(trace: &Trace, case: Case) -> bool {
    trace.total() / f64::from(case.machines) >= 100.0 * case.overhead
}

fn is_balanced(trace: &Trace, case: Case) -> bool {
    trace.longest() < trace.total() / f64::from(case.machines) / 2.0
}

const MACHINES: [u32; 6] = [4, 8, 16, 32, 64, 200];
const OVERHEADS: [f64; 4] = [0.1, 0.5, 1.0, 5.0];

type Measure = fn(Case, Result, Result) -> f64;

const RATIO: Measure = |_, ours, _| ours.ratio();
const AGAINST: Measure = |_, ours, lpt| ours.makespan / lpt.makespan;

fn limits() -> Vec<Limit> {
    let mut limits = vec![Limit {
        name: "no noise, less overhead of a batch and files",
        most: 1.05,
        cases: grid(&MACHINES, &OVERHEADS, 0.0, 0.0, 1.0),
        holds_for: |_, _| true,
        measure: |case, ours, _| (ours.makespan - case.overhead - ours.files_once) / ours.fluid,
    }];
    limits.extend(with_noise());
    limits.push(Limit {
        name: "nothing known, longest below half a share",
        most: 1.30,
        cases: grid(&MACHINES, &OVERHEADS, 0.0, 1.0, 1.0),
        holds_for: |trace, case| is_balanced(trace, case) && is_large(trace, case),
        measure: RATIO,
    });
    limits.extend(against_one_bin());
    limits
}

fn with_noise() -> impl Iterator<Item = Limit> {
    let rows = [
        ("noise 0.4, 8 machines", 1.10, (8, 0.0, 1.0)),
        ("noise 0.4, 16 machines", 1.20, (16, 0.0, 1.0)),
        ("noise 0.4, 8 machines, one 3 times slower", 1.25, (8, 0.0, 3.0)),
        ("noise 0.4, 8 machines, 30 % unknown", 1.15, (8, 0.3, 1.0)),
    ];
    rows.into_iter().map(|(name, most, (machines, unknown, slow))| Limit {
        name,
        most,
        cases: grid(&[machines], &OVERHEADS, 0.4, unknown, slow),
        holds_for: is_large,
        measure: RATIO,
    })
}

fn against_one_bin() -> [Limit; 2] {
    let mut all = Vec::new();
    for noise in [0.0, 0.2, 0.5] {
        for (unknown, slow) in [(0.0, 1.0), (0.3, 1.0), (1.0, 1.0), (0.0, 3.0)] {
            all.extend(grid(&[4, 8, 200], &[0.1, 1.0, 5.0], noise, unknown, slow));
        }
    }
    let (nothing_known, known): (Vec<Case>, Vec<Case>) =
        all.into_iter().partition(|case| case.unknown == 1.0);
    let limit = |name, cases| Limit { name, most: 1.05, cases, holds_for: |_, _| true, measure: AGAINST };
    [
        limit("against one LPT bin a machine", known),
        limit("against one LPT bin, nothing known", nothing_known),
    ]
}

pub fn print() {
    let traces = trace::all();
    println!("{:44} {:>6} {:>6} {:>6} {:>6}  worst case", "limit", "most", "mean", "worst", "cases");
    for limit in limits() {
        let mut means: Vec<(f64, String)> = Vec::new();
        for trace in &traces {
            for case in limit.cases.iter().filter(|case| (limit.holds_for)(trace, **case)) {
                let policies = [Policy::Ours, Policy::OneBin];
                let seeds = match limit.cases.len() {
                    _ if case.is_certain() => 1,
                    MANY_CASES.. => FEW_SEEDS,
                    _ => SEEDS,
                };
                let runs = (1..=seeds).map(|seed| case.run(trace, &policies, seed));
                let sum: f64 = runs.map(|run| (limit.measure)(*case, run[0], run[1])).sum();
                means.push((sum / seeds as f64, format!("{} {case:?}", trace.name)));
            }
        }
        means.sort_by(|one, other| other.0.total_cmp(&one.0));
        let mean = means.iter().map(|(mean, _)| mean).sum::<f64>() / means.len() as f64;
        println!(
            "{:44} {:6.2} {mean:6.3} {:6.3} {:6}  {}",
            limit.name,
            limit.most,
            means[0].0,
            means.len(),
            means[0].1
        );
        for (value, case) in means.iter().skip(1).take_while(|(value, _)| *value > limit.most).take(8) {
            println!("{:58} {value:6.3}         {case}", "");
        }
    }
}
