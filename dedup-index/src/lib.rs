//! Page digests and the content index (pure: no I/O, no clock, no threads of its own).
//!
//! * [`PageHasher`] gives pages their identity, many pages side by side; [`is_zero`] spots the commonest page.
//! * [`Rendezvous`] says which live agent of a rack keeps the index entry of a [`Digest`].
//! * [`IndexShard`] is that agent's part of the index: which session sends which content over a crossing.
//! * [`ContentMap`] knows where content lies in this host's own memory.
//!
//! Index and map are soft state: losing an entry costs bytes on a link, never a guest. Therefore both
//! refuse entries rather than grow past their ceiling.

mod batch;
mod content;
mod digest;
mod owners;
mod rendezvous;
mod shard;
mod table;
mod zero;

pub use batch::PageHasher;
pub use content::{ContentMap, ContentStats, Location};
pub use digest::{Digest, DigestBuildHasher, DigestHasher, DomainKey};
pub use rendezvous::Rendezvous;
pub use shard::{ClaimAnswer, Holder, IndexShard, ShardStats};
pub use zero::is_zero;

/// Bytes in a page: QEMU's target page on every machine type we carry.
pub const PAGE_SIZE: usize = 4096;

/// The bytes of one page.
pub type Page = [u8; PAGE_SIZE];
