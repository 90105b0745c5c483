//! Signals at random moments of a run. The moments come from a seed, which a failure tells;
//! `OFFLOAD_MATRIX_SEED` chooses another one.

use std::fmt;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::invariants::{Findings, MayLeave, no_temporary_file, nothing_runs, nothing_stays, report};
use super::row::{Fault, Framework, Provider, Row, Step, When};
use super::scene::Scene;
use super::{Wanted, all, next, seed_of, unique, wanted};
use crate::support::{Outcome, Running};

/// What comes, and then comes again.
const KINDS: [(&str, Signal, bool); 5] = [
    ("INT", Signal::SIGINT, false),
    ("TERM", Signal::SIGTERM, false),
    ("HUP", Signal::SIGHUP, false),
    ("two INT", Signal::SIGINT, true),
    ("KILL", Signal::SIGKILL, false),
];

/// How long a run may go on after a signal, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);

/// A run and the moment of its signal.
#[derive(Clone, Copy)]
struct Point {
    provider: Provider,
    kind: (&'static str, Signal, bool),
    seed: u64,
    after: Duration,
    again: Duration,
}

impl fmt::Display for Point {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Point { provider, kind: (name, ..), seed, after, again } = self;
        write!(formatter, "{provider:?}/{name}, seed {seed}, after {after:?} and {again:?}")
    }
}

/// A suite that takes a moment, with nothing wrong.
fn scene(provider: Provider, name: &str) -> Option<Scene> {
    let (step, fault) = (Step::Run, Fault::Late);
    let row = Row { provider, framework: Framework::Custom, step, fault, when: When::First };
    let mut scene = Scene::new(row, unique(name))?;
    scene.project = scene.project.file("pace", "0.1");
    Some(scene)
}

/// So many moments of the time that a run with `provider` takes if nothing disturbs it.
fn points(provider: Provider, count: usize) -> Option<Vec<Point>> {
    let seed = std::env::var("OFFLOAD_MATRIX_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let calm = scene(provider, "calm")?;
    let began = Instant::now();
    calm.start().wait(PATIENCE).expect_code(1);
    // Beside others it takes longer.
    let span = u64::try_from(began.elapsed().as_millis()).unwrap() * 3 / 2;
    let mut state = seed_of(&format!("{provider:?}{seed}"));
    let mut moment = |below: u64| Duration::from_millis(next(&mut state) % below);
    let point = |place: usize| {
        let kind = KINDS[place % KINDS.len()];
        Point { provider, kind, seed, after: moment(span), again: moment(300) }
    };
    Some((0..count).map(point).collect())
}

fn play(number: usize, point: Point) -> Option<Findings> {
    let scene = scene(point.provider, &format!("signal-{number}-"))?;
    let running = scene.start();
    let outcome = disturb(running, point);
    let mut findings = check(&scene, point, &outcome);
    if !findings.broken.is_empty() {
        let tail = format!("exit code {:?}\n{}{}", outcome.code, outcome.stdout, outcome.stderr);
        findings.broken.push(tail.replace('\n', "\n    "));
    }
    Some(findings)
}

fn disturb(running: Running, point: Point) -> Outcome {
    // The moment is what is tried: there is no condition to wait for.
    std::thread::sleep(point.after);
    running.signal(point.kind.1);
    if point.kind.2 {
        std::thread::sleep(point.again);
        running.signal(point.kind.1);
    }
    running.wait(PATIENCE)
}

fn check(scene: &Scene, point: Point, outcome: &Outcome) -> Findings {
    // It ended in time.
    let mut findings = Findings { held: 1, broken: Vec::new() };
    let (killed, forced) = (point.kind.1 == Signal::SIGKILL, point.kind.2);
    let stopped = if killed { None } else { Some(130) };
    // It may have been done already. In its first moments nobody listens, and there is nothing to end.
    let deaf = outcome.code.is_none() && outcome.stderr.is_empty() && !scene.report().exists();
    findings.expect(outcome.code == stopped || outcome.code == Some(1) || deaf, || {
        format!("exit code {:?}", outcome.code)
    });
    if outcome.stdout.contains("5 tests: ") {
        findings.expect(scene.report().exists(), || "no report".to_owned());
    }
    if scene.report().exists() {
        report(scene, &mut findings);
    }
    let is_abrupt = killed || forced;
    if is_abrupt && point.provider != Provider::Default {
        let gc = scene.gc(&[]);
        findings.expect(gc.code == Some(0), || format!("gc: {}{}", gc.stdout, gc.stderr));
    }
    if is_abrupt {
        // Nobody was there to end the tests of a killed run: they end by themselves.
        super::invariants::wait_for_silence(scene, Duration::from_secs(30));
    }
    nothing_runs(scene, &mut findings);
    // A create that is ended at once cannot print an id.
    let is_unknown = is_abrupt && point.provider == Provider::Default;
    nothing_stays(scene, if is_unknown { MayLeave::Unknown } else { MayLeave::Nothing }, &mut findings);
    if killed {
        // The next run finds nothing in its way.
        let again = scene.start().wait(PATIENCE);
        findings.expect(again.code == Some(1), || format!("again: {}{}", again.stdout, again.stderr));
        report(scene, &mut findings);
    }
    no_temporary_file(scene, &mut findings);
    findings
}

#[test]
fn a_signal_may_come_at_any_moment() {
    let counts = match wanted() {
        Wanted::Sample => [12, 6, 6, 3],
        Wanted::All => [150, 75, 75, 25],
        Wanted::Named(part) if "signals".contains(&part) => [40, 20, 20, 10],
        // Only rows were selected.
        Wanted::Named(_) => return,
    };
    let began = Instant::now();
    let providers = [Provider::Local, Provider::Default, Provider::Swept, Provider::Modal];
    let points: Vec<Option<Vec<Point>>> =
        providers.iter().zip(counts).map(|(provider, count)| points(*provider, count)).collect();
    let points: Vec<Point> = points.into_iter().flatten().flatten().collect();
    let (played, found) = all(&points, |point| point.to_string(), play);
    println!(
        "signals: {played} runs ({counts:?} with the providers {providers:?}), {} invariants held, {} broken, {} s",
        found.held,
        found.broken.len(),
        began.elapsed().as_secs()
    );
    assert!(found.broken.is_empty(), "{}", found.broken.join("\n"));
}
