//! Time and memory of planning large suites.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use offload::internals::framework::Grain;
use offload::internals::history::{self, History, Observation, Sample};
use offload::internals::model::{Group, GroupIndex, Listed, Suite};
use offload::internals::plan::{self, Conditions, Limits, Overhead, Plan};

use crate::trace::{self, Row};

const SIZES: [u32; 3] = [1_000, 10_000, 100_000];
const MACHINES: [usize; 2] = [8, 200];
/// How many runs each history knows of.
const RUNS: u64 = 5;
const CONFIG: &str = "offload.toml";
/// The spread of what a test takes from run to run.
const NOISE: f64 = 0.3;

/// Measures each size in a process of its own, so that each has its own peak of memory, and writes no
/// history in it; with both `size` and `path` this is such a process.
pub fn print(size: Option<&String>, path: Option<&String>) -> Result<()> {
    if let (Some(size), Some(path)) = (size, path) {
        return measure(size.parse()?, Path::new(path));
    }
    let sizes = match size {
        Some(size) => vec![size.parse()?],
        None => SIZES.to_vec(),
    };
    println!(
        "{:>8} {:>11} {:>8} {:>8} {:>10} {:>12} {:>9}",
        "tests", "history MiB", "load s", "plan, 8", "plan, 200", "batches", "peak MiB"
    );
    for size in sizes {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("history.jsonl");
        write_history(size, &path)?;
        let program = std::env::current_exe()?;
        let status = Command::new(program).args(["scale", &size.to_string()]).arg(&path).status()?;
        anyhow::ensure!(status.success(), "measuring {size} tests failed: {status}");
    }
    Ok(())
}

/// The tests of a made up suite, in files of 20.
fn tests(size: u32) -> impl Iterator<Item = (String, String, Row)> {
    (0..).zip(trace::lognormal(size, 1).rows).map(|(number, row): (u32, Row)| {
        let part = number % 20;
        let file = format!("tests/unit/package_{:02}/test_module_{:05}.py", row.0 % 40, row.0);
        let id = format!("{file}::TestBehaviour::test_case_of_a_feature_{}[value-{part}]", part / 4);
        (id, file, row)
    })
}

fn write_history(size: u32, path: &Path) -> Result<()> {
    history::update(path, |history| {
        let mut random = trace::Random::new(5);
        let runs: Vec<Arc<str>> = (0..RUNS).map(|run| format!("mabcdefg{run}x1").into()).collect();
        for (id, _, (_, mean)) in tests(size) {
            for (at, run) in (1_795_402_614_512..).step_by(3_600_000).zip(&runs) {
                let sample = Sample { run: Arc::clone(run), at, seconds: random.lognormal(mean, NOISE) };
                history.add(CONFIG, &id, Observation::Passed(sample), 20);
            }
        }
    })
}

fn suite(size: u32) -> Suite {
    let group = Group { name: "all".into(), filters: String::new(), max_attempts: 1, solo: false };
    let mut suite = Suite::new(vec![group]);
    let mut last: Arc<str> = "".into();
    for (id, file, _) in tests(size) {
        if *last != *file {
            last = file.into();
        }
        suite.add(Listed::new(GroupIndex(0), id, Some(Arc::clone(&last))));
    }
    suite
}

fn measure(size: u32, path: &Path) -> Result<()> {
    let mut suite = suite(size);
    let start = Instant::now();
    let history = History::load(path)?;
    let load = start.elapsed().as_secs_f64();
    anyhow::ensure!(history.len() == size as usize, "the history has {} tests", history.len());
    let (mut seconds, mut batches) = (Vec::new(), Vec::new());
    for machines in MACHINES {
        let start = Instant::now();
        batches.push(plan(&mut suite, &history, machines).batches.len().to_string());
        seconds.push(start.elapsed().as_secs_f64());
    }
    println!(
        "{size:8} {:11.1} {load:8.3} {:8.3} {:10.3} {:>12} {:9.1}",
        std::fs::metadata(path)?.len() as f64 / f64::from(1 << 20),
        seconds[0],
        seconds[1],
        batches.join(" and "),
        peak()?
    );
    Ok(())
}

/// What a run does between having its history and its tests, and having its plan.
fn plan(suite: &mut Suite, history: &History, machines: usize) -> Plan {
    let mut known = HashMap::new();
    let (mut squares, mut degrees) = (0.0, 0.0);
    for (id, record) in history.of(CONFIG) {
        let Some(typical) = record.typical() else { continue };
        known.insert(id.to_owned(), typical);
        if let Some(spread) = record.spread() {
            squares += typical.as_secs_f64() * spread.squares;
            degrees += typical.as_secs_f64() * f64::from(spread.degrees);
        }
    }
    plan::estimate(suite, &known, Duration::from_secs(1));
    let conditions = Conditions {
        machines,
        grain: Grain::Test,
        overhead: Overhead::new(Duration::from_millis(1500), Duration::from_millis(10)),
        noise: (degrees > 0.0).then(|| (squares / degrees).sqrt()),
    };
    let limits = Limits { timeout: Duration::from_secs(1_000_000), fits: &|_, _| true };
    Plan::new(suite, &conditions, &limits)
}

/// The most memory that this process has had, in MiB.
fn peak() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no peak of memory")?;
    let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes / 1024.0)
}
