//! The `vpcbox` binary.
fn main() {}
