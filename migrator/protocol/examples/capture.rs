//! Captures migration streams of real QEMUs for the tests:
//!
//! ```text
//! cargo run -p rackferry-migrator-protocol --example capture -- migrator/protocol/tests/captures [name]...
//! ```
//!
//! The files are compressed with zstd: the main channel, each multifd channel, and the memory of the stopped source.

#[path = "../tests/support/cases.rs"]
mod cases;
#[path = "../tests/support/qemu.rs"]
mod qemu;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use cases::{CASES, Case};
use qemu::{Outcome, Qemu, wait};
use serde_json::json;

/// Silence after which a stopped source has nothing more to say.
const SILENCE: Duration = Duration::from_secs(1);
/// Pages with content that make several rounds: the guest has about 800 at once, and changes 256.
const ROUNDS_PAGES: u64 = 2000;
const ZSTD_LEVEL: i32 = 19;
const SHUT: [u8; 8] = [0, 1, 0, 4, 0, 0, 0, 0];

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let target = PathBuf::from(arguments.next().ok_or("usage: capture FOLDER [NAME]...")?);
    let names: Vec<String> = arguments.collect();
    let scratch = std::env::temp_dir().join(format!("rackferry-capture-{}", std::process::id()));
    let wanted = |case: &&Case| names.is_empty() || names.iter().any(|name| name == case.name);
    std::fs::create_dir_all(&target)?;
    let outcome = CASES.iter().filter(wanted).try_for_each(|case| {
        capture(case, &scratch.join(case.name), &target)
            .map_err(|error| format!("{}: {error}", case.name).into())
    });
    std::fs::remove_dir_all(&scratch)?;
    outcome
}

fn capture(case: &Case, scratch: &Path, target: &Path) -> Outcome<()> {
    let mut source = Qemu::start(case.version, case.machine, case.extra, scratch)?;
    source.wait_ready()?;
    source.set_capabilities(&["return-path"])?;
    source.set_capabilities(case.capabilities)?;
    let bandwidth = if case.rounds { 8 << 20 } else { 0 };
    // Not 0: with 0 QEMU stops the VM after the first round, without looking for dirty pages again.
    let parameters =
        json!({ "max-bandwidth": bandwidth, "downtime-limit": 1, "multifd-channels": 2 });
    source.execute("migrate-set-parameters", parameters)?;
    if case.capabilities.contains(&"dirty-bitmaps") {
        let bitmap = json!({ "node": "disk", "name": "changes" });
        source.execute("block-dirty-bitmap-add", bitmap)?;
    }
    let socket = scratch.join("stream.sock");
    let sink = Sink::listen(&socket)?;
    let uri = format!("unix:{}", socket.display());
    source.execute("migrate", json!({ "uri": uri }))?;
    wait("the rounds", || {
        let sent = source.migration()?["ram"]["normal"].as_u64().unwrap_or(0);
        Ok((!case.rounds || sent >= ROUNDS_PAGES).then_some(()))
    })?;
    let go = json!({ "max-bandwidth": 0, "downtime-limit": 20_000 });
    source.execute("migrate-set-parameters", go)?;
    wait("the stop", || {
        let stopped = source.run_state()? == "finish-migrate";
        Ok((stopped && sink.silence() > SILENCE).then_some(()))
    })?;
    sink.shut()?;
    wait("the end", || Ok((source.run_state()? == "postmigrate").then_some(())))?;
    let memory = source.memory(&scratch.join("memory"))?;
    drop(source);
    sink.store(case.name, target)?;
    store(&target.join(format!("{}.memory.zst", case.name)), &memory)
}

/// Takes everything that comes by a socket.
struct Sink {
    start: Instant,
    last: Arc<AtomicU64>,
    channels: Channels,
}

type Channels = Arc<Mutex<Vec<(UnixStream, Arc<Mutex<Vec<u8>>>)>>>;

impl Sink {
    fn listen(socket: &Path) -> Outcome<Self> {
        let listener = UnixListener::bind(socket)?;
        let start = Instant::now();
        let sink = Self { start, last: Arc::default(), channels: Arc::default() };
        let (last, channels) = (Arc::clone(&sink.last), Arc::clone(&sink.channels));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Ok(reader) = stream.try_clone() else { continue };
                let bytes = Arc::default();
                lock(&channels).push((stream, Arc::clone(&bytes)));
                let last = Arc::clone(&last);
                std::thread::spawn(move || read_all(reader, &bytes, start, &last));
            }
        });
        Ok(sink)
    }

    fn silence(&self) -> Duration {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        self.start.elapsed().saturating_sub(last)
    }

    /// Tells the source that everything was loaded.
    fn shut(&self) -> Outcome<()> {
        for (stream, bytes) in lock(&self.channels).iter_mut() {
            if lock(bytes).starts_with(b"QEVM") {
                stream.write_all(&SHUT)?;
            }
        }
        Ok(())
    }

    fn store(&self, name: &str, target: &Path) -> Outcome<()> {
        // The readers have everything once the source is gone; give them the time to take it.
        sleep(SILENCE);
        for (_, bytes) in lock(&self.channels).iter() {
            let bytes = lock(bytes);
            let kind = match bytes.get(24) {
                _ if bytes.starts_with(b"QEVM") => "main".to_owned(),
                Some(channel) => format!("channel{channel}"),
                None => return Err("a connection without a channel".into()),
            };
            store(&target.join(format!("{name}.{kind}.zst")), &bytes)?;
        }
        Ok(())
    }
}

fn store(file: &Path, bytes: &[u8]) -> Outcome<()> {
    let packed = zstd::encode_all(bytes, ZSTD_LEVEL)?;
    println!("{} {} -> {}", file.display(), bytes.len(), packed.len());
    std::fs::write(file, packed)?;
    Ok(())
}

fn read_all(mut reader: UnixStream, bytes: &Mutex<Vec<u8>>, start: Instant, last: &AtomicU64) {
    let mut buffer = vec![0; 1 << 20];
    while let Ok(len @ 1..) = reader.read(&mut buffer) {
        lock(bytes).extend_from_slice(&buffer[..len]);
        last.store(start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
