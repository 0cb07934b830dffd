//! What stock QEMU does on the same links: the figures to beat, run as a good operator would run them.

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::{Value, json};

use crate::bench::counters::CoreBytes;
use crate::image::Qemu;
use crate::lab::Lab;
use crate::lab::topology::Host;
use crate::lab::vm::{Vm, VmDef};

/// The first port; every VM has one of its own.
const PORT: u16 = 20_000;
/// One VM's move takes this long at most.
const MOVE_WAIT: Duration = Duration::from_secs(600);

/// QEMU needs its big lock for its sums, which others hold too.
const FIGURES_WAIT: Duration = Duration::from_secs(5);

/// How stock QEMU moves a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stock {
    /// Plain precopy over one connection.
    Precopy,
    /// Precopy over several connections, pages compressed by zstd.
    MultifdZstd {
        /// Connections beside the main one.
        channels: u8,
    },
}

/// A baseline run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How each VM moves.
    pub stock: Stock,
    /// How many move at the same time; all, if it is `None`.
    pub at_once: Option<usize>,
    /// QEMU's limit of the pause.
    pub downtime_limit: Duration,
    /// Which QEMU takes the VMs in; the one that runs them, if it is `None`.
    pub to_qemu: Option<Qemu>,
}

impl Options {
    /// All VMs at the same time with QEMU's own limit of the pause.
    pub fn new(stock: Stock) -> Self {
        Self { stock, at_once: None, downtime_limit: Duration::from_millis(300), to_qemu: None }
    }
}

/// How one VM's move went.
#[derive(Clone, Debug, Serialize)]
pub struct VmMove {
    /// Which VM.
    pub vm: String,
    /// QEMU's word for the outcome: `completed`, if all went well.
    pub status: String,
    /// QEMU's figure for the whole move, in ms.
    pub total_ms: u64,
    /// QEMU's figure for the pause, in ms.
    pub downtime_ms: u64,
    /// From the source's word that the guest stopped to the target's word that it runs, in ms.
    pub paused_ms: f64,
    /// QEMU's figure for the bytes it sent.
    pub transferred: u64,
    /// How often QEMU went over the dirty pages.
    pub passes: u64,
    /// CPU seconds of both QEMUs during the move, without those of the virtual CPU's thread.
    pub cpu_s: f64,
}

/// How a baseline run went.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Every VM, in the order given.
    pub moves: Vec<VmMove>,
    /// From the first order to the last VM's end, in seconds.
    pub seconds: f64,
    /// Bytes on the core link meanwhile.
    pub core: CoreBytes,
}

impl Outcome {
    /// CPU seconds of all QEMUs that are not the guests' own.
    pub fn cpu_s(&self) -> f64 {
        self.moves.iter().map(|vm| vm.cpu_s).sum()
    }

    /// Fails unless every VM moved.
    pub fn all_completed(&self) -> Result<()> {
        let failed = self.moves.iter().find(|vm| vm.status != "completed");
        ensure!(failed.is_none(), "a stock migration failed: {failed:?}");
        Ok(())
    }
}

/// Moves VMs to the hosts named beside them. The VMs returned run at their targets, in the same order.
pub fn evacuate(lab: &Lab, vms: Vec<(Vm, Host)>, options: Options) -> Result<(Vec<Vm>, Outcome)> {
    let count = vms.len();
    let moves = vms.into_iter().enumerate().map(|(number, (source, to))| {
        let port = PORT + u16::try_from(number).context("too many VMs")?;
        Move::prepare(lab, source, &to, port, options)
    });
    let queue = moves.collect::<Result<Vec<_>>>()?.into_iter().enumerate();
    let (queue, done) = (Mutex::new(queue), Mutex::new(Vec::with_capacity(count)));
    let (start, before) = (Instant::now(), lab.core().bytes()?);
    thread::scope(|scope| {
        for _ in 0..options.at_once.unwrap_or(count).clamp(1, count.max(1)) {
            scope.spawn(|| {
                let next = || queue.lock().expect("taking the next one does not panic").next();
                while let Some((number, one)) = next() {
                    let outcome = one.run();
                    done.lock().expect("adding one does not panic").push((number, outcome));
                }
            });
        }
    });
    let (seconds, core) = (start.elapsed().as_secs_f64(), lab.core().bytes()? - before);
    let mut done = done.into_inner().expect("adding one does not panic");
    done.sort_by_key(|(number, _)| *number);
    let results = done.into_iter().map(|(_, outcome)| outcome).collect::<Result<Vec<_>>>()?;
    let (vms, moves) = results.into_iter().unzip();
    Ok((vms, Outcome { moves, seconds, core }))
}

