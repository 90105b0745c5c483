//! The closing lines of a run: how many tests were skipped, and why.

use std::collections::{BTreeMap, BTreeSet};

/// What even CI may lack: an old pytest does not support every Python, and CI rarely runs as root.
const OPTIONAL: [&str; 2] = ["pytest-old", "root"];

pub struct Closing {
    pub text: String,
    pub fails: bool,
}

/// Each line of `marks` is a test, what it needs, and why that is missing, separated by tabs.
pub fn of(marks: &str, is_ci: bool) -> Closing {
    let (mut tests, mut reasons) = (BTreeSet::new(), BTreeMap::<_, BTreeSet<&str>>::new());
    for mark in marks.lines() {
        let mut fields = mark.splitn(3, '\t').map(str::trim);
        let [test, need, why] = [(); 3].map(|()| fields.next().unwrap_or_default());
        tests.insert(test);
        reasons.entry([need, why]).or_default().insert(test);
    }
    let mut text = format!("skipped: {} (libtest counts them as passed)", tests.len());
    let mut fails = false;
    for ([need, why], tests) in reasons {
        text += &format!("\n  without `{need}`: {why}");
        text.extend(tests.iter().map(|test| format!("\n    {test}")));
        fails |= is_ci && !OPTIONAL.contains(&need);
    }
    if fails {
        text += "\nerror: in CI no test may be skipped";
    }
    Closing { text, fails }
}
