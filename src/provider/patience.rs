//! What all providers do when they are throttled: wait longer and longer, each time by a random amount, so that
//! requests that were turned away together do not come back together.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use super::ProviderError;
use crate::cancel::Cancel;

/// How often a throttled action is tried again.
const TRIES: u32 = 12;
/// The longest first wait; it doubles each time.
const FIRST: Duration = Duration::from_millis(500);
/// No wait is longer.
const LONGEST: Duration = Duration::from_secs(30);
/// No wait is shorter.
const SHORTEST: Duration = Duration::from_millis(50);

/// How often the destruction of a sandbox is tried.
const DESTROY_TRIES: u32 = 3;
/// How long a provider that throttles destructions is asked again.
const DESTROY_PATIENCE: Duration = Duration::from_secs(30);

/// Repeats `action` while it is throttled: twelve times at most, over some minutes.
///
/// # Errors
/// Those of `action`. It stays throttled only where `cancel` ended the wait; after the last try that is a refusal.
pub fn patiently<T>(
    cancel: &Cancel,
    mut action: impl FnMut() -> Result<T, ProviderError>,
) -> Result<T, ProviderError> {
    for attempt in 0..TRIES {
        match action() {
            Err(ProviderError::Throttled(message)) if !cancel.is_raised() => {
                log::debug!("the provider asks for patience: {message}");
                cancel.wait(wait(attempt));
            }
            result => return result,
        }
    }
    action().map_err(|error| match error {
        ProviderError::Throttled(message) if !cancel.is_raised() => {
            ProviderError::Refused(format!("after many tries: {message}"))
        }
        error => error,
    })
}

/// Destroys something with up to three tries of `attempt`. One that took `hang` or longer is the last: it would
/// hang again. No cancel ends this.
///
/// # Errors
/// Those of the last try; then the sandbox may still be there.
pub fn destroy_with_tries<T>(
    hang: Duration,
    mut attempt: impl FnMut() -> Result<T, ProviderError>,
) -> Result<T, ProviderError> {
    let (never, began) = (Cancel::new(), Instant::now());
    let mut tries = 0;
    loop {
        tries += 1;
        let mut took = Duration::ZERO;
        let result = patiently(&never, || {
            let tried = Instant::now();
            let result = attempt();
            took = tried.elapsed();
            match result {
                Err(ProviderError::Throttled(message)) if began.elapsed() >= DESTROY_PATIENCE => {
                    Err(ProviderError::Refused(message))
                }
                result => result,
            }
        });
        let is_last = tries >= DESTROY_TRIES || took >= hang || began.elapsed() >= DESTROY_PATIENCE;
        if result.is_ok() || is_last {
            return result;
        }
    }
}

/// Somewhere between nothing and all of a time that doubles with each attempt ("full jitter").
pub(super) fn wait(attempt: u32) -> Duration {
    let most = FIRST.saturating_mul(1 << attempt.min(10)).min(LONGEST);
    let chance = RandomState::new().hash_one(attempt) % 1000;
    most.mul_f64(chance as f64 / 1000.0).max(SHORTEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn throttled() -> ProviderError {
        ProviderError::Throttled("slow down".into())
    }

    fn refused() -> ProviderError {
        ProviderError::Refused("no".into())
    }

    #[test]
    fn throttled_actions_are_tried_again_others_are_not() {
        let mut calls = 0;
        let result = patiently(&Cancel::new(), || {
            calls += 1;
            if calls < 3 { Err(throttled()) } else { Ok(calls) }
        });
        assert_eq!(result, Ok(3));
        assert_eq!(patiently::<()>(&Cancel::new(), || Err(refused())), Err(refused()));
    }

    #[test]
    fn a_throttled_action_that_is_cancelled_is_no_refusal() {
        let cancel = Cancel::new();
        cancel.raise();
        assert_eq!(patiently::<()>(&cancel, || Err(throttled())), Err(throttled()));
    }

    #[test]
    fn a_destruction_is_tried_three_times_and_once_where_it_hangs() {
        let tries = |hang: Duration| {
            let mut calls = 0;
            let result = destroy_with_tries::<()>(hang, || {
                calls += 1;
                Err(refused())
            });
            assert_eq!(result, Err(refused()));
            calls
        };
        assert_eq!((tries(Duration::MAX), tries(Duration::ZERO)), (3, 1));
    }
}
