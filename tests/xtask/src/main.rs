//! Set-up, tests, demo and benches.
fn main() {}
