//! How far it goes: sizes and numbers that nobody has every day, and a system that gives less than is
//! usual. With `OFFLOAD_LIMITS=full` what takes long has its full size.

mod places;
mod sandboxes;
mod sizes;
mod streams;

/// `full` where the full size is wanted, else `usual`.
fn size(full: usize, usual: usize) -> usize {
    if std::env::var_os("OFFLOAD_LIMITS").is_some_and(|value| value == "full") { full } else { usual }
}
