//! The static init of the lab's guests.
fn main() {}
