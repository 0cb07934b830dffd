//! Finds serial lines and reads them.

use std::collections::BTreeSet;
use std::io::Read;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::{SERIAL, Shared};
use crate::lab::netns;
use crate::lab::topology::Host;

/// A new QEMU is heard this late at most; a VM that moves is started long before it runs.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A connection to one QEMU's serial line.
#[derive(Debug)]
pub(super) struct Connection {
    pub host: String,
    pub stream: UnixStream,
}

/// Looks for serial lines on a host until told to stop.
pub(super) fn run(host: &Host, shared: &Arc<Shared>) {
    if let Err(error) = netns::enter(&netns::path(&host.namespace)) {
        eprintln!("lab: {error:#}");
        return;
    }
    // The socket's inode tells a QEMU from the one of the same name before it.
    let mut known = BTreeSet::new();
    while !shared.stop.load(Ordering::Relaxed) {
        let table = std::fs::read_to_string("/proc/thread-self/net/unix").unwrap_or_default();
        for (inode, vm) in listeners(&table) {
            if !known.contains(&inode) && connect(host, vm, shared).is_ok() {
                known.insert(inode);
            }
        }
        thread::sleep(LOOK_EVERY);
    }
}

fn connect(host: &Host, vm: &str, shared: &Arc<Shared>) -> Result<()> {
    let address = SocketAddr::from_abstract_name(format!("{SERIAL}{vm}"))?;
    let stream = UnixStream::connect_addr(&address)?;
    let reader = stream.try_clone()?;
    let source = {
        let mut heard = shared.heard();
        heard.connections.push(Connection { host: host.name(), stream });
        heard.connections.len() - 1
    };
    let (vm, shared) = (vm.to_string(), shared.clone());
    thread::Builder::new()
        .name(format!("serial {vm}"))
        .spawn(move || read(reader, source, &vm, &shared))?;
    Ok(())
}

/// Reads until the QEMU ends.
fn read(mut stream: UnixStream, source: usize, vm: &str, shared: &Shared) {
    // The time is taken when we get to read: the guests must not delay it. Without root it is as it is.
    rustix::process::setpriority_process(None, -20).ok();
    let mut buffer = [0; 1024];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        let now = Instant::now();
        let mut heard = shared.heard();
        let log = heard.vms.entry(vm.to_string()).or_default();
        if log.hear(&buffer[..length], now, source) {
            shared.line.notify_all();
        }
    }
}

/// Inode and VM of every serial line that is listened on, from the table of unix sockets.
fn listeners(table: &str) -> impl Iterator<Item = (u64, &str)> {
    table.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().skip(3);
        let (flags, inode, name) = (fields.next()?, fields.nth(2)?, fields.next()?);
        let vm = name.strip_prefix('@')?.strip_prefix(SERIAL)?;
        // __SO_ACCEPTCON; connected ends have the same name but not this flag.
        (flags == "00010000").then_some((inode.parse().ok()?, vm))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listening_serial_lines_count() {
        let table = "Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 81234 @rf-serial-web-1
0000000000000000: 00000003 00000000 00000000 0001 03 81240 @rf-serial-web-1
0000000000000000: 00000002 00000000 00010000 0001 01 81250 /run/other.sock
0000000000000000: 00000003 00000000 00000000 0001 03 81260\n";
        assert_eq!(listeners(table).collect::<Vec<_>>(), [(81234, "web-1")]);
    }
}
