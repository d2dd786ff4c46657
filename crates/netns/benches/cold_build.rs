//! Cold slot build against the bare netlink floor.
fn main() {}
