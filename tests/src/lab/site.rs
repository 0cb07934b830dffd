//! Rackferry itself in the lab: coordinators, an agent on every host, the command line.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::image::{self, Qemu, text};
use crate::lab::Lab;
use crate::lab::certificates::{self, CA};
use crate::lab::coordinators::Coordinators;
use crate::lab::netns;
use crate::lab::topology::{self, Host};
use crate::lab::vm::VmDef;
use crate::procs::Process;

const PAGE_PORT: u16 = 7401;
/// An agent connects within this, also when 24 guests boot beside it.
const CONNECT_WAIT: Duration = Duration::from_secs(20);

/// A daemon that is told to end has ended by then.
const END_WAIT: Duration = Duration::from_secs(10);

/// Lines of each daemon's log that a failed test shows.
const SHOWN_LINES: usize = 40;

/// Settings of a site that tests vary.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bytes of guest memory a host may hand out, MiB.
    pub guest_memory_mib: u64,
    /// VMs that leave a host at a time.
    pub outgoing_per_host: u32,
    /// VMs that arrive at a host at a time.
    pub incoming_per_host: u32,
    /// VMs that move at a time.
    pub moves_total: u32,
    /// VMs of a host stopped at a time.
    pub switchovers_per_host: u32,
    /// VMs stopped at a time.
    pub switchovers_total: u32,
    /// QEMU of the hosts of rack `a` and of rack `b`.
    pub qemu: [Qemu; 2],
    /// `RACKFERRY_LOG` of the daemons.
    pub log: String,
    /// Every link is TLS, as it is unless an operator wants otherwise.
    pub tls: bool,
    /// The folder that has our programs.
    pub programs: PathBuf,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            guest_memory_mib: 8192,
            outgoing_per_host: 2,
            incoming_per_host: 2,
            moves_total: 64,
            switchovers_per_host: 2,
            switchovers_total: 4,
            qemu: [Qemu::V10_0; 2],
            log: "info".into(),
            tls: true,
            programs: programs(),
        }
    }
}

impl Settings {
    /// One of our programs.
    pub fn program(&self, name: &str) -> Command {
        Command::new(self.programs.join(name))
    }
}

/// A running site. Its processes end with it; the VMs too.
#[derive(Debug)]
pub struct Site<'a> {
    lab: &'a Lab,
    settings: Settings,
    coordinators: Coordinators<'a>,
    agents: Vec<(Host, Option<Process>)>,
}

impl<'a> Site<'a> {
    /// Starts the coordinators and an agent on every host, and waits until all know each other.
    pub fn up(lab: &'a Lab, settings: Settings) -> Result<Self> {
        let agents = lab.hosts().iter().map(|host| (host.clone(), None)).collect();
        let mut site = Self { lab, settings, coordinators: Coordinators::of(lab), agents };
        if site.settings.tls {
            certificates::init(&site.settings, &site.folder(CA)?)?;
        }
        site.start_coordinators()?;
        for index in 0..site.agents.len() {
            site.start_agent_at(index)?;
        }
        site.wait_connected(site.agents.len()).inspect_err(|_| site.show_logs())?;
        Ok(site)
    }

