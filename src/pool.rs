//! The stage that executes: one thread a sandbox, fed by channels, and one thread that hears of all
//! that happens and decides what more there is to do.
//!
//! The work queue is unbounded and the events are bounded, so that neither side waits for the other.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded, select_biased, unbounded};

use crate::cancel::{Cancel, Urgency};
use crate::event::{Event, Execution, Reaction};
use crate::model::Batch;
use crate::provider::{Provider, ProviderError, Sandbox};

/// How often the collector looks up when nothing happens.
const TICK: Duration = Duration::from_millis(100);
/// A worker gives up after so many infrastructure errors in a row.
const STRIKES: u32 = 3;
/// So long after a wish to stop sandboxes in the making are let alone, to be destroyed once they are made:
/// ended before they tell an id, some providers leave them behind.
const PATIENCE: Duration = Duration::from_millis(2500);
/// Why a batch was not started.
const STOPPED: &str = "the run was stopped before it started";

/// Turns a batch into an execution in a sandbox. The one place where a batch becomes a command.
pub trait Bench: Sync {
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
    pub bench: &'a dyn Bench,
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
}

/// What workers and the collector share.
struct Shared {
    /// Workers that have not given up.
    alive: AtomicUsize,
    /// Ends sandboxes in the making.
    making: Cancel,
    usage: Mutex<Usage>,
}

/// Executes `batches` and all that `observe` adds, until nothing is left and every sandbox is destroyed.
/// `observe` runs on a thread of its own, one event at a time; it hears [`Event::Settled`] once.
pub fn run(pool: &Pool<'_>, batches: Vec<Batch>, observe: impl FnMut(Event) -> Reaction + Send) -> Usage {
    let workers = pool.machines.min(batches.len());
    let (urgent, urgent_queue) = unbounded();
    let (planned, planned_queue) = unbounded();
    let (events, inbox) = bounded(2 * workers.max(1));
    let shared = Shared { alive: AtomicUsize::new(workers), making: Cancel::new(), usage: Mutex::default() };
    let mut collector = Collector {
        observe,
        pool,
        outstanding: HashMap::new(),
        busy: HashSet::new(),
        waiting: batches.len(),
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
        for slot in 0..workers {
            let queue = Queue { urgent: urgent_queue.clone(), planned: planned_queue.clone() };
            let is_alive = Cell::new(true);
            let worker = Worker { slot, pool, events: events.clone(), shared: &shared, is_alive };
            let name = std::thread::Builder::new().name(format!("sandbox {slot}"));
            if let Err(error) = name.stack_size(512 * 1024).spawn_scoped(scope, move || worker.work(&queue)) {
                shared.alive.fetch_sub(1, Ordering::SeqCst);
                log::warn!("cannot start worker {slot}: {error}");
            }
        }
        drop((events, urgent_queue, planned_queue));
        let collect = || collector.collect(&inbox);
        if let Err(error) = std::thread::Builder::new().name("collector".into()).spawn_scoped(scope, collect)
        {
            log::error!("cannot start the collector thread: {error}");
        }
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
        Job { batch, cancel }
    }

    fn collect(mut self, inbox: &Receiver<Event>) {
        while !self.outstanding.is_empty() {
            let event = match inbox.recv_timeout(TICK) {
                Ok(event) => event,
                Err(RecvTimeoutError::Timeout) => Event::Tick,
                Err(RecvTimeoutError::Disconnected) => {
                    self.drop_waiting("no sandbox is left");
                    break;
                }
            };
            self.hear(event);
            self.hurry(false);
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

    fn hear(&mut self, event: Event) {
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
            let job = self.job(batch);
            // We hold a receiver ourselves.
            let _ = self.sender.urgent.send(Work::Execute(job));
        }
    }

    /// Lets sandboxes go that nothing can come for: a batch that runs comes back as one batch for each
    /// of its tests at the most, the first of which has the sandbox of that batch.
    fn release(&mut self) {
        if self.waiting > 0 || self.outstanding.is_empty() {
            return;
        }
        let may_come: usize = self.outstanding.values().map(|(_, tests)| tests.saturating_sub(1)).sum();
        let kept = may_come + self.pool.spare + self.busy.len() + self.leaving;
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

struct Worker<'a> {
    slot: usize,
    pool: &'a Pool<'a>,
    events: Sender<Event>,
    shared: &'a Shared,
    /// Whether it counts among those that are alive.
    is_alive: Cell<bool>,
}

/// A sandbox that is destroyed whatever happens to its worker.
struct Held<'a> {
    sandbox: Option<Box<dyn Sandbox>>,
    since: Instant,
    usage: &'a Mutex<Usage>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.sandbox.take().map(Sandbox::destroy) {
            log::error!("{error}");
        }
        let mut usage = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        usage.sandbox_time += self.since.elapsed();
        usage.sandboxes += 1;
    }
}

