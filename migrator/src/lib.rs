//! Migration sessions over tokio: QMP, page path, switchover.