    /// The lab it lives in.
    pub fn lab(&self) -> &'a Lab {
        self.lab
    }

    /// How it was set up.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.lab.folder().join(name);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// Where the certificates of a holder are, if there is TLS.
    fn certificates(&self, whose: &str) -> Option<PathBuf> {
        self.settings.tls.then(|| self.lab.folder().join(CA).join(whose))
    }

    /// The site's coordinators.
    pub fn coordinators(&self) -> &Coordinators<'a> {
        &self.coordinators
    }

    /// Starts the coordinators that do not run.
    pub fn start_coordinators(&mut self) -> Result<()> {
        let tls = certificates::setting(self.certificates("coordinator").as_deref());
        self.coordinators.start(&self.settings, &tls)
    }

    /// Kills the coordinator that leads. Its number.
    pub fn kill_leader(&mut self) -> Result<u8> {
        let leader = self.leader()?;
        self.coordinators.kill(leader)?;
        Ok(leader)
    }

    /// The number of the coordinator that leads, as soon as one does.
    pub fn leader(&self) -> Result<u8> {
        let deadline = Instant::now() + CONNECT_WAIT;
        loop {
            let cluster = self.cli_json(&["cluster", "status"]);
            let id = cluster.as_ref().ok().and_then(|cluster| cluster["leader_id"].as_u64());
            match id.and_then(|id| u8::try_from(id).ok()) {
                Some(id) if self.coordinators.runs(id) => return Ok(id),
                _ if Instant::now() > deadline => bail!("no coordinator leads: {cluster:?}"),
                _ => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// Kills every coordinator at once, as a power failure would.
    pub fn kill_coordinators(&mut self) {
        self.coordinators.kill_all();
    }

    fn index(&self, host: &str) -> Result<usize> {
        self.agents.iter().position(|(h, _)| h.name() == host).context("no such host in the lab")
    }

    /// The settings file of a host's agent.
    pub fn agent_config(&self, host: &Host) -> PathBuf {
        self.lab.folder().join(host.name()).join("agent.toml")
    }

    /// Starts the agent of a host (again).
    pub fn start_agent(&mut self, host: &str) -> Result<()> {
        self.start_agent_at(self.index(host)?)
    }

    fn start_agent_at(&mut self, index: usize) -> Result<()> {
        let host = self.agents[index].0.clone();
        let folder = self.folder(&host.name())?;
        let qemu = self.settings.qemu[usize::from(host.rack != "a")];
        let own = self.certificates(&host.name());
        // TCG of that age loses writes of its guests now and then; what tests look for is something else.
        let lossy = if qemu == Qemu::V7_2 { "allow_lost_writes = true\n" } else { "" };
        let config = format!(
            "host = \"{}\"\nrack = \"{}\"\ncoordinator = \"{}\"\nlisten = \"{}:{PAGE_PORT}\"\n\
             state_dir = \"{}\"\nguest_memory_mib = {}\n{lossy}{}\n[qemu]\nbinary = \"{}\"\nfirmware = {:?}\n",
            host.name(),
            host.rack,
            self.coordinators.addresses(),
            host.address,
            folder.join("state").display(),
            self.settings.guest_memory_mib,
            certificates::setting(own.as_deref()),
            text(&qemu.binary()),
            qemu.firmware().iter().map(|path| text(path)).collect::<Vec<_>>(),
        );
        let path = self.agent_config(&host);
        fs::write(&path, config)?;
        // Earlier agents do not know it, and do not read it either.
        fs::write(path.with_file_name("policy.toml"), self.policy())?;
        if let Some(own) = &own {
            certificates::join(self, &host, own)?;
        }
        let mut command = self.settings.program("rackferry-agent");
        command.arg("--config").arg(&path).env("RACKFERRY_LOG", &self.settings.log);
        let name = format!("agent-{}", host.name());
        self.agents[index].1 = Some(self.lab.spawn(&host, &name, &mut command)?);
        Ok(())
    }

    /// What the lab's VMs may have on every host: images, and a serial line and a monitor for the lab.
    fn policy(&self) -> String {
        format!(
            "paths = [{:?}, {:?}]\nextra_args = [\"-chardev socket\", \"-device isa-serial\", \"-mon labmon\"]\n",
            image::cache(),
            self.lab.folder(),
        )
    }

    /// Kills the agent of a host, as a power failure would; its VMs go on.
    pub fn kill_agent(&mut self, host: &str) -> Result<()> {
        let index = self.index(host)?;
        if let Some(process) = self.agents[index].1.take() {
            process.kill();
        }
        Ok(())
    }

    /// Has whatever is started from now on taken from another folder of programs.
    pub fn use_programs(&mut self, folder: &Path) {
        self.settings.programs = folder.to_path_buf();
    }

    /// Ends the agent of a host in order, and starts it again from the folder of programs of now.
    pub fn restart_agent(&mut self, host: &str) -> Result<()> {
        let index = self.index(host)?;
        if let Some(process) = self.agents[index].1.take() {
            process.terminate(END_WAIT)?;
        }
        self.start_agent_at(index)
    }

    /// Ends a coordinator in order, and starts it again from the folder of programs of now.
    pub fn restart_coordinator(&mut self, id: u8) -> Result<()> {
        self.coordinators.end(id, END_WAIT)?;
        self.start_coordinators()
    }

    /// The agents that run.
    pub fn agents(&self) -> impl Iterator<Item = (&Host, &Process)> {
        self.agents.iter().filter_map(|(host, process)| Some((host, process.as_ref()?)))
    }

    /// The agent of a host.
    ///
    /// # Errors
    /// It does not run.
    pub fn agent(&self, host: &str) -> Result<&Process> {
        let found = self.agents().find(|(other, _)| other.name() == host);
        found.map(|(_, process)| process).with_context(|| format!("no agent runs on {host}"))
    }

    /// Waits until `count` agents are connected.
    pub fn wait_connected(&self, count: usize) -> Result<()> {
        let deadline = Instant::now() + CONNECT_WAIT;
        let mut last = String::from("nothing");
        while Instant::now() < deadline {
            match self.cli_json(&["host", "list"]) {
                Ok(list) => {
                    let hosts = list["hosts"].as_array().cloned().unwrap_or_default();
                    let live = hosts.iter().filter(|h| h["connected"] == true).count();
                    if live >= count {
                        return Ok(());
                    }
                    last = format!("{live} of {count} agents connected");
                }
                Err(error) => last = format!("{error:#}"),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("the site does not come up: {last}")
    }

    /// Runs the command line for its JSON, again and again while the coordinator has not come up.
    pub fn cli_patient(&self, arguments: &[&str]) -> Result<Value> {
        let deadline = Instant::now() + CONNECT_WAIT;
        loop {
            match self.cli_json(arguments) {
                Err(_) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(100));
                }
                said => return said,
            }
        }
    }

    /// Starts a VM on a host through its agent.
    pub fn start_vm(&self, host: &Host, def: &VmDef) -> Result<()> {
        self.start_spec(host, &def.name, &def.spec()?)
    }

    /// Starts a VM on a host through its agent, by the text of a spec file.
    pub fn start_spec(&self, host: &Host, name: &str, spec: &str) -> Result<()> {
        let path = self.lab.folder().join(format!("{name}.toml"));
        fs::write(&path, spec)?;
        self.order_agent(host, &["start", &text(&path)])
    }

    /// Ends a VM for good through its agent, or removes what is left of a dead one: also of one that died in a migration.
    pub fn destroy_vm(&self, host: &Host, name: &str) -> Result<()> {
        self.order_agent(host, &["destroy", name, "--yes", "--force"])
    }

    fn order_agent(&self, host: &Host, order: &[&str]) -> Result<()> {
        let mut command = self.settings.program("rackferry-agent");
        command.arg("--config").arg(self.agent_config(host)).arg("vm").args(order);
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{order:?}: {said}");
        Ok(())
    }

    /// Makes a host's agent take over a VM that was started outside of Rackferry, by its monitor.
    pub fn attach_vm(&self, host: &Host, def: &VmDef, monitor: &Path) -> Result<()> {
        let spec = format!("{}\n[attach]\nqmp = \"{}\"\n", def.spec()?, monitor.display());
        self.start_spec(host, &def.name, &spec)
    }

    /// Waits until the coordinator knows VMs.
    pub fn wait_listed(&self, vms: &[&str]) -> Result<()> {
        let deadline = Instant::now() + CONNECT_WAIT;
        loop {
            let list = self.cli_json(&["vm", "list"])?;
            let known: Vec<&str> = list["vms"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|vm| vm["name"].as_str())
                .collect();
            if vms.iter().all(|vm| known.contains(vm)) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the coordinator knows only {known:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Boots VMs through their agents, `at_once` at a time, until all are ready.
    pub fn boot(&self, vms: &[(Host, VmDef)], at_once: usize, limit: Duration) -> Result<()> {
        for group in vms.chunks(at_once.max(1)) {
            for (host, def) in group {
                self.start_vm(host, def)?;
            }
            let names: Vec<&str> = group.iter().map(|(_, def)| def.name.as_str()).collect();
            self.lab.heartbeats().wait_ready(&names, limit)?;
        }
        Ok(())
    }

    /// Runs the command line on the management network.
    pub fn cli(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.command(arguments);
        let namespace = topology::management(self.lab.prefix());
        Ok(netns::inside(&namespace, || command.output())??)
    }

    /// The exit code of the command line; none if a signal ended it.
    pub fn cli_code(&self, arguments: &[&str]) -> Result<Option<i32>> {
        Ok(self.cli(arguments)?.status.code())
    }

    /// Runs the command line for the terminal of the caller: with progress, if it is one.
    pub fn cli_shown(&self, arguments: &[&str]) -> Result<ExitStatus> {
        let mut command = self.command(arguments);
        let namespace = topology::management(self.lab.prefix());
        Ok(netns::inside(&namespace, || command.status())??)
    }

    /// Runs the command line for its JSON, whatever the exit code: of an evacuation that left VMs behind too.
    pub fn cli_outcome(&self, arguments: &[&str]) -> Result<Value> {
        let output = self.cli(&[arguments, &["--output", "json"]].concat())?;
        let said = String::from_utf8_lossy(&output.stdout);
        let complained = String::from_utf8_lossy(&output.stderr);
        let value: Value = serde_json::from_str(&said)
            .with_context(|| format!("rackferry {arguments:?}: not JSON: {said}{complained}"))?;
        ensure!(value["error"].is_null(), "rackferry {arguments:?}: {}", value["error"]);
        Ok(value)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.settings.program("rackferry");
        command
            .args(["--coordinator", &self.coordinators.addresses()])
            .arg("--tls")
            .arg(self.certificates("admin").unwrap_or_else(|| "off".into()))
            .args(arguments);
        command
    }

    /// Runs the command line for its JSON; an exit code other than 0 is an error that shows what it said.
    pub fn cli_json(&self, arguments: &[&str]) -> Result<Value> {
        let output = self.cli(&[arguments, &["--output", "json"]].concat())?;
        let said = String::from_utf8_lossy(&output.stdout);
        let complained = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "rackferry {arguments:?}: {}: {said}{complained}",
            output.status
        );
        serde_json::from_str(&said).with_context(|| format!("not JSON: {said}{complained}"))
    }
}

impl Drop for Site<'_> {
    /// A test that fails shows what the daemons said last.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
        }
    }
}

impl Site<'_> {
    fn show_logs(&self) {
        let agents = self.agents.iter().map(|(host, _)| format!("agent-{}", host.name()));
        for name in self.coordinators.names().chain(agents) {
            let printed = self.lab.printed(&name);
            let lines: Vec<&str> = printed.lines().collect();
            eprintln!("--- {name}");
            lines[lines.len().saturating_sub(SHOWN_LINES)..].iter().for_each(|l| eprintln!("{l}"));
        }
    }
}

/// The folder of our programs, as built by `cargo xtask test` or named by `RACKFERRY_BIN`.
fn programs() -> PathBuf {
    let built = || {
        let root =
            Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lies below the root");
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        target.join("release")
    };
    std::env::var_os("RACKFERRY_BIN").map_or_else(built, PathBuf::from)
}
