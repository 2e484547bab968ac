//! The cost of an attempt, measured against peers.
fn main() {}
