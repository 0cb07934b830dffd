//! Damaged frames: the fuzz target's properties, on a bounded number of inputs.

#[path = "support/frames.rs"]
mod frames;

use proptest::prelude::*;
use rackferry_migrator_protocol::frame::{HEADER_LEN, Header, Kind};

#[test]
fn good_frames_pass() {
    for (name, bytes) in frames::samples() {
        let (head, payload) = bytes.split_first_chunk::<HEADER_LEN>().expect("a header");
        let header = Header::decode(head).expect(name);
        assert_eq!(header.len, payload.len(), "{name}");
        header.check(payload).expect(name);
        frames::frame(&bytes);
    }
}

proptest! {
    #[test]
    fn a_damaged_frame_does_no_harm(
        which in any::<prop::sample::Index>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let samples = frames::samples();
        let mut bytes = samples[which.index(samples.len())].1.clone();
        for (at, value) in flips {
            // The first bytes decide most.
            let reach = bytes.len().min(120);
            bytes[at.index(reach)] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        frames::frame(&bytes);
    }

    #[test]
    fn noise_does_no_harm(kind in 0u8..40, noise in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(kind) = Kind::try_from(kind) {
            frames::payload(kind, &noise);
        }
    }
}
