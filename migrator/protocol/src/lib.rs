//! QEMU stream transcoder, frames and session state machines (pure).
