//! What must be true after each run, whatever went wrong.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use offload::internals::junit::{Caps, Recorded, Word, read_merged};

use super::row::{Disk, Fault, Framework, Provider, Step};
use super::scene::{Scene, ids};
use crate::support::Outcome;

/// What was looked at, and what was not as it must be.
#[derive(Debug, Default)]
pub struct Findings {
    pub held: usize,
    pub broken: Vec<String>,
}

impl Findings {
    pub fn expect(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if holds {
            self.held += 1;
        } else {
            self.broken.push(what());
        }
    }

    pub fn join(&mut self, other: Findings) {
        self.held += other.held;
        self.broken.extend(other.broken);
    }
}

/// All of them, after a run with a fault.
pub fn check(scene: &Scene, outcome: &Outcome) -> Findings {
    let mut findings = Findings::default();
    let row = &scene.row;
    let allowed: &[i32] = if row.is_harmless() { &[1] } else { &[1, 4] };
    findings.expect(outcome.code.is_some_and(|code| allowed.contains(&code)), || {
        format!("exit code {:?} instead of one of {allowed:?}", outcome.code)
    });
    findings.expect(outcome.code != Some(4) || outcome.stderr.contains("offload: error: "), || {
        "exit code 4 without a message".to_owned()
    });
    let odd = |letter: char| letter.is_control() && !matches!(letter, '\n' | '\t');
    findings.expect(!outcome.stderr.contains(odd), || "control characters on stderr".to_owned());
    let image_failed = row.step == Step::Prepare && row.fault != Fault::Late;
    let has_tests = row.step != Step::Discovery && !image_failed && row.disk().is_none();
    if has_tests || row.is_harmless() {
        findings.expect(scene.report().exists(), || "no report".to_owned());
    }
    // Whose listing is garbage has other tests.
    let known = (row.step, row.fault) != (Step::Discovery, Fault::Garbage);
    if known && scene.report().exists() {
        report(scene, &mut findings);
    }
    if row.is_harmless() {
        let passed = format!("{} passed, 1 failed", ids(row.framework).len() - 1);
        findings.expect(outcome.stdout.contains(&passed), || format!("not {passed}"));
    }
    // What a sandbox is made of goes with it.
    let may_leave = if row.leaves_unknown() { MayLeave::Unknown } else { MayLeave::Nothing };
    if may_leave == MayLeave::Unknown {
        let warnings = outcome.stderr.matches("gave no reliable id").count();
        findings.expect(warnings == 1, || format!("{warnings} warnings of unknown creates"));
    }
    nothing_stays(scene, may_leave, &mut findings);
    nothing_runs(scene, &mut findings);
    no_temporary_file(scene, &mut findings);
    findings
}

/// The report is well-formed, and has each test once with one verdict, and a reason.
pub fn report(scene: &Scene, findings: &mut Findings) {
    let file = scene.report();
    let mut tests: Vec<Recorded> = Vec::new();
    let end = read_merged(File::open(&file).unwrap(), Caps::default(), &mut |test| {
        if test.word != Word::RunError {
            tests.push(test);
        }
        ControlFlow::Continue(())
    });
    findings.expect(end.error.is_none(), || format!("the report is broken: {:?}", end.error));
    findings.expect(is_xml(&file), || "Python cannot read the report".to_owned());
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for test in &tests {
        *counts.entry(&test.id).or_default() += 1;
    }
    let expected: BTreeMap<&str, usize> = ids(scene.row.framework).iter().map(|id| (*id, 1)).collect();
    findings.expect(counts == expected, || format!("tests in the report: {counts:?}"));
    let reasonless = |test: &&Recorded| test.word != Word::Passed && !has_reason(test);
    let reasonless: Vec<_> = tests.iter().filter(reasonless).map(|test| &test.id).collect();
    findings.expect(reasonless.is_empty(), || format!("no reason for {reasonless:?}"));
    let fails = ids(scene.row.framework).last().unwrap();
    let good = [Word::Passed, Word::Flaky, Word::Skipped, Word::ExpectedFailure];
    let shown = tests.iter().any(|test| test.id == *fails && good.contains(&test.word));
    findings.expect(!shown, || format!("`{fails}` is shown as good"));
}

fn has_reason(test: &Recorded) -> bool {
    let details = test.result.details.as_ref();
    details.is_some_and(|details| {
        [&details.message, &details.text].into_iter().flatten().any(|text| !text.trim().is_empty())
    })
}

fn is_xml(file: &Path) -> bool {
    let program = "import sys, xml.etree.ElementTree as tree; tree.parse(sys.argv[1])";
    Command::new("python3").args(["-c", program]).arg(file).output().unwrap().status.success()
}

/// No process of the run lives.
pub fn nothing_runs(scene: &Scene, findings: &mut Findings) {
    // A process that was killed may be seen for a moment.
    let living = wait_for_silence(scene, Duration::from_secs(3));
    findings.expect(living.is_empty(), || format!("processes: {living:?}"));
}

/// Waits until no process of the run lives, and tells which do nevertheless.
pub fn wait_for_silence(scene: &Scene, deadline: Duration) -> Vec<String> {
    let end = Instant::now() + deadline;
    let mut living = living(&scene.unique);
    while !living.is_empty() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
        living = self::living(&scene.unique);
    }
    living
}

