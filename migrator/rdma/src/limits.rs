//! Numbers that bound what is asked of a device and taken from a peer.

/// Bytes of a slot: a page, whatever the host's pages are.
pub const PAGE_BYTES: usize = 4096;
/// Landing slots of one READ: 64 KiB are enough for any line rate, and every device has as many.
pub const SCATTER_MAX: u32 = 16;
/// READs that a responder is asked to have under way for one queue pair; devices have 16, `rxe` 128.
pub const OUTSTANDING_MAX: u8 = 16;
/// READs that wait in one send queue: 8 batches of 128 single pages.
pub const SEND_QUEUE: u32 = 1024;
/// Entries of a device's completion queue, where it has as many: 128 full send queues, one for each host of a rack.
pub const COMPLETION_QUEUE: u32 = 131_072;
/// Pages of one batch.
pub const BATCH_MAX: usize = 128;
/// Regions of one peer's arena.
pub const REGIONS_MAX: usize = 64;
/// Slots of one region: 1 TiB.
pub const SLOTS_MAX: u32 = 1 << 28;
/// How long a queue pair in the error state may take to flush, in seconds, before it is destroyed instead.
pub const FLUSH_SECONDS: u64 = 5;
/// Completions taken at a time.
pub(crate) const POLL: usize = 64;
/// Local ACK timeout as devices count it: 4.096 us x 2^14 = 67 ms.
pub(crate) const ACK_TIMEOUT: u8 = 14;
/// Tries after the first, for lost packets and for a peer that is not ready; 7 would be for ever for the latter.
pub(crate) const RETRIES: u8 = 3;