/// One VM about to move, its target QEMU waiting.
struct Move {
    source: Vm,
    target: Vm,
    uri: String,
    cpu_before: Duration,
}

impl Move {
    fn prepare(lab: &Lab, source: Vm, to: &Host, port: u16, options: Options) -> Result<Self> {
        let qemu = options.to_qemu.unwrap_or(source.def.qemu);
        let def = VmDef { qemu, ..source.def.clone() };
        let mut target = lab.start_with(to, &def, &["-incoming", "defer"])?;
        let uri = format!("tcp:{}:{port}", to.address);
        let mut source = source;
        for vm in [&mut source, &mut target] {
            configure(vm, options)?;
            // A VM that has moved before tells of that move too.
            vm.qmp.forget_events();
        }
        target.qmp.execute("migrate-incoming", json!({ "uri": uri }))?;
        let cpu_before = overhead(&mut source)? + overhead(&mut target)?;
        Ok(Self { source, target, uri, cpu_before })
    }

    fn run(mut self) -> Result<(Vm, VmMove)> {
        let name = self.source.def.name.clone();
        self.source.qmp.execute("migrate", json!({ "uri": self.uri }))?;
        self.source.qmp.event(MOVE_WAIT, ended).with_context(|| format!("{name} does not end"))?;
        let info = figures(&mut self.source)?;
        let status = info["status"].as_str().unwrap_or("unknown").to_string();
        let moved = status == "completed";
        let (mut cpu, mut paused) = (overhead(&mut self.source)?, Duration::ZERO);
        if moved {
            let resumed = self.target.qmp.event(MOVE_WAIT, |event| event["event"] == "RESUME")?;
            let stopped = self.source.qmp.past_event("STOP").context("it moved without a stop")?;
            paused = moment(&resumed).saturating_sub(moment(&stopped));
            cpu += overhead(&mut self.target)?;
        }
        let outcome = VmMove {
            vm: name,
            total_ms: info["total-time"].as_u64().unwrap_or(0),
            downtime_ms: info["downtime"].as_u64().unwrap_or(0),
            transferred: info["ram"]["transferred"].as_u64().unwrap_or(0),
            paused_ms: paused.as_secs_f64() * 1e3,
            passes: info["ram"]["dirty-sync-count"].as_u64().unwrap_or(0),
            cpu_s: cpu.saturating_sub(self.cpu_before).as_secs_f64(),
            status,
        };
        let survivor = if moved { self.target } else { self.source };
        Ok((survivor, outcome))
    }
}

/// What QEMU tells of a move that has ended: it says that it has before it has done its sums.
fn figures(source: &mut Vm) -> Result<Value> {
    let start = Instant::now();
    loop {
        let info = source.qmp.execute("query-migrate", json!({}))?;
        let summed = info["status"] != "completed" || info["total-time"].as_u64() > Some(0);
        if summed || start.elapsed() > FIGURES_WAIT {
            return Ok(info);
        }
        thread::sleep(Duration::from_millis(2));
    }
}

fn ended(event: &Value) -> bool {
    let status = event["data"]["status"].as_str();
    event["event"] == "MIGRATION"
        && status.is_some_and(|status| ["completed", "failed", "cancelled"].contains(&status))
}

/// When an event happened, by the host's clock.
fn moment(event: &Value) -> Duration {
    let part = |name: &str| event["timestamp"][name].as_u64().unwrap_or(0);
    Duration::from_secs(part("seconds")) + Duration::from_micros(part("microseconds"))
}

fn configure(vm: &mut Vm, options: Options) -> Result<()> {
    // An earlier migration may have left some on.
    vm.qmp.reset_capabilities()?;
    let mut capabilities = vec!["events"];
    let mut parameters = json!({
        "max-bandwidth": 0,
        "downtime-limit": options.downtime_limit.as_millis() as u64,
    });
    if let Stock::MultifdZstd { channels } = options.stock {
        capabilities.push("multifd");
        parameters["multifd-channels"] = channels.into();
        parameters["multifd-compression"] = "zstd".into();
    }
    vm.qmp.capabilities(&capabilities)?;
    vm.qmp.execute("migrate-set-parameters", parameters).map(drop)
}

/// CPU time of a QEMU that is not its guest's.
fn overhead(vm: &mut Vm) -> Result<Duration> {
    let cpus = vm.qmp.execute("query-cpus-fast", json!({}))?;
    let mut guest = Duration::ZERO;
    for cpu in cpus.as_array().into_iter().flatten() {
        let thread = cpu["thread-id"].as_u64().context("a virtual CPU without a thread")?;
        guest += vm.process.cpu_of_thread(thread)?;
    }
    Ok(vm.process.cpu()?.saturating_sub(guest))
}
