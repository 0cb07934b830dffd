//! What a host knows of a VM.

use serde::{Deserialize, Serialize};

use crate::{MigrationId, Side, VmState};

/// Which of its lives a VM has on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It belongs here, as far as this host knows.
    Run,
    /// It arrives.
    Incoming,
}

/// The migration a VM takes part in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The migration.
    #[serde(rename = "id", with = "as_text")]
    pub migration: MigrationId,
    /// Generation of the ownership if it is committed.
    pub generation: u64,
    /// What this host is in it.
    pub side: Side,
}

/// What is written down about a VM: it outlives the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Whether the VM belongs here.
    pub role: Role,
    /// Generation of the ownership this host believes in; 0: none yet.
    pub generation: u64,
    /// Migration under way.
    #[serde(rename = "migration")]
    pub mark: Option<Mark>,
    /// It arrived, and was about to be let run: written down before it is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub about_to_run: bool,
    /// The operator of this host has ended it. The coordinator must hear of that: a copy elsewhere is older.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub destroyed: bool,
}

impl Standing {
    /// Of a VM that belongs here and takes part in no migration.
    #[must_use]
    pub const fn owned(generation: u64) -> Self {
        let (about_to_run, destroyed) = (false, false);
        Self { role: Role::Run, generation, mark: None, about_to_run, destroyed }
    }

    /// Of a VM that arrives.
    #[must_use]
    pub fn incoming(mark: Mark) -> Self {
        let (about_to_run, destroyed) = (false, false);
        Self { role: Role::Incoming, generation: 0, mark: Some(mark), about_to_run, destroyed }
    }

    /// Its guest may have run on this host: whatever another host has of it may be older. `let_run`: this agent has let it
    /// run, or cannot know, because an earlier one prepared it.
    #[must_use]
    pub fn may_have_run(&self, let_run: bool) -> bool {
        self.role == Role::Run || (self.about_to_run && let_run)
    }
}

/// A VM at the moment something is to be done to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its name.
    pub name: String,
    /// What is written down.
    pub standing: Standing,
    /// What it does.
    pub state: VmState,
}

/// A migration is written down as the coordinator names it, `mig-7`.
mod as_text {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::MigrationId;

    pub fn serialize<S: Serializer>(id: &MigrationId, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(id)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<MigrationId, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}
