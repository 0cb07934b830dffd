//! The agent daemon of one host.
fn main() {}
