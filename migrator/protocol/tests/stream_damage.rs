//! Damaged captures: the fuzz targets' properties, on a bounded number of inputs.

mod support;

use support::captures;
use support::fuzzing;

const INPUTS: u64 = 60;
/// Bytes of a capture that are used; the beginnings hold all kinds of things, and then pages follow pages.
const BEGINNING: usize = 150_000;

/// Damages a copy: flips bits, repeats, removes and cuts off bytes.
fn damage(good: &[u8], seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % below.max(1)
    };
    let mut bytes = good.to_vec();
    for _ in 0..=random(3) {
        // The first bytes decide most.
        let reach = if random(2) == 0 { bytes.len() } else { bytes.len().min(1000) };
        let at = random(reach);
        let end = bytes.len().min(at + random(20));
        match random(5) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => bytes.extend_from_within(at..end),
            _ if bytes.is_empty() => {}
            _ => bytes[at] ^= 1 << random(8),
        }
    }
    bytes
}

#[test]
fn main_channels() {
    for capture in captures::all() {
        let good = &capture.main[..capture.main.len().min(BEGINNING)];
        fuzzing::qemu_stream(good);
        (0..INPUTS).for_each(|seed| fuzzing::qemu_stream(&damage(good, seed)));
    }
}

#[test]
fn whole_main_channels() {
    let captures = captures::all();
    // Without pages these are small from beginning to end.
    for capture in captures.iter().filter(|capture| !capture.channels.is_empty()) {
        fuzzing::qemu_stream(&capture.main);
        (0..INPUTS).for_each(|seed| fuzzing::qemu_stream(&damage(&capture.main, seed)));
    }
}

#[test]
fn multifd_channels() {
    for channel in captures::all().iter().flat_map(|capture| &capture.channels) {
        fuzzing::multifd(channel);
        let good = &channel[..channel.len().min(BEGINNING)];
        (0..INPUTS).for_each(|seed| fuzzing::multifd(&damage(good, seed)));
    }
}

#[test]
fn return_paths() {
    let mut good = vec![0, 2, 0, 4, 0, 0, 0, 1, 0, 7, 0, 0, 0, 5, 0, 7, 6];
    good.extend_from_slice(b"pc.ram");
    good.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
    good.extend_from_slice(&0x0123_4567_89ab_cdefu64.to_be_bytes());
    good.extend_from_slice(&[0, 1, 0, 4, 0, 0, 0, 0]);
    fuzzing::return_path(&good);
    (0..INPUTS * 50).for_each(|seed| fuzzing::return_path(&damage(&good, seed)));
}
