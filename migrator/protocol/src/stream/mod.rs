//! Transcoder of QEMU's migration stream.
//!
//! [`StreamParser`] takes the stream of a source QEMU apart into pages and into bytes to pass on; [`StreamWriter`] makes
//! a stream for a destination QEMU of them again, in which pages may be reordered or left out.
//! [`return_path`] is the way back, [`multifd`] the parallel channels of a source.
//!
//! Nothing here reads a device section: up to the end of guest memory every section has a known form or ends the parsing
//! ([`Item::Fallback`]), and behind it everything is opaque.

mod blocks;
mod error;
mod item;
pub mod multifd;
mod parser;
pub mod return_path;
mod wire;
mod writer;

pub use blocks::{Block, Blocks, MAX_BLOCKS, MAX_HEAD, RamHead};
pub use error::{Malformed, Refusal, StreamError};
pub use item::{FallbackReason, Item, PageId};
pub use parser::{MAX_LOOKAHEAD, MAX_RECORD, StreamParser};
pub use wire::PAGE_SIZE;
pub use writer::{LATE_PAGES_MAX, PageContent, StreamWriter, WriteError};
