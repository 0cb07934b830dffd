//! The demo: the smallest bench that shows what Rackferry is for, for a reader that sees it for the first time.

use std::fmt::Write;

use anyhow::{Context, Result};
use comfy_table::{Cell, CellAlignment, Table, presets};

use super::figures::{Figures, Report, Spread};
use super::fleet::{Call, Fleet};
use super::plan::{BUSY_KIB, MOVES, Method, Plan};
use super::table::bytes;
use crate::image::Qemu;
use crate::lab::Lab;
use crate::lab::rate::Rate;
use crate::lab::site::Site;
use crate::lab::topology::Topology;
use crate::lab::vm::Profile;

fn plan() -> Plan {
    Plan {
        hosts: 2,
        vms_per_host: 2,
        memory_mib: 256,
        core: Rate::gbit(1),
        profile: Profile::Idle,
        busy_kib: BUSY_KIB,
        moves: MOVES,
        qemu: Qemu::V10_0,
        methods: vec![Method::Rack, Method::Oc],
    }
}

/// Runs it; the text to end with. `say` is told what happens.
pub fn run(say: impl Fn(&str)) -> Result<String> {
    let plan = plan();
    say("two racks, a and b, of two hosts each; 1 Gbit/s between the racks");
    let lab = Lab::up(&Topology::of(plan.hosts))?;
    lab.core().shape(plan.core)?;
    say("a coordinator, and an agent on every host");
    let mut site = Site::up(&lab, plan.settings())?;
    say("four VMs in rack a: real QEMU guests with a Debian kernel, 256 MiB each, same image");
    let fleet = Fleet::new(&lab, &plan);
    fleet.boot(&site)?;
    let mut report = Report::new(&plan);
    say("rackferry evacuate a --to b --yes");
    report.methods.push(fleet.rackferry(&site, Method::Rack, Call::Shown)?);
    say("and back to rack a, the same VMs over the same link, with stock QEMU");
    fleet.stop_daemons(&mut site)?;
    let (_vms, stock) = fleet.stock(fleet.take_over()?, Method::Oc)?;
    report.methods.push(stock);
    say("the guests check every page of their memory");
    fleet.check()?;
    outcome(&report)
}

fn outcome(report: &Report) -> Result<String> {
    let of = |method| report.of(method).context("a method did not run");
    let (ours, stock) = (of(Method::Rack)?, of(Method::Oc)?);
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_header(["", "Rackferry", "stock QEMU"]);
    let mut row = |name: &str, figure: &dyn Fn(&Figures) -> String| {
        let cells =
            [ours, stock].map(|one| Cell::new(figure(one)).set_alignment(CellAlignment::Right));
        table.add_row(std::iter::once(Cell::new(name)).chain(cells));
    };
    row("crossed the core link", &|one| bytes(one.core_bytes()));
    row("time until all had moved", &|one| format!("{:.1} s", one.seconds));
    row("longest pause of a VM", &|one| longest(one.pauses.blackout));
    row("VMs moved, memory intact", &|one| format!("{}", one.vms.len() - one.failures()));
    let mut text = format!(
        "\nWhat crossed the core link when {} VMs with {} of memory left their rack:\n{table}\n",
        report.vms,
        bytes(report.memory_bytes)
    );
    if let Some(saved) = report.saved(ours, Method::Oc) {
        write!(
            text,
            "Rackferry sent {:.0} % less: each distinct page crossed once, for all VMs of the rack; {} of\n\
             pages went as references that the target rack resolved by itself.",
            saved * 100.0,
            bytes(ours.transfer.map_or(0, |sent| sent.duplicate))
        )?;
    }
    Ok(text)
}

fn longest(pauses: Spread) -> String {
    format!("{:.0} ms", pauses.max)
}
