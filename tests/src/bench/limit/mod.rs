//! How well a limit of the core link is kept while an evacuation runs: set, changed, and taken off again, with the
//! counters of the link read all the time.

mod figures;

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::lab::Lab;
use crate::lab::rate::Rate;
use crate::lab::shape::Core;
use crate::lab::site::{Settings, Site};
use crate::lab::topology::{RACKS, Topology};
use crate::lab::vm::{Profile, VmDef};

pub use figures::{Sample, Step, table};

const BOOT_WAIT: Duration = Duration::from_secs(300);
/// Before the first limit the copies run as fast as they can.
const FREE: Duration = Duration::from_secs(2);
/// Between two readings of the counters.
const INTERVAL: Duration = Duration::from_millis(100);
/// The link's own rate, far above all limits.
const LINK: Rate = Rate::gbit(1);

/// What is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// Hosts of each rack.
    pub hosts: u8,
    /// VMs on each host that is emptied; all move at the same time.
    pub vms_per_host: u32,
    /// MiB of guest memory of each, half of it random.
    pub memory_mib: u32,
    /// Limits, one after the other.
    pub limits: Vec<Rate>,
    /// How long each of them holds.
    pub hold: Duration,
}

/// The lab's inventory file: two racks and the link between them.
pub fn inventory(lab: &Lab) -> String {
    let rack = |rack: &str| {
        let hosts: Vec<String> =
            lab.rack(rack).map(|host| format!("{{name: {}}}", host.name())).collect();
        format!("  - {{name: {rack}, hosts: [{}]}}\n", hosts.join(", "))
    };
    let racks: String = RACKS.iter().map(|name| rack(name)).collect();
    let [a, b] = RACKS;
    format!("version: 1\nracks:\n{racks}links: [{{name: core0, a: {a}, b: {b}, rate: 1Gbit}}]\n")
}

/// Imports the lab's inventory.
pub fn import(site: &Site<'_>) -> Result<()> {
    let file = site.lab().folder().join("inventory.yaml");
    std::fs::write(&file, inventory(site.lab()))?;
    let file = file.to_str().context("a lab's folder has a plain name")?;
    site.cli_json(&["inventory", "import", file]).map(drop)
}

/// Empties a rack under one limit after the other.
pub fn run(options: &Options, progress: impl Fn(&str)) -> Result<Vec<Step>> {
    let lab = Lab::up(&Topology::of(options.hosts))?;
    lab.core().shape(LINK)?;
    let settings = Settings {
        outgoing_per_host: options.vms_per_host,
        incoming_per_host: options.vms_per_host,
        ..Settings::default()
    };
    let site = Site::up(&lab, settings)?;
    import(&site)?;
    progress("booting VMs");
    let hosts = lab.rack(RACKS[0]).cloned();
    let places: Vec<_> = hosts
        .flat_map(|host| (0..options.vms_per_host).map(move |number| (host.clone(), number)))
        .map(|(host, number)| {
            let def = VmDef::named(&format!("{}-vm{number}", host.name()));
            (host, def.memory_mib(options.memory_mib).profile(Profile::Unique))
        })
        .collect();
    site.boot(&places, 2, BOOT_WAIT)?;
    progress("moving them");
    let order = ["evacuate", RACKS[0], "--to", RACKS[1], "--compress", "off", "--yes", "--detach"];
    let started = site.cli_json(&order)?;
    let id = started["id"].as_str().context("an evacuation has an id")?;
    let meter = Meter::start(lab.core());
    std::thread::sleep(FREE);
    let mut holds = Vec::new();
    for limit in &options.limits {
        let text = format!("core0={}Mbit", limit.0 / 1_000_000);
        progress(&format!("limit set {text}"));
        let from = meter.now();
        site.cli_json(&["limit", "set", &text])?;
        std::thread::sleep(options.hold);
        holds.push((*limit, from, meter.now()));
    }
    let under_way = site.cli_outcome(&["status", id])?;
    site.cli_json(&["limit", "set", "core0=off"])?;
    progress("limit off, waiting for the end");
    let ended = site.cli_outcome(&["status", "--watch", id])?;
    let samples = meter.finish()?;
    ensure!(ended["state"] == "done", "the evacuation: {ended:#}");
    // Under the last limit there must still have been something to hold back.
    ensure!(
        under_way["totals"]["copying"] != 0,
        "all was copied before the last limit was measured: give the VMs more memory"
    );
    Ok(holds.into_iter().map(|(limit, from, to)| Step::of(limit, from, to, &samples)).collect())
}

/// Reads the link's counters all the time.
struct Meter {
    began: Instant,
    stop: Sender<()>,
    reader: JoinHandle<Result<Vec<Sample>>>,
}

impl Meter {
    fn start(core: Core) -> Self {
        let began = Instant::now();
        let (stop, stopped) = channel();
        Self { began, stop, reader: std::thread::spawn(move || read(&core, began, &stopped)) }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn finish(self) -> Result<Vec<Sample>> {
        drop(self.stop);
        self.reader.join().map_err(|_| anyhow::anyhow!("the meter panicked"))?
    }
}

fn read(core: &Core, began: Instant, stopped: &Receiver<()>) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    loop {
        let bytes = core.bytes()?.forward;
        samples.push(Sample { at: began.elapsed(), bytes });
        if stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Disconnected) {
            return Ok(samples);
        }
    }
}
