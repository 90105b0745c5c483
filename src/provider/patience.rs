//! What all providers do when they are asked for patience: wait longer and longer, each by chance a
//! little differently, so that those who were turned away together do not come back together.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use super::ProviderError;
use crate::cancel::Cancel;

/// So often an action is tried before its sandbox is given up.
const TRIES: u32 = 12;
/// The longest first wait; it doubles each time.
const FIRST: Duration = Duration::from_millis(500);
/// No wait is longer.
const LONGEST: Duration = Duration::from_secs(30);
/// How often a waiting thread looks at the cancel flag.
const SLICE: Duration = Duration::from_millis(50);

/// Does `action` again as long as it is throttled: twelve times at most, over some minutes.
///
/// # Errors
/// Those of `action`; the last throttling becomes a refusal.
pub fn patiently<T>(
    cancel: &Cancel,
    mut action: impl FnMut() -> Result<T, ProviderError>,
) -> Result<T, ProviderError> {
    for attempt in 0..TRIES {
        match action() {
            Err(ProviderError::Throttled(message)) if !cancel.is_raised() => {
                log::debug!("the provider asks for patience: {message}");
                rest(wait(attempt), cancel);
            }
            Err(ProviderError::Throttled(message)) => return Err(ProviderError::Refused(message)),
            result => return result,
        }
    }
    action().map_err(|error| match error {
        ProviderError::Throttled(message) => ProviderError::Refused(format!("after many tries: {message}")),
        error => error,
    })
}

/// Somewhere between nothing and all of a time that doubles with each attempt ("full jitter").
pub(super) fn wait(attempt: u32) -> Duration {
    let most = FIRST.saturating_mul(1 << attempt.min(10)).min(LONGEST);
    let chance = RandomState::new().hash_one(attempt) % 1000;
    most.mul_f64(chance as f64 / 1000.0).max(SLICE)
}

/// Waits, or until `cancel` is raised.
pub(super) fn rest(time: Duration, cancel: &Cancel) {
    let until = Instant::now() + time;
    while !cancel.is_raised() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(SLICE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throttled_actions_are_tried_again_others_are_not() {
        let mut calls = 0;
        let result = patiently(&Cancel::new(), || {
            calls += 1;
            if calls < 3 { Err(ProviderError::Throttled("slow down".into())) } else { Ok(calls) }
        });
        assert_eq!(result, Ok(3));
        let refused: Result<(), _> =
            patiently(&Cancel::new(), || Err(ProviderError::Refused("no such image".into())));
        assert_eq!(refused, Err(ProviderError::Refused("no such image".into())));
    }

    #[test]
    fn a_cancel_ends_the_patience() {
        let cancel = Cancel::new();
        cancel.raise();
        let result: Result<(), _> = patiently(&cancel, || Err(ProviderError::Throttled("later".into())));
        assert_eq!(result, Err(ProviderError::Refused("later".into())));
    }
}
