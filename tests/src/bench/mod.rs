//! What is measured: evacuations beside stock QEMU, one large VM, a limit of the core link. docs/bench.md has the
//! figures.

pub mod baseline;
pub mod counters;
pub mod evacuate;
pub mod limit;
pub mod stream;
