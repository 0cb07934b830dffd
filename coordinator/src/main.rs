//! The coordinator daemon: plans, owns, commits.
fn main() {}
