//! When moves start and how fast they go: the queue, what hosts and links can take, slots, retries and holds.

mod begin;
mod capacity;
mod cordon;
mod dispatch;
mod force;
pub(crate) mod links;
mod pause;
pub(crate) mod queue;
mod retry;
mod shares;
pub(crate) mod slots;
mod switchover;
