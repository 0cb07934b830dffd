//! The integration tests of this crate, in one program: each more would be linked anew.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod anti_affinity;
mod audit;
mod common;
mod ended;
mod evacuation;
mod force;
mod forgotten;
mod gone;
mod hold;
mod left_out;
mod links;
mod planned;
mod problems;
mod reconcile;
mod remains;
mod restore;
mod retry;
mod specs;
mod vm;
