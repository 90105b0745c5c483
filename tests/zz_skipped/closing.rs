//! The closing lines of a run: how many tests were skipped, and why.

use std::collections::BTreeSet;

/// What even CI may lack: an older pytest does not work with every Python, and tests seldom run as root.
const OPTIONAL: [&str; 2] = ["pytest-old", "root"];

pub struct Closing {
    pub text: String,
    pub fails: bool,
}

/// Reads lines of `test`, `what it needs` and `why that is not there`, separated by tabs.
pub fn of(marks: &str, is_ci: bool) -> Closing {
    let marks: BTreeSet<&str> = marks.lines().collect();
    let tests: BTreeSet<&str> = marks.iter().map(|mark| mark.split('\t').next().unwrap_or(mark)).collect();
    let mut text = format!("skipped: {} (libtest counts them as passed)", tests.len());
    let mut fails = false;
    for mark in marks {
        let mut fields = mark.splitn(3, '\t');
        let [test, need, why] = [(); 3].map(|()| fields.next().unwrap_or_default());
        text += &format!("\n    {test}: needs `{need}`: {why}");
        fails |= is_ci && !OPTIONAL.contains(&need);
    }
    if fails {
        text += "\nerror: in CI no test may be skipped";
    }
    Closing { text, fails }
}
