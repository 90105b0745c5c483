//! The `offload` program: everything is in the library, so that tests and tools can use its parts.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    offload::cli::main()
}
