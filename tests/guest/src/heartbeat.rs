//! The heartbeat: what makes a pause of the guest visible from outside.

use std::thread;
use std::time::{Duration, Instant};

use crate::serial::Serial;

/// One beat in so many also tells its whole number and the guest's time.
const LINE_EVERY: u64 = 50;
/// What tells a beat from text; the rest of the byte is the beat's number modulo 128.
const BEAT: u8 = 0x80;

/// Starts the heartbeat.
pub fn start(serial: Serial, interval: Duration) {
    thread::spawn(move || {
        // The heartbeat must not wait for the guest's own workers, only for the host.
        rustix::process::setpriority_process(None, -20).ok();
        let start = Instant::now();
        let mut due = start;
        for number in 0_u64.. {
            serial.bytes(&[BEAT | number as u8]);
            if number.is_multiple_of(LINE_EVERY) {
                serial.line(&format!("H{number:x} {:x}", start.elapsed().as_micros()));
            }
            due += interval;
            match due.checked_duration_since(Instant::now()) {
                Some(rest) => thread::sleep(rest),
                None => due = Instant::now(),
            }
        }
    });
}
