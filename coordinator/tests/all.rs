//! The integration tests of this crate, in one program: each more would be linked anew.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod anew;
mod audit;
mod cluster;
mod common;
mod doctor;
mod doors;
mod events;
mod expelled;
mod gone;
mod hostile;
mod latency;
mod left_out;
mod metrics;
mod planned;
mod process;
mod remains;
mod site;
mod specs;
mod tokens;
mod watch;
