//! The agent daemon of one host.
//!
//! It keeps the host's VMs ([`vm`]), obeys the coordinator ([`control`], [`agent`]), runs the migration sessions
//! ([`moves`]), serves the host's index shard and contents to its rack ([`server`]) and takes the operator's local orders
//! ([`local`]). Its certificate comes through [`enrol`]. What it counts is in [`metrics`]; [`checks`] looks whether VMs
//! could leave or come.

pub mod agent;
pub mod checks;
pub mod config;
pub mod control;
pub mod coordinators;
pub mod enrol;
pub mod local;
pub mod metrics;
pub mod moves;
pub mod server;
pub mod vm;
mod wire;
