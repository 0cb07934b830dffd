//! The coordinators of a site: each in a namespace of its own, each may be killed and started again.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::Lab;
use crate::lab::site::Settings;
use crate::lab::topology::Seat;
use crate::procs::Process;

/// Where they all listen.
const PORT: u16 = 7400;

/// All of them, dead or alive.
#[derive(Debug)]
pub struct Coordinators<'a> {
    lab: &'a Lab,
    seats: Vec<(Seat, Option<Process>)>,
}

impl<'a> Coordinators<'a> {
    /// None runs yet.
    pub fn of(lab: &'a Lab) -> Self {
        let seats = lab.seats().iter().map(|seat| (seat.clone(), None)).collect();
        Self { lab, seats }
    }

    /// How one dials them: every address, commas between.
    pub fn addresses(&self) -> String {
        let all = self.seats.iter().map(|(seat, _)| format!("{}:{PORT}", seat.address));
        all.collect::<Vec<_>>().join(",")
    }

    /// Their names in logs.
    pub fn names(&self) -> impl Iterator<Item = String> {
        self.seats.iter().map(|(seat, _)| seat.name())
    }

    /// Starts those that do not run. `tls` is the setting that says where their certificates are.
    pub fn start(&mut self, settings: &Settings, tls: &str) -> Result<()> {
        let peers = self.peers();
        for (seat, process) in self.seats.iter_mut().filter(|(_, process)| process.is_none()) {
            let cluster = match peers.len() {
                // By itself it needs no settings.
                1 => String::new(),
                _ => format!("[cluster]\nid = {}\npeers = [{}]\n", seat.id, peers.join(", ")),
            };
            *process = Some(start(self.lab, seat, [tls, &cluster], settings)?);
        }
        Ok(())
    }

    fn peers(&self) -> Vec<String> {
        let peer =
            |seat: &Seat| format!("{{ id = {}, addr = \"{}:{PORT}\" }}", seat.id, seat.address);
        self.seats.iter().map(|(seat, _)| peer(seat)).collect()
    }

    /// Whether one runs.
    pub fn runs(&self, id: u8) -> bool {
        self.seats.iter().any(|(seat, process)| seat.id == id && process.is_some())
    }

    /// Their numbers.
    pub fn ids(&self) -> Vec<u8> {
        self.seats.iter().map(|(seat, _)| seat.id).collect()
    }

    /// Those that run.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        self.seats.iter().filter_map(|(_, process)| process.as_ref())
    }

    /// One that runs.
    pub fn process(&self, id: u8) -> Option<&Process> {
        let (_, process) = self.seats.iter().find(|(seat, _)| seat.id == id)?;
        process.as_ref()
    }

    /// Kills one, as a power failure would.
    pub fn kill(&mut self, id: u8) -> Result<()> {
        if let Some(process) = self.take(id)? {
            process.kill();
        }
        Ok(())
    }

    /// Ends one in order.
    pub fn end(&mut self, id: u8, limit: Duration) -> Result<()> {
        self.take(id)?.map_or(Ok(()), |process| process.terminate(limit))
    }

    fn take(&mut self, id: u8) -> Result<Option<Process>> {
        let mut all = self.seats.iter_mut();
        let (_, process) = all.find(|(seat, _)| seat.id == id).context("no such coordinator")?;
        Ok(process.take())
    }

    /// Kills them all at once.
    pub fn kill_all(&mut self) {
        self.seats.iter_mut().filter_map(|(_, process)| process.take()).for_each(Process::kill);
    }
}

fn start(lab: &Lab, seat: &Seat, [tls, cluster]: [&str; 2], s: &Settings) -> Result<Process> {
    let folder = lab.folder().join(seat.name());
    fs::create_dir_all(&folder)?;
    let config = format!(
        "{tls}\n[server]\nlisten = \"{}:{PORT}\"\n[storage]\ndir = \"{}\"\n{cluster}[limits]\n\
         outgoing_per_host = {}\nincoming_per_host = {}\nmoves_total = {}\nswitchovers_per_host = {}\n\
         switchovers_total = {}\n",
        seat.address,
        folder.join("data").display(),
        s.outgoing_per_host,
        s.incoming_per_host,
        s.moves_total,
        s.switchovers_per_host,
        s.switchovers_total,
    );
    let path = folder.join("coordinator.toml");
    fs::write(&path, config)?;
    let mut command = s.program("rackferry-coordinator");
    command.arg("--config").arg(&path).env("RACKFERRY_LOG", &s.log);
    lab.spawn_seat(seat, &mut command)
}