/// Why a worker stops working in a sandbox.
enum Next {
    /// There is nothing more to do.
    Leave,
    /// The sandbox is gone; the reason.
    Lost(String),
    /// The sandbox is of no more use, without a fault.
    Spent,
}

impl<'a> Worker<'a> {
    fn tell(&self, event: Event) {
        // The collector outlives its need for events, not the other way round.
        let _ = self.events.send(event);
    }

    /// Takes itself off the number of those who may still execute.
    fn retire(&self) {
        if self.is_alive.replace(false) {
            self.shared.alive.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn is_stopped(&self) -> bool {
        self.pool.cancel.is_raised() || self.shared.making.is_raised()
    }

    fn work(self, queue: &Queue<Receiver<Work>>) {
        let mut strikes = 0;
        let mut error = String::new();
        let mut first = None;
        while strikes < STRIKES && !self.is_stopped() {
            match self.make() {
                Ok(held) => {
                    self.tell(Event::Ready { slot: self.slot });
                    match self.serve(held, queue, first.take(), &mut strikes) {
                        Next::Leave => break,
                        Next::Lost(lost) => error = lost,
                        Next::Spent => {}
                    }
                }
                Err(ProviderError::Refused(refusal) | ProviderError::Throttled(refusal)) => {
                    error = refusal;
                    strikes = STRIKES;
                }
                Err(ProviderError::Lost(lost)) => {
                    error = lost;
                    strikes += 1;
                }
            }
            // Another sandbox is made only for work that is there.
            if strikes < STRIKES && first.is_none() {
                first = self.next(queue);
                if first.is_none() {
                    break;
                }
            }
        }
        self.retire();
        if let Some(Job { batch, .. }) = first {
            let error = if error.is_empty() { STOPPED.to_owned() } else { error.clone() };
            self.tell(Event::Started { slot: self.slot, batch: batch.clone() });
            self.tell(Event::Lost { slot: self.slot, batch, error });
        }
        if strikes >= STRIKES && !self.is_stopped() {
            self.tell(Event::Retired { slot: self.slot, error });
        }
    }

    fn make(&self) -> Result<Held<'a>, ProviderError> {
        let since = Instant::now();
        let sandbox = self.pool.provider.create(self.slot, &self.shared.making);
        sandbox.map(|sandbox| Held { sandbox: Some(sandbox), since, usage: &self.shared.usage })
    }

    /// The next batch to execute; `None` when there is nothing more for this worker.
    fn next(&self, queue: &Queue<Receiver<Work>>) -> Option<Job> {
        loop {
            let work = select_biased! {
                recv(queue.urgent) -> work => work.ok()?,
                recv(queue.planned) -> work => work.ok()?,
            };
            let Work::Execute(Job { batch, cancel }) = work else {
                // Before it is told: the collector counts those that are left.
                self.retire();
                self.tell(Event::Released { slot: self.slot });
                return None;
            };
            if !cancel.is_raised() {
                return Some(Job { batch, cancel });
            }
            let stopped = self.pool.cancel.is_raised();
            let reason = if stopped { STOPPED } else { "it was abandoned before it started" };
            self.tell(Event::Dropped { batch, reason: reason.into() });
        }
    }

    /// Executes, `first` before all else, as long as there is work and the sandbox is of use.
    fn serve(
        &self,
        mut held: Held<'_>,
        queue: &Queue<Receiver<Work>>,
        mut first: Option<Job>,
        strikes: &mut u32,
    ) -> Next {
        loop {
            let Some(Job { batch, cancel }) = first.take().or_else(|| self.next(queue)) else {
                return Next::Leave;
            };
            let Some(sandbox) = held.sandbox.as_deref_mut() else { return Next::Spent };
            self.tell(Event::Started { slot: self.slot, batch: batch.clone() });
            let execute = || self.pool.bench.execute(self.slot, &batch, sandbox, &cancel);
            let execution = catch_unwind(AssertUnwindSafe(execute)).unwrap_or_else(|_| {
                Err(ProviderError::Lost("the worker broke down; this is a fault of offload".into()))
            });
            match execution {
                Ok(execution) => {
                    *strikes = 0;
                    self.tell(Event::Finished { slot: self.slot, batch, execution });
                    if !held.sandbox.as_ref().is_some_and(|sandbox| sandbox.is_usable()) {
                        return Next::Spent;
                    }
                }
                Err(ProviderError::Refused(error)) => {
                    self.tell(Event::Refused { slot: self.slot, batch, error });
                }
                Err(ProviderError::Lost(error) | ProviderError::Throttled(error)) => {
                    // A sandbox that does not survive a cancel is not to blame for it.
                    *strikes += u32::from(!cancel.is_raised());
                    self.tell(Event::Lost { slot: self.slot, batch, error: error.clone() });
                    return Next::Lost(error);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
