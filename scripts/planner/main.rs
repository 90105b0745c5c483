//! `cargo bench --bench planner`: how near plans come to the best possible one, by simulation.
//!
//!     cargo bench --bench planner                 the limits that hold, and whether they do
//!     cargo bench --bench planner -- table [TRACE [MACHINES]]
//!                                                 every case, ours against other policies
//!     cargo bench --bench planner -- scale [TESTS]
//!                                                 time and memory from 1,000 to 100,000 tests
//!
//! A ratio is the makespan divided by the fluid bound: all work spread evenly over the speeds of the
//! machines, or the longest test, whichever is more; no overhead is in it. Ours is the plan of the
//! program itself; all policies are simulated alike.

#![expect(clippy::print_stdout, reason = "its output is all it is for")]

mod case;
mod limits;
mod policy;
mod scale;
mod table;
mod trace;

fn main() -> anyhow::Result<()> {
    // cargo adds `--bench`.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match words.first().map(String::as_str) {
        None => limits::print(),
        Some("table") => table::print(words.get(1), words.get(2).and_then(|word| word.parse().ok())),
        Some("scale") => scale::print(words.get(1), words.get(2))?,
        Some(word) => println!("unknown `{word}`; known are `table` and `scale`"),
    }
    Ok(())
}
