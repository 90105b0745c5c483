//! Makes each step of a run fail in each way, with each provider and framework, and sends signals at random
//! moments. The same invariants must hold after every run.
//!
//! `OFFLOAD_TESTS=full cargo test --locked --test it matrix -- --nocapture` runs every row and prints the
//! counts; otherwise a sample runs. `OFFLOAD_MATRIX=PART` selects the rows whose names contain `PART`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

mod invariants;
mod row;
mod scene;
mod signals;

use invariants::{Findings, check};
use row::{FAULTS, Provider, Row, STEPS, rows, sample};
use scene::Scene;

use crate::support::is_full;

/// So many rows are played at once: most of them wait.
const AT_ONCE: usize = 4;

/// Which rows and signals to run.
enum Wanted {
    Sample,
    All,
    /// Rows whose names contain this text.
    Named(String),
}

fn wanted() -> Wanted {
    match std::env::var("OFFLOAD_MATRIX") {
        Ok(part) if part != "full" => Wanted::Named(part),
        Err(_) if !is_full() => Wanted::Sample,
        _ => Wanted::All,
    }
}

fn chosen() -> Vec<Row> {
    match wanted() {
        Wanted::Sample => sample(),
        Wanted::All => rows(),
        Wanted::Named(part) => rows().into_iter().filter(|row| row.to_string().contains(&part)).collect(),
    }
}

fn unique(name: &str) -> String {
    format!("offload-matrix-{name}-{}", std::process::id())
}

/// A number for a name (FNV-1a).
fn seed_of(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The next of a row of numbers (splitmix64).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Plays one row; `None` where its tools cannot be had.
fn play(number: usize, row: Row) -> Option<Findings> {
    let scene = Scene::new(row, unique(&format!("row-{number}-")))?.armed();
    let outcome = scene.start().wait(row.deadline());
    let mut findings = check(&scene, &outcome);
    // It ended in time.
    findings.held += 1;
    if !findings.broken.is_empty() {
        let tail = format!("exit code {:?}\n{}{}", outcome.code, outcome.stdout, outcome.stderr);
        findings.broken.push(tail.replace('\n', "\n    "));
    }
    Some(findings)
}

/// Plays all of `items`, a few at a time, and gathers what was found; a panic is a finding. Tells also how
/// many could be played.
fn all<T: Copy + Sync>(
    items: &[T],
    name: impl Fn(T) -> String + Sync,
    play: impl Fn(usize, T) -> Option<Findings> + Sync,
) -> (usize, Findings) {
    let (next, sum) = (AtomicUsize::new(0), Mutex::new((0, Findings::default())));
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(&item) = items.get(number) else { return };
            let began = Instant::now();
            let played = catch_unwind(AssertUnwindSafe(|| play(number, item)));
            let mut found = match played {
                Ok(None) => continue,
                Ok(Some(found)) => found,
                Err(panic) => {
                    let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                    Findings { held: 0, broken: vec![text] }
                }
            };
            let name = format!("{} ({} s)", name(item), began.elapsed().as_secs());
            if !matches!(wanted(), Wanted::Sample) {
                println!("{name}: {} broken", found.broken.len());
            }
            if !found.broken.is_empty() {
                found.broken = vec![format!("{name}\n  {}", found.broken.join("\n  "))];
            }
            let mut sum = sum.lock().unwrap();
            sum.0 += 1;
            sum.1.join(found);
        }
    };
    // A row without its tool is recorded under the name of its thread.
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            std::thread::Builder::new().name(test.clone()).spawn_scoped(scope, work).unwrap();
        }
    });
    sum.into_inner().unwrap()
}

#[test]
fn whatever_goes_wrong_the_same_is_true_afterwards() {
    let (began, rows) = (Instant::now(), chosen());
    let (played, found) = all(&rows, |row| row.to_string(), play);
    let of = |provider| rows.iter().filter(|row| row.provider == provider).count();
    println!(
        "matrix: {played} runs ({} local, {} default, {} swept, {} modal) with a fault each, {} invariants held, {} broken, {} s",
        of(Provider::Local),
        of(Provider::Default),
        of(Provider::Swept),
        of(Provider::Modal),
        found.held,
        found.broken.len(),
        began.elapsed().as_secs()
    );
    assert!(found.broken.is_empty(), "{}", found.broken.join("\n"));
}

#[test]
fn the_sample_of_the_matrix_has_each_step_and_each_fault() {
    let sample = sample();
    for step in STEPS {
        assert!(sample.iter().any(|row| row.step == step), "{step:?}");
    }
    for fault in FAULTS {
        assert!(sample.iter().any(|row| row.fault == fault), "{fault:?}");
    }
}
