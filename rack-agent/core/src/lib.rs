//! The rules of an agent: events and time in, effects out. No task, no clock, no socket.
//!
//! * [`Core`] keeps which moves run on this host and in which role, which sources are expected, what was asked and not
//!   answered, and what waits to be said. Its shell hands in [`Event`]s, carries out [`Effect`]s, and sends what
//!   [`Core::next_word`] gives.
//! * [`Act`] is something that is done to one VM. The shell finds the VM with [`Act::concerns`], takes it so that nothing
//!   else happens to it, looks what it does, and does the [`Step`]s that [`Act::verdict`] names.
//! * [`adopt`] says what a QEMU does, and what is done about one that an earlier agent has left.
//!
//! Two shells drive it: the daemon (`rack-agent`) with QEMU, files and streams, and the simulation (`sim/control`).

/// Is this bug planted? One line at its place; nothing in a build without the feature `planted-bugs`.
#[cfg(feature = "planted-bugs")]
macro_rules! planted {
    ($bug:ident) => {
        crate::planted::is(crate::PlantedBug::$bug)
    };
}
#[cfg(not(feature = "planted-bugs"))]
macro_rules! planted {
    ($bug:ident) => {
        false
    };
}

mod act;
pub mod adopt;
mod core;
mod event;
mod name;
#[cfg(feature = "planted-bugs")]
mod planted;
mod sources;
mod stream;
mod targets;
mod vm;
mod word;

pub use crate::core::Core;
pub use act::{
    Act, Preparation, Refusal, Remains, Step, What, Writing, preparation, remains, start,
};
pub use event::{Effect, Event, Order, SourceWord, TargetCommand, TargetEnd};
pub use name::{Carried, Moment};
#[cfg(feature = "planted-bugs")]
pub use planted::{PlantedBug, plant};
pub use rackferry_migrator_protocol::session::source::Command as SourceCommand;
pub use rackferry_model::{HostName, MigrationId, Outcome, Side};
pub use stream::OUTBOX;
pub use vm::{Facts, Mark, Role, Standing};

/// QEMU has a `RunState` of its own.
pub use rackferry_model::RunState as VmState;
pub use word::{End, Question, Word};
