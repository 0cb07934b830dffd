//! See `fuzzing::return_path` for what must hold.
#![no_main]

#[path = "../../../migrator/protocol/tests/support/mod.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|data: &[u8]| support::fuzzing::return_path(data));
