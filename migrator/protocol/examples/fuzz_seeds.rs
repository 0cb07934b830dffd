//! Writes seeds for the fuzz targets, made of the captures and of good frames:
//!
//! ```text
//! cargo run -p rackferry-migrator-protocol --example fuzz_seeds -- tests/fuzz/corpus
//! ```

#[path = "../tests/support/frames.rs"]
#[allow(dead_code, reason = "only the samples are needed here, not the properties")]
mod frames;
#[path = "../tests/support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};

use rackferry_migrator_protocol::stream::return_path::Message;
use support::captures;
use support::qemu::Outcome;

/// Longest seed: short ones are tried more often.
const LONGEST: usize = 16 << 10;

fn main() -> Outcome<()> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("usage: fuzz_seeds FOLDER")?);
    for capture in captures::all() {
        seed(&folder.join("qemu_stream"), capture.case.name, &capture.main)?;
        for (number, channel) in capture.channels.iter().enumerate() {
            let name = format!("{}-{number}", capture.case.name);
            seed(&folder.join("multifd"), &name, channel)?;
        }
    }
    let block: Box<str> = "pc.ram".into();
    let messages = [
        Message::Pong(1),
        Message::Pong(0x7a00_0000),
        Message::SwitchoverAck,
        Message::ReqPages { block: Some(block.clone()), start: 4096, len: 4096 },
        Message::ReqPages { block: None, start: 0, len: 4096 },
        Message::RecvBitmap { block, bitmap: [0xff; 16].into() },
        Message::ResumeAck(1),
        Message::Shut(0),
    ];
    let mut bytes = Vec::new();
    messages.iter().for_each(|message| message.encode(&mut bytes));
    seed(&folder.join("return_path"), "all", &bytes)?;
    for (name, frame) in frames::samples() {
        seed(&folder.join("frames"), name, &frame)?;
    }
    Ok(())
}

fn seed(folder: &Path, name: &str, bytes: &[u8]) -> Outcome<()> {
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join(name), &bytes[..bytes.len().min(LONGEST)])?;
    Ok(())
}
