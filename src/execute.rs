//! The stage that executes: one thread a sandbox, fed by channels, and one thread that hears of all
//! that happens and decides what more there is to do.
//!
//! The work queue is unbounded and the events are bounded, so that neither side waits for the other.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};

use crate::cancel::{Cancel, Urgency};
use crate::event::{Event, Execution, Reaction};
use crate::model::{Batch, Origin};
use crate::provider::{Provider, ProviderError, Sandbox};

pub mod executor;
mod worker;

use worker::Worker;

/// How often the collector looks up when nothing happens.
const TICK: Duration = Duration::from_millis(100);
/// A worker gives up after so many infrastructure errors in a row.
const STRIKES: u32 = 3;
/// The loss of a batch that was lost before is put down to its tests and no strike, but not beyond so
/// many losses in a row, whoever has them: then it is the provider.
const ROW: u32 = 12;
/// The same as long as nothing has worked in any sandbox.
const FIRST_ROW: u32 = 3;
/// So long after a wish to stop sandboxes in the making are let alone, to be destroyed once they are made:
/// ended before they tell an id, some providers leave them behind.
const PATIENCE: Duration = Duration::from_secs(4);
/// Why a batch was not started.
const STOPPED: &str = "the run was stopped before it started";

/// Turns a batch into an execution in a sandbox. The one place where a batch becomes a command.
pub trait Executor: Sync {
    /// Executes `batch` to its end, or until `cancel` is raised: for the run as a whole, or for this
    /// batch alone, and then the sandbox is to be of use for others.
    ///
    /// # Errors
    /// When the sandbox could not do it; then the batch is to run elsewhere.
    fn execute(
        &self,
        slot: usize,
        batch: &Batch,
        sandbox: &mut dyn Sandbox,
        cancel: &Cancel,
    ) -> Result<Execution, ProviderError>;
}

/// Who executes.
pub struct Pool<'a> {
    /// The maker of sandboxes.
    pub provider: &'a dyn Provider,
    /// How many at most.
    pub machines: usize,
    /// How many idle ones are kept beside those that may be needed, as long as anything runs.
    pub spare: usize,
    /// What they do.
    pub bench: &'a dyn Executor,
    /// Ends what runs and drops what waits.
    pub cancel: &'a Cancel,
}

/// What a run has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The time of all sandboxes together, each from the start of its creation to the end of its
    /// destruction; lost ones included.
    pub sandbox_time: Duration,
    /// How many sandboxes there were.
    pub sandboxes: usize,
}

/// The two queues: what came up during the run goes before what was planned.
struct Queue<T> {
    urgent: T,
    planned: T,
}

/// What a worker is to do.
enum Work {
    Execute(Job),
    /// Nothing can come for one of the idle ones: whoever takes this leaves.
    Leave,
}

/// A batch, and the flag that ends this batch alone; it is a child of the run's.
struct Job {
    batch: Batch,
    cancel: Cancel,
    /// The worker in whose sandbox its tests have failed, or that lost it: it is to run elsewhere, if it
    /// can.
    avoid: Option<usize>,
    /// It follows from a batch whose sandbox was lost: its tests may be why.
    is_suspect: bool,
}

/// What workers and the collector share.
struct Shared {
    /// Workers that have not given up.
    alive: AtomicUsize,
    /// Ends sandboxes in the making.
    making: Cancel,
    usage: Mutex<Usage>,
    /// Workers that wait for work.
    idle: AtomicUsize,
    /// Batches that a worker has left to others; the collector queues them again.
    passed_on: Mutex<Vec<Job>>,
    /// Losses in a row, of all workers. It begins so near the limit that few are forgiven at first.
    row: AtomicU32,
}

impl Shared {
    fn pass_on(&self, job: Job) {
        self.passed_on.lock().unwrap_or_else(PoisonError::into_inner).push(job);
    }

    /// Counts a loss; tells whether it may be put down to tests under suspicion.
    fn forgives(&self) -> bool {
        self.row.fetch_add(1, Ordering::SeqCst) < ROW
    }
}

