//! A worker: receives orders, carries them out, tells.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crossbeam::channel::{Receiver, Sender};

use super::{Message, Order, Pool, Usage};
use crate::cancel::Cancel;
use crate::model::Batch;
use crate::provider::{ProviderError, Sandbox};

/// A thread and the sandboxes that it has, one after the other.
pub(super) struct Worker<'a> {
    slot: usize,
    pool: &'a Pool<'a>,
    messages: Sender<Message>,
    usage: &'a Mutex<Usage>,
    /// Ends sandboxes in the making.
    making: Cancel,
}

/// A sandbox that is destroyed whatever happens to its worker.
struct Held<'a> {
    sandbox: Option<Box<dyn Sandbox>>,
    since: Instant,
    usage: &'a Mutex<Usage>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let Some(sandbox) = self.sandbox.take() else { return };
        let destroyed = catch_unwind(AssertUnwindSafe(|| sandbox.destroy()));
        if let Err(error) = destroyed.unwrap_or_else(|_| bug("destroying a sandbox")) {
            log::error!("{error}");
        }
        let mut usage = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        usage.sandbox_time += self.since.elapsed();
        usage.sandboxes += 1;
    }
}

/// Says that a worker has left, however it leaves.
struct Leaving<'a>(&'a Worker<'a>);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.tell(Message::Left { slot: self.0.slot });
    }
}

fn bug<T>(what: &str) -> Result<T, ProviderError> {
    Err(ProviderError::Lost(format!("{what} panicked; this is a bug in offload")))
}

impl<'a> Worker<'a> {
    pub(super) fn new(
        slot: usize,
        pool: &'a Pool<'a>,
        messages: Sender<Message>,
        usage: &'a Mutex<Usage>,
        making: Cancel,
    ) -> Worker<'a> {
        Worker { slot, pool, messages, usage, making }
    }

    fn tell(&self, message: Message) {
        // The dispatcher hears until the last worker has left.
        let _ = self.messages.send(message);
    }

    /// Carries out `orders` until they are closed.
    pub(super) fn work(self, orders: &Receiver<Order>) {
        let _leaving = Leaving(&self);
        let mut held = None;
        for order in orders {
            match order {
                Order::Create => match self.create() {
                    Ok(new) => {
                        held = Some(new);
                        self.tell(Message::Created { slot: self.slot });
                    }
                    Err(error) => self.tell(Message::NotCreated { slot: self.slot, error }),
                },
                Order::Discard => {
                    held = None;
                    self.tell(Message::Emptied { slot: self.slot });
                }
                Order::Execute(batch, cancel) => {
                    held = self.execute(held, batch, &cancel);
                    if held.is_none() {
                        self.tell(Message::Emptied { slot: self.slot });
                    }
                }
            }
        }
        // Before it is told that this worker has left.
        drop(held);
    }

    fn create(&self) -> Result<Held<'a>, ProviderError> {
        if self.making.is_raised() {
            return Err(ProviderError::Refused("the run was stopped before the sandbox was made".into()));
        }
        let since = Instant::now();
        let create = || self.pool.provider.create(self.slot, &self.making);
        let sandbox = catch_unwind(AssertUnwindSafe(create)).unwrap_or_else(|_| bug("making a sandbox"))?;
        Ok(Held { sandbox: Some(sandbox), since, usage: self.usage })
    }

    /// Executes a batch; gives the sandbox back if more can run in it. One that is of no more use is destroyed
    /// after the end of the batch was told.
    fn execute(&self, held: Option<Held<'a>>, batch: Batch, cancel: &Cancel) -> Option<Held<'a>> {
        let mut held = held?;
        let sandbox = held.sandbox.as_deref_mut()?;
        let execute = || self.pool.executor.execute(self.slot, &batch, sandbox, cancel);
        let result =
            catch_unwind(AssertUnwindSafe(execute)).unwrap_or_else(|_| bug("the execution of a batch"));
        let is_broken = matches!(result, Err(ProviderError::Lost(_) | ProviderError::Throttled(_)));
        let is_usable = !is_broken && held.sandbox.as_ref().is_some_and(|sandbox| sandbox.is_usable());
        self.tell(Message::Executed { slot: self.slot, batch, result, is_usable });
        is_usable.then_some(held)
    }
}
