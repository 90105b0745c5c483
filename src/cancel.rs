//! The wish to stop, shared by all threads: asked for once, and a second time with force.

use std::io::{self, PipeReader, PipeWriter};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crossbeam::channel::{self, Receiver, Sender, bounded};

/// How urgently the run is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Nobody asked to stop.
    None = 0,
    /// Children are asked to end and get a grace period before KILL.
    Graceful = 1,
    /// Children get KILL at once.
    Forced = 2,
}

/// A flag that any thread may raise and many wait for; it is never lowered.
///
/// A child flag ([`Cancel::child`]) is raised by itself or by its parent.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    node: Arc<Node>,
}

#[derive(Debug, Default)]
struct Node {
    /// Keeps the way from the root to this node, on which a raise travels.
    _parent: Option<Arc<Node>>,
    level: AtomicU8,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    children: Vec<Weak<Node>>,
    /// One for each level that can be reached, made when somebody first waits for it.
    pipes: [Option<Signal<Arc<PipeReader>, PipeWriter>>; 2],
    channels: [Option<Signal<Receiver<()>, Sender<()>>>; 2],
}

/// A pipe or channel that nobody writes to. Its writer is closed when the level is reached.
#[derive(Debug)]
struct Signal<R, W> {
    reader: R,
    writer: Option<W>,
}

impl Node {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn level(&self) -> u8 {
        self.level.load(Ordering::SeqCst)
    }

    fn raise_to(&self, level: u8) {
        let children: Vec<Arc<Node>> = {
            let mut state = self.lock();
            self.level.fetch_max(level, Ordering::SeqCst);
            for pipe in state.pipes.iter_mut().take(level.into()).flatten() {
                pipe.writer = None;
            }
            for channel in state.channels.iter_mut().take(level.into()).flatten() {
                channel.writer = None;
            }
            state.children.iter().filter_map(Weak::upgrade).collect()
        };
        self.changed.notify_all();
        for child in children {
            child.raise_to(level);
        }
    }
}

impl Cancel {
    /// A flag that is not raised.
    pub fn new() -> Cancel {
        Cancel::default()
    }

    /// A flag of its own that is also raised whenever `self` is.
    pub fn child(&self) -> Cancel {
        let mut state = self.node.lock();
        let level = AtomicU8::new(self.node.level());
        let node = Node { _parent: Some(Arc::clone(&self.node)), level, ..Node::default() };
        let child = Cancel { node: Arc::new(node) };
        if state.children.len() == state.children.capacity() {
            state.children.retain(|child| child.strong_count() > 0);
        }
        state.children.push(Arc::downgrade(&child.node));
        child
    }

    /// Asks to stop; a second call asks with force.
    pub fn raise(&self) {
        self.node.raise_to(self.node.level().saturating_add(1).min(2));
    }

    /// Asks to stop once, however often it is called.
    pub fn raise_gracefully(&self) {
        self.node.raise_to(1);
    }

    /// Asks to stop with force.
    pub fn force(&self) {
        self.node.raise_to(2);
    }

    /// How urgently to stop: the stronger of this flag's and its parent's.
    pub fn urgency(&self) -> Urgency {
        match self.node.level() {
            0 => Urgency::None,
            1 => Urgency::Graceful,
            _ => Urgency::Forced,
        }
    }

    /// Whether anybody asked to stop.
    pub fn is_raised(&self) -> bool {
        self.urgency() != Urgency::None
    }

    /// Waits until the flag is raised, for at most `time`; tells whether it is.
    pub fn wait(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut state = self.node.lock();
        while !self.is_raised() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.node.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// A descriptor that becomes readable when the flag is raised beyond `urgency`, to be polled together
    /// with others. `None` where there is nothing beyond.
    ///
    /// # Errors
    /// When no pipe can be made.
    pub fn beyond(&self, urgency: Urgency) -> io::Result<Option<Arc<PipeReader>>> {
        let place = urgency as usize;
        let mut state = self.node.lock();
        let is_reached = usize::from(self.node.level()) > place;
        let Some(signal) = state.pipes.get_mut(place) else { return Ok(None) };
        if let Some(signal) = signal {
            return Ok(Some(Arc::clone(&signal.reader)));
        }
        let (reader, writer) = io::pipe()?;
        let reader = Arc::new(reader);
        *signal = Some(Signal { reader: Arc::clone(&reader), writer: (!is_reached).then_some(writer) });
        Ok(Some(reader))
    }

    /// The same as a channel, which is disconnected when the flag is raised beyond `urgency`.
    pub fn channel_beyond(&self, urgency: Urgency) -> Receiver<()> {
        let place = urgency as usize;
        let mut state = self.node.lock();
        let is_reached = usize::from(self.node.level()) > place;
        let Some(signal) = state.channels.get_mut(place) else { return channel::never() };
        let signal = signal.get_or_insert_with(|| {
            let (writer, reader) = bounded(0);
            Signal { reader, writer: (!is_reached).then_some(writer) }
        });
        signal.reader.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

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
        assert_eq!(parent.child().urgency(), Urgency::Forced);
    }

    #[test]
    fn whoever_waits_is_woken_by_a_raise_of_the_parent() {
        let parent = Cancel::new();
        let child = parent.child().child();
        assert!(!child.wait(Duration::from_millis(1)));
        let beyond = child.beyond(Urgency::None).unwrap().unwrap();
        let forced = child.beyond(Urgency::Graceful).unwrap().unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| child.wait(Duration::from_secs(30)));
            let reading = scope.spawn(|| (&*beyond).read(&mut [0]).unwrap());
            parent.raise();
            assert!(waiting.join().unwrap());
            assert_eq!(reading.join().unwrap(), 0);
            let reading = scope.spawn(|| (&*forced).read(&mut [0]).unwrap());
            parent.raise();
            assert_eq!(reading.join().unwrap(), 0);
        });
        // Made after the raise, it is readable at once.
        assert_eq!((&*parent.beyond(Urgency::None).unwrap().unwrap()).read(&mut [0]).unwrap(), 0);
        assert!(child.beyond(Urgency::Forced).unwrap().is_none());
    }

    #[test]
    fn channels_are_closed_by_a_raise_of_the_parent() {
        let parent = Cancel::new();
        let child = parent.child();
        let channel = |urgency| child.channel_beyond(urgency);
        let (beyond, forced) = (channel(Urgency::None), channel(Urgency::Graceful));
        assert!(beyond.recv_timeout(Duration::from_millis(1)).is_err_and(|error| error.is_timeout()));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| beyond.recv_timeout(Duration::from_secs(30)));
            parent.raise();
            assert!(waiting.join().unwrap().is_err_and(|error| error.is_disconnected()));
        });
        assert!(forced.try_recv().is_err_and(|error| error.is_empty()));
        parent.raise();
        assert!(forced.try_recv().is_err_and(|error| error.is_disconnected()));
        // Made after the raise, it is closed at once; there is nothing beyond force.
        assert!(parent.channel_beyond(Urgency::None).try_recv().is_err_and(|error| error.is_disconnected()));
        assert!(channel(Urgency::Forced).try_recv().is_err_and(|error| error.is_empty()));
    }

    #[test]
    fn children_that_are_gone_are_forgotten() {
        let parent = Cancel::new();
        for _ in 0..10_000 {
            drop(parent.child());
        }
        assert!(parent.node.lock().children.len() < 100);
    }
}
