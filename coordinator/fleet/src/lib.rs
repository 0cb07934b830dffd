//! Pure fleet state: which host owns which VM, what moves where, and what agents are told.
//!
//! Events in, effects out: no task, no clock, no socket. [`Fleet::handle`] takes what happened at an agent,
//! the other methods take what clients ask for; consequences are pushed to a list of [`Effect`]s whose
//! order is the promise: whatever must be durable comes before whatever depends on it.
//!
//! * [`ownership`]: the table that keeps one owner per VM, with its argument.
//! * [`Record`]s outlive the coordinator; everything else is observed again when agents reconnect.
//! * [`placement`]: where VMs go.
//! * [`Leader`]: inputs in batches, one write or barrier for each, and what leaves behind it.
//! * [`Topology`]: what moves cross; each link's budget is divided among them.

/// Is this bug planted in a fleet? One line at its place; nothing in a build without the feature `planted-bugs`.
#[cfg(feature = "planted-bugs")]
macro_rules! planted {
    ($fleet:expr, $bug:ident) => {
        $fleet.has(crate::PlantedBug::$bug)
    };
}
#[cfg(not(feature = "planted-bugs"))]
macro_rules! planted {
    ($fleet:expr, $bug:ident) => {
        false
    };
}

mod audit;
mod fleet;
mod leader;
mod live;
mod message;
pub mod ownership;
mod planning;
#[cfg(feature = "planted-bugs")]
mod planted;
mod records;
mod refusal;
mod scheduling;
mod view;

use ownership::agents;
use planning::{candidate, evacuate, left_out, planned, remains, restore, topology};
use records::{event, index, name, record, spec, store, tokens};
use scheduling::{links, queue, slots};
use view::{figures, problems, published, shown, vm};

pub use planning::placement;

pub use audit::{Done, Refused};
pub use candidate::Candidate;
pub use evacuate::{EvacuationRequest, MigrationRequest, Move};
pub use event::{Act, Caller, DETAIL_LIMIT, EventRecord, SUBJECT_LIMIT};
pub use figures::{Figures, HostState, LinkFigures};
pub use fleet::{Fleet, Limits};
pub use leader::{Admission, Decision, Gate, Leader, Outputs};
pub use left_out::{Plan, StayingVm};
pub use links::{LaneView, LinkView};
pub use message::{
    Activity, Effect, Event, Hello, Member, Notice, Order, Progress, Said, SessionEnd, VmReport,
};
pub use name::Moment;
pub use ownership::VmSpecs;
pub use planned::Difference;
#[cfg(feature = "planted-bugs")]
pub use planted::PlantedBug;
pub use problems::Problem;
pub use published::{Published, Revision};
pub use record::{
    Change, EvacuationRecord, ExpelledRecord, HostRecord, InventoryRecord, Key, LimitRecord,
    MigrationRecord, MigrationResult, Numbers, Record, Stage, Standing, TokenRecord, VmRecord,
};
pub use refusal::Refusal;
pub use remains::Remains;
pub use restore::{Restore, RestoreRequest};
pub use shown::{EvacuationView, HostView, Listed, MigrationView, Totals, VmView, Wait};
pub use spec::SpecText;
pub use tokens::TOKENS;
pub use topology::{Lane, Link, LinkLimit, Route, Topology};
pub use vm::{CopyView, VmDetail};

/// The vocabulary of [`rackferry_model`] that the fleet speaks.
pub use rackferry_model::{
    Action, BootId, Compress, Condition, Connection, CopyRole, Counters, Crossing, Dedup,
    Disruption, End, EvacuationId, EvacuationState, EventId, EventOutcome, Generation, HostId,
    HostName, Installation, LinkName, MigrationId, MoveOptions, Outcome, Phase, ProblemCode,
    RackName, RunState, VmName, WaitCode,
};
