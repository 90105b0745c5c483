//! Claims about the pool, with sandboxes that are told how to behave.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use super::slot::FAILURE_BUDGET;

use super::*;
use crate::command::CommandLine;
use crate::model::{Exit, GroupIndex, Origin, TestIndex};
use crate::process::Finished;
use crate::provider::{Order, Place};

mod dispatch;
mod limits;
mod lost;

/// Counts what lives, and fails as told.
#[derive(Default)]
struct Site {
    living: AtomicUsize,
    made: AtomicUsize,
    /// Creates of these slots fail.
    barren: Vec<usize>,
    /// How many sandboxes can be made at most.
    most: Option<usize>,
    /// Creates of these slots panic.
    broken: Vec<usize>,
    /// Creates of these slots take long, until the flag is set.
    slow: Vec<usize>,
    released: AtomicBool,
    /// Sandboxes are not destroyed before this.
    told: AtomicBool,
    /// Whether sandboxes wait for that.
    is_patient: bool,
    /// Whether the destruction of a sandbox panics, when it is done.
    is_explosive: bool,
}

struct Provider<'a>(&'a Site);
struct Box_<'a>(&'a Site);

impl crate::provider::Provider for Provider<'static> {
    fn create(&self, slot: usize, cancel: &Cancel) -> Result<Box<dyn Sandbox>, ProviderError> {
        let is_full = self.0.most.is_some_and(|most| self.0.made.load(Ordering::SeqCst) >= most);
        if is_full || self.0.barren.contains(&slot) {
            return Err(ProviderError::Refused("no room".into()));
        }
        assert!(!self.0.broken.contains(&slot), "expected by this test");
        while self.0.slow.contains(&slot) && !self.0.released.load(Ordering::SeqCst) {
            if cancel.is_raised() {
                return Err(ProviderError::Refused("ended".into()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.0.living.fetch_add(1, Ordering::SeqCst);
        self.0.made.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(Box_(self.0)))
    }

    fn root(&self) -> &'static str {
        "/"
    }

    fn takes(&self, _: &CommandLine) -> bool {
        true
    }

    fn scratch(&self) -> Option<&Path> {
        Some(Path::new("/tmp/of-the-sandbox"))
    }
}

impl Sandbox for Box_<'static> {
    fn exec(&mut self, _: &Order<'_>, _: &Cancel) -> Result<Finished, ProviderError> {
        unreachable!("the bench does not ask for it")
    }

    fn fetch(&mut self, _: &Path, _: &Path) -> Result<(), ProviderError> {
        Ok(())
    }

    fn download(&mut self, _: &[String], _: Place<'_>) -> anyhow::Result<usize> {
        Ok(0)
    }

    fn destroy(self: Box<Self>) -> Result<(), ProviderError> {
        if self.0.is_patient {
            wait_for(|| self.0.told.load(Ordering::SeqCst));
        }
        self.0.living.fetch_sub(1, Ordering::SeqCst);
        assert!(!self.0.is_explosive, "expected by this test");
        Ok(())
    }
}

/// Does to a batch what a function says.
struct Script<F>(F);

impl<F: Fn(usize, &Batch, &Cancel) -> Result<Exit, ProviderError> + Sync> Executor for Script<F> {
    fn execute(
        &self,
        slot: usize,
        batch: &Batch,
        _: &mut dyn Sandbox,
        cancel: &Cancel,
    ) -> Result<Execution, ProviderError> {
        let exit = (self.0)(slot, batch, cancel)?;
        Ok(Execution {
            exit,
            elapsed: Duration::ZERO,
            whole: Duration::ZERO,
            leaked: false,
            report: None,
            ended: None,
        })
    }
}

fn batches(count: u32) -> Vec<Batch> {
    let batch = |index| Batch {
        index,
        group: GroupIndex(0),
        tests: vec![TestIndex(index)],
        companions: Vec::new(),
        load: Duration::ZERO,
        origin: Origin::Planned,
    };
    (0..count).map(batch).collect()
}

/// How each batch ended: executed so often, or dropped.
#[derive(Default)]
struct Tally {
    executed: HashMap<u32, usize>,
    dropped: Vec<u32>,
    retired: usize,
    released: usize,
}

fn play(
    site: &'static Site,
    count: u32,
    cancel: &Cancel,
    script: impl Fn(usize, &Batch) -> Result<Exit, ProviderError> + Sync,
) -> Tally {
    let provider = Provider(site);
    let bench = Script(|slot, batch: &Batch, _: &Cancel| script(slot, batch));
    let pool = Pool { provider: &provider, machines: 4, limits: &[], spare: 0, executor: &bench, cancel };
    let tally = Mutex::new(Tally::default());
    run(&pool, batches(count), |event| {
        let mut tally = tally.lock().unwrap();
        match event {
            Event::Finished { batch, .. } => *tally.executed.entry(batch.index).or_default() += 1,
            Event::Lost { batch, .. } => {
                return Reaction { batches: vec![batch], abandon: None };
            }
            Event::Dropped { batch, .. } => tally.dropped.push(batch.index),
            Event::Retired { .. } => tally.retired += 1,
            Event::Settled => site.told.store(true, Ordering::SeqCst),
            Event::Released { .. } => tally.released += 1,
            Event::Refused { .. }
            | Event::Ready { .. }
            | Event::Started { .. }
            | Event::Emptied { .. }
            | Event::Tick => {}
        }
        Reaction::default()
    });
    assert_eq!(site.living.load(Ordering::SeqCst), 0, "a sandbox outlives the run");
    tally.into_inner().unwrap()
}

