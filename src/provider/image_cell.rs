//! An image that was taken from a cache may be gone at the provider: then it is rebuilt, once, and every create that
//! was refused tries again.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Image, ProviderError};
use crate::cancel::Cancel;

/// How often a thread that waits for others looks at the cancel flag.
const SLICE: Duration = Duration::from_millis(300);
/// Another create may be about to succeed: the image is not rebuilt before this much quiet.
const QUIET: Duration = Duration::from_millis(300);
/// With this many refusals no quiet is needed.
const ENOUGH: usize = 3;

/// Rebuilds the image.
pub type Renew<'a> = Box<dyn Fn(&Cancel) -> Result<Image, ProviderError> + Send + Sync + 'a>;

/// The image of all sandboxes of a run.
pub struct ImageCell<'a> {
    state: Mutex<State>,
    changed: Condvar,
    /// `None` for an image that is not from a cache.
    renew: Option<Renew<'a>>,
}

struct State {
    image: Image,
    /// Whether it has been rebuilt.
    is_new: bool,
    is_renewing: bool,
    /// Whether a sandbox has been made from it, so that it must exist.
    is_proven: bool,
    /// Creates under way.
    making: usize,
    /// When the last one began or ended.
    last: Instant,
    /// How many creates were refused.
    refusals: usize,
    /// Why it could not be rebuilt.
    failure: Option<ProviderError>,
}

/// A create under way: dropped when it has ended, also by a panic.
struct Making<'c> {
    state: &'c Mutex<State>,
    changed: &'c Condvar,
    is_made: bool,
    is_refused: bool,
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.making -= 1;
        state.last = Instant::now();
        state.is_proven |= self.is_made;
        state.refusals += usize::from(self.is_refused);
        self.changed.notify_all();
    }
}

/// The image is being rebuilt: dropped when that has ended, also by a panic.
struct Renewing<'c> {
    state: &'c Mutex<State>,
    changed: &'c Condvar,
    result: Result<Image, ProviderError>,
}

impl Drop for Renewing<'_> {
    fn drop(&mut self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.is_renewing = false;
        match &self.result {
            Ok(image) => (state.image, state.is_new) = (image.clone(), true),
            Err(error) => state.failure = Some(error.clone()),
        }
        self.changed.notify_all();
    }
}

