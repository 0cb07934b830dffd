//! Small QEMU processes with a guest that is nothing but a firmware of 150 bytes.
#![allow(dead_code, reason = "every program uses its own part of this")]

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Bytes of the guest's memory. No multiple of 256 KiB: QEMU 7.2 under TCG loses track of dirty pages in blocks that are
/// (mended in 9.0 by "physmem: Fix migration dirty bitmap coherency with TCG memory access").
pub const MEMORY: usize = (16 << 20) + (8 << 10);
/// Where the guest's firmware covers its memory.
pub const SHADOWED: std::ops::Range<usize> = 0xa_0000..0x10_0000;

const PATIENCE: Duration = Duration::from_secs(60);

/// The guest, in assembler (`as --32`, `ld -Ttext 0xf0000 --oformat binary`):
///
/// ```text
/// .code16 cli; inb $0x92,%al; orb $2,%al; outb %al,$0x92        # A20
///         lgdtl %cs:gdtdesc; movl %cr0,%eax; orl $1,%eax; movl %eax,%cr0; ljmpl $8,$pm
/// .code32 pm: movw $16,%ax; movw %ax,%ds; movw %ax,%es; cld
///         movl $0x400000,%edi                                   # 4M..5M: every page its own content
/// 1:      movl %edi,%eax; movl $1024,%ecx; rep stosl; cmpl $0x500000,%edi; jb 1b
///         movl $0xdeadbeef,%eax; movl $0x40000,%ecx; rep stosl  # 5M..6M: every page the same
///         movb $'R',%al; outb %al,$0xe9; xorl %ebx,%ebx         # ready
/// 2:      movl $0x600000,%edi                                   # 6M..7M: counted up for ever
/// 3:      incl (%edi); movl %ebx,4(%edi); addl $4096,%edi; cmpl $0x700000,%edi; jb 3b
///         incl %ebx; movl $2000,%ecx
/// 4:      nop; nop; decl %ecx; jnz 4b; jmp 2b
/// .balign 8 gdt: .quad 0, 0xcf9a000000ffff, 0xcf92000000ffff; gdtdesc: .word 23; .long gdt
/// ```
const GUEST: &str = "fae4920c02e6922e660f011690000f20c06683c8010f22c0\
    66ea20000f00080066b810008ed88ec0fcbf0000400089f8b900040000f3ab81ff0000500072efb8efbeaddeb9000004\
    00f3abb052e6e931dbbf00006000ff07895f0481c70010000081ff0000700072ed43b9d007000090904975fbebdb6690\
    0000000000000000ffff0000009acf00ffff00000092cf00170078000f00";

/// A 64 KiB firmware image with the guest at its start and a far jump to it where a CPU begins.
fn firmware() -> Vec<u8> {
    let digits = GUEST.as_bytes().chunks(2);
    let code = digits.map(|pair| {
        let pair = std::str::from_utf8(pair).expect("ASCII digits");
        u8::from_str_radix(pair, 16).expect("hex digits")
    });
    let mut image: Vec<u8> = code.collect();
    image.resize(0x1_0000, 0);
    image[0xfff0..0xfff5].copy_from_slice(&[0xea, 0, 0, 0, 0xf0]);
    image
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V7_2,
    V10_0,
}

impl Version {
    fn cache() -> PathBuf {
        std::env::var_os("RACKFERRY_CACHE").map_or("/var/cache/rackferry".into(), PathBuf::from)
    }

    fn binary(self) -> PathBuf {
        match self {
            Self::V7_2 => "/usr/bin/qemu-system-x86_64".into(),
            Self::V10_0 => Self::cache().join("qemu-10.0/usr/bin/qemu-system-x86_64"),
        }
    }

    /// Whether this machine has it.
    pub fn is_installed(self) -> bool {
        self.binary().exists()
    }

    fn command(self) -> Command {
        let mut command = Command::new(self.binary());
        if self == Self::V10_0 {
            let own = Self::cache().join("qemu-10.0/usr/share/qemu");
            let shared = ["/usr/share/seabios", "/usr/lib/ipxe/qemu", "/usr/share/qemu"];
            for folder in [own].into_iter().chain(shared.map(PathBuf::from)) {
                command.arg("-L").arg(folder);
            }
        }
        command
    }
}

