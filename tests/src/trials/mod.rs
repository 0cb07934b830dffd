//! What must hold: guests' memory while they write, VMs while things break, moves while daemons are updated.

pub mod faults;
pub mod memory;
pub mod pauses;
mod silent;
pub mod upgrade;
