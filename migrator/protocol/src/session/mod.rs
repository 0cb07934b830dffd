//! The control half of a migration session, as pure state machines.
//!
//! [`source::Source`] and [`target::Target`] take events and answer with effects; the tokio shell carries them
//! out. What concerns single pages is beside them: which references are outstanding ([`outstanding`]), how many
//! bytes may be under way ([`window`]), when the VM may be stopped ([`predict`]), and what to do if it never may
//! ([`patience`]).

pub mod outstanding;
pub mod patience;
pub mod predict;
pub mod source;
pub mod target;
pub mod window;
