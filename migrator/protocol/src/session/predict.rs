//! When the VM may be stopped: the forecast of its last pass.
//!
//! QEMU forecasts from the bytes it hands to our socket, which knows nothing of references, of compression or of
//! other VMs on the link. The session sees all of it: the forecast is what is still queued, plus the dirty memory at
//! the share of it that had to cross as content lately, over what the link carries for this session, plus the
//! device state and the messages of the switchover.

/// Everything the forecast needs, from QEMU and from the session's counters.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sample {
    /// Dirty guest memory that QEMU has still to send, bytes.
    pub remaining_bytes: u64,
    /// Bytes handed to the connection and not received.
    pub in_flight_bytes: u64,
    /// Wire bytes per guest byte in the latest passes, 0..~1.
    pub wire_ratio: f64,
    /// What the link carries for this session, bytes per second.
    pub link_rate: f64,
    /// What QEMU and this agent get through without any link, guest bytes per second.
    pub local_rate: f64,
}

/// Device state, loading it, and the messages of the switchover.
const FIXED_MS: f64 = 8.0;

/// A forecast must not be better than this share of the last pass crossing as content: the dirty pages of a last pass
/// are mostly new content, whatever the passes before were.
const WIRE_RATIO_FLOOR: f64 = 0.3;

/// What is assumed of a host that was not measured, guest bytes per second.
const LOCAL_RATE_LEAST: f64 = 1e6;

/// Milliseconds the VM would be stopped.
pub fn stop_ms(s: &Sample) -> u32 {
    if s.link_rate <= 0.0 {
        return u32::MAX;
    }
    let wire = s.in_flight_bytes as f64 + s.remaining_bytes as f64 * s.last_wire_ratio();
    let link_ms = wire / s.link_rate * 1e3;
    let local_ms = s.remaining_bytes as f64 / s.local_rate.max(LOCAL_RATE_LEAST) * 1e3;
    (FIXED_MS + link_ms.max(local_ms)).min(f64::from(u32::MAX)) as u32
}

/// Guest bytes per second at which a last pass goes at least; 0 if nothing is known of the link. No share of content
/// that crossed lately counts here: the pages of a stopped VM are sent as they are, without claims.
pub fn last_pass_rate(s: &Sample) -> u64 {
    s.link_rate.max(0.0).min(s.local_rate.max(LOCAL_RATE_LEAST)) as u64
}

impl Sample {
    fn last_wire_ratio(&self) -> f64 {
        self.wire_ratio.max(WIRE_RATIO_FLOOR)
    }
}

/// Does a forecast fit into a limit? Half of that is kept for what no forecast knows. `u32::MAX` is no limit, and a
/// forecast of `u32::MAX` is none.
pub fn fits(stop_ms: u32, limit_ms: u32) -> bool {
    stop_ms != u32::MAX && (limit_ms == u32::MAX || stop_ms <= limit_ms / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Sample = Sample {
        remaining_bytes: 1 << 20,
        in_flight_bytes: 0,
        wire_ratio: 0.1,
        link_rate: 10e6,
        local_rate: 500e6,
    };

    #[test]
    fn a_small_rest_may_go() {
        assert!(fits(stop_ms(&IDLE), 300), "{} ms", stop_ms(&IDLE));
    }

    #[test]
    fn a_queue_or_a_large_rest_or_an_unknown_link_may_not() {
        let may = |sample: Sample| fits(stop_ms(&sample), 300);
        assert!(!may(Sample { in_flight_bytes: 4 << 20, ..IDLE }));
        assert!(!may(Sample { remaining_bytes: 64 << 20, ..IDLE }));
        assert!(!may(Sample { link_rate: 0.0, ..IDLE }));
    }

    #[test]
    fn a_last_pass_is_as_fast_as_the_slower_of_link_and_host() {
        assert_eq!(last_pass_rate(&Sample { wire_ratio: 0.5, ..IDLE }), 10_000_000);
        assert_eq!(last_pass_rate(&Sample { local_rate: 5e6, ..IDLE }), 5_000_000);
        assert_eq!(last_pass_rate(&Sample { link_rate: 0.0, ..IDLE }), 0);
    }

    #[test]
    fn without_a_limit_every_known_stop_fits() {
        assert!(fits(u32::MAX - 1, u32::MAX));
        assert!(!fits(u32::MAX, u32::MAX));
        assert!(fits(150, 300) && !fits(151, 300));
    }
}
