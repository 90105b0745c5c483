//! Every case.

use crate::case::Case;
use crate::policy::Policy;
use crate::trace;

const SEEDS: u64 = 5;

pub fn print(name: Option<&String>, only: Option<u32>) {
    print!(
        "{:12} {:>8} {:>8} {:>5} {:>7} {:>4}",
        "trace", "machines", "overhead", "noise", "unknown", "slow"
    );
    for policy in Policy::ALL {
        print!(" {:>9}", policy.name());
    }
    println!(" {:>7}", "batches");
    for trace in trace::all().into_iter().filter(|trace| name.is_none_or(|name| trace.name == *name)) {
        for machines in only.map_or_else(|| vec![4, 8, 16, 64, 200], |only| vec![only]) {
            for overhead in [0.1, 1.0, 5.0] {
                for (noise, unknown, slow) in [
                    (0.0, 0.0, 1.0),
                    (0.2, 0.0, 1.0),
                    (0.4, 0.0, 1.0),
                    (0.5, 0.1, 1.0),
                    (0.4, 0.3, 1.0),
                    (0.4, 0.0, 3.0),
                    (0.0, 1.0, 1.0),
                    (0.4, 1.0, 3.0),
                ] {
                    let case = Case { machines, overhead, noise, unknown, slow };
                    row(&trace, case);
                }
            }
        }
    }
}

fn row(trace: &trace::Trace, case: Case) {
    let Case { machines, overhead, noise, unknown, slow } = case;
    print!("{:12} {machines:8} {overhead:8.1} {noise:5.1} {unknown:7.1} {slow:4.0}", trace.name);
    let runs: Vec<_> = (1..=SEEDS).map(|seed| case.run(trace, &Policy::ALL, seed)).collect();
    for place in 0..Policy::ALL.len() {
        let mean = runs.iter().map(|run| run[place].ratio()).sum::<f64>() / SEEDS as f64;
        print!(" {mean:9.3}");
    }
    println!(" {:7}", runs[0][0].batches);
}
