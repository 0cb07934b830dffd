//! The vocabulary that every program of Rackferry shares, each word once.
//!
//! Messages ([`rackferry-proto`](../rackferry_proto/index.html)), the log, the command line and the metrics say what is
//! defined here; none of them has a list of its own.
//!
//! * [`id`]: numbers that must not be mixed up, and how they are written.
//! * [`name`]: names of hosts, racks, VMs and links, and their limits.
//! * [`options`]: how a VM is moved.
//! * [`state`]: how far migrations and evacuations are, and what VMs do.
//! * [`action`]: what events say was done.
//! * [`outcome`]: how sessions and migrations ended.
//! * [`counters`]: bytes by kind.
//! * [`reason`]: why requests are refused; [`result`]: what programs return.
//! * [`view`]: what clients see; its serde form is the JSON of the command line.
//! * [`metric`]: the rows of the programs' lists of metrics.
//! * [`finding`]: what keeps VMs from moving, and what is wrong at a site.

mod word;

pub mod action;
pub mod counters;
pub mod finding;
pub mod id;
pub mod metric;
pub mod name;
pub mod options;
pub mod outcome;
pub mod reason;
pub mod result;
pub mod state;
pub mod view;

pub use action::Action;
pub use counters::{ByteKind, Counters};
pub use finding::{FindingCode, ProblemCode, Severity};
pub use id::{
    Connection, Crossing, EvacuationId, EventId, Generation, HostId, MigrationId, NotAnId,
};
pub use metric::{Metric, MetricKind};
pub use name::{BootId, HostName, Installation, LinkName, RackName, VmName};
pub use options::{Compress, DEFAULT_MAX_DOWNTIME_MS, Dedup, Disruption, MoveOptions};
pub use outcome::{End, Outcome};
pub use reason::Reason;
pub use result::ResultCode;
pub use state::{
    Condition, CopyRole, EvacuationState, EventOutcome, Listed, NodeRole, Ownership, Phase,
    RunState, Side, WaitCode,
};
pub use word::{UnknownWord, Word};