/// Executes `batches` and all that `observe` adds, until nothing is left and every sandbox is destroyed.
/// `observe` runs on a thread of its own, one event at a time; it hears [`Event::Settled`] once.
pub fn run(pool: &Pool<'_>, batches: Vec<Batch>, observe: impl FnMut(Event) -> Reaction + Send) -> Usage {
    let workers = pool.machines.min(batches.len());
    let (urgent, urgent_queue) = unbounded();
    let (planned, planned_queue) = unbounded();
    let (events, inbox) = bounded(2 * workers.max(1));
    let shared = Shared {
        alive: AtomicUsize::new(workers),
        making: Cancel::new(),
        usage: Mutex::default(),
        idle: AtomicUsize::new(0),
        passed_on: Mutex::default(),
        row: AtomicU32::new(ROW - FIRST_ROW),
    };
    let mut collector = Collector {
        observe,
        pool,
        outstanding: HashMap::new(),
        busy: HashSet::new(),
        waiting: batches.len(),
        any_lost: false,
        leaving: 0,
        queue: Queue { urgent: urgent_queue.clone(), planned: planned_queue.clone() },
        sender: Queue { urgent, planned },
        shared: &shared,
        stopped: None,
    };
    for batch in batches {
        let job = collector.job(batch);
        // The collector holds a receiver: the channel cannot be closed.
        let _ = collector.sender.planned.send(Work::Execute(job));
    }
    std::thread::scope(|scope| {
        let collect = || collector.collect(&inbox);
        // First: without it nobody would end what workers begin.
        if let Err(error) = std::thread::Builder::new().name("collector".into()).spawn_scoped(scope, collect)
        {
            log::error!("cannot start the collector thread: {error}");
            return;
        }
        for slot in 0..workers {
            let queue = Queue { urgent: urgent_queue.clone(), planned: planned_queue.clone() };
            let worker = Worker::new(slot, pool, events.clone(), &shared);
            let name = std::thread::Builder::new().name(format!("sandbox {slot}"));
            if let Err(error) = name.stack_size(512 * 1024).spawn_scoped(scope, move || worker.work(&queue)) {
                shared.alive.fetch_sub(1, Ordering::SeqCst);
                log::warn!("cannot start worker {slot}: {error}");
            }
        }
        drop((events, urgent_queue, planned_queue));
    });
    shared.usage.into_inner().unwrap_or_else(PoisonError::into_inner)
}

struct Collector<'a, F> {
    observe: F,
    pool: &'a Pool<'a>,
    /// Batches that wait or run, with what ends each of them and how many tests it has.
    outstanding: HashMap<u32, (Cancel, usize)>,
    /// Workers that execute a batch.
    busy: HashSet<usize>,
    /// Batches in the queues.
    waiting: usize,
    /// Whether any batch lost its sandbox.
    any_lost: bool,
    /// Workers that were told to leave and have not yet.
    leaving: usize,
    queue: Queue<Receiver<Work>>,
    sender: Queue<Sender<Work>>,
    shared: &'a Shared,
    /// When the run was first seen to be stopping.
    stopped: Option<Instant>,
}