/// A QEMU process; it ends with this value.
pub struct Qemu {
    _process: Process,
    qmp: BufReader<UnixStream>,
    ready: PathBuf,
}

impl Qemu {
    /// Starts a VM whose files live in `folder`.
    pub fn start(version: Version, machine: &str, extra: &[&str], folder: &Path) -> Outcome<Self> {
        std::fs::create_dir_all(folder)?;
        let firmware_file = folder.join("firmware.bin");
        std::fs::write(&firmware_file, firmware())?;
        let (qmp, ready) = (folder.join("qmp.sock"), folder.join("ready"));
        let log = std::fs::File::create(folder.join("qemu.log"))?;
        let process = version
            .command()
            .args(["-machine", &format!("{machine},accel=tcg"), "-nodefaults", "-display", "none"])
            .args(["-m", &format!("{}K{}", MEMORY >> 10, memory_slots(extra))])
            .args(["-device", "VGA,romfile=,vgamem_mb=1", "-bios"])
            .arg(&firmware_file)
            .args(["-qmp", &format!("unix:{},server=on,wait=off", qmp.display())])
            .args(["-debugcon", &format!("file:{}", ready.display())])
            .args(extra)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let process = Process(process);
        let socket = wait("the QMP socket", || Ok(UnixStream::connect(&qmp).ok()))?;
        let mut qemu = Self { _process: process, qmp: BufReader::new(socket), ready };
        qemu.qmp.read_line(&mut String::new())?;
        qemu.execute("qmp_capabilities", json!({}))?;
        Ok(qemu)
    }

    /// Calls a QMP command; events in between are dropped.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Outcome<Value> {
        let call = json!({ "execute": command, "arguments": arguments });
        self.qmp.get_mut().write_all(format!("{call}\n").as_bytes())?;
        loop {
            let mut line = String::new();
            if self.qmp.read_line(&mut line)? == 0 {
                return Err(format!("QEMU ended during {command}").into());
            }
            let mut answer: Value = serde_json::from_str(&line)?;
            if let Some(error) = answer.get("error") {
                return Err(format!("{command}: {error}").into());
            }
            if answer.get("return").is_some() {
                return Ok(answer["return"].take());
            }
        }
    }

    pub fn set_capabilities(&mut self, names: &[&str]) -> Outcome<()> {
        let on = |name| json!({ "capability": name, "state": true });
        let list: Vec<_> = names.iter().map(on).collect();
        self.execute("migrate-set-capabilities", json!({ "capabilities": list }))?;
        Ok(())
    }

    /// Waits until the guest has filled its memory.
    pub fn wait_ready(&mut self) -> Outcome<()> {
        let ready = self.ready.clone();
        wait("the guest", || Ok(std::fs::read(&ready).is_ok_and(|said| said == b"R").then_some(())))
    }

    pub fn run_state(&mut self) -> Outcome<String> {
        Ok(self.execute("query-status", json!({}))?["status"].as_str().unwrap_or("?").to_owned())
    }

    pub fn migration(&mut self) -> Outcome<Value> {
        self.execute("query-migrate", json!({}))
    }

    /// Writes the guest's memory to a file and reads it.
    pub fn memory(&mut self, file: &Path) -> Outcome<Vec<u8>> {
        let arguments = json!({ "val": 0, "size": MEMORY, "filename": file });
        self.execute("pmemsave", arguments)?;
        Ok(std::fs::read(file)?)
    }
}

/// A process that ends with this value.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Devices that add memory need slots for it.
fn memory_slots(extra: &[&str]) -> &'static str {
    let adds_memory = extra.iter().any(|argument| argument.starts_with("virtio-mem"));
    if adds_memory { ",slots=2,maxmem=1G" } else { "" }
}

/// Tries until there is a result.
pub fn wait<T>(what: &str, mut attempt: impl FnMut() -> Outcome<Option<T>>) -> Outcome<T> {
    let start = Instant::now();
    loop {
        if let Some(result) = attempt()? {
            return Ok(result);
        }
        if start.elapsed() > PATIENCE {
            return Err(format!("{what} did not come within {PATIENCE:?}").into());
        }
        sleep(Duration::from_millis(20));
    }
}
