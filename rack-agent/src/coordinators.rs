//! Which coordinator to dial, and when.

use std::time::Duration;

use rackferry_tls::grpc::authority_of;

/// Pause before a coordinator is dialled again; it doubles with every round in which none was reached.
const REDIAL: Duration = Duration::from_millis(300);
/// The longest pause before a coordinator is dialled again.
const REDIAL_MAX: Duration = Duration::from_millis(2400);
/// Hints followed one after the other without a pause: coordinators that have just elected another may point
/// at each other.
const HINTS: u32 = 2;

/// The known addresses, and the one that is tried.
#[derive(Debug)]
pub struct Coordinators {
    addresses: Vec<String>,
    at: usize,
    /// The leader, as another coordinator named it.
    hint: Option<String>,
    hints: u32,
    /// Dialled without success since the last one.
    failures: usize,
}

impl Coordinators {
    /// Begins with the first of at least one address.
    pub fn new(addresses: Vec<String>) -> Self {
        debug_assert!(!addresses.is_empty());
        let addresses = addresses.iter().map(|one| authority_of(one).to_owned()).collect();
        Self { addresses, at: 0, hint: None, hints: 0, failures: 0 }
    }

    /// The address of the coordinator to dial.
    pub fn current(&self) -> &str {
        self.hint.as_ref().unwrap_or(&self.addresses[self.at])
    }

    /// Notes that the current coordinator has taken the stream.
    pub fn connected(&mut self) {
        (self.hints, self.failures) = (0, 0);
    }

    /// The current coordinator ended the connection, or was never reached; `leader` (`host:port`) is the one it named.
    /// Returns how long to wait before the next one is dialled.
    pub fn next(&mut self, leader: Option<&str>) -> Duration {
        let current = self.current();
        if let Some(leader) = leader.map(authority_of).map(str::to_owned)
            && leader != current
        {
            self.hint = Some(leader);
            self.hints += 1;
            return if self.hints <= HINTS { Duration::ZERO } else { REDIAL };
        }
        // Back from a hint that led nowhere to where it came from, and on from there.
        self.hint = None;
        self.at = (self.at + 1) % self.addresses.len();
        let rounds = self.failures / self.addresses.len();
        self.failures += 1;
        REDIAL.saturating_mul(1 << rounds.min(8)).min(REDIAL_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Coordinators {
        Coordinators::new(["http://a:1", "http://b:1", "http://c:1"].map(str::to_owned).to_vec())
    }

    #[test]
    fn a_hint_is_followed_at_once() {
        let mut known = three();
        assert_eq!(known.next(Some("c:1")), Duration::ZERO);
        assert_eq!(known.current(), "c:1");
        known.connected();
        assert_eq!(known.next(None), REDIAL);
        assert_eq!(known.current(), "b:1");
    }

    #[test]
    fn hints_in_a_circle_are_followed_slowly() {
        let mut known = three();
        let pauses = ["b:1", "a:1", "b:1", "a:1"].map(|leader| known.next(Some(leader)));
        assert_eq!(pauses, [Duration::ZERO, Duration::ZERO, REDIAL, REDIAL]);
    }

    #[test]
    fn all_are_tried_in_turn_and_ever_slower() {
        let mut known = three();
        let tried: Vec<_> = (0..7)
            .map(|_| {
                let current = known.current().to_owned();
                (current, known.next(None))
            })
            .collect();
        let names: Vec<&str> = tried.iter().map(|(name, _)| &name[..1]).collect();
        assert_eq!(names, ["a", "b", "c", "a", "b", "c", "a"]);
        assert_eq!((tried[2].1, tried[3].1, tried[6].1), (REDIAL, 2 * REDIAL, 4 * REDIAL));
        for _ in 0..100 {
            assert!(known.next(None) <= REDIAL_MAX);
        }
        known.connected();
        assert_eq!(known.next(None), REDIAL);
    }

    #[test]
    fn one_alone_is_dialled_again() {
        let mut known = Coordinators::new(vec!["http://a:1".to_owned()]);
        known.next(None);
        assert_eq!(known.current(), "a:1");
    }
}
