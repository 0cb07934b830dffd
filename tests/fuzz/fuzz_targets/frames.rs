//! See `frames::frame` for what must hold.
#![no_main]

#[path = "../../../migrator/protocol/tests/support/frames.rs"]
mod frames;

libfuzzer_sys::fuzz_target!(|data: &[u8]| frames::frame(data));
