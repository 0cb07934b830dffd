//! The agent daemon of one host.
//!
//! Its rules are `rackferry_agent_core`; the [`task`] drives them. The rest does what takes time: it keeps the host's VMs
//! ([`vm`]) and the stream to the coordinator ([`control`]), runs the migration sessions ([`moves`]), serves the host's
//! index shard and contents to its rack ([`server`]) and takes the operator's local orders ([`local`]). Its certificate
//! comes through [`enrol`]. What it counts is in [`metrics`]; [`preflight`] looks whether VMs could leave or come, and
//! [`policy`] says what their specs may have here.

pub mod agent;
pub mod config;
pub mod control;
mod convert;
pub mod coordinators;
pub mod enrol;
mod expelled;
mod incarnation;
pub mod local;
pub mod metrics;
pub mod moves;
pub mod policy;
pub mod preflight;
pub mod server;
mod storage;
pub mod task;
pub mod vm;
