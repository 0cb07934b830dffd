//! Does a QEMU lose writes of its guest while a migration is held? One VM, no target: its first pass is read at full
//! speed, the rest slowly for a while, then the VM is stopped and the last content of each page in the stream is compared
//! with its memory.
//!
//! `cargo xtask tracking` runs it; decision 15 has what it showed.
#![allow(clippy::print_stdout, reason = "a program for people")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rackferry_dedup_index::{DomainKey, PageHasher};
use rackferry_migrator::memory::{GuestMemory, RAM_BLOCK};
use rackferry_migrator::qmp::{Qmp, Rest, SourceCaps, Valve};
use rackferry_migrator::source::pump::{Pump, Reading};
use rackferry_migrator::source::recorder::Recorder;
use rackferry_migrator_protocol::session::source::Unsent;
use rackferry_migrator_protocol::stream::Item;
use tokio::net::{UnixListener, UnixStream};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const USAGE: &str = "usage: tracking HOLD ROUNDS SECONDS KIB_PER_SECOND MIB FOLDER QEMU [ARGUMENT]...\n\
    HOLD: estimate (downtime-limit 300 ms by QEMU's measured rate), converge (the same with auto-converge), \
    page (less than a page may be left)";

/// The guest runs by then.
const BOOT: Duration = Duration::from_secs(20);
/// Part of the time of a hold that is left for the first pass.
const FIRST: u32 = 3;
/// A stopped VM's last pages are there by then.
const LAST: Duration = Duration::from_secs(60);

/// The guest: nothing but a firmware. It writes 84 pages once, then the last 8 of them for a second or so, and so on:
/// QEMU checks its time after 64 pages, and a sync there finds only pages that still wait to be sent. In assembler
/// (`as --32`, `ld -Ttext 0xf0000 --oformat binary`):
///
/// ```text
/// .code16 cli; inb $0x92,%al; orb $2,%al; outb %al,$0x92; movw $0xf000,%ax; movw %ax,%ds
///         lgdtl gdtdesc-_start; movl %cr0,%eax; orl $1,%eax; movl %eax,%cr0; ljmpl $8,$pm
/// .code32 pm: movw $16,%ax; movw %ax,%ds; movw %ax,%es; movw %ax,%ss; movb $'R',%al; outb %al,$0xe9
/// 1:      movl $0x600000,%edi
/// 2:      incl (%edi); addl $4096,%edi; cmpl $0x654000,%edi; jb 2b; movl $8000000,%ecx
/// 3:      movl $0x64c000,%edi
/// 4:      incl (%edi); addl $4096,%edi; cmpl $0x654000,%edi; jb 4b; decl %ecx; jnz 3b; jmp 1b
/// .balign 8 gdt: .quad 0, 0xcf9b000000ffff, 0xcf93000000ffff; gdtdesc: .word 23; .long gdt
/// ```
const GUEST: &str = "fae4920c02e692b800f08ed8660f011680000f20c06683c8010f22c066ea24000f00080066b810008ed88ec08ed0\
    b052e6e9bf00006000ff0781c70010000081ff0040650072f0b900127a00bf00c06400ff0781c70010000081ff00\
    40650072f04975e8ebcc66900000000000000000ffff0000009bcf00ffff00000093cf00170068000f00";

/// A 64 KiB firmware image with the guest at its start and a far jump to it where a CPU begins.
fn firmware() -> Outcome<Vec<u8>> {
    let digits = GUEST.as_bytes().chunks(2);
    let code = digits.map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?));
    let mut image = code.collect::<Outcome<Vec<u8>>>()?;
    image.resize(0x1_0000, 0);
    image[0xfff0..0xfff5].copy_from_slice(&[0xea, 0, 0, 0, 0xf0]);
    Ok(image)
}

struct Options {
    hold: String,
    rounds: u32,
    held: Duration,
    kib_per_second: u64,
    memory_mib: u64,
    folder: PathBuf,
    qemu: Vec<String>,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Outcome<()> {
    let options = Options::read(std::env::args().skip(1)).ok_or(USAGE)?;
    std::fs::create_dir_all(&options.folder)?;
    let bytes = options.memory_mib << 20;
    let memory = GuestMemory::create("rackferry-tracking", bytes, None)?;
    let mut qemu = Qemu(start(&options, &memory)?);
    let result = rounds(&options, &memory, &mut qemu).await;
    drop(qemu);
    std::fs::remove_dir_all(&options.folder)?;
    result
}

/// Ends its process when dropped.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Options {
    fn read(mut words: impl Iterator<Item = String>) -> Option<Self> {
        Some(Self {
            hold: words.next()?,
            rounds: words.next()?.parse().ok()?,
            held: Duration::from_secs(words.next()?.parse().ok()?),
            kib_per_second: words.next()?.parse().ok()?,
            memory_mib: words.next()?.parse().ok()?,
            folder: words.next()?.into(),
            qemu: words.collect(),
        })
        .filter(|options| !options.qemu.is_empty())
    }

    fn rest(&self) -> Option<(Rest, bool)> {
        match self.hold.as_str() {
            "estimate" => Some((Rest::Millis(300), false)),
            "converge" => Some((Rest::Millis(300), true)),
            "page" => Some((Rest::LESS_THAN_A_PAGE, false)),
            _ => None,
        }
    }
}

