//! What people see, as snapshots: help texts, errors, summaries, and the screen of a terminal.
//!
//! `SNAPSHOTS=overwrite cargo test --test snapshots` updates them. What varies from run to run stands
//! in brackets: `[TIME]`, `[ROOT]`.

#[cfg(test)]
mod case;
#[cfg(test)]
mod errors;
#[cfg(test)]
mod help;
#[cfg(test)]
mod summary;
#[cfg(test)]
mod terminal;
