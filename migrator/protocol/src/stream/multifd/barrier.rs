//! Which channels wait at a barrier, and until when.

use super::super::item::Item;

/// Most channels a VM may have; their numbers have one byte.
pub const MAX_CHANNELS: usize = 255;

/// Where the main channel is at a barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMode {
    /// At the end of every memory section (machine types up to 8.0).
    Legacy,
    /// At every [`Item::MultifdFlush`].
    Modern,
}

impl SyncMode {
    /// The mode that [`Item::RamStart`] showed.
    pub fn new(modern_multifd: bool) -> Self {
        if modern_multifd { Self::Modern } else { Self::Legacy }
    }

    /// Whether the main channel has reached a barrier with this item.
    pub fn is_mark(self, item: &Item) -> bool {
        match self {
            Self::Legacy => matches!(item, Item::SectionEnd),
            Self::Modern => matches!(item, Item::MultifdFlush),
        }
    }
}

/// What a reader does that has reached a barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It stops reading until another's arrival says [`Turn::Go`].
    Wait,
    /// All have arrived. Once everything read so far has been handed on, all readers go on.
    Go,
}

/// A reader came twice to one barrier, or does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MultifdBarrierError {
    /// It should have waited.
    #[error("a channel went on without waiting for the barrier")]
    DidNotWait,
    /// There are fewer channels.
    #[error("there is no channel {0}")]
    NoSuchChannel(usize),
    /// There are not so many channels.
    #[error("{0} channels; there can be 1 to {MAX_CHANNELS}")]
    Channels(usize),
}

/// The barrier between the main channel and all multifd channels: pages read before it are older than
/// pages read behind it, whichever channel they came by. Every channel arrives with [`ChannelItem::Sync`](super::ChannelItem::Sync), the main
/// channel with the item that [`SyncMode::is_mark`] knows.
#[derive(Clone, Debug)]
pub struct MultifdBarrier {
    arrived: Box<[bool]>,
    main: bool,
    passed: u64,
}

impl MultifdBarrier {
    /// A barrier for so many channels besides the main one.
    ///
    /// # Errors
    /// If there are none or too many.
    pub fn new(channels: usize) -> Result<Self, MultifdBarrierError> {
        if channels == 0 || channels > MAX_CHANNELS {
            return Err(MultifdBarrierError::Channels(channels));
        }
        Ok(Self { arrived: vec![false; channels].into(), main: false, passed: 0 })
    }

    /// A channel arrives; channels are counted from 0 in any order.
    ///
    /// # Errors
    /// If there is no such channel, or it has arrived already.
    pub fn channel_arrives(&mut self, channel: usize) -> Result<Turn, MultifdBarrierError> {
        let arrived = self.arrived.get_mut(channel);
        let arrived = arrived.ok_or(MultifdBarrierError::NoSuchChannel(channel))?;
        Self::arrive(arrived)?;
        Ok(self.turn())
    }

    /// The main channel arrives.
    ///
    /// # Errors
    /// If it has arrived already.
    pub fn main_arrives(&mut self) -> Result<Turn, MultifdBarrierError> {
        Self::arrive(&mut self.main)?;
        Ok(self.turn())
    }

    /// Whether this channel has arrived and must not be read.
    pub fn is_waiting(&self, channel: usize) -> bool {
        self.arrived.get(channel).copied().unwrap_or(false)
    }

    /// Whether the main channel has arrived and must not be read.
    pub fn main_is_waiting(&self) -> bool {
        self.main
    }

    /// Barriers behind which all readers are.
    pub fn passed(&self) -> u64 {
        self.passed
    }

    fn arrive(arrived: &mut bool) -> Result<(), MultifdBarrierError> {
        if std::mem::replace(arrived, true) {
            return Err(MultifdBarrierError::DidNotWait);
        }
        Ok(())
    }

    fn turn(&mut self) -> Turn {
        if !self.main || self.arrived.contains(&false) {
            return Turn::Wait;
        }
        self.arrived.fill(false);
        self.main = false;
        self.passed += 1;
        Turn::Go
    }
}
