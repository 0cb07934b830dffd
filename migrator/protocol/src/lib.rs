//! The pure half of a migration: QEMU's stream, the frames between agents and the session state machines.
//!
//! Nothing here has a socket, a clock or a task: bytes and events go in, items and effects come out. The tokio
//! shell around it is `rackferry-migrator`.

pub mod frame;
pub mod session;
pub mod stream;
