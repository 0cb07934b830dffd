//! Bugs made on purpose: the simulation must find each of them. Only with the feature `planted-bugs`.

use crate::{Change, Fleet, Gate, MigrationId, Order, Outputs, Record, Standing};

/// A bug made on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlantedBug {
    /// The target is told to run as soon as the commit is made, though the source may still run.
    ResumesBeforeStopped,
    /// A commit is answered before it is written: its record comes with the next turn.
    CommitWrittenLate,
    /// A commit is undone without a new generation.
    AbortKeepsGeneration,
    /// After the commit a silent source is taken for stopped once its silence time-out is over.
    SilenceIsEvidence,
    /// A commit that is asked for again is refused, though it stands.
    AskedAgainRefused,
    /// Every migration that asks gets a slot.
    SlotsForAll,
    /// What is left at a target after a move was undone is not removed.
    LeavesCopies,
    /// Every move gets the whole budget of what it crosses.
    WholeBudgetForAll,
    /// A queued move starts though its target is cordoned.
    CordonOverlooked,
    /// A move starts though its evacuation is paused.
    PauseOverlooked,
    /// Another attempt begins without a pause.
    RetriesAtOnce,
    /// After a deadline VMs are stopped though their stops have a limit.
    ForcesDespiteLimit,
    /// VMs of one anti-affinity group come to share a host.
    AntiAffinityOverlooked,
    /// Orders and answers leave before the write they depend on is committed.
    SaysBeforeDurable,
    /// A leader does not ask whether it still leads before it gives an order without a write.
    NoBarrier,
    /// A copy that died after it may have run is taken for one that is gone: its source goes on with old memory.
    DiedIsGone,
    /// Another installation may speak for a host.
    ClonesAdmitted,
    /// What arrived at a host that was declared dead is taken for a copy that never ran.
    DeadIsGone,
    /// A stopped copy is left as it is if its move is no longer remembered, though there is no other.
    OnlyCopyStranded,
    /// The end of a move releases nothing that waited for it.
    ForgetsWaiting,
}

impl Fleet {
    /// Puts a bug in.
    pub fn plant(&mut self, bug: PlantedBug) {
        self.planted = Some(bug);
    }

    pub(crate) fn has(&self, bug: PlantedBug) -> bool {
        self.planted == Some(bug)
    }

    /// Lets outputs out too early.
    pub(crate) fn spoil<A>(
        &self,
        gate: Gate,
        at_once: Outputs<A>,
        held: Outputs<A>,
    ) -> (Gate, Outputs<A>, Outputs<A>) {
        match gate {
            Gate::Write(_) if self.has(PlantedBug::SaysBeforeDurable) => {
                let notices = at_once.notices;
                (gate, Outputs { notices, ..held }, Outputs::default())
            }
            Gate::Barrier if self.has(PlantedBug::NoBarrier) => (Gate::Open, at_once, held),
            gate => (gate, at_once, held),
        }
    }

    /// Keeps the record of a commit back until the next turn.
    pub(crate) fn hold_commits(&mut self, changes: &mut Vec<Change>) {
        let mut held = std::mem::take(&mut self.held);
        let (late, now) = std::mem::take(changes).into_iter().partition(is_commit);
        self.held = late;
        *changes = now;
        held.append(changes);
        *changes = held;
    }

    /// Tells the target to run though the source has not stopped.
    pub(crate) fn resume_early(&mut self, id: MigrationId) {
        let Some((migration, _)) = self.active(id) else { return };
        self.tell(&migration.target, Order::ResumeTarget(id, migration.generation));
    }
}

fn is_commit(change: &Change) -> bool {
    matches!(
        change,
        Change::Put(Record::Vm(vm))
            if matches!(vm.standing, Standing::Committed { source_stopped: false, .. })
    )
}
