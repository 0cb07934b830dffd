//! What an agent does after a while.

use rackferry_fleet::{Generation, MigrationId, Outcome, Said, VmName};
use rackferry_migrator_protocol::session::patience::Disruption;
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
    /// Says something.
    Tell(Box<Said>),
    /// Sends its list, as often as this stream wants it, or once.
    Report(Option<ConnId>),
    /// Begins to prepare a VM.
    Prepare(MigrationId, VmName, Generation),
    /// The QEMU of an arriving VM has started.
    Booted(MigrationId, usize, Generation),
    /// Begins to discard what arrives by a migration.
    Discard(u64),
    /// Kills it; the number is that of the copy it has found.
    Kill(u64, Option<(usize, u64)>),
    /// Lets a loaded VM run, as the log says.
    Resume(u64),
    /// It has answered `cont`; copy as found.
    Resumed(u64, usize, u64),
    /// Ends or resumes a VM that left.
    Release(u64, bool),
    /// Begins to move a VM away.
    Start(Start),
    /// Its call was answered by nobody.
    CallFailed(u64),
    /// A session's event.
    Session(SessionEvent),
    /// A source session looks how far QEMU is.
    Sample(u64),
    /// The last things after a source session.
    SourceOver(u64, Outcome),
}

/// The order to move a VM away.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// The migration.
    pub migration: u64,
    /// The VM.
    pub vm: usize,
    /// Of the target's ownership.
    pub generation: Generation,
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
            Chore::Tell(said) => self.tell(host, *said),
            Chore::Report(every) => self.report(host, every),
            Chore::Prepare(id, vm, generation) => self.prepare(host, id, &vm, generation),
            Chore::Booted(id, vm, generation) => {
                if let Some(agent) = &mut self.hosts[host].agent {
                    agent.booting.remove(&vm);
                }
                self.list_changed(host);
                self.prepared(host, id, generation);
            }
            Chore::Discard(id) => self.discard(host, id),
            Chore::Kill(id, found) => self.kill_incoming(host, id, found),
            Chore::Resume(id) => self.resume_loaded(host, id),
            Chore::Resumed(id, vm, serial) => self.resumed(host, id, vm, serial),
            Chore::Release(id, resume) => self.release_source(host, id, resume),
            Chore::Start(start) => self.start_source(host, start),
            Chore::CallFailed(id) => self.call_failed(host, id),
            Chore::Session(SessionEvent::Source(id, event)) => self.source_event(host, id, event),
            Chore::Session(SessionEvent::Target(id, event)) => self.target_event(host, id, event),
            Chore::Sample(id) => self.sample(host, id),
            Chore::SourceOver(id, outcome) => self.source_over(host, id, outcome),
        }
    }
}