fn site(site: Site) -> &'static Site {
    Box::leak(Box::new(site))
}

#[test]
fn no_more_sandboxes_are_made_than_there_are_batches() {
    let site = site(Site::default());
    let tally = play(site, 1, &Cancel::new(), |_, _| Ok(Exit::Code(0)));
    assert_eq!((site.made.load(Ordering::SeqCst), tally.executed[&0]), (1, 1));
}

#[test]
fn a_sandbox_that_fails_every_exec_is_retired_and_its_batches_run_elsewhere() {
    let site = site(Site::default());
    let failures = AtomicUsize::new(0);
    let tally = play(site, 12, &Cancel::new(), |slot, _| {
        if slot == 1 {
            failures.fetch_add(1, Ordering::SeqCst);
            return Err(ProviderError::Lost("broken".into()));
        }
        // Work must be left for it until it is given up.
        wait_for(|| failures.load(Ordering::SeqCst) == 3);
        Ok(Exit::Code(0))
    });
    assert_eq!(tally.executed.len(), 12);
    assert!(tally.executed.values().all(|times| *times == 1));
    assert!(tally.dropped.is_empty());
}

#[test]
fn the_run_goes_on_with_the_sandboxes_that_could_be_made() {
    let some = site(Site { barren: vec![0, 2, 3], ..Site::default() });
    let slowly = |_, _: &Batch| {
        std::thread::sleep(Duration::from_millis(20));
        Ok(Exit::Code(0))
    };
    let tally = play(some, 9, &Cancel::new(), slowly);
    assert_eq!((tally.executed.len(), tally.retired), (9, 3));
    let none = site(Site { barren: vec![0, 1, 2, 3], ..Site::default() });
    let tally = play(none, 9, &Cancel::new(), |_, _| Ok(Exit::Code(0)));
    assert_eq!((tally.executed.len(), tally.dropped.len(), tally.retired), (0, 9, 4));
}

#[test]
fn a_slow_create_delays_nobody_else() {
    let site = site(Site { slow: vec![0], ..Site::default() });
    let done = AtomicUsize::new(0);
    let tally = play(site, 8, &Cancel::new(), |_, _| {
        if done.fetch_add(1, Ordering::SeqCst) == 7 {
            site.released.store(true, Ordering::SeqCst);
        }
        Ok(Exit::Code(0))
    });
    assert_eq!(tally.executed.len(), 8);
}

#[test]
fn a_sandbox_in_the_making_is_ended_when_nothing_waits_for_it() {
    let site = site(Site { slow: vec![0], ..Site::default() });
    let tally = play(site, 8, &Cancel::new(), |_, _| Ok(Exit::Code(0)));
    assert_eq!((tally.executed.len(), tally.retired), (8, 0));
}

#[test]
fn idle_sandboxes_go_as_soon_as_nothing_can_come_for_them() {
    let site = site(Site::default());
    let tally = play(site, 8, &Cancel::new(), |_, batch| {
        if batch.index == 0 {
            wait_for(|| site.living.load(Ordering::SeqCst) == 1 && site.made.load(Ordering::SeqCst) == 4);
        }
        Ok(Exit::Code(0))
    });
    assert_eq!((tally.executed.len(), tally.released), (8, 3));
}

#[test]
fn results_are_told_before_the_last_sandbox_is_destroyed() {
    let site = site(Site { is_patient: true, ..Site::default() });
    let tally = play(site, 8, &Cancel::new(), |_, _| Ok(Exit::Code(0)));
    assert_eq!(tally.executed.len(), 8);
}

#[test]
fn a_panic_of_a_worker_costs_one_execution_and_no_sandbox() {
    let site = site(Site::default());
    let once = AtomicBool::new(true);
    let tally = play(site, 5, &Cancel::new(), |_, batch| {
        assert!(!(batch.index == 3 && once.swap(false, Ordering::SeqCst)), "expected by this test");
        Ok(Exit::Code(0))
    });
    assert_eq!(tally.executed.len(), 5);
}

#[test]
fn a_cancel_drops_what_waits_and_ends_the_run() {
    let site = site(Site::default());
    let cancel = Cancel::new();
    let started = Instant::now();
    let tally = play(site, 1000, &cancel, |_, batch| {
        if batch.index == 5 {
            cancel.raise_gracefully();
        }
        Ok(Exit::Code(0))
    });
    assert_eq!(tally.executed.len() + tally.dropped.len(), 1000);
    assert!(!tally.dropped.is_empty() && started.elapsed() < Duration::from_secs(30));
}

