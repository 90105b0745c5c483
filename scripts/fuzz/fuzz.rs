//! The one source of all fuzzers: each is built under the name of its target.

#![no_main]

mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let name = env!("CARGO_BIN_NAME");
    let target = targets::TARGETS.iter().find(|(known, _)| *known == name);
    target.expect("every fuzzer has a target of its name").1(bytes);
});
