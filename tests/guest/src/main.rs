//! PID 1 of the lab's guests: fills memory by a profile, keeps it moving, checks every byte of it and
//! reports on the serial line.
//!
//! On the serial line a byte of 0x80 and above is a heartbeat: its number modulo 128 in the low seven bits.
//! One byte, because an emulated UART costs its host a system call for each. All other bytes make up
//! lines of text:
//!
//! - `H<n> <t>`: follows every 50th heartbeat: its whole number `n`, and `t`, the microseconds of guest
//!   time since the first one, both hexadecimal.
//! - `RF READY <what was filled>`: once, when the profile's memory is in place.
//! - `RF CHECK <passes>`: a full sweep over all memory ended and found every byte right.
//! - `RF CHECKED <wrong pages>`: the answer to a line `check` sent to the guest.
//! - `RF BAD <place>`: a byte is wrong.
//! - `RF FAIL <reason>`: the guest cannot do its work.

mod boot;
mod busy;
mod cache;
mod content;
mod heartbeat;
mod hot;
mod init;
mod params;
mod region;
mod serial;
mod service;
mod sweep;

fn main() {
    if std::process::id() == 1 { init::run() } else { service::run() }
}
