//! References that the target has received and not resolved, as the source knows of them, and when it supplies their
//! contents without being asked.
//!
//! A running VM's references may wait for a holder: that costs nothing but a buffer. A VM that is about to stop, or has
//! stopped, must not wait for a neighbour of its target. So from its switchover slot on, until QEMU may stop it, a batch
//! that stays open is supplied after [`OPEN_LIMIT`]; once the VM is stopped, as soon as it is known to be open.
//!
//! A batch is open from the ack that says it was received and does not say it is resolved: what the target host has
//! itself is resolved by then. Times are those since the session began.

use std::collections::BTreeMap;
use std::time::Duration;

/// A VM is not stopped while references are open for longer, and then their contents are supplied: several round trips
/// in a rack, and a small part of any stop.
pub const OPEN_LIMIT: Duration = Duration::from_millis(5);

/// So long the stop is put off for what was supplied to arrive. What is open then is waited for at the end of memory, as
/// every reference is.
pub const SETTLE_LIMIT: Duration = Duration::from_millis(500);

/// How near the VM's stop is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hurry {
    /// The VM is copied.
    #[default]
    None,
    /// It holds its switchover slot.
    StopsSoon,
    /// It is stopped.
    Stopped,
}

#[derive(Debug, Default)]
struct Batch {
    /// When it was known to be received; none: it may be on its way.
    open_since: Option<Duration>,
    /// Its contents were supplied unasked.
    supplied: bool,
}

/// The batches of one source session that have references and are not resolved; bounded by the session's buffers.
#[derive(Debug, Default)]
pub struct Open {
    batches: BTreeMap<u64, Batch>,
    hurry: Hurry,
}

impl Open {
    /// A batch with references is about to be written.
    pub fn sent(&mut self, seq: u64) {
        self.batches.insert(seq, Batch::default());
    }

    /// The target has received all batches below `end`, and resolved some.
    pub fn acked(&mut self, end: u64, resolved: &[u64], at: Duration) {
        for seq in resolved {
            self.batches.remove(seq);
        }
        for (_, batch) in self.batches.range_mut(..end) {
            batch.open_since.get_or_insert(at);
        }
    }

    /// The VM's stop comes nearer; it never goes back.
    pub fn hurry(&mut self, hurry: Hurry) {
        self.hurry = self.hurry.max(hurry);
    }

    /// The batches that are to be supplied now, each of them once.
    pub fn take_due(&mut self, at: Duration) -> Vec<u64> {
        let limit = match self.hurry {
            Hurry::None => return Vec::new(),
            Hurry::StopsSoon => OPEN_LIMIT,
            Hurry::Stopped => Duration::ZERO,
        };
        let due = self.batches.iter_mut().filter(|(_, batch)| {
            let open = batch.open_since.is_some_and(|since| at.saturating_sub(since) >= limit);
            open && !batch.supplied
        });
        due.map(|(seq, batch)| {
            batch.supplied = true;
            *seq
        })
        .collect()
    }

    /// No batch has been open for [`OPEN_LIMIT`]: the VM may stop.
    pub fn is_settled(&self, at: Duration) -> bool {
        let mut since = self.batches.values().filter_map(|batch| batch.open_since);
        since.all(|since| at.saturating_sub(since) < OPEN_LIMIT)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_running_vm_waits_for_holders_and_a_stopped_one_does_not() {
        let mut open = Open::default();
        (0..3).for_each(|seq| open.sent(seq));
        open.acked(2, &[0], MS);
        assert_eq!(open.take_due(MS * 1000), [0; 0], "it is copied");
        assert!(open.is_settled(MS * 2) && !open.is_settled(MS * 6));
        open.hurry(Hurry::StopsSoon);
        assert_eq!(open.take_due(MS * 5), [0; 0]);
        assert_eq!(open.take_due(MS * 6), [1]);
        assert_eq!(open.take_due(MS * 7), [0; 0], "once");
        assert!(!open.is_settled(MS * 7), "it has not arrived yet");
        open.acked(2, &[1], MS * 8);
        assert!(open.is_settled(MS * 1000), "the last one may be on its way");
        open.hurry(Hurry::Stopped);
        assert_eq!(open.take_due(MS * 9), [0; 0]);
        open.acked(3, &[], MS * 10);
        open.hurry(Hurry::None);
        assert_eq!(open.take_due(MS * 10), [2], "stopped stays stopped");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Send,
        Ack { more: u64, resolve: u8 },
        Hurry(Hurry),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Send),
            (0..4u64, any::<u8>()).prop_map(|(more, resolve)| Step::Ack { more, resolve }),
            Just(Step::Hurry(Hurry::StopsSoon)),
            Just(Step::Hurry(Hurry::Stopped)),
        ]
    }

    proptest! {
        /// Whatever the order of acks: no batch is supplied before it was received or after it was resolved, none twice,
        /// none while the VM is only copied; and of a stopped VM, none that is open is left.
        #[test]
        fn what_is_open_at_the_stop_is_supplied_once(steps in prop::collection::vec(step(), 1..80)) {
            let mut open = Open::default();
            let (mut sent, mut received, mut hurry) = (0, 0, Hurry::None);
            let (mut unresolved, mut supplied) = (BTreeSet::new(), BTreeSet::new());
            for (at, step) in steps.into_iter().enumerate() {
                let at = MS * at as u32;
                match step {
                    Step::Send => {
                        open.sent(sent);
                        unresolved.insert(sent);
                        sent += 1;
                    }
                    Step::Ack { more, resolve } => {
                        received = sent.min(received + more);
                        let resolved: Vec<u64> = unresolved
                            .range(..received)
                            .copied()
                            .filter(|seq| resolve & (1 << (seq % 8)) != 0)
                            .collect();
                        open.acked(received, &resolved, at);
                        resolved.iter().for_each(|seq| { unresolved.remove(seq); });
                    }
                    Step::Hurry(more) => {
                        hurry = hurry.max(more);
                        open.hurry(more);
                    }
                }
                for seq in open.take_due(at) {
                    prop_assert!(hurry > Hurry::None && seq < received);
                    prop_assert!(unresolved.contains(&seq) && supplied.insert(seq));
                }
                if hurry == Hurry::Stopped {
                    let left = unresolved.range(..received).find(|seq| !supplied.contains(seq));
                    prop_assert_eq!(left, None);
                }
            }
        }
    }
}
