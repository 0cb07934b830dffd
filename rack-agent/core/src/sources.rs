//! VMs that leave: what becomes of their orders and of what their sessions say.

use std::collections::BTreeMap;

use crate::{Carried, End, MigrationId, SourceCommand};

/// A VM that leaves.
#[derive(Debug)]
pub(crate) struct Source<C: Carried> {
    /// The target will own with it.
    pub(crate) generation: u64,
    pub(crate) state: State<C>,
}

/// How far it is.
#[derive(Debug)]
pub(crate) enum State<C: Carried> {
    /// It is being written down that it leaves.
    Marking {
        rate: Option<u64>,
        start: C::Start,
        /// What was ordered meanwhile, each at most once.
        cancelled: Option<String>,
        forced: bool,
    },
    /// Its session runs.
    Running,
    /// Its session is over; this is said when what is left to do is done.
    Ending(End<C>),
}

/// What becomes of a command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// The session gets it.
    Deliver(SourceCommand),
    /// The session gets it when it begins, or there is none that could use it.
    Kept,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Sources<C: Carried>(BTreeMap<MigrationId, Source<C>>);

impl<C: Carried> Sources<C> {
    pub(crate) fn new() -> Self {
        Self(BTreeMap::new())
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = MigrationId> {
        self.0.keys().copied()
    }

    pub(crate) fn get(&self, migration: MigrationId) -> Option<&Source<C>> {
        self.0.get(&migration)
    }

    pub(crate) fn get_mut(&mut self, migration: MigrationId) -> Option<&mut Source<C>> {
        self.0.get_mut(&migration)
    }

    pub(crate) fn remove(&mut self, migration: MigrationId) -> Option<Source<C>> {
        self.0.remove(&migration)
    }

    /// A VM is to leave; false if it leaves already.
    pub(crate) fn start(
        &mut self,
        migration: MigrationId,
        generation: u64,
        rate: Option<u64>,
        start: C::Start,
    ) -> bool {
        let fresh = !self.0.contains_key(&migration);
        if fresh {
            let state = State::Marking { rate, start, cancelled: None, forced: false };
            self.0.insert(migration, Source { generation, state });
        }
        fresh
    }

    /// A command for a session; the answers to its questions cannot come before it begins.
    pub(crate) fn command(&mut self, migration: MigrationId, command: SourceCommand) -> Command {
        match self.0.get_mut(&migration).map(|source| &mut source.state) {
            Some(State::Running) => return Command::Deliver(command),
            Some(State::Marking { cancelled, forced, .. }) => match command {
                SourceCommand::Cancel(why) => *cancelled = Some(why),
                SourceCommand::ForceSwitchover => *forced = true,
                SourceCommand::SlotGranted | SourceCommand::Decision { .. } => {}
            },
            Some(State::Ending(_)) | None => {}
        }
        Command::Kept
    }

    /// It is written down that the VM leaves: the session begins, and gets what was ordered meanwhile.
    #[allow(clippy::type_complexity, reason = "used at one place")]
    pub(crate) fn begin(
        &mut self,
        migration: MigrationId,
    ) -> Option<(Option<u64>, C::Start, Vec<SourceCommand>)> {
        let source = self.0.get_mut(&migration)?;
        if !matches!(source.state, State::Marking { .. }) {
            return None;
        }
        let State::Marking { rate, start, cancelled, forced } =
            std::mem::replace(&mut source.state, State::Running)
        else {
            return None;
        };
        let mut early: Vec<SourceCommand> =
            cancelled.map(SourceCommand::Cancel).into_iter().collect();
        if forced {
            early.push(SourceCommand::ForceSwitchover);
        }
        Some((rate, start, early))
    }
}
