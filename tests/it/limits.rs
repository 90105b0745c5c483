//! Unusually large inputs, and systems with fewer resources than usual. Under `OFFLOAD_TESTS=full` everything
//! has its full size.

use crate::support::is_full;

mod places;
mod sandboxes;
mod sizes;
mod streams;

/// `full` where the full size is wanted, else `usual`.
fn size(full: usize, usual: usize) -> usize {
    if is_full() { full } else { usual }
}
