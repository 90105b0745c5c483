//! An image that was taken from a cache may be gone at the provider: then it is rebuilt, once, and every create that
//! was refused tries again.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Image, ProviderError};
use crate::cancel::Cancel;

/// How often a waiting thread looks at the cancel flag.
const SLICE: Duration = Duration::from_millis(50);
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
        let result = make(&image);
        let mut state = self.lock();
        state.making -= 1;
        state.last = Instant::now();
        state.is_proven |= result.is_ok();
        self.changed.notify_all();
        match result {
            Err(ProviderError::Refused(refusal)) if !was_new && self.renew.is_some() => {
                log::debug!("a create from the cached image was refused: {refusal}");
                state.refusals += 1;
                if self.is_renewed(state, cancel)? {
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
    fn is_renewed<'s>(
        &'s self,
        mut state: MutexGuard<'s, State>,
        cancel: &Cancel,
    ) -> Result<bool, ProviderError> {
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
            let is_certain = state.refusals >= ENOUGH || state.last.elapsed() >= QUIET;
            if state.making == 0 && !state.is_renewing && is_certain {
                state.is_renewing = true;
                drop(state);
                log::warn!("the provider rejected the cached image; rebuilding it");
                let image = self.renew.as_ref().map(|renew| renew(cancel));
                state = self.lock();
                match image {
                    Some(Ok(image)) => (state.image, state.is_new) = (image, true),
                    Some(Err(error)) => state.failure = Some(error),
                    None => return Ok(false),
                }
                self.changed.notify_all();
                continue;
            }
            state = self.changed.wait_timeout(state, SLICE).unwrap_or_else(PoisonError::into_inner).0;
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
}
