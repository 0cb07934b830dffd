//! Real QEMUs load rebuilt streams. Skipped where there is no QEMU of the version.

mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use rackferry_migrator_protocol::stream::return_path::{ReturnPath, ReturnPathEvent};
use rackferry_migrator_protocol::stream::{Item, PAGE_SIZE, StreamParser, StreamWriter};
use support::captures::{self, Capture};
use support::qemu::{Outcome, Qemu, SHADOWED, Version, wait};
use support::write;

fn replay(name: &str, version: Version, machine: &str) {
    if !version.is_installed() {
        println!("skipped: {version:?} is not installed");
        return;
    }
    let captures = captures::all();
    let capture = captures.iter().find(|capture| capture.case.name == name).expect("a capture");
    load(capture, version, machine).expect("the stream is loaded");
}

/// Gives a rebuilt capture to a destination, with a barrier before the end of memory and one behind it.
fn load(capture: &Capture, version: Version, machine: &str) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("in.sock");
    let uri = format!("unix:{}", socket.display());
    let incoming = [&["-S", "-incoming", "defer"], capture.case.extra].concat();
    let mut target = Qemu::start(version, machine, &incoming, folder.path())?;
    target.execute("migrate-incoming", serde_json::json!({ "uri": uri }))?;
    let mut connection = UnixStream::connect(&socket)?;

    let mut path = ReturnPath::new();
    let (stream, started) = with_barriers(&capture.rebuild().0, &mut path)?;
    connection.write_all(&stream)?;
    let mut events = Vec::new();
    let mut buffer = [0; 512];
    while !events.iter().any(|event| matches!(event, ReturnPathEvent::Shut(_))) {
        let len = connection.read(&mut buffer)?;
        assert!(len > 0, "the destination gave up");
        path.push(&buffer[..len], &mut events)?;
    }
    assert_eq!(events.last(), Some(&ReturnPathEvent::Shut(0)));
    let passed = events.iter().filter(|event| matches!(event, ReturnPathEvent::Passed(_)));
    assert_eq!(passed.count() as u64, started);
    wait("the end", || Ok((target.run_state()? == "paused").then_some(())))?;

    let memory = target.memory(&folder.path().join("memory"))?;
    for at in (0..memory.len()).step_by(PAGE_SIZE).filter(|at| !SHADOWED.contains(at)) {
        let same = memory[at..at + PAGE_SIZE] == capture.memory[at..at + PAGE_SIZE];
        assert!(same, "page at {at:#x}");
    }
    Ok(())
}

fn with_barriers(stream: &[u8], path: &mut ReturnPath) -> Outcome<(Vec<u8>, u64)> {
    let mut items = Vec::new();
    StreamParser::new().parse(stream, &mut items)?;
    let (mut writer, mut out) = (StreamWriter::new(), Vec::new());
    for item in &items {
        write(&mut writer, item, stream, &mut out);
        if matches!(item, Item::SectionEnd | Item::RamEnd) {
            writer.inject_ping(path.start_barrier()?.1, &mut out)?;
        }
    }
    Ok((out, path.barriers().under_way()))
}

#[test]
fn from_7_2_to_7_2() {
    replay("qemu-7.2-rounds", Version::V7_2, "pc-q35-7.2");
}

#[test]
fn from_7_2_to_10_0() {
    replay("qemu-7.2", Version::V10_0, "pc-q35-7.2");
}

#[test]
fn from_10_0_to_10_0() {
    replay("qemu-10.0-rounds", Version::V10_0, "pc-q35-10.0");
}

#[test]
fn from_10_0_to_7_2() {
    replay("qemu-10.0-as-7.2", Version::V7_2, "pc-q35-7.2");
}

#[test]
fn from_multifd_to_one_channel() {
    replay("qemu-7.2-multifd", Version::V7_2, "pc-q35-7.2");
    replay("qemu-10.0-multifd", Version::V10_0, "pc-q35-10.0");
    replay("qemu-10.0-as-7.2-multifd", Version::V7_2, "pc-q35-7.2");
}

#[test]
fn with_other_sections_before_the_end_of_memory() {
    replay("qemu-7.2-bitmap", Version::V7_2, "pc-q35-7.2");
    replay("qemu-10.0-virtio-mem", Version::V10_0, "pc-q35-10.0");
}
