//! A "service" of the guest: a process of its own with a private heap that it looks after.
//!
//! PID 1 talks to it over its standard input and output: one line in is one full check, answered by the
//! number of wrong pages. The first line out says that the heap is filled.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use crate::cache::Cache;
use crate::content::Content;
use crate::region::Region;
use crate::serial::Serial;
use crate::sweep::Memory;

/// A service started by PID 1.
pub struct Service {
    _child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Service {
    /// Starts a service with `mib` MiB of heap and waits until they are filled.
    pub fn start(name: &str, seed: u64, mib: usize, sweep_kib: usize) -> io::Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .args([name, &seed.to_string(), &mib.to_string(), &sweep_kib.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("a service without pipes"));
        };
        let mut service = Self { _child: child, input, output: BufReader::new(output) };
        service.answer()?;
        Ok(service)
    }

    /// Lets it check its whole heap; the number of wrong pages.
    pub fn check_all(&mut self) -> io::Result<usize> {
        self.input.write_all(b"check\n")?;
        self.answer()
    }

    fn answer(&mut self) -> io::Result<usize> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        line.trim().parse().map_err(|_| io::Error::other(format!("a service said {line:?}")))
    }
}

/// The process itself.
pub fn run() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Err(error) = serve(&arguments) {
        eprintln!("RF FAIL service {arguments:?}: {error}");
        std::process::exit(1);
    }
}

fn serve(arguments: &[String]) -> io::Result<()> {
    let [_, name, seed, mib, sweep_kib] = arguments else {
        return Err(io::Error::other("expected NAME SEED MIB SWEEP_KIB"));
    };
    let number = |word: &str| word.parse::<u64>().map_err(io::Error::other);
    let serial = Serial::open()?;
    let region = Region::filled(Content::Heap, number(seed)?, number(mib)? as usize);
    let memory = Arc::new(Memory::new(name, vec![Arc::new(region)], Cache::default(), serial));
    memory.clone().sweep(number(sweep_kib)? as usize, false);
    println!("0");
    for line in io::stdin().lock().lines() {
        line?;
        println!("{}", memory.check_all());
    }
    Ok(())
}
