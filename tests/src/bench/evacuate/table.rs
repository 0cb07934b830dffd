//! The figures of a run as a table: a column for each method.

use std::fmt;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

use super::figures::{Figures, Report, Spread};
use super::plan::Method;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (vms, hosts) = (self.vms, self.hosts);
        writeln!(
            f,
            "{vms} VMs, {} of guest memory, profile {}, QEMU {}, leave {hosts} hosts of one rack for {hosts} of another; core link {}.",
            bytes(self.memory_bytes),
            self.profile,
            self.qemu,
            self.core
        )?;
        writeln!(f, "{}", self.table())?;
        writeln!(f, "{NOTES}")?;
        for one in self.methods.iter().filter(|one| one.failures() > 0) {
            for vm in one.vms.iter().filter(|vm| vm.failure.is_some()) {
                writeln!(f, "{}: {}: {}", one.method, vm.vm, vm.failure.as_deref().unwrap_or(""))?;
            }
        }
        Ok(())
    }
}

const NOTES: &str = "\
core link: the link's own counters, both directions. time: from the order until the last VM's end; Rackferry starts \
its target QEMUs within it, those of stock QEMU wait ready before. pause from outside: gap in the heartbeat. CPU: agents, \
coordinator and QEMUs on both sides, target start included, the guests' own not. bound: distinct contents of the paused VMs, \
compressed, and 16 bytes for each copy; told by code of the bench's own.";

impl Report {
    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_FULL_CONDENSED);
        table.set_content_arrangement(ContentArrangement::Disabled);
        let names = self.methods.iter().map(|one| one.method.to_string());
        table.set_header(std::iter::once(String::new()).chain(names));
        let mut row = |name: &str, figure: &dyn Fn(&Figures) -> String| {
            let cells = self.methods.iter().map(figure);
            let cells = cells.map(|cell| Cell::new(cell).set_alignment(CellAlignment::Right));
            table.add_row(std::iter::once(Cell::new(name)).chain(cells));
        };
        row("crossed the core link", &|one| bytes(one.core_bytes()));
        row("saved against stock precopy", &|one| {
            let saved = self.saved(one, Method::Oc).filter(|_| one.method != Method::Oc);
            saved.map_or("-".into(), |saved| format!("{:.1} %", saved * 100.0))
        });
        row("core bytes / bound", &|one| format!("{:.2}", one.ratio_to_bound));
        row("time, all VMs", &|one| format!("{:.1} s", one.seconds));
        row("time of a VM, median / max", &|one| {
            let spread = one.vm_seconds();
            format!("{:.1} / {:.1} s", spread.median, spread.max)
        });
        row("pause from outside, median / p99", &|one| pause(one.pauses.blackout));
        row("pause by QEMU, median / p99", &|one| pause(one.pauses.qemu_downtime));
        let parts = self.methods.iter().flat_map(|one| &one.stops).map(|stop| &stop.part);
        for part in parts.fold(Vec::new(), |known, part| add(known, part)) {
            row(&format!("  stop: {part}, median / p99"), &|one| {
                let stop = one.stops.iter().find(|stop| stop.part == *part);
                stop.map_or("-".into(), |stop| pause(stop.ms))
            });
        }
        row("CPU per GiB of guest memory", &|one| format!("{:.2} s", self.cpu_s_per_gib(one)));
        row("  agents / coordinator / QEMU", &|one| {
            let cpu = one.cpu;
            format!("{:.1} / {:.1} / {:.1} s", cpu.agents_s, cpu.coordinator_s, cpu.qemu_s)
        });
        row("memory of an agent, peak", &|one| match one.cpu.agent_memory_peak {
            0 => "-".into(),
            peak => bytes(peak),
        });
        let mut sent = |name: &str, figure: fn(&super::Transfer) -> u64| {
            row(name, &|one| one.transfer.map_or("-".into(), |transfer| bytes(figure(&transfer))));
        };
        sent("pages: zeros", |transfer| transfer.zero);
        sent("pages: references", |transfer| transfer.duplicate);
        sent("pages: content", |transfer| transfer.raw);
        sent("pages: content asked for again", |transfer| transfer.supplied);
        row("VMs that did not move", &|one| one.failures().to_string());
        table
    }
}

fn add<'a>(mut known: Vec<&'a String>, part: &'a String) -> Vec<&'a String> {
    if !known.contains(&part) {
        known.push(part);
    }
    known
}

fn pause(spread: Spread) -> String {
    format!("{:.0} / {:.0} ms", spread.median, spread.p99)
}

/// Decimal, as links count.
pub fn bytes(bytes: u64) -> String {
    let bytes = bytes as f64;
    match bytes {
        giga if giga >= 1e9 => format!("{:.2} GB", giga / 1e9),
        mega if mega >= 1e6 => format!("{:.1} MB", mega / 1e6),
        small => format!("{:.1} kB", small / 1e3),
    }
}
