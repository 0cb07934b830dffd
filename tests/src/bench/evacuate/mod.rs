//! The bench: one set of VMs evacuated in several ways, one after the other, over the same links.
//!
//! All VMs boot once, through agents, and move to and fro before anything is measured: the first move of an emulated
//! VM after its boot costs its QEMU several times the CPU of any later one (it goes through a translation buffer that
//! grew at boot for every piece of dirty memory), the second is still slower, and whatever came first would pay for
//! that. Rackferry moves them with different dedup modes; then the coordinator and the agents end, their QEMUs live on, and stock QEMU moves the very same VMs. Before each
//! method all VMs are paused for a moment and an oracle of the bench's own reads their memory: it says what had
//! to cross the core link at least.

mod chart;
pub mod demo;
mod figures;
mod fleet;
mod measure;
mod oracle;
mod plan;
mod stops;
mod table;

pub use figures::{Figures, Pauses, Report, Spread, Transfer, VmFigures};
pub use fleet::{Call, Fleet};
pub use measure::Cpu;
pub use oracle::Bound;
pub use plan::{BUSY_KIB, MOVES, Method, Plan};
pub use stops::StopPart;
pub use table::bytes;

use anyhow::Result;

use crate::lab::Lab;
use crate::lab::site::Site;
use crate::lab::topology::Topology;

/// Carries a plan out. `progress` is told what happens, `report` gets the figures of the methods so far
/// after each one: a run that fails in the middle has not been in vain.
pub fn run(
    plan: &Plan,
    progress: impl Fn(&str),
    mut report: impl FnMut(&Report) -> Result<()>,
) -> Result<Report> {
    let lab = Lab::up(&Topology::of(plan.hosts))?;
    lab.core().shape(plan.core)?;
    let mut site = Site::up(&lab, plan.settings())?;
    let fleet = Fleet::new(&lab, plan);
    progress(&format!("booting {} VMs", plan.vms()));
    fleet.boot(&site)?;
    progress("moving them to and fro, unmeasured");
    fleet.warm_up(&site)?;
    let mut figures = Report::new(plan);
    for method in plan.methods.iter().filter(|method| method.dedup().is_some()) {
        progress(&format!("{method}: looking into the VMs' memory, then moving them"));
        figures.methods.push(fleet.rackferry(&site, *method, Call::Json)?);
        report(&figures)?;
    }
    let mut stock = plan.methods.iter().filter(|method| method.dedup().is_none()).peekable();
    if stock.peek().is_some() {
        fleet.stop_daemons(&mut site)?;
        let mut vms = fleet.take_over()?;
        for method in stock {
            progress(&format!("{method}: looking into the VMs' memory, then moving them"));
            let (moved, one) = fleet.stock(vms, *method)?;
            vms = moved;
            figures.methods.push(one);
            report(&figures)?;
        }
        fleet.check()?;
    } else {
        fleet.check()?;
    }
    Ok(figures)
}
