//! What a test, a sandbox or another user of the machine must not be able to do.

mod directories;
mod downloads;
mod secrets;
mod words;
