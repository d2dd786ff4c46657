//! Replaced by the benchmark of this crate.
fn main() {}
