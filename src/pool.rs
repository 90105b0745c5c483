//! The stage that executes: one thread a sandbox, fed by channels, and one thread that hears of all
//! that happens and decides what more there is to do.
//!
//! The work queue is unbounded and the events are bounded, so that neither side waits for the other.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded, select_biased, unbounded};

use crate::cancel::Cancel;
use crate::event::{Event, Execution, Reaction};
use crate::model::Batch;
use crate::provider::{Provider, ProviderError, Sandbox};

/// How often the collector looks up when nothing happens.
const TICK: Duration = Duration::from_millis(100);
/// A worker gives up after so many infrastructure errors in a row.
const STRIKES: u32 = 3;
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
    /// What they do.
    pub bench: &'a dyn Bench,
    /// Ends what runs and drops what waits.
    pub cancel: &'a Cancel,
}

/// The two queues: what came up during the run goes before what was planned.
struct Queue<T> {
    urgent: T,
    planned: T,
}

/// A batch, and the flag that ends this batch alone; it is a child of the run's.
struct Job {
    batch: Batch,
    cancel: Cancel,
}

/// Executes `batches` and all that `observe` adds, until nothing is left. `observe` runs on a thread
/// of its own, one event at a time.
pub fn run(pool: &Pool<'_>, batches: Vec<Batch>, observe: impl FnMut(Event) -> Reaction + Send) {
    let workers = pool.machines.min(batches.len());
    let (urgent, urgent_queue) = unbounded();
    let (planned, planned_queue) = unbounded();
    let (events, inbox) = bounded(2 * workers.max(1));
    let alive = AtomicUsize::new(workers);
    let mut collector = Collector {
        observe,
        cancel: pool.cancel,
        outstanding: HashMap::new(),
        queue: Queue { urgent: urgent_queue.clone(), planned: planned_queue.clone() },
        sender: urgent,
    };
    for batch in batches {
        // The collector holds a receiver: the channel cannot be closed.
        let _ = planned.send(collector.job(batch));
    }
    std::thread::scope(|scope| {
        for slot in 0..workers {
            let queue = Queue { urgent: urgent_queue.clone(), planned: planned_queue.clone() };
            let worker = Worker { slot, pool, events: events.clone(), alive: &alive };
            let name = std::thread::Builder::new().name(format!("sandbox {slot}"));
            if let Err(error) = name.stack_size(512 * 1024).spawn_scoped(scope, move || worker.work(&queue)) {
                alive.fetch_sub(1, Ordering::SeqCst);
                log::warn!("cannot start worker {slot}: {error}");
            }
        }
        drop((events, urgent_queue, planned_queue));
        let collect = || {
            collector.collect(&inbox, &alive);
            let Collector { mut observe, queue, sender, .. } = collector;
            // Closed queues end the workers; they may still have something to say.
            drop((planned, queue, sender));
            for event in inbox {
                observe(event);
            }
        };
        if let Err(error) = std::thread::Builder::new().name("collector".into()).spawn_scoped(scope, collect)
        {
            log::error!("cannot start the collector thread: {error}");
        }
    });
}

struct Collector<'a, F> {
    observe: F,
    cancel: &'a Cancel,
    /// Batches that wait or run, with what ends each of them.
    outstanding: HashMap<u32, Cancel>,
    queue: Queue<Receiver<Job>>,
    sender: Sender<Job>,
}

