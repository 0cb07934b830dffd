//! The integration tests of this crate, in one program: each more would be linked anew.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod certificates;
mod exit_codes;
mod leader;
mod migrate;
