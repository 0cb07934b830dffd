//! Time as the fleet knows it.

use serde::{Deserialize, Serialize};

/// Nanoseconds since the Unix epoch, handed in: the fleet has no clock.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Moment(pub u64);

impl Moment {
    /// Milliseconds since the Unix epoch.
    pub const fn unix_ms(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Nanoseconds since an earlier moment; 0 if it is not earlier.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
