//! The dispatcher: owns who does what. It alone gives batches to sandboxes, has sandboxes made and lets
//! workers leave.

use std::collections::HashMap;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender};

use super::creates::Creates;
use super::queue::{Job, Queue, Tests};
use super::slot::{Busy, FAILURE_BUDGET, Slot, State};
use super::{Ended, Message, Order, Pool, TICK};
use crate::cancel::Cancel;
use crate::event::{Event, Execution, Reaction};
use crate::model::{Batch, Exit};
use crate::provider::ProviderError;

/// The loss of a batch that was lost before is blamed on its tests, not on its worker, but only up to this many
/// losses in a row in all sandboxes: beyond that it is the provider.
const CONSECUTIVE_LOSSES: u32 = 12;
/// The same until something has worked in any sandbox.
const FIRST_LOSSES: u32 = 3;
/// Why a batch was not started.
const STOPPED: &str = "the run was stopped before it started";
const ABANDONED: &str = "it was abandoned before it started";
const NO_SANDBOX: &str = "no sandbox is left";

pub(super) struct Dispatcher<'a> {
    pool: &'a Pool<'a>,
    queue: Queue,
    slots: Vec<Slot>,
    /// Workers that have not left.
    living: usize,
    /// Batches that have ended, and the collector has not said yet what follows.
    unanswered: HashMap<u32, Tests>,
    /// What happens, for the collector.
    events: Sender<Event>,
    creates: Creates,
    /// Losses in a row, in all sandboxes. It begins so near the limit that few are forgiven at first.
    losses: u32,
    any_lost: bool,
    /// The collector answers no more.
    is_broken: bool,
}

