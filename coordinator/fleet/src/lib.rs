//! Pure fleet state: who owns which VM, what moves where, and what agents are told.
//!
//! Events in, effects out: no task, no clock, no socket. [`Fleet::handle`] takes what happened at an agent,
//! the other methods take what clients ask for; consequences are pushed to a list of [`Effect`]s whose
//! order is the promise: whatever must be durable comes before whatever depends on it.
//!
//! * [`ownership`]: the table that keeps one owner per VM, with its argument.
//! * [`Record`]s outlive the coordinator; everything else is observed again when agents reconnect.
//! * [`placement`]: where VMs go.
//! * [`Topology`]: what moves cross; each link's budget is divided among them.

mod adopt;
mod agents;
mod apart;
mod candidate;
mod cordon;
mod dispatch;
mod evacuate;
mod findings;
mod fleet;
mod hurry;
mod judge;
mod links;
mod message;
mod name;
pub mod ownership;
mod pause;
pub mod placement;
mod planned;
#[cfg(feature = "planted-bugs")]
mod planted;
mod record;
mod refusal;
mod restore;
mod retry;
mod sessions;
mod shares;
mod slots;
mod store;
mod tokens;
mod topology;
mod view;

pub use candidate::Candidate;
pub use evacuate::{EvacuationRequest, MigrationRequest, Move};
pub use findings::Problem;
pub use fleet::{Fleet, Limits};
pub use links::{LaneView, LinkView};
pub use message::{
    Activity, Effect, Event, Hello, Member, Notice, Order, Progress, Said, SessionEnd, VmReport,
};
pub use name::Moment;
pub use planned::Difference;
#[cfg(feature = "planted-bugs")]
pub use planted::PlantedBug;
pub use record::{
    Change, EvacuationRecord, HostRecord, InventoryRecord, Key, LimitRecord, MigrationRecord,
    MigrationResult, Numbers, Record, Stage, Standing, TokenRecord, VmRecord,
};
pub use refusal::Refusal;
pub use restore::{Restore, RestoreRequest, StayingVm};
pub use tokens::TOKENS;
pub use topology::{Lane, Link, LinkLimit, Route, Topology};
pub use view::{EvacuationView, HostView, Listed, MigrationView, Totals, VmView, Wait};

/// The vocabulary of [`rackferry_model`] that the fleet speaks.
pub use rackferry_model::{
    BootId, Compress, Condition, Connection, Counters, Crossing, Dedup, Disruption, End,
    EvacuationId, EvacuationState, Generation, HostId, HostName, LinkName, MigrationId,
    MoveOptions, Outcome, Phase, ProblemCode, RackName, RunState, VmName, WaitCode,
};