fn start(options: &Options, memory: &GuestMemory) -> Outcome<Child> {
    let backend = format!(
        "memory-backend-file,id={RAM_BLOCK},share=on,size={},mem-path={}",
        memory.bytes(),
        memory.proc_path().display()
    );
    let monitor = format!("unix:{},server=on,wait=off", options.folder.join("qmp").display());
    let said = format!("file:{}", options.folder.join("debugcon").display());
    let mut command = Command::new(&options.qemu[0]);
    let image = options.folder.join("firmware");
    std::fs::write(&image, firmware()?)?;
    command
        .args(&options.qemu[1..])
        .args(["-m", &format!("{}K", memory.bytes() >> 10), "-object", &backend])
        .args(["-qmp", &monitor, "-serial", "none", "-debugcon", &said, "-nodefaults"])
        .args(["-display", "none", "-machine", "memory-backend=pc.ram", "-bios"])
        .arg(image)
        .stdin(Stdio::null());
    Ok(command.spawn()?)
}

async fn rounds(options: &Options, memory: &GuestMemory, qemu: &mut Qemu) -> Outcome<()> {
    let qmp = Qmp::connect_within(options.folder.join("qmp"), Duration::from_secs(10)).await?;
    booted(&options.folder, qemu).await?;
    let (mut bad, mut pages) = (0, 0);
    for round in 1..=options.rounds {
        let (unsent, passes) = hold(options, memory, &qmp).await?;
        bad += u32::from(unsent.pages > 0);
        pages += unsent.pages;
        println!("{:>3}: {} pages lost, {passes} passes {:x?}", round, unsent.pages, unsent.first);
    }
    println!(
        "QEMU {}, hold {}, {} KiB/s: {bad} of {} migrations lost writes, {pages} pages in all",
        qmp.version(),
        options.hold,
        options.kib_per_second,
        options.rounds
    );
    Ok(())
}

/// Waits for the guest's letter.
async fn booted(folder: &Path, qemu: &mut Qemu) -> Outcome<()> {
    let start = Instant::now();
    loop {
        if std::fs::read(folder.join("debugcon")).is_ok_and(|said| said == b"R") {
            return Ok(());
        }
        if start.elapsed() > BOOT || qemu.0.try_wait()?.is_some() {
            return Err("the guest did not boot".into());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// One migration: read, hold, stop, compare, take back.
async fn hold(options: &Options, memory: &GuestMemory, qmp: &Qmp) -> Outcome<(Unsent, u64)> {
    let (rest, auto_converge) = options.rest().ok_or(USAGE)?;
    let facts = qmp.check_can_migrate().await?;
    let valve = facts.valve;
    if valve != Valve::SwitchoverAck {
        return Err("this QEMU cannot be held: it has no switchover-ack".into());
    }
    let caps = SourceCaps { valve, rest, multifd_channels: None, auto_converge };
    qmp.prepare_source(caps).await?;
    let socket = options.folder.join("migrate");
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket)?;
    qmp.migrate(&socket).await?;
    let (stream, _) = listener.accept().await?;
    let recorder = Arc::new(Recorder::new(PageHasher::new(&DomainKey([7; 32]))));
    let (first, stopped) =
        (Instant::now() + options.held / FIRST, Arc::new(AtomicBool::new(false)));
    let pace = Pace { kib_per_second: options.kib_per_second, first, stopped: stopped.clone() };
    let reader = tokio::spawn(read(stream, recorder.clone(), pace));
    tokio::time::sleep(options.held).await;
    let passes = qmp.migration_status().await?.ram.map_or(0, |ram| ram.dirty_sync_count);
    qmp.stop().await?;
    stopped.store(true, Ordering::Relaxed);
    let stream = tokio::time::timeout(LAST, reader).await???;
    let unsent = recorder.unsent(memory)?;
    // Closed before it is answered: the source is taken back.
    drop(stream);
    qmp.wait_migration(LAST, |status| status.is_final()).await.ok();
    qmp.restore(facts.saved).await?;
    qmp.cont().await?;
    Ok((unsent, passes))
}

/// How the stream is read: at full speed up to a time and after the stop, at a rate in between.
struct Pace {
    kib_per_second: u64,
    first: Instant,
    stopped: Arc<AtomicBool>,
}

/// Reads up to the end of memory.
async fn read(
    stream: UnixStream,
    recorder: Arc<Recorder>,
    pace: Pace,
) -> Outcome<tokio::net::unix::OwnedWriteHalf> {
    let (read, write) = stream.into_split();
    let reading = Arc::new(Reading::default());
    let mut pump =
        Pump::new(read, Arc::default(), None, Arc::default(), reading).recording(Some(recorder));
    while let Some(piece) = pump.next().await? {
        if piece.items.contains(&Item::RamEnd) {
            return Ok(write);
        }
        if Instant::now() > pace.first && !pace.stopped.load(Ordering::Relaxed) {
            let micros = piece.buf.bytes().len() as u64 * 1_000_000 / (pace.kib_per_second << 10);
            tokio::time::sleep(Duration::from_micros(micros)).await;
        }
    }
    Err("the stream ended before the end of memory".into())
}
