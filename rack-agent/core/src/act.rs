//! What is done to one VM: which one it is, whether it may be done, and how.

use std::fmt;

use crate::{Facts, Mark, MigrationId, Role, Side, Standing, VmState};

/// Something to do to the VM of a migration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Act {
    /// The migration.
    pub migration: MigrationId,
    /// What.
    pub what: What,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// The VM of this name begins to leave.
    Leave {
        /// The VM.
        vm: String,
        /// The generation the target will own with.
        generation: u64,
    },
    /// Its move is undone: it stays.
    Stay,
    /// It runs here, with this generation.
    Own(u64),
    /// The log says that the loaded VM runs here, with this generation.
    Resume(u64),
    /// It died here, where it belongs with this generation.
    KeepDead(u64),
    /// What was to arrive is removed.
    Discard,
    /// What has left is removed.
    Release,
    /// The log says that what has left runs here again, with this generation.
    TakeBack(u64),
}

/// One step, done by the shell. If one fails those after it are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Let the guest run.
    Cont,
    /// Write down, durably.
    Write(Writing),
    /// Tell the network where the VM is now; its failure matters little.
    Announce,
    /// Let QEMU end, and forget the VM.
    Quit,
    /// Kill QEMU, and forget the VM.
    Kill,
}

/// A change of what is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// It takes part in a migration.
    Marked(Mark),
    /// It takes part in none any more.
    Unmarked,
    /// It arrived and is about to be let run: if it dies from now on, what it wrote may be newer than what its source has.
    AboutToRun,
    /// It belongs here with this generation and takes part in no migration.
    Owned(u64),
    /// The operator of this host has ended it.
    Destroyed,
}

impl Writing {
    /// It is so, whether the disk takes it or not. Else a list would name a session that is over, and the coordinator
    /// would wait for its end.
    pub fn is_fact(self) -> bool {
        !matches!(self, Self::Marked(_) | Self::AboutToRun)
    }

    /// Makes the change.
    pub fn apply(self, standing: &mut Standing) {
        match self {
            Self::Marked(mark) => standing.mark = Some(mark),
            Self::Unmarked => standing.mark = None,
            Self::AboutToRun => standing.about_to_run = standing.role == Role::Incoming,
            Self::Owned(generation) => {
                let destroyed = standing.destroyed;
                *standing = Standing { destroyed, ..Standing::owned(generation) };
            }
            Self::Destroyed => standing.destroyed = true,
        }
    }
}

/// Why something is not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its QEMU does not answer since the agent was started: it may run.
    #[error("QEMU of VM {0} does not answer since the agent was started; it may run")]
    Unreachable(String),
    /// It belongs to something else by now.
    #[error("VM {0} does not belong to {1} any more")]
    OtherMigration(String, MigrationId),
    /// Not in this state.
    #[error("VM {vm} is {state}: will not {what}")]
    WrongState {
        /// The VM.
        vm: String,
        /// What it does.
        state: VmState,
        /// What is not done.
        what: What,
    },
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leave { .. } => "move it",
            Self::Stay => "keep it",
            Self::Own(_) => "own it",
            Self::Resume(_) => "run it",
            Self::KeepDead(_) => "keep it, dead",
            Self::Discard => "discard it",
            Self::Release => "release it",
            Self::TakeBack(_) => "take it back",
        })
    }
}

impl Act {
    /// Is this the VM?
    pub fn concerns(&self, name: &str, standing: &Standing) -> bool {
        let side = match &self.what {
            What::Leave { vm, .. } => return vm == name,
            What::Stay | What::Release | What::TakeBack(_) => Side::Source,
            What::KeepDead(_) => {
                return standing.mark.is_some_and(|mark| mark.migration == self.migration);
            }
            What::Own(_) | What::Resume(_) | What::Discard => Side::Target,
        };
        let ours = |mark: Mark| mark.migration == self.migration && mark.side == side;
        standing.mark.is_some_and(ours)
    }

    /// Does the verdict depend on what the VM does? Else its last known state will do.
    pub fn looks(&self) -> bool {
        !matches!(self.what, What::Stay | What::Own(_))
    }

