//! Barriers: PINGs of the session's own, answered when the destination has loaded what went before them.

/// First PING value of our own. QEMU uses 1 to 4 and 0x42.
const FIRST: u32 = 0x7a00_0000;
/// How many there are; they are used in turn.
const COUNT: u32 = 0x0100_0000;

/// Number of a barrier; later ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BarrierId(pub u64);

/// Barriers and answers do not fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BarrierError {
    /// QEMU answers in order, and this was not the next.
    #[error("PONG {found:#x} does not answer the oldest barrier under way")]
    Unexpected {
        /// The value in the answer.
        found: u32,
    },
    /// All values are in use.
    #[error("too many barriers are under way")]
    TooMany,
}

/// The barriers of one session. They pass in the order in which they were started.
#[derive(Clone, Debug, Default)]
pub struct Barriers {
    started: u64,
    passed: u64,
}

impl Barriers {
    /// Whether a PING or PONG value is one of ours, and no business of QEMU's source.
    pub fn is_private(value: u32) -> bool {
        (FIRST..FIRST + COUNT).contains(&value)
    }

    /// Starts a barrier; returns its number and the value of its PING.
    ///
    /// # Errors
    /// If too many are under way.
    pub fn start(&mut self) -> Result<(BarrierId, u32), BarrierError> {
        if self.under_way() >= u64::from(COUNT) {
            return Err(BarrierError::TooMany);
        }
        let id = BarrierId(self.started);
        self.started += 1;
        Ok((id, value(id)))
    }

    /// Takes the answer to a barrier.
    ///
    /// # Errors
    /// If it does not answer the oldest under way.
    pub fn pong(&mut self, found: u32) -> Result<BarrierId, BarrierError> {
        let next = BarrierId(self.passed);
        if self.under_way() == 0 || value(next) != found {
            return Err(BarrierError::Unexpected { found });
        }
        self.passed += 1;
        Ok(next)
    }

    /// How many were started and have not passed.
    pub fn under_way(&self) -> u64 {
        self.started - self.passed
    }

    /// Whether this barrier has passed.
    pub fn has_passed(&self, barrier: BarrierId) -> bool {
        barrier.0 < self.passed
    }
}

fn value(id: BarrierId) -> u32 {
    FIRST + (id.0 % u64::from(COUNT)) as u32
}
