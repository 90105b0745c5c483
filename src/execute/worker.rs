//! A worker of the pool.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, select_biased};

use super::{Job, Pool, Queue, STOPPED, STRIKES, Shared, Usage, Work};
use crate::event::{Event, Execution};
use crate::model::Exit;
use crate::provider::{ProviderError, Sandbox};

/// A thread and the sandboxes that it has, one after the other.
pub(super) struct Worker<'a> {
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
    pub(super) fn new(
        slot: usize,
        pool: &'a Pool<'a>,
        events: Sender<Event>,
        shared: &'a Shared,
    ) -> Worker<'a> {
        Worker { slot, pool, events, shared, is_alive: Cell::new(true) }
    }

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

    /// Makes a sandbox and executes in it until nothing is left for it.
    pub(super) fn work(self, queue: &Queue<Receiver<Work>>) {
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
        if let Some(job) = first {
            // It never had a sandbox. Before this worker is off the number of those who may take it.
            self.shared.pass_on(job);
        }
        self.retire();
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
        // The first that is to run elsewhere, as long as there may be other work.
        let mut avoided: Option<Job> = None;
        loop {
            let work = match queue.urgent.try_recv().or_else(|_| queue.planned.try_recv()) {
                Ok(work) => work,
                // All others are busy: better here than later.
                Err(_) if avoided.is_some() && self.shared.idle.load(Ordering::SeqCst) == 0 => {
                    return avoided;
                }
                Err(_) => {
                    avoided.take().into_iter().for_each(|job| self.shared.pass_on(job));
                    self.wait(queue)?
                }
            };
            let Work::Execute(job) = work else {
                if avoided.is_some() {
                    // There is work again.
                    return avoided;
                }
                // Before it is told: the collector counts those that are left.
                self.retire();
                self.tell(Event::Released { slot: self.slot });
                return None;
            };
            if job.cancel.is_raised() {
                let stopped = self.pool.cancel.is_raised();
                let reason = if stopped { STOPPED } else { "it was abandoned before it started" };
                self.tell(Event::Dropped { batch: job.batch, reason: reason.into() });
            } else if job.avoid != Some(self.slot) {
                avoided.into_iter().for_each(|job| self.shared.pass_on(job));
                return Some(job);
            } else if avoided.is_none() {
                avoided = Some(job);
            } else {
                self.shared.pass_on(job);
            }
        }
    }

    fn wait(&self, queue: &Queue<Receiver<Work>>) -> Option<Work> {
        self.shared.idle.fetch_add(1, Ordering::SeqCst);
        let work = select_biased! {
            recv(queue.urgent) -> work => work.ok(),
            recv(queue.planned) -> work => work.ok(),
        };
        self.shared.idle.fetch_sub(1, Ordering::SeqCst);
        work
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
            let Some(job) = first.take().or_else(|| self.next(queue)) else { return Next::Leave };
            let Job { batch, cancel, is_suspect, .. } = job;
            let Some(sandbox) = held.sandbox.as_deref_mut() else { return Next::Spent };
            self.tell(Event::Started { slot: self.slot, batch: batch.clone() });
            let execute = || self.pool.bench.execute(self.slot, &batch, sandbox, &cancel);
            let execution = catch_unwind(AssertUnwindSafe(execute)).unwrap_or_else(|_| {
                Err(ProviderError::Lost("the worker broke down; this is a fault of offload".into()))
            });
            match execution {
                Ok(execution) => {
                    *strikes = 0;
                    self.shared.row.store(0, Ordering::SeqCst);
                    self.tell(Event::Finished { slot: self.slot, batch, execution });
                    if !held.sandbox.as_ref().is_some_and(|sandbox| sandbox.is_usable()) {
                        return Next::Spent;
                    }
                }
                Err(ProviderError::Refused(error)) => {
                    self.tell(Event::Refused { slot: self.slot, batch, error });
                }
                Err(ProviderError::Lost(_) | ProviderError::Throttled(_)) if self.pool.cancel.is_raised() => {
                    self.tell(Event::Finished { slot: self.slot, batch, execution: cancelled() });
                    return Next::Spent;
                }
                Err(ProviderError::Lost(error) | ProviderError::Throttled(error)) => {
                    // A sandbox that does not survive a cancel is not to blame for it.
                    let is_forgiven = cancel.is_raised() || (self.shared.forgives() && is_suspect);
                    *strikes += u32::from(!is_forgiven);
                    self.tell(Event::Lost { slot: self.slot, batch, error: error.clone() });
                    return Next::Lost(error);
                }
            }
        }
    }
}

/// The execution of a batch whose sandbox did not survive the wish to stop: nobody is to blame for that.
fn cancelled() -> Execution {
    Execution {
        exit: Exit::Cancelled,
        elapsed: Duration::ZERO,
        whole: Duration::ZERO,
        leaked: false,
        report: None,
        ended: None,
    }
}