impl<'a> Dispatcher<'a> {
    /// A dispatcher of `batches` that tells what happens to `events`.
    pub(super) fn new(pool: &'a Pool<'a>, batches: Vec<Batch>, events: Sender<Event>) -> Dispatcher<'a> {
        Dispatcher {
            pool,
            queue: Queue::new(batches, pool.limits),
            slots: Vec::new(),
            living: 0,
            unanswered: HashMap::new(),
            events,
            creates: Creates::new(pool.provider.creates_may_be_ended()),
            losses: CONSECUTIVE_LOSSES - FIRST_LOSSES,
            any_lost: false,
            is_broken: false,
        }
    }

    /// The flag that ends sandboxes in the making.
    pub(super) fn making(&self) -> Cancel {
        self.creates.cancel.clone()
    }

    /// The number of workers so far: the slot of the next one.
    pub(super) fn workers(&self) -> usize {
        self.slots.len()
    }

    /// Adds a worker that takes `orders`.
    pub(super) fn add(&mut self, orders: Sender<Order>) {
        self.slots.push(Slot::new(orders));
        self.living += 1;
    }

    /// Has everything executed; returns when every worker has left.
    pub(super) fn dispatch(mut self, inbox: &Receiver<Message>) {
        loop {
            self.creates.look(self.pool.cancel);
            self.advance();
            if self.is_settled() {
                break;
            }
            self.listen(inbox);
        }
        self.creates.settle();
        self.slots.iter_mut().for_each(Slot::leave);
        // Workers destroy their sandboxes while the collector tells the results.
        self.tell(Event::Settled);
        while self.living > 0 {
            self.creates.look(self.pool.cancel);
            self.listen(inbox);
        }
    }

    fn tell(&self, event: Event) {
        // The collector hears until we are gone.
        let _ = self.events.send(event);
    }

    fn is_settled(&self) -> bool {
        self.queue.is_empty()
            && self.unanswered.is_empty()
            && self.slots.iter().all(|slot| slot.busy().is_none())
    }

    /// Does all that can be done now.
    fn advance(&mut self) {
        if self.pool.cancel.is_raised() {
            self.drop_waiting(STOPPED);
        } else {
            self.assign();
            self.staff();
            self.release();
        }
        if self.slots.iter().all(Slot::is_gone) {
            self.drop_waiting(NO_SANDBOX);
        }
    }

    /// Gives waiting batches to idle sandboxes.
    fn assign(&mut self) {
        while let Some((slot, job)) = self.pick() {
            let Job { batch, is_suspect, .. } = job;
            let cancel = self.pool.cancel.child();
            let busy = Busy {
                batch: batch.index,
                group: batch.group,
                tests: batch.tests.len(),
                cancel: cancel.clone(),
                is_suspect,
            };
            self.slots[slot].state = State::Busy(busy);
            self.tell(Event::Started { slot, batch: batch.clone() });
            self.slots[slot].order(Order::Execute(batch, cancel));
        }
    }

    /// The next batch and an idle sandbox for it: elsewhere than where it failed, if there is a choice. A sandbox
    /// that is the wrong one takes other work, if there is any; if there is none, better here than later.
    fn pick(&mut self) -> Option<(usize, Job)> {
        let idle = |slot: &usize| self.slots[*slot].is_idle();
        let first = (0..self.slots.len()).find(idle)?;
        if !self.queue.avoids(first) {
            return Some((first, self.queue.next()?));
        }
        if let Some(other) = (first + 1..self.slots.len()).find(idle) {
            return Some((other, self.queue.next()?));
        }
        let job = self.queue.next_for(first).or_else(|| self.queue.next())?;
        Some((first, job))
    }

    /// Has sandboxes made for batches that wait for one.
    fn staff(&mut self) {
        let making = self.slots.iter().filter(|slot| slot.is_making()).count();
        let wanted = self.queue.startable().saturating_sub(making);
        for slot in self.slots.iter_mut().filter(|slot| slot.is_empty()).take(wanted) {
            slot.state = State::Making;
            slot.order(Order::Create);
        }
    }

    /// Lets workers go that no work can reach. While batches wait for others of their groups to end, only sandboxes go
    /// that none of them can use; their workers stay.
    fn release(&mut self) {
        if self.is_settled() {
            return;
        }
        if !self.queue.is_empty() {
            if self.queue.has_limits() && self.slots.iter().any(Slot::is_idle) {
                self.discard();
            }
            return;
        }
        let kinds = [Slot::is_empty, Slot::is_destroying, Slot::is_making, Slot::is_idle];
        let free = self.slots.iter().filter(|slot| kinds.iter().any(|is| is(slot))).count();
        let mut leaving = free.saturating_sub(self.kept());
        // Those that are there serve at once.
        for is_next in kinds {
            for slot in 0..self.slots.len() {
                if leaving > 0 && is_next(&self.slots[slot]) {
                    leaving -= 1;
                    self.slots[slot].leave();
                    self.tell(Event::Released { slot });
                }
            }
        }
    }

    /// Has idle sandboxes destroyed that no work can reach.
    fn discard(&mut self) {
        let idle = (0..self.slots.len()).filter(|slot| self.slots[*slot].is_idle());
        for slot in idle.skip(self.kept()).collect::<Vec<usize>>() {
            self.slots[slot].state = State::Destroying;
            self.slots[slot].order(Order::Discard);
            self.tell(Event::Emptied { slot });
        }
    }

    /// How many sandboxes may be of use beside those at work: a batch that runs comes back as at most one batch for
    /// each of its tests, the first of which has the sandbox of that batch. Where sandboxes are lost, another may be
    /// needed.
    fn kept(&self) -> usize {
        let running = self.slots.iter().filter_map(Slot::busy);
        let running = running.map(|busy| Tests { group: busy.group, count: busy.tests.saturating_sub(1) });
        let may_come = self.queue.demand(running.chain(self.unanswered.values().copied()));
        may_come + self.pool.spare + usize::from(self.any_lost)
    }

    fn drop_waiting(&mut self, reason: &str) {
        while let Some(job) = self.queue.drop_one() {
            self.tell(Event::Dropped { batch: job.batch, reason: reason.into() });
        }
    }

    /// Waits for a message, or some time.
    fn listen(&mut self, inbox: &Receiver<Message>) {
        let Ok(message) = inbox.recv_timeout(TICK) else { return };
        match message {
            Message::Created { slot } => {
                if self.slots[slot].is_making() {
                    self.slots[slot].state = State::Idle;
                    self.tell(Event::Ready { slot });
                }
            }
            Message::NotCreated { slot, error } => self.not_created(slot, error),
            Message::Executed { slot, batch, result, is_usable } => {
                self.executed(slot, batch, result, is_usable);
            }
            Message::Emptied { slot } => {
                if self.slots[slot].is_destroying() {
                    self.slots[slot].state = State::Empty;
                }
            }
            Message::Left { slot } => {
                self.living -= 1;
                self.slots[slot].leave();
            }
            Message::Answer { ended, reaction } => {
                self.unanswered.remove(&ended.batch);
                self.follow(reaction, Some(ended));
            }
            Message::Idea(reaction) => self.follow(reaction, None),
            Message::Broken => {
                self.is_broken = true;
                self.unanswered.clear();
            }
        }
    }

    fn follow(&mut self, reaction: Reaction, ended: Option<Ended>) {
        for batch in reaction.batches {
            self.queue.add(batch, ended);
        }
        let Some(unwanted) = reaction.abandon else { return };
        let running = self.slots.iter().filter_map(Slot::busy).find(|busy| busy.batch == unwanted);
        if let Some(busy) = running {
            busy.cancel.raise_gracefully();
        } else if let Some(job) = self.queue.take(unwanted) {
            self.tell(Event::Dropped { batch: job.batch, reason: ABANDONED.into() });
        }
    }

    fn not_created(&mut self, slot: usize, error: ProviderError) {
        if !self.slots[slot].is_making() || self.pool.cancel.is_raised() {
            self.slots[slot].leave();
            return;
        }
        match error {
            ProviderError::Refused(error) | ProviderError::Throttled(error) => self.retire(slot, error),
            ProviderError::Lost(error) => {
                self.slots[slot].state = State::Empty;
                self.fail(slot, error);
            }
        }
    }

    /// Counts a failure; the worker makes another sandbox when there is work for it, or gives up.
    fn fail(&mut self, slot: usize, error: String) {
        self.slots[slot].failures += 1;
        if self.slots[slot].failures >= FAILURE_BUDGET {
            self.retire(slot, error);
        }
    }

    fn retire(&mut self, slot: usize, error: String) {
        self.slots[slot].leave();
        self.tell(Event::Retired { slot, error });
    }

    fn executed(
        &mut self,
        slot: usize,
        batch: Batch,
        result: Result<Execution, ProviderError>,
        is_usable: bool,
    ) {
        let state = if is_usable { State::Idle } else { State::Destroying };
        let State::Busy(busy) = std::mem::replace(&mut self.slots[slot].state, state) else { return };
        self.queue.ended(busy.group);
        let emptied = (!is_usable).then_some(Event::Emptied { slot });
        if !self.is_broken {
            self.unanswered.insert(busy.batch, Tests { group: busy.group, count: busy.tests });
        }
        match result {
            Ok(execution) => {
                self.slots[slot].failures = 0;
                self.losses = 0;
                self.tell(Event::Finished { slot, batch, execution });
            }
            Err(ProviderError::Refused(error)) => self.tell(Event::Refused { slot, batch, error }),
            Err(_) if self.pool.cancel.is_raised() => {
                self.tell(Event::Finished { slot, batch, execution: cancelled() });
            }
            Err(ProviderError::Lost(error) | ProviderError::Throttled(error)) => {
                self.any_lost = true;
                self.tell(Event::Lost { slot, batch, error: error.clone() });
                if !self.is_forgiven(&busy) {
                    self.fail(slot, error);
                }
            }
        }
        emptied.into_iter().for_each(|event| self.tell(event));
    }

    /// Whether a loss does not count against its worker.
    fn is_forgiven(&mut self, busy: &Busy) -> bool {
        // A sandbox that does not survive a cancel is not to blame for it.
        if busy.cancel.is_raised() {
            return true;
        }
        self.losses += 1;
        self.losses <= CONSECUTIVE_LOSSES && busy.is_suspect
    }
}

impl Drop for Dispatcher<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Nobody waits for what runs.
            self.pool.cancel.raise_gracefully();
            self.creates.cancel.raise_gracefully();
        }
    }
}

/// The execution of a batch whose sandbox was lost while the run was stopping: nothing is to blame for that.
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
