//! Why a request is refused.

use thiserror::Error;

use crate::{
    Difference, EvacuationId, HostName, LinkName, MigrationId, Remains, StayingVm, VmName,
    placement::{DoesNotFit, KeptApart, Unplaceable},
};

/// Why a request is refused. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// No host has this name.
    #[error("no host is called {0}")]
    UnknownHost(HostName),
    /// Neither a rack nor a host has this name.
    #[error("neither a rack nor a host is called {0}")]
    UnknownPlace(String),
    /// No VM has this name.
    #[error("no VM is called {0}")]
    UnknownVm(VmName),
    /// No evacuation has this id.
    #[error("there is no evacuation {0}")]
    UnknownEvacuation(EvacuationId),
    /// No migration has this id.
    #[error("there is no migration {0}")]
    UnknownMigration(MigrationId),
    /// The inventory has no such link.
    #[error("the inventory has no link {0}")]
    UnknownLink(LinkName),
    /// Hosts that would have to take VMs are cordoned.
    #[error("cordoned, and take no VMs: {}", join(.0))]
    Cordoned(Vec<HostName>),
    /// It has ended and cannot be paused.
    #[error("{0} has ended")]
    Ended(EvacuationId),
    /// Everything asked for is where it should go.
    #[error("source and target are the same: {0}")]
    SameHost(String),
    /// The VM takes part in another move.
    #[error("VM {vm} takes part in {migration}")]
    VmBusy {
        /// The VM.
        vm: VmName,
        /// The other move.
        migration: MigrationId,
    },
    /// VMs that cannot move, each with its reason.
    #[error("cannot move: {}", list(.0))]
    NotMovable(Vec<(VmName, &'static str)>),
    /// Every VM is left out, each for its reason.
    #[error("every VM would stay: {}", shorten(.0))]
    NoneMovable(Vec<StayingVm>),
    /// No VM is there that could move, and something else may be.
    #[error("no VM can be moved, and the sources are not known to be empty: {0}")]
    NotEmpty(Remains),
    /// VMs to exclude are not there.
    #[error("excluded, but on none of the sources: {}", shorten(.0))]
    NotOnSources(Vec<VmName>),
    /// A host that is needed has no connected agent.
    #[error("the agent of {0} is not connected")]
    Disconnected(HostName),
    /// A host that is to be declared dead has a connected agent.
    #[error("the agent of {0} is connected: it is not dead")]
    Connected(HostName),
    /// An agent's installation is not the one that speaks for its host.
    #[error(
        "another installation speaks for {0}: is this a clone, or was its state directory replaced? If that host is dead \
         for good: rackferry host declare-dead {0}"
    )]
    Installation(HostName),
    /// An agent speaks for a host that was declared dead.
    #[error("{0} was declared dead: only a new installation may speak for it")]
    DeclaredDead(HostName),
    /// The host cannot be forgotten, and why.
    #[error("{0} cannot be forgotten: {1}")]
    HostInUse(HostName, String),
    /// The VM may run at its owner, or elsewhere.
    #[error(
        "VM {0} may run, or {1} does not say that it is dead; end it first: rackferry-agent vm destroy"
    )]
    VmMayRun(VmName, HostName),
    /// The agent of a VM's owner does not report the spec that was to be accepted.
    #[error(
        "{1} does not report that spec of VM {0} any more; look at it again: rackferry vm spec {0}"
    )]
    SpecDiffers(VmName, HostName),
    /// What was planned is not as it was.
    #[error("not as planned any more: {}; make a new plan", shorten(.0))]
    PlanChanged(Vec<Difference>),
    /// It has not ended, so its VMs cannot be brought back.
    #[error("{0} has not ended; wait for it, or cancel it")]
    Running(EvacuationId),
    /// No VM can be brought back, each for its reason.
    #[error("nothing can be brought back: {}", shorten(.0))]
    NoneRestorable(Vec<StayingVm>),
    /// The targets have not the memory.
    #[error(transparent)]
    DoesNotFit(DoesNotFit),
    /// VMs that are to be kept apart would have to share a host.
    #[error(transparent)]
    KeptApart(KeptApart),
    /// There is nothing to move.
    #[error("no VM is there")]
    NothingToMove,
    /// The token was used, has expired, was replaced, or never was.
    #[error(
        "the token is not valid: it was used, has expired, was replaced by a newer one, or belongs to another host"
    )]
    Token,
    /// The name is expelled from the site.
    #[error(
        "{0} is expelled from the site; rackferry certificate list says by whom, and readmit ends it"
    )]
    Expelled(String),
    /// The certificate is not expelled.
    #[error("{0} is not expelled; see rackferry certificate list")]
    NotExpelled(String),
    /// More certificates are expelled than every program can keep.
    #[error("{0} certificates are expelled, and no more can be: replace the CA (docs/security.md)")]
    TooManyExpelled(usize),
    /// More tokens wait to be used than are kept.
    #[error("{0} tokens wait to be used; wait until some have expired")]
    TooManyTokens(usize),
    /// The request id was used for something else.
    #[error("request id {0} was used for something else")]
    RequestReused(String),
}

impl From<Unplaceable> for Refusal {
    fn from(unplaceable: Unplaceable) -> Self {
        match unplaceable {
            Unplaceable::DoesNotFit(why) => Self::DoesNotFit(why),
            Unplaceable::KeptApart(why) => Self::KeptApart(why),
        }
    }
}

fn join(hosts: &[HostName]) -> String {
    let names: Vec<&str> = hosts.iter().map(HostName::as_str).collect();
    names.join(", ")
}

/// Items named in a message.
const NAMED: usize = 20;

/// The first items, and how many more there are.
pub(crate) fn shorten(items: &[impl std::fmt::Display]) -> String {
    let named: Vec<_> = items.iter().take(NAMED).map(ToString::to_string).collect();
    match items.len().saturating_sub(NAMED) {
        0 => named.join("; "),
        more => format!("{}; and {more} more", named.join("; ")),
    }
}

fn list(vms: &[(VmName, &'static str)]) -> String {
    let each: Vec<_> = vms.iter().map(|(vm, why)| format!("{vm} ({why})")).collect();
    each.join(", ")
}
