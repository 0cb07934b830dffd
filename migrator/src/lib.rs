//! Migration sessions over tokio: QMP, the page path, the switchover.
//!
//! A moving VM has a [`source`] session on the host it leaves and a [`target`] session on the host it goes to. Both are
//! thin shells around the state machines of `rackferry-migrator-protocol`. [`rack`] is what they know of the rest of
//! their rack.

pub mod compress;
pub mod conn;
pub mod limits;
pub mod memory;
pub mod pace;
pub mod qmp;
pub mod rack;
pub mod socket;
pub mod source;
pub mod stats;
pub mod target;
pub mod uplink;
