//! The source's parallel channels (capability multifd, without compression).
//!
//! Every channel is a connection of its own to the socket the main channel was made to; [`ChannelKind`] tells which is
//! which. Channels carry pages in packets ([`ChannelParser`], or [`PacketHeader`] for readers that put the payload where they
//! like). They are not in step with the main channel, except that at a barrier ([`MultifdBarrier`]) everything before it is
//! older than everything behind it. The destination of a rebuilt stream needs no channels.

mod barrier;
mod channel;
mod packet;

pub use barrier::{MAX_CHANNELS, MultifdBarrier, MultifdBarrierError, SyncMode, Turn};
pub use channel::{ChannelItem, ChannelParser};
pub use packet::{ChannelKind, INIT_LEN, Init, PACKET_PAGES, PacketHeader};
