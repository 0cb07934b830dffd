//! The control half of a migration session, as pure state machines.
//!
//! [`source::Source`] and [`target::Target`] take events and answer with effects; the tokio shell carries them
//! out. What concerns single pages is beside them: which references are outstanding ([`outstanding`]), how many
//! bytes may be under way ([`window`]), which contents are supplied unasked ([`open`]), how long a stop would last ([`predict`]), whether passes get better
//! ([`convergence`]), and when and with how much left the VM may be stopped ([`stop`]).

pub mod convergence;
pub mod open;
pub mod outstanding;
pub mod predict;
pub mod source;
pub mod stop;
pub mod target;
pub mod window;
