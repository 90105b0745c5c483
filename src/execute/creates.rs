//! When sandboxes in the making are ended.

use std::time::{Duration, Instant};

use crate::cancel::{Cancel, Urgency};

/// How long after a signal creates may end by themselves. Clients that are ended seldom undo what they asked for, and
/// then nobody knows the id of the sandbox.
const AFTER_A_SIGNAL: Duration = Duration::from_secs(4);
/// The same at the end of a run, when the results are out.
const AT_THE_END: Duration = Duration::from_secs(30);

/// Ends sandboxes in the making that nobody waits for.
#[derive(Debug)]
pub(super) struct Creates {
    /// Ends them.
    pub(super) cancel: Cancel,
    /// Whether they can be ended at any time, and none stays that nobody knows of.
    may_be_ended: bool,
    stopped: Option<Instant>,
    settled: Option<Instant>,
}

impl Creates {
    pub(super) fn new(may_be_ended: bool) -> Creates {
        Creates { cancel: Cancel::new(), may_be_ended, stopped: None, settled: None }
    }

    /// Nothing is left to execute.
    pub(super) fn settle(&mut self) {
        self.settled.get_or_insert_with(Instant::now);
    }

    /// Ends what is to be ended by now; `run` is the flag of the run.
    pub(super) fn look(&mut self, run: &Cancel) {
        if run.urgency() == Urgency::Forced {
            return self.cancel.force();
        }
        if run.is_raised() {
            self.stopped.get_or_insert_with(Instant::now);
        }
        let is_over = |since: Option<Instant>, patience| {
            since.is_some_and(|since| self.may_be_ended || since.elapsed() >= patience)
        };
        if is_over(self.stopped, AFTER_A_SIGNAL) || is_over(self.settled, AT_THE_END) {
            self.cancel.raise_gracefully();
        }
    }
}
