//! The agent daemon of one host.

pub mod vm;
