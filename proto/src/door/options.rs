//! Options of moves, and counters.

use rackferry_model::{Counters, MoveOptions, options::max_downtime_or_default};

use super::{FromNumber, Invalid};
use crate::v1;

impl From<MoveOptions> for v1::MigrationOptions {
    fn from(options: MoveOptions) -> Self {
        let MoveOptions { dedup, compress, max_downtime_ms, verify, disruption } = options;
        Self {
            dedup: v1::DedupMode::from(dedup).into(),
            compress: v1::CompressMode::from(compress).into(),
            max_downtime_ms,
            verify,
            disruption: v1::Disruption::from(disruption).into(),
        }
    }
}

impl TryFrom<v1::MigrationOptions> for MoveOptions {
    type Error = Invalid;

    fn try_from(message: v1::MigrationOptions) -> Result<Self, Invalid> {
        let v1::MigrationOptions { dedup, compress, max_downtime_ms, verify, disruption } = message;
        Ok(Self {
            dedup: chosen(dedup, "options.dedup")?,
            compress: chosen(compress, "options.compress")?,
            max_downtime_ms: max_downtime_or_default(max_downtime_ms),
            verify,
            disruption: chosen(disruption, "options.disruption")?,
        })
    }
}

/// What was chosen; the default if nothing was.
fn chosen<T: FromNumber + Default>(number: i32, field: &'static str) -> Result<T, Invalid> {
    match number {
        0 => Ok(T::default()),
        number => T::from_number(number).ok_or(Invalid(field)),
    }
}

impl From<Counters> for v1::TransferCounters {
    fn from(counters: Counters) -> Self {
        let Counters { logical, zero, duplicate, raw, wire, supplied } = counters;
        Self {
            logical_bytes: logical,
            zero_bytes: zero,
            duplicate_bytes: duplicate,
            raw_bytes: raw,
            wire_bytes: wire,
            supplied_bytes: supplied,
        }
    }
}

impl From<v1::TransferCounters> for Counters {
    fn from(message: v1::TransferCounters) -> Self {
        let v1::TransferCounters {
            logical_bytes: logical,
            zero_bytes: zero,
            duplicate_bytes: duplicate,
            raw_bytes: raw,
            wire_bytes: wire,
            supplied_bytes: supplied,
        } = message;
        Self { logical, zero, duplicate, raw, wire, supplied }
    }
}
