//! What a run found.

use serde::Serialize;
use serde_json::Value;

use super::measure::Cpu;
use super::oracle::Bound;
use super::plan::{Method, Plan};
use super::stops::StopPart;

const GIB: f64 = (1u64 << 30) as f64;

/// A whole run. `Display` is a table for people.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Hosts of each rack.
    pub hosts: u8,
    /// VMs that moved, all of them by each method.
    pub vms: usize,
    /// Bytes of all guest memory.
    pub memory_bytes: u64,
    /// Rate of the core link.
    pub core: String,
    /// What the guests did.
    pub profile: String,
    /// Which QEMU ran them.
    pub qemu: String,
    /// The methods so far, in the order they ran.
    pub methods: Vec<Figures>,
}

impl Report {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            hosts: plan.hosts,
            vms: plan.vms(),
            memory_bytes: plan.memory_bytes(),
            core: plan.core.to_string(),
            profile: plan.profile.to_string(),
            qemu: plan.qemu.to_string(),
            methods: Vec::new(),
        }
    }

    /// The figures of one method.
    pub fn of(&self, method: Method) -> Option<&Figures> {
        self.methods.iter().find(|one| one.method == method)
    }

    /// What share of the bytes of `baseline` a method does not send.
    pub fn saved(&self, method: &Figures, baseline: Method) -> Option<f64> {
        let baseline = self.of(baseline)?.core_bytes();
        Some(1.0 - method.core_bytes() as f64 / baseline as f64)
    }

    /// CPU seconds of agents, coordinator and QEMUs, without the guests' own, per GiB of guest memory.
    pub fn cpu_s_per_gib(&self, method: &Figures) -> f64 {
        method.cpu.total_s() / (self.memory_bytes as f64 / GIB)
    }
}

/// One method.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Which.
    pub method: Method,
    /// The rack it emptied.
    pub from: String,
    /// Bytes on the core link in the way of the VMs, by the link's counters.
    pub core_forward_bytes: u64,
    /// Bytes on the core link the other way.
    pub core_backward_bytes: u64,
    /// The call to move everything until its end. Stock QEMU's targets wait ready before it; Rackferry
    /// starts its own within it.
    pub seconds: f64,
    /// From the moment the first target QEMU was ordered until the last VM's end, by Rackferry's own clock.
    pub seconds_by_coordinator: Option<f64>,
    /// Each VM.
    pub vms: Vec<VmFigures>,
    /// Pauses of all that moved.
    pub pauses: Pauses,
    /// CPU and memory, start of the target QEMUs included for every method.
    pub cpu: Cpu,
    /// The least that had to cross, from the memory of the VMs just before.
    pub bound: Bound,
    /// Core bytes over the bound.
    pub ratio_to_bound: f64,
    /// Rackferry's own count of what it sent.
    pub transfer: Option<Transfer>,
    /// What Rackferry's stops were spent on, in order.
    pub stops: Vec<StopPart>,
}

impl Figures {
    /// Bytes on the core link, both ways.
    pub fn core_bytes(&self) -> u64 {
        self.core_forward_bytes + self.core_backward_bytes
    }

    /// VMs that did not move.
    pub fn failures(&self) -> usize {
        self.vms.iter().filter(|vm| vm.failure.is_some()).count()
    }

    /// How long the VMs took.
    pub fn vm_seconds(&self) -> Spread {
        Spread::of(self.vms.iter().map(|vm| vm.seconds))
    }
}

/// How one VM moved.
#[derive(Clone, Debug, Serialize)]
pub struct VmFigures {
    /// Which.
    pub vm: String,
    /// Its move: with Rackferry from the order to prepare its target, with stock QEMU as QEMU tells.
    pub seconds: f64,
    /// Its pause as seen from outside: the gap between its heartbeats at the handover, less the time that
    /// lies between any two. Rounded up by late beats, never down.
    pub blackout_ms: Option<f64>,
    /// Its pause by QEMU's own word.
    pub qemu_downtime_ms: f64,
    /// Why it did not move.
    pub failure: Option<String>,
}

/// Pauses of the VMs of a run, ms.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Pauses {
    /// As seen from outside.
    pub blackout: Spread,
    /// By QEMU's own word.
    pub qemu_downtime: Spread,
}

impl Pauses {
    pub(super) fn of(vms: &[VmFigures]) -> Self {
        let moved = || vms.iter().filter(|vm| vm.failure.is_none());
        Self {
            blackout: Spread::of(moved().filter_map(|vm| vm.blackout_ms)),
            qemu_downtime: Spread::of(moved().map(|vm| vm.qemu_downtime_ms)),
        }
    }
}

/// How values are spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// Half are smaller.
    pub median: f64,
    /// 99 of 100 are smaller or equal; of fewer than 100 values it is the largest.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of some values; zeros if there are none.
    pub fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let Some(&max) = values.last() else { return Self::default() };
        let rank = |share: f64| values[((values.len() as f64 * share).ceil() as usize).max(1) - 1];
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            values[middle]
        };
        Self { median, p99: rank(0.99), max }
    }
}

/// Rackferry's own count, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Transfer {
    /// Pages QEMU gave it, those given again included.
    pub logical: u64,
    /// Of these, zeros.
    pub zero: u64,
    /// Of these, sent as references.
    pub duplicate: u64,
    /// Of these, sent as content, before compression.
    pub raw: u64,
    /// Content sent in spite of a reference, because the target could not find it.
    pub supplied: u64,
    /// Written to the connections of the moves.
    pub wire: u64,
}

impl Transfer {
    /// From the `totals` of an evacuation in JSON.
    pub(super) fn of(totals: &Value) -> Self {
        let bytes = |name: &str| totals[format!("{name}_bytes")].as_u64().unwrap_or(0);
        Self {
            logical: bytes("logical"),
            zero: bytes("zero"),
            duplicate: bytes("duplicate"),
            raw: bytes("raw"),
            supplied: bytes("supplied"),
            wire: bytes("wire"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_its_middle_and_its_end() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0].into_iter());
        assert_eq!(spread, Spread { median: 2.5, p99: 4.0, max: 4.0 });
        assert_eq!(Spread::of((1..=200).map(f64::from)).p99, 198.0);
        assert_eq!(Spread::of(std::iter::empty()), Spread::default());
    }
}
