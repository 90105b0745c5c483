//! The wish to stop, shared by all threads: asked for once, and a second time with force.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// How urgently the run is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Nobody asked to stop.
    None,
    /// Children get TERM and a grace before KILL.
    Graceful,
    /// Children get KILL at once.
    Forced,
}

/// A flag that many threads read and anybody may raise; it is never lowered.
///
/// A child flag ([`Cancel::child`]) is raised by itself or by its parent.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    level: Arc<AtomicU8>,
    parent: Option<Arc<Cancel>>,
}

impl Cancel {
    /// A flag that is not raised.
    pub fn new() -> Cancel {
        Cancel::default()
    }

    /// A flag of its own that is also raised whenever `self` is.
    pub fn child(&self) -> Cancel {
        Cancel { level: Arc::default(), parent: Some(Arc::new(self.clone())) }
    }

    /// Asks to stop; a second call asks with force.
    pub fn raise(&self) {
        let next = |level: u8| Some(level.saturating_add(1).min(2));
        // The closure never gives `None`, so the update cannot fail.
        let _ = self.level.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next);
    }

    /// Asks to stop once, however often it is called.
    pub fn raise_gracefully(&self) {
        self.level.fetch_max(1, Ordering::SeqCst);
    }

    /// How urgently to stop: the stronger of this flag's and its parent's.
    pub fn urgency(&self) -> Urgency {
        let own = match self.level.load(Ordering::SeqCst) {
            0 => Urgency::None,
            1 => Urgency::Graceful,
            _ => Urgency::Forced,
        };
        self.parent.as_ref().map_or(own, |parent| own.max(parent.urgency()))
    }

    /// Whether anybody asked to stop.
    pub fn is_raised(&self) -> bool {
        self.urgency() != Urgency::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_raise_forces_and_a_child_follows_its_parent() {
        let parent = Cancel::new();
        let child = parent.child();
        assert!(!child.is_raised());
        child.raise_gracefully();
        child.raise_gracefully();
        assert_eq!((child.urgency(), parent.urgency()), (Urgency::Graceful, Urgency::None));
        parent.raise();
        parent.raise();
        parent.raise();
        assert_eq!((child.urgency(), parent.urgency()), (Urgency::Forced, Urgency::Forced));
    }
}
