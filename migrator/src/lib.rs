//! Migration sessions over tokio: QMP, page path, switchover.

pub mod memory;
pub mod qmp;
