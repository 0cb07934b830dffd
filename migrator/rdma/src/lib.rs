//! Pages read out of other hosts' memory by RDMA: devices, registered memory, queue pairs.
//!
//! Reliable connections, READs only. **No peer is ever given the right to write**, and what a peer may read is memory of
//! the [`Export`] kind, in a protection domain of its own. Queue pairs are connected out of band: each side gives its
//! [`Endpoint`] to the other over a link that is authenticated and encrypted.
//!
//! | side | queue pair | memory | rights of the peer |
//! |---|---|---|---|
//! | holder | [`Serving`] | [`Region<Export>`](Region) | READ |
//! | waiter | [`Fetching`] | [`Region<Landing>`](Region) | none |
//!
//! A buffer that was posted belongs to the device until its completion, success or flush. That is kept by ownership: a
//! [`Slot`] is moved into a [`ReadBatch`], by [`Fetching::post`] into the device's table, and comes back in [`Done`].
//! Patience that runs out frees nothing; [`Fetching::close`] does, by stopping the queue pair first.
//!
//! A machine without devices is no error of the program: [`Device::open`] says [`RdmaError::NoDevice`].

mod credits;
mod device;
mod engine;
mod error;
mod fetching;
mod gids;
pub mod limits;
mod memory;
mod pair;
mod peer;
mod plan;
mod region;
mod removal;
mod serving;
mod slab;
mod table;
mod verbs;
mod watched;

pub use device::{Device, Domain, Export, Kind, Landing, Limits, Which};
pub use engine::Done;
pub use error::{RdmaError, Status};
pub use fetching::{Fetching, FetchingSetup, NotPosted, ReadBatch, Ticket};
pub use memory::{Backing, Memory, Pages};
pub use peer::{Endpoint, Gid, Mtu, PeerError, RemoteArena, RemoteRegion};
pub use plan::RemoteSlot;
pub use region::{Region, Slot};
pub use serving::{Serving, ServingSetup};
