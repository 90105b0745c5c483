//! What a test, a sandbox or another user of the machine must not be able to do.

mod downloads;
mod folders;
mod secrets;
mod words;
