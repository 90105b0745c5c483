//! Time and memory of planning large suites.

pub fn print() {}
