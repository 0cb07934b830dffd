//! What a transfer consists of, in bytes by kind.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize, Serializer};

use crate::word::{Word, words};

words! {
    /// A kind of bytes. Metrics name it as it is; fields of messages and of JSON are called by it and `_bytes`.
    #[serde(rename_all = "snake_case")]
    ByteKind {
        /// Pages as QEMU sent them, zero pages included.
        Logical = "logical",
        /// Zero pages.
        Zero = "zero",
        /// Pages sent as references.
        Duplicate = "duplicate",
        /// Pages sent as content, before compression.
        Raw = "raw",
        /// Everything written to the session's connection.
        Wire = "wire",
        /// References that the target could not resolve, sent again as content.
        Supplied = "supplied",
    }
}

/// Bytes of a transfer by kind. The serde form is the log's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Pages as QEMU sent them, zero pages included.
    pub logical: u64,
    /// Zero pages.
    pub zero: u64,
    /// Pages sent as references.
    pub duplicate: u64,
    /// Pages sent as content, before compression.
    pub raw: u64,
    /// Everything written to the session's connection.
    pub wire: u64,
    /// References that the target could not resolve, sent again as content.
    pub supplied: u64,
}

impl Counters {
    /// The counter of a kind.
    pub const fn of(&self, kind: ByteKind) -> u64 {
        match kind {
            ByteKind::Logical => self.logical,
            ByteKind::Zero => self.zero,
            ByteKind::Duplicate => self.duplicate,
            ByteKind::Raw => self.raw,
            ByteKind::Wire => self.wire,
            ByteKind::Supplied => self.supplied,
        }
    }

    /// Writes `logical_bytes`, `zero_bytes` and so on into the object around.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn in_bytes<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(ByteKind::ALL.iter().map(|&kind| (format!("{kind}_bytes"), self.of(kind))))
    }
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.logical = self.logical.saturating_add(other.logical);
        self.zero = self.zero.saturating_add(other.zero);
        self.duplicate = self.duplicate.saturating_add(other.duplicate);
        self.raw = self.raw.saturating_add(other.raw);
        self.wire = self.wire.saturating_add(other.wire);
        self.supplied = self.supplied.saturating_add(other.supplied);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_names_the_unit() {
        #[derive(Serialize)]
        struct Around {
            #[serde(flatten, serialize_with = "Counters::in_bytes")]
            counters: Counters,
        }
        let counters = Counters { logical: 1, zero: 2, duplicate: 3, raw: 4, wire: 5, supplied: 6 };
        let text = serde_json::to_string(&Around { counters }).unwrap();
        assert_eq!(
            text,
            r#"{"logical_bytes":1,"zero_bytes":2,"duplicate_bytes":3,"raw_bytes":4,"wire_bytes":5,"supplied_bytes":6}"#
        );
    }

    #[test]
    fn sums_do_not_overflow() {
        let mut sum = Counters { wire: u64::MAX, ..Counters::default() };
        sum += Counters { wire: 1, raw: 2, ..Counters::default() };
        assert_eq!((sum.wire, sum.raw), (u64::MAX, 2));
    }
}
