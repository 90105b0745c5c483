//! What the dispatcher knows of a worker.

use crossbeam::channel::Sender;

use super::Order;
use crate::cancel::Cancel;
use crate::model::GroupIndex;

/// A worker gives up after this many failures of its sandboxes in a row.
pub(super) const FAILURE_BUDGET: u32 = 3;

/// A worker, as the dispatcher sees it.
pub(super) struct Slot {
    /// `None` once it was told to leave.
    pub(super) orders: Option<Sender<Order>>,
    pub(super) state: State,
    /// Failures in a row.
    pub(super) failures: u32,
}

/// What a worker does.
#[derive(Debug)]
pub(super) enum State {
    /// It has no sandbox.
    Empty,
    /// It destroys a sandbox that is of no more use.
    Destroying,
    /// It makes one.
    Making,
    /// Its sandbox does nothing.
    Idle,
    /// Its sandbox executes a batch.
    Busy(Busy),
    /// It leaves, or has left.
    Gone,
}

/// A batch that runs.
#[derive(Debug)]
pub(super) struct Busy {
    pub(super) batch: u32,
    pub(super) group: GroupIndex,
    /// How many tests it has.
    pub(super) tests: usize,
    /// Ends this batch alone.
    pub(super) cancel: Cancel,
    pub(super) is_suspect: bool,
}

impl Slot {
    pub(super) fn new(orders: Sender<Order>) -> Slot {
        Slot { orders: Some(orders), state: State::Empty, failures: 0 }
    }

    /// Gives the worker an order.
    pub(super) fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // A worker receives until we close its channel.
            let _ = orders.send(order);
        }
    }

    /// Lets the worker leave: it destroys its sandbox, if it has one.
    pub(super) fn leave(&mut self) {
        self.orders = None;
        self.state = State::Gone;
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    pub(super) fn is_making(&self) -> bool {
        matches!(self.state, State::Making)
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self.state, State::Empty)
    }

    pub(super) fn is_destroying(&self) -> bool {
        matches!(self.state, State::Destroying)
    }

    pub(super) fn is_gone(&self) -> bool {
        matches!(self.state, State::Gone)
    }

    pub(super) fn busy(&self) -> Option<&Busy> {
        if let State::Busy(busy) = &self.state { Some(busy) } else { None }
    }
}
