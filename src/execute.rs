//! The stage that executes: a thread for each sandbox, each fed by a channel of its own; a dispatcher, which
//! alone decides who does what; and the collector's thread, which hears of everything that happened and
//! decides what more there is to do.
//!
//! All channels are unbounded, so that nobody waits for a reader; batches bound what is in them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use crate::cancel::Cancel;
use crate::event::{Event, Execution, Reaction};
use crate::model::{Batch, GroupLimit};
use crate::provider::{Provider, ProviderError, Sandbox};

mod creates;
mod dispatcher;
pub mod executor;
mod queue;
mod slot;
mod worker;

use dispatcher::Dispatcher;
use worker::Worker;

/// How often the dispatcher and the collector look at the clock when nothing happens.
const TICK: Duration = Duration::from_millis(100);

/// Executes batches in sandboxes.
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

/// The workers of a run.
pub struct Pool<'a> {
    /// The maker of sandboxes.
    pub provider: &'a dyn Provider,
    /// Maximum number of sandboxes.
    pub machines: usize,
    /// The groups that have a maximum number of batches at once.
    pub limits: &'a [GroupLimit],
    /// How many idle ones are kept beside those that may be needed, while anything runs.
    pub spare: usize,
    /// What they do.
    pub executor: &'a dyn Executor,
    /// Ends what runs and drops what waits. Also raised when the collector breaks down.
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

/// What the dispatcher asks of a worker. A worker leaves when its channel is closed.
enum Order {
    /// Make a sandbox.
    Create,
    /// Execute a batch in it, until the flag is raised.
    Execute(Batch, Cancel),
    /// Destroy it.
    Discard,
}

/// What the dispatcher hears.
enum Message {
    /// A worker has a sandbox.
    Created { slot: usize },
    /// A worker could not make one.
    NotCreated { slot: usize, error: ProviderError },
    /// A worker has executed a batch, or could not.
    Executed { slot: usize, batch: Batch, result: Result<Execution, ProviderError>, is_usable: bool },
    /// The sandbox of a worker was of no more use, and is destroyed.
    Emptied { slot: usize },
    /// A worker has left; its sandbox is destroyed.
    Left { slot: usize },
    /// What follows, by the collector, from the end of a batch.
    Answer { ended: Ended, reaction: Reaction },
    /// What follows, by the collector, from anything else.
    Idea(Reaction),
    /// The collector cannot go on.
    Broken,
}

/// The end of a batch, as far as it decides where what follows is to run.
#[derive(Clone, Copy, Debug)]
struct Ended {
    batch: u32,
    slot: usize,
    is_lost: bool,
}

impl Ended {
    fn of(event: &Event) -> Option<Ended> {
        match event {
            Event::Finished { slot, batch, .. } | Event::Refused { slot, batch, .. } => {
                Some(Ended { batch: batch.index, slot: *slot, is_lost: false })
            }
            Event::Lost { slot, batch, .. } => Some(Ended { batch: batch.index, slot: *slot, is_lost: true }),
            _ => None,
        }
    }
}

/// Executes `batches` and all that `observe` adds, until nothing is left and every sandbox is destroyed.
/// `observe` runs on a thread of its own, one event at a time; it hears [`Event::Settled`] once. Where it
/// panics the run is cancelled, and it hears nothing more.
pub fn run(pool: &Pool<'_>, batches: Vec<Batch>, observe: impl FnMut(Event) -> Reaction + Send) -> Usage {
    let workers = pool.machines.min(batches.len());
    let (sender, inbox) = unbounded();
    let (events, happened) = unbounded();
    let usage = Mutex::default();
    let mut dispatcher = Dispatcher::new(pool, batches, events);
    let making = dispatcher.making();
    std::thread::scope(|scope| {
        let answers = sender.clone();
        let collect = move || collect(observe, &happened, &answers, pool.cancel);
        // First: without it nobody would decide what becomes of what workers begin.
        let collector = std::thread::Builder::new().name("collector".into()).spawn_scoped(scope, collect);
        if let Err(error) = collector {
            log::error!("cannot start the collector thread: {error}");
            return;
        }
        for _ in 0..workers {
            let slot = dispatcher.workers();
            let (orders, received) = unbounded();
            let worker = Worker::new(slot, pool, sender.clone(), &usage, making.clone());
            let name = std::thread::Builder::new().name(format!("sandbox {slot}"));
            match name.stack_size(512 * 1024).spawn_scoped(scope, move || worker.work(&received)) {
                Ok(_) => dispatcher.add(orders),
                Err(error) => log::warn!("cannot start worker {slot}: {error}"),
            }
        }
        drop(sender);
        dispatcher.dispatch(&inbox);
    });
    usage.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Lets `observe` hear what `happened`, and answers the dispatcher.
fn collect(
    mut observe: impl FnMut(Event) -> Reaction,
    happened: &Receiver<Event>,
    answers: &Sender<Message>,
    cancel: &Cancel,
) {
    loop {
        let event = match happened.recv_timeout(TICK) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => Event::Tick,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let ended = Ended::of(&event);
        let Ok(reaction) = catch_unwind(AssertUnwindSafe(|| observe(event))) else { break };
        // The dispatcher hears until the events are closed; beyond that nothing can follow.
        let _ = match ended {
            Some(ended) => answers.send(Message::Answer { ended, reaction }),
            None if reaction == Reaction::default() => continue,
            None => answers.send(Message::Idea(reaction)),
        };
    }
    log::error!("the results cannot be collected; this is a bug in offload. The run is being stopped");
    cancel.raise_gracefully();
    let _ = answers.send(Message::Broken);
    // Nobody is to wait for us; what still happens is of no consequence.
    happened.iter().for_each(drop);
}

#[cfg(test)]
mod tests;