    /// What is to be done to this VM as it is now. Asked when it is certain that nothing else happens to it meanwhile.
    ///
    /// # Errors
    /// It must not be done.
    pub fn verdict(&self, vm: &Facts) -> Result<Vec<Step>, Refusal> {
        if vm.state == VmState::Unknown {
            return Err(Refusal::Unreachable(vm.name.clone()));
        }
        if !self.concerns(&vm.name, &vm.standing) {
            return Err(Refusal::OtherMigration(vm.name.clone(), self.migration));
        }
        let steps = match (&self.what, vm.standing.role, vm.state) {
            // What an earlier move has stopped is decided by that: its mark must stay until then.
            (&What::Leave { generation, .. }, Role::Run, state) if !stopped_by_a_move(state) => {
                let mark = Mark { migration: self.migration, generation, side: Side::Source };
                vec![Step::Write(Writing::Marked(mark))]
            }
            (What::Stay, _, _) => vec![Step::Write(Writing::Unmarked)],
            (&What::Own(generation), _, _) => vec![Step::Write(Writing::Owned(generation))],
            (&What::Resume(generation), _, VmState::Running) => {
                vec![Step::Write(Writing::Owned(generation)), Step::Announce]
            }
            (&What::Resume(generation), _, VmState::Loaded | VmState::Paused) => {
                let about = Step::Write(Writing::AboutToRun);
                let own = Step::Write(Writing::Owned(generation));
                if planted!(RunsUnwritten) {
                    vec![Step::Cont, own, Step::Announce]
                } else {
                    vec![about, Step::Cont, own, Step::Announce]
                }
            }
            (&What::KeepDead(generation), _, VmState::Dead) => {
                vec![Step::Write(Writing::Owned(generation))]
            }
            (What::Discard, Role::Incoming, state) if may_discard(state) => vec![Step::Kill],
            (What::Release, _, state) if may_release(state) => vec![Step::Quit],
            // QEMU itself refuses while it completes a migration.
            (
                &What::TakeBack(generation),
                Role::Run,
                VmState::MovedOut | VmState::Paused | VmState::Running,
            ) => vec![Step::Cont, Step::Write(Writing::Owned(generation))],
            (what, _, state) => {
                let (vm, what) = (vm.name.clone(), what.clone());
                return Err(Refusal::WrongState { vm, state, what });
            }
        };
        Ok(steps)
    }
}

fn stopped_by_a_move(state: VmState) -> bool {
    matches!(state, VmState::MovedOut | VmState::Loaded)
}

/// A VM that runs was let go, which happens only to the owner.
fn may_discard(state: VmState) -> bool {
    state != VmState::Running
}

/// In any other state it may be the only copy.
fn may_release(state: VmState) -> bool {
    matches!(state, VmState::MovedOut | VmState::Dead)
}

/// What preparing a VM takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preparation {
    /// A second order for the same migration finds its work done.
    Ready,
    /// A QEMU is made.
    Boot,
    /// What is left of a VM that died here does not keep it from coming: it is removed, and a QEMU is made.
    Replace,
    /// The name is in use.
    Taken,
}

/// What preparing a VM for a migration takes, given what this host has of that name.
pub fn preparation(found: Option<&Facts>, migration: MigrationId) -> Preparation {
    let Some(vm) = found else { return Preparation::Boot };
    let ours = vm.standing.mark.is_some_and(|mark| mark.migration == migration);
    match (vm.state, vm.standing.role) {
        // It is the evidence that this migration's VM may have run here.
        (VmState::Dead, _) if ours && vm.standing.about_to_run => Preparation::Taken,
        (VmState::Dead, _) => Preparation::Replace,
        (VmState::Unknown, _) => Preparation::Taken,
        (_, Role::Incoming) if ours => Preparation::Ready,
        _ => Preparation::Taken,
    }
}

/// What stays of a VM that the operator of its host ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remains {
    /// Nothing: no copy that another host has can be older.
    Nothing,
    /// The word that it was here, until the coordinator has heard it: it may have run here since it came, and where it came
    /// from it must not go on.
    Word,
}

/// What stays of a VM that the operator of its host ends. By force not even the word that stayed before.
pub fn remains(vm: &Facts, may_have_run: bool, force: bool) -> Remains {
    let Standing { generation, mark, destroyed, .. } = vm.standing;
    let came = generation > 0 || mark.is_some();
    let never_ran = matches!(vm.state, VmState::Incoming | VmState::Loaded);
    // The other host goes on as soon as a source is gone.
    let leaves = mark.is_some_and(|mark| mark.side == Side::Source);
    let wanted_gone = (destroyed && force) || leaves;
    if came && may_have_run && !never_ran && !wanted_gone {
        Remains::Word
    } else {
        Remains::Nothing
    }
}

/// What starting a VM at its operator's wish takes, given what this host has of that name: what is left of one that died
/// here is replaced, unless a migration has not ended for it.
pub fn start(found: Option<&Facts>) -> Preparation {
    match found {
        None => Preparation::Boot,
        Some(vm) if vm.state == VmState::Dead && vm.standing.mark.is_none() => Preparation::Replace,
        Some(_) => Preparation::Taken,
    }
}
