//! The core link: its rate, its cuts.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::bench::counters::{self, CoreBytes};
use crate::lab::netns::ip;
use crate::lab::rate::Rate;
use crate::lab::topology::{RACKS, switch};

/// A burst lets the shaper keep its rate although it is woken late: this much of the rate.
const BURST_MS: u64 = 2;
/// No burst is smaller than two of the largest segments the kernel hands over as one.
const BURST_BYTES_MIN: u64 = 128 * 1024;
/// How long a packet may wait in the shaper: what a shallow switch buffer gives.
const QUEUE_MS: u64 = 20;

/// The link between the racks.
#[derive(Clone, Debug)]
pub struct Core {
    ends: [String; 2],
}

impl Core {
    pub(crate) fn new(prefix: &str) -> Self {
        Self { ends: RACKS.map(|rack| switch(prefix, rack)) }
    }

    /// Limits each direction to a rate.
    pub fn shape(&self, rate: Rate) -> Result<()> {
        let burst = rate.bytes_in_ms(BURST_MS).max(BURST_BYTES_MIN);
        let limit = burst + rate.bytes_in_ms(QUEUE_MS);
        self.each_end(&format!(
            "qdisc replace dev core0 root tbf rate {}bit burst {burst} limit {limit}",
            rate.0
        ))
    }

    /// Takes every limit away.
    pub fn unshape(&self) -> Result<()> {
        self.each_end("qdisc replace dev core0 root noqueue")
    }

    /// Cuts the link: hosts notice only that nothing arrives any more.
    pub fn cut(&self) -> Result<()> {
        ip(Some(&self.ends[0]), "link set core0 down\n")
    }

    /// Makes a cut link whole.
    pub fn heal(&self) -> Result<()> {
        ip(Some(&self.ends[0]), "link set core0 up\n")
    }

    /// Bytes that have crossed so far.
    pub fn bytes(&self) -> Result<CoreBytes> {
        counters::read(&self.ends)
    }

    fn each_end(&self, command: &str) -> Result<()> {
        for namespace in &self.ends {
            let output = Command::new("tc")
                .args(["-netns", namespace])
                .args(command.split_whitespace())
                .output()
                .context("cannot start tc")?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "tc {command} in {namespace}: {said}");
        }
        Ok(())
    }
}