/// The command lines of the processes that have `unique` in them or in their environment.
fn living(unique: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
        let line = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
        if line.contains(unique) || String::from_utf8_lossy(&read("environ")).contains(unique) {
            lines.push(line);
        }
    }
    lines
}

/// Whether a run may leave creates of which nobody knows whether they left a sandbox.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum MayLeave {
    Nothing,
    Unknown,
}

/// Every sandbox is destroyed, or reported as unknown until it is forgotten; then the journal is empty.
pub fn nothing_stays(scene: &Scene, may_leave: MayLeave, findings: &mut Findings) {
    let row = &scene.row;
    let unknown = if may_leave == MayLeave::Unknown { settled(scene, findings) } else { 0 };
    let told_to_fail = row.step == Step::Destroy && row.fault != Fault::Late;
    if told_to_fail && row.disk().is_none() {
        let kept = sandboxes(scene) == 0 || journal(scene) > 0;
        findings.expect(kept, || "a sandbox that was not destroyed is not in the journal".to_owned());
        gc(scene, findings);
    } else if row.may_come_too_late() {
        gc(scene, findings);
    }
    let kept = sandboxes(scene);
    findings.expect(kept <= unknown, || format!("{kept} sandboxes, {unknown} unknown ones"));
    if matches!(row.provider, Provider::Default | Provider::Swept) {
        let calls = fs::read_to_string(scene.project.path().join("calls")).unwrap_or_default();
        let count = |word: &str| calls.lines().filter(|line| line.starts_with(word)).count();
        findings.expect(count("create ") == count("destroy ") + kept, || format!("calls: {calls}"));
    }
    findings.expect(journal(scene) == 0, || format!("{} entries in the journal", journal(scene)));
    sweep(scene);
}

/// Lets `gc` destroy what it can, and gives how many creates it reported as unknown, which are forgotten then.
fn settled(scene: &Scene, findings: &mut Findings) -> usize {
    scene.mend();
    let gc = scene.gc(&[]);
    let unknown = gc.stdout.lines().filter(|line| line.starts_with("unknown offload-")).count();
    let code = if unknown > 0 { 4 } else { 0 };
    findings.expect(gc.code == Some(code), || format!("gc: {:?} {}{}", gc.code, gc.stdout, gc.stderr));
    let is_reported = unknown == 0 || gc.stdout.ends_with(&format!("{unknown} left ({unknown} unknown)\n"));
    findings.expect(is_reported, || format!("gc: {}", gc.stdout));
    let forgotten = scene.gc(&["--forget"]);
    findings.expect(forgotten.code == Some(0), || format!("gc: {}{}", forgotten.stdout, forgotten.stderr));
    unknown
}

/// What is left is found by `gc`, as soon as what went wrong is over.
fn gc(scene: &Scene, findings: &mut Findings) {
    // A driver that waits for Modal does so by itself, after the run.
    let is_driver = |line: &String| line.contains("modal_sandbox.py");
    let end = Instant::now() + Duration::from_secs(30);
    while living(&scene.unique).iter().any(is_driver) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
    }
    findings.expect(!living(&scene.unique).iter().any(is_driver), || "a driver does not end".to_owned());
    scene.mend();
    let gc = scene.gc(&[]);
    findings.expect(gc.code == Some(0), || format!("gc: {}{}", gc.stdout, gc.stderr));
}

/// Nothing is left in the directory for temporary files, and no file half written.
pub fn no_temporary_file(scene: &Scene, findings: &mut Findings) {
    let left = temporary(scene);
    findings.expect(left.is_empty(), || format!("temporary files: {left:?}"));
}

/// How many sandboxes live.
pub fn sandboxes(scene: &Scene) -> usize {
    match &scene.emulator {
        Some(emulator) => emulator.live(),
        None => fs::read_dir(scene.project.path().join("live")).map_or(0, Iterator::count),
    }
}

fn journal(scene: &Scene) -> usize {
    if scene.row.disk() == Some(Disk::Journal) {
        return left(scene).len();
    }
    fs::read_dir(scene.project.path().join("state/runs")).map_or(0, Iterator::count)
}

/// What was left on a disk that is gone.
fn left(scene: &Scene) -> Vec<String> {
    let left = fs::read_to_string(scene.project.path().join("left")).unwrap_or_default();
    left.lines().map(str::to_owned).collect()
}

fn temporary(scene: &Scene) -> Vec<String> {
    let names = match &scene.emulator {
        Some(emulator) => emulator.temporary(),
        None if scene.row.disk() == Some(Disk::Temporary) => left(scene),
        None => names(&scene.project.path().join("tmp")),
    };
    let half_written = names_of_half_written(&scene.project.path().join("test-results"));
    // When it breaks down, vitest leaves directories of its own there.
    let own = |name: &String| scene.row.framework != Framework::Vitest || name.contains("offload");
    names.into_iter().chain(half_written).filter(own).collect()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn names_of_half_written(directory: &Path) -> Vec<String> {
    names(directory).into_iter().filter(|name| name.starts_with(".offload-")).collect()
}

/// These sandboxes have the file system of this machine.
fn sweep(scene: &Scene) {
    let runs = fs::read_to_string(scene.project.path().join("runs")).unwrap_or_default();
    for name in names(Path::new("/tmp")) {
        if runs.lines().any(|run| name.starts_with(&format!("{run}-"))) {
            let _ = fs::remove_dir_all(Path::new("/tmp").join(name));
        }
    }
}