impl<'a> ImageCell<'a> {
    /// `image`, which `renew` can rebuild.
    pub fn new(image: Image, renew: Option<Renew<'a>>) -> ImageCell<'a> {
        let state = State {
            image,
            is_new: false,
            is_renewing: false,
            is_proven: false,
            making: 0,
            last: Instant::now(),
            refusals: 0,
            failure: None,
        };
        ImageCell { state: Mutex::new(state), changed: Condvar::new(), renew }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes something from the image. Where every try is refused, an image from a cache is rebuilt.
    ///
    /// # Errors
    /// Those of `make`, and of rebuilding the image.
    pub fn create<T>(
        &self,
        cancel: &Cancel,
        make: impl Fn(&Image) -> Result<T, ProviderError>,
    ) -> Result<T, ProviderError> {
        let (image, was_new) = {
            let mut state = self.lock();
            state.making += 1;
            state.last = Instant::now();
            (state.image.clone(), state.is_new)
        };
        let mut making =
            Making { state: &self.state, changed: &self.changed, is_made: false, is_refused: false };
        let result = make(&image);
        making.is_made = result.is_ok();
        making.is_refused = !was_new && matches!(result, Err(ProviderError::Refused(_)));
        drop(making);
        match result {
            Err(ProviderError::Refused(refusal)) if !was_new && self.renew.is_some() => {
                log::debug!("a create from the cached image was refused: {refusal}");
                if self.is_renewed(cancel)? {
                    // Not while the lock is held: all who were refused try again side by side.
                    let image = self.lock().image.clone();
                    return make(&image);
                }
                Err(ProviderError::Refused(refusal))
            }
            result => result,
        }
    }

    /// Waits until it is known whether the image exists, and if it does not, until it has been rebuilt.
    fn is_renewed(&self, cancel: &Cancel) -> Result<bool, ProviderError> {
        let Some(renew) = &self.renew else { return Ok(false) };
        let mut state = self.lock();
        loop {
            if let Some(failure) = &state.failure {
                return Err(failure.clone());
            }
            if state.is_new {
                return Ok(true);
            }
            if state.is_proven || cancel.is_raised() {
                return Ok(false);
            }
            let is_busy = state.making > 0 || state.is_renewing;
            let quiet = state.last.elapsed();
            if !is_busy && (state.refusals >= ENOUGH || quiet >= QUIET) {
                state.is_renewing = true;
                drop(state);
                log::warn!("the provider rejected the cached image; rebuilding it");
                let result = Err(ProviderError::Refused("rebuilding the image panicked".into()));
                let mut renewing = Renewing { state: &self.state, changed: &self.changed, result };
                renewing.result = renew(cancel);
                drop(renewing);
                state = self.lock();
                continue;
            }
            let slice = if is_busy { SLICE } else { QUIET.saturating_sub(quiet) };
            state = self.changed.wait_timeout(state, slice).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn image(id: &str) -> Image {
        Image { id: Some(id.into()), lacks: None }
    }

    fn refused() -> ProviderError {
        ProviderError::Refused("no such image".into())
    }

    fn image_cell(renewed: &'static AtomicUsize) -> ImageCell<'static> {
        ImageCell::new(
            image("old"),
            Some(Box::new(|_| {
                renewed.fetch_add(1, Ordering::SeqCst);
                Ok(image("new"))
            })),
        )
    }

    /// Ten at once; which of them get something from an image.
    fn ten(image_cell: &ImageCell<'_>, gives: impl Fn(usize, &Image) -> bool + Sync) -> usize {
        let made = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for number in 0..10 {
                let (made, gives) = (&made, &gives);
                scope.spawn(move || {
                    let make = |image: &Image| {
                        std::thread::sleep(Duration::from_millis(5 * number as u64));
                        if gives(number, image) { Ok(()) } else { Err(refused()) }
                    };
                    if image_cell.create(&Cancel::new(), make).is_ok() {
                        made.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        made.into_inner()
    }

    #[test]
    fn an_image_that_is_gone_is_rebuilt_once_for_all() {
        static RENEWED: AtomicUsize = AtomicUsize::new(0);
        let made = ten(&image_cell(&RENEWED), |_, image| image.id.as_deref() == Some("new"));
        assert_eq!((made, RENEWED.load(Ordering::SeqCst)), (10, 1));
    }

    #[test]
    fn an_image_that_gives_a_sandbox_to_anybody_is_there() {
        static RENEWED: AtomicUsize = AtomicUsize::new(0);
        let made = ten(&image_cell(&RENEWED), |number, _| number > 2);
        assert_eq!((made, RENEWED.load(Ordering::SeqCst)), (7, 0));
    }

    #[test]
    fn creates_run_side_by_side_after_the_image_was_rebuilt() {
        static RENEWED: AtomicUsize = AtomicUsize::new(0);
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let until = Instant::now() + Duration::from_secs(20);
        let made = ten(&image_cell(&RENEWED), |_, image| {
            if image.id.as_deref() != Some("new") {
                return false;
            }
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            while most.load(Ordering::SeqCst) < 10 && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
            }
            running.fetch_sub(1, Ordering::SeqCst);
            true
        });
        assert_eq!((made, most.into_inner()), (10, 10));
    }

    #[test]
    fn an_image_that_was_just_made_is_not_doubted() {
        let fresh = ImageCell::new(image("fresh"), None);
        assert_eq!(ten(&fresh, |_, _| false), 0);
    }

    /// What a create gives that is refused the old image, after `panicking` has panicked.
    fn after_a_panic(
        image_cell: &ImageCell<'_>,
        panicking: impl Fn(&Image) -> Result<(), ProviderError> + Send,
    ) -> Result<(), ProviderError> {
        let make = |image: &Image| if image.id.as_deref() == Some("new") { Ok(()) } else { Err(refused()) };
        let cancel = Cancel::new();
        std::thread::scope(|scope| {
            assert!(scope.spawn(|| image_cell.create(&cancel, panicking)).join().is_err());
            let other = scope.spawn(|| image_cell.create(&cancel, make));
            let until = Instant::now() + Duration::from_secs(20);
            while !other.is_finished() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(10));
            }
            // One that would wait forever fails the test instead.
            cancel.raise();
            other.join().unwrap()
        })
    }

    #[test]
    fn a_panic_in_a_create_keeps_nobody_from_rebuilding() {
        static RENEWED: AtomicUsize = AtomicUsize::new(0);
        let made = after_a_panic(&image_cell(&RENEWED), |_| panic!("on purpose"));
        assert_eq!((made, RENEWED.load(Ordering::SeqCst)), (Ok(()), 1));
    }

    #[test]
    fn a_panic_while_rebuilding_is_a_failure_for_all_others() {
        let image_cell = ImageCell::new(image("old"), Some(Box::new(|_| panic!("on purpose"))));
        let Err(ProviderError::Refused(reason)) = after_a_panic(&image_cell, |_| Err(refused())) else {
            panic!("it was not refused");
        };
        assert!(reason.contains("panicked"), "{reason}");
    }
}