/// Number of batches, and of machines for them.
#[derive(Clone, Copy)]
struct Size {
    count: u32,
    machines: usize,
}

/// Runs batches and abandons the batch that `abandon` names for an event;
/// gives what was executed, with how it ended, and what was dropped.
fn abandoning(
    size: Size,
    cancel: &Cancel,
    script: impl Fn(&Batch, &Cancel) -> Result<Exit, ProviderError> + Sync,
    mut abandon: impl FnMut(&Event) -> Option<u32> + Send,
) -> (Vec<(u32, Exit)>, Vec<u32>) {
    let site = site(Site::default());
    let provider = Provider(site);
    let Size { count, machines } = size;
    let bench = Script(|_, batch: &Batch, cancel: &Cancel| script(batch, cancel));
    let pool = Pool { provider: &provider, machines, limits: &[], spare: 0, executor: &bench, cancel };
    let (mut executed, mut dropped) = (Vec::new(), Vec::new());
    run(&pool, batches(count), |event| {
        let abandon = abandon(&event);
        match event {
            Event::Finished { batch, execution, .. } => executed.push((batch.index, execution.exit)),
            Event::Dropped { batch, .. } => dropped.push(batch.index),
            Event::Retired { error, .. } => panic!("{error}"),
            _ => {}
        }
        Reaction { batches: Vec::new(), abandon }
    });
    assert_eq!(site.living.load(Ordering::SeqCst), 0);
    executed.sort_unstable_by_key(|(batch, _)| *batch);
    (executed, dropped)
}

/// Waits until `condition` holds, and fails the execution when it does not in time.
fn wait_for(condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < end, "not in time");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Runs until its own cancel is raised.
fn hang(cancel: &Cancel) -> Result<Exit, ProviderError> {
    wait_for(|| cancel.is_raised());
    Ok(Exit::Cancelled)
}

#[test]
fn an_abandoned_batch_is_cancelled_and_no_other_and_its_sandbox_goes_on() {
    let cancel = Cancel::new();
    let heard = AtomicUsize::new(0);
    // Batch 1 holds one of two sandboxes until batch 0 is cancelled, and must not be cancelled itself.
    let script = |batch: &Batch, cancel: &Cancel| match batch.index {
        0 => hang(cancel).inspect(|_| heard.store(1, Ordering::SeqCst)),
        1 => {
            wait_for(|| heard.load(Ordering::SeqCst) == 1);
            Ok(if cancel.is_raised() { Exit::Cancelled } else { Exit::Code(0) })
        }
        _ => Ok(if cancel.is_raised() { Exit::Cancelled } else { Exit::Code(0) }),
    };
    let mut begun = Vec::new();
    let (executed, dropped) =
        abandoning(Size { count: 6, machines: 2 }, &cancel, script, |event| match event {
            Event::Started { batch, .. } => {
                begun.push(batch.index);
                (begun.contains(&0) && begun.contains(&1)).then_some(0)
            }
            _ => None,
        });
    assert_eq!(executed[0], (0, Exit::Cancelled));
    assert_eq!((executed.len(), dropped.len()), (6, 0));
    assert!(executed[1..].iter().all(|(_, exit)| *exit == Exit::Code(0)), "{executed:?}");
    assert!(!cancel.is_raised());
}

#[test]
fn an_abandoned_batch_that_waits_is_never_executed_and_the_run_ends() {
    let cancel = Cancel::new();
    let released = AtomicBool::new(false);
    let script = |_: &Batch, _: &Cancel| {
        wait_for(|| released.load(Ordering::SeqCst));
        Ok(Exit::Code(0))
    };
    // One sandbox, held by batch 0 until batch 2 has been abandoned, which a tick comes after.
    let mut abandoned = false;
    let (executed, dropped) =
        abandoning(Size { count: 4, machines: 1 }, &cancel, script, |event| match event {
            Event::Started { batch, .. } if batch.index == 0 => {
                abandoned = true;
                Some(2)
            }
            Event::Tick if abandoned => {
                released.store(true, Ordering::SeqCst);
                None
            }
            // A number that is not known is nobody's.
            _ => Some(77),
        });
    assert_eq!(executed.iter().map(|(batch, _)| *batch).collect::<Vec<_>>(), [0, 1, 3]);
    assert_eq!(dropped, [2]);
}

#[test]
fn a_sandbox_that_does_not_survive_a_cancel_is_replaced_without_a_strike() {
    let script = |_: &Batch, cancel: &Cancel| hang(cancel).and(Err(ProviderError::Lost("ended".into())));
    // More of them in a row than a worker may have errors.
    let count = FAILURE_BUDGET + 2;
    let (executed, dropped) =
        abandoning(Size { count, machines: 1 }, &Cancel::new(), script, |event| match event {
            Event::Started { batch, .. } => Some(batch.index),
            _ => None,
        });
    assert!(executed.is_empty() && dropped.is_empty());
}