impl<F: FnMut(Event) -> Reaction> Collector<'_, F> {
    fn job(&mut self, batch: Batch) -> Job {
        let cancel = self.cancel.child();
        self.outstanding.insert(batch.index, cancel.clone());
        Job { batch, cancel }
    }

    fn collect(&mut self, inbox: &Receiver<Event>, alive: &AtomicUsize) {
        while !self.outstanding.is_empty() {
            let event = match inbox.recv_timeout(TICK) {
                Ok(event) => event,
                Err(RecvTimeoutError::Timeout) => Event::Tick,
                Err(RecvTimeoutError::Disconnected) => {
                    self.drop_waiting("no sandbox is left");
                    return;
                }
            };
            self.hear(event);
            if self.cancel.is_raised() {
                self.drop_waiting(STOPPED);
            } else if alive.load(Ordering::SeqCst) == 0 && inbox.is_empty() {
                self.drop_waiting("no sandbox is left");
            }
        }
    }

    fn hear(&mut self, event: Event) {
        if let Event::Finished { batch, .. }
        | Event::Lost { batch, .. }
        | Event::Refused { batch, .. }
        | Event::Dropped { batch, .. } = &event
        {
            self.outstanding.remove(&batch.index);
        }
        let Reaction { batches, abandon } = (self.observe)(event);
        if let Some(cancel) = abandon.and_then(|batch| self.outstanding.get(&batch)) {
            cancel.raise_gracefully();
        }
        for batch in batches {
            let job = self.job(batch);
            // We hold a receiver ourselves.
            let _ = self.sender.send(job);
        }
    }

    fn drop_waiting(&mut self, reason: &str) {
        while let Ok(job) = self.queue.urgent.try_recv().or_else(|_| self.queue.planned.try_recv()) {
            self.hear(Event::Dropped { batch: job.batch, reason: reason.into() });
        }
    }
}

struct Worker<'a> {
    slot: usize,
    pool: &'a Pool<'a>,
    events: Sender<Event>,
    alive: &'a AtomicUsize,
}

/// A sandbox that is destroyed whatever happens to its worker.
struct Held(Option<Box<dyn Sandbox>>);

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.take().map(Sandbox::destroy) {
            log::warn!("cannot destroy a sandbox: {error}");
        }
    }
}

impl Worker<'_> {
    fn tell(&self, event: Event) {
        // The collector outlives its need for events, not the other way round.
        let _ = self.events.send(event);
    }

    fn work(self, queue: &Queue<Receiver<Job>>) {
        let mut strikes = 0;
        let mut error = String::new();
        while strikes < STRIKES && !self.pool.cancel.is_raised() {
            match self.pool.provider.create(self.slot, self.pool.cancel) {
                Ok(sandbox) => {
                    self.tell(Event::Ready { slot: self.slot });
                    match self.serve(Held(Some(sandbox)), queue, &mut strikes) {
                        None => break,
                        Some(lost) => error = lost,
                    }
                }
                Err(ProviderError::Refused(refusal)) => {
                    error = refusal;
                    strikes = STRIKES;
                }
                Err(ProviderError::Lost(lost)) => {
                    error = lost;
                    strikes += 1;
                }
            }
        }
        self.alive.fetch_sub(1, Ordering::SeqCst);
        if strikes >= STRIKES {
            self.tell(Event::Retired { slot: self.slot, error });
        }
    }

    /// Executes until there is no more work (`None`) or the sandbox is lost (with the reason).
    fn serve(&self, mut held: Held, queue: &Queue<Receiver<Job>>, strikes: &mut u32) -> Option<String> {
        loop {
            let Job { batch, cancel } = select_biased! {
                recv(queue.urgent) -> job => job.ok()?,
                recv(queue.planned) -> job => job.ok()?,
            };
            if cancel.is_raised() {
                let stopped = self.pool.cancel.is_raised();
                let reason = if stopped { STOPPED } else { "it was abandoned before it started" };
                self.tell(Event::Dropped { batch, reason: reason.into() });
                continue;
            }
            let sandbox = held.0.as_deref_mut()?;
            self.tell(Event::Started { slot: self.slot, batch: batch.clone() });
            let execute = || self.pool.bench.execute(self.slot, &batch, sandbox, &cancel);
            let execution = catch_unwind(AssertUnwindSafe(execute)).unwrap_or_else(|_| {
                Err(ProviderError::Lost("the worker broke down; this is a fault of offload".into()))
            });
            match execution {
                Ok(execution) => {
                    *strikes = 0;
                    self.tell(Event::Finished { slot: self.slot, batch, execution });
                }
                Err(ProviderError::Refused(error)) => {
                    self.tell(Event::Refused { slot: self.slot, batch, error });
                }
                Err(error @ ProviderError::Lost(_)) => {
                    // A sandbox that does not survive a cancel is not to blame for it.
                    *strikes += u32::from(!cancel.is_raised());
                    self.tell(Event::Lost { slot: self.slot, batch, error: error.to_string() });
                    return Some(error.to_string());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
