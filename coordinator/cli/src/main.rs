//! The rackferry command line.
fn main() {}
