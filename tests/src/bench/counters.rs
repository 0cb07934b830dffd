//! The byte counters of the core link: the truth about what crossed it.

use std::ops::Sub;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::lab::netns;

/// Bytes on the core link, Ethernet headers included. The kernel counts a train of segments handed over
/// as one with one set of headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CoreBytes {
    /// From rack `a` to rack `b`: the way of the pages.
    pub forward: u64,
    /// From rack `b` to rack `a`.
    pub backward: u64,
}

impl CoreBytes {
    /// Both directions.
    pub fn total(self) -> u64 {
        self.forward + self.backward
    }
}

impl Sub for CoreBytes {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self { forward: self.forward - earlier.forward, backward: self.backward - earlier.backward }
    }
}

pub(crate) fn read(ends: &[String; 2]) -> Result<CoreBytes> {
    let sent = |namespace: &str| netns::inside(namespace, || sent_by("core0"))?;
    Ok(CoreBytes { forward: sent(&ends[0])?, backward: sent(&ends[1])? })
}

/// Bytes sent by a device of the calling thread's namespace.
fn sent_by(device: &str) -> Result<u64> {
    let table = std::fs::read_to_string("/proc/thread-self/net/dev")?;
    parse_sent(&table, device).with_context(|| format!("no counters of {device}"))
}

fn parse_sent(table: &str, device: &str) -> Option<u64> {
    let line =
        table.lines().find_map(|line| line.trim().strip_prefix(device)?.strip_prefix(':'))?;
    line.split_whitespace().nth(8)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_sent_bytes_of_one_device() {
        let table = "Inter-|   Receive |  Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop
    lo:       1       2    0    0    0     0          0         0        3       4    0    0    0     0       0          0
 core0:     100       5    0    0    0     0          0         0  2215000      70    0    0    0     0       0          0
";
        assert_eq!(parse_sent(table, "core0"), Some(2_215_000));
        assert_eq!(parse_sent(table, "core"), None);
    }
}
