//! What an agent does after a while.

use rackferry_agent_core::{Act, Event, MigrationId, Step, TargetEnd};
use rackferry_fleet::VmReport;
use rackferry_migrator_protocol::session::convergence::Disruption;
use rackferry_migrator_protocol::session::{source, target};

use crate::net::ConnId;
use crate::world::World;

/// Something an agent does after a while, if it lives then.
#[derive(Clone, Debug)]
pub enum Chore {
    /// Looks for what earlier agents left.
    Adopt,
    /// Looks again at a QEMU that did not answer.
    LookAgain(usize),
    /// Dials the coordinator.
    Dial,
    /// Empties the outbox.
    Drain,
    /// Tells its rules that time has passed.
    Tick(u64),
    /// Makes a list for this stream.
    List(ConnId),
    /// Sends it.
    Report(ConnId, u64, Vec<VmReport>),
    /// Prepares a VM for a migration, with this generation.
    Prepare(MigrationId, usize, u64),
    /// The QEMU of an arriving VM has started.
    Booted(MigrationId, usize),
    /// Looks for a VM that something is to be done to.
    Find(Act),
    /// Takes it.
    Take(Act, usize, u64),
    /// Does what is left to do to it.
    Steps(Act, usize, u64, Vec<Step>),
    /// Writes down that an arriving VM may run.
    WriteAboutToRun(u64, usize, u64),
    /// Its call was not answered.
    CallFailed(u64),
    /// A session's event.
    Session(SessionEvent),
    /// A source session looks how far QEMU is.
    Sample(u64),
    /// A source session is over.
    SourceOver(u64, source::Outcome),
    /// A target session is.
    TargetOver(u64, TargetEnd),
}

/// How to move a VM away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The VM.
    pub vm: usize,
    /// Of the target's ownership.
    pub generation: u64,
    /// Where to.
    pub target: usize,
    /// What may be done to the VM.
    pub disruption: Disruption,
}

/// An event of one of an agent's sessions.
#[derive(Clone, Debug)]
pub enum SessionEvent {
    /// Of a source.
    Source(u64, source::Event),
    /// Of a target.
    Target(u64, target::Event),
}

impl World {
    /// An agent carries something out.
    pub fn chore(&mut self, host: usize, life: u64, chore: Chore) {
        if self.agent(host, life).is_none() {
            return;
        }
        match chore {
            Chore::Adopt => self.adopt(host),
            Chore::LookAgain(vm) => self.look_again(host, vm),
            Chore::Dial => self.dial_coordinator(host),
            Chore::Drain => self.drain(host),
            Chore::Tick(at) => self.agent_tick(host, at),
            Chore::List(stream) => self.list(host, stream),
            Chore::Report(stream, free, vms) => self.report(host, stream, free, vms),
            Chore::Prepare(id, vm, generation) => self.prepare(host, id, vm, generation),
            Chore::Booted(id, vm) => self.booted(host, id, vm),
            Chore::Find(act) => self.find(host, act),
            Chore::Take(act, vm, serial) => self.take_copy(host, act, vm, serial),
            Chore::Steps(act, vm, serial, steps) => self.steps(host, act, vm, serial, steps),
            Chore::WriteAboutToRun(id, vm, serial) => {
                self.write_about_to_run(host, id, vm, serial);
            }
            Chore::CallFailed(id) => self.call_failed(host, id),
            Chore::Session(SessionEvent::Source(id, event)) => self.source_event(host, id, event),
            Chore::Session(SessionEvent::Target(id, event)) => self.target_event(host, id, event),
            Chore::Sample(id) => self.sample(host, id),
            Chore::SourceOver(id, outcome) => self.source_over(host, id, outcome),
            Chore::TargetOver(id, end) => {
                self.agent_event(host, Event::TargetOver(MigrationId(id), end));
            }
        }
    }
}