impl<F: FnMut(Event) -> Reaction> Collector<'_, F> {
    fn job(&mut self, batch: Batch) -> Job {
        let cancel = self.pool.cancel.child();
        self.outstanding.insert(batch.index, (cancel.clone(), batch.tests.len()));
        Job { batch, cancel, avoid: None, is_suspect: false }
    }

    fn collect(mut self, inbox: &Receiver<Event>) {
        while !self.outstanding.is_empty() {
            let event = match inbox.recv_timeout(TICK) {
                Ok(event) => event,
                Err(RecvTimeoutError::Timeout) => Event::Tick,
                Err(RecvTimeoutError::Disconnected) => {
                    self.queue_again();
                    self.drop_waiting("no sandbox is left");
                    break;
                }
            };
            self.hear(event);
            self.hurry(false);
            self.queue_again();
            if self.pool.cancel.is_raised() {
                self.drop_waiting(STOPPED);
            } else if self.shared.alive.load(Ordering::SeqCst) == 0 && inbox.is_empty() {
                self.drop_waiting("no sandbox is left");
            }
            self.release();
        }
        self.hurry(true);
        let Collector { mut observe, queue, sender, shared, stopped, pool, .. } = self;
        // Closed queues end the workers, who destroy their sandboxes while the results are told.
        drop((sender, queue));
        observe(Event::Settled);
        loop {
            match inbox.recv_timeout(TICK) {
                Ok(event) => drop(observe(event)),
                Err(RecvTimeoutError::Timeout) => hurry(pool.cancel, &shared.making, stopped, true),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Ends sandboxes in the making that nobody waits for.
    fn hurry(&mut self, settled: bool) {
        if self.pool.cancel.is_raised() {
            self.stopped.get_or_insert_with(Instant::now);
        }
        hurry(self.pool.cancel, &self.shared.making, self.stopped, settled);
    }

    fn queue_again(&mut self) {
        let mut passed_on = self.shared.passed_on.lock().unwrap_or_else(PoisonError::into_inner);
        for job in passed_on.drain(..) {
            // We hold a receiver ourselves.
            let _ = self.sender.urgent.send(Work::Execute(job));
        }
    }

    fn hear(&mut self, event: Event) {
        let (slot, is_lost) = match &event {
            Event::Finished { slot, .. } => (Some(*slot), false),
            Event::Lost { slot, .. } => (Some(*slot), true),
            _ => (None, false),
        };
        self.any_lost |= is_lost;
        match &event {
            Event::Started { slot, .. } => {
                self.waiting = self.waiting.saturating_sub(1);
                self.busy.insert(*slot);
            }
            Event::Released { .. } => self.leaving = self.leaving.saturating_sub(1),
            Event::Finished { slot, batch, .. }
            | Event::Lost { slot, batch, .. }
            | Event::Refused { slot, batch, .. } => {
                self.busy.remove(slot);
                self.outstanding.remove(&batch.index);
            }
            Event::Dropped { batch, .. } => {
                self.waiting = self.waiting.saturating_sub(1);
                self.outstanding.remove(&batch.index);
            }
            Event::Ready { .. } | Event::Retired { .. } | Event::Settled | Event::Tick => {}
        }
        let Reaction { batches, abandon } = (self.observe)(event);
        if let Some((cancel, _)) = abandon.and_then(|batch| self.outstanding.get(&batch)) {
            cancel.raise_gracefully();
        }
        for batch in batches {
            self.waiting += 1;
            let avoid = slot.filter(|_| is_lost || batch.origin == Origin::Retry);
            let job = Job { avoid, is_suspect: is_lost, ..self.job(batch) };
            // We hold a receiver ourselves.
            let _ = self.sender.urgent.send(Work::Execute(job));
        }
    }

    /// Lets sandboxes go that nothing can come for: a batch that runs comes back as one batch for each
    /// of its tests at the most, the first of which has the sandbox of that batch. Where sandboxes are
    /// lost, it may be the turn of another worker.
    fn release(&mut self) {
        if self.waiting > 0 || self.outstanding.is_empty() {
            return;
        }
        let may_come: usize = self.outstanding.values().map(|(_, tests)| tests.saturating_sub(1)).sum();
        let kept = may_come + self.pool.spare + usize::from(self.any_lost) + self.busy.len() + self.leaving;
        let alive = self.shared.alive.load(Ordering::SeqCst);
        for _ in kept..alive {
            self.leaving += 1;
            let _ = self.sender.planned.send(Work::Leave);
        }
    }

    fn drop_waiting(&mut self, reason: &str) {
        while let Ok(work) = self.queue.urgent.try_recv().or_else(|_| self.queue.planned.try_recv()) {
            match work {
                Work::Execute(job) => self.hear(Event::Dropped { batch: job.batch, reason: reason.into() }),
                Work::Leave => self.leaving = self.leaving.saturating_sub(1),
            }
        }
    }
}

/// Ends sandboxes in the making: at once where there is nothing left to do for them; some time after a
/// wish to stop, so that most of them tell an id by which they can be destroyed; with force if forced.
fn hurry(cancel: &Cancel, making: &Cancel, stopped: Option<Instant>, settled: bool) {
    if cancel.urgency() == Urgency::Forced {
        while making.urgency() != Urgency::Forced {
            making.raise();
        }
    } else if stopped.map_or(settled, |since| since.elapsed() >= PATIENCE) {
        making.raise_gracefully();
    }
}

#[cfg(test)]
mod tests;
