//! Harness of the whole-program tests and of the demo: the real agent on vpcbox with a private containerd.
//!
//! Everything here works from outside, with the programs that a user has; nothing links against Berth's crates.

pub mod aws;
pub mod boto;
pub mod ecs;
pub mod image;
pub mod lab;
pub mod leaks;
pub mod process;
pub mod registry;
pub mod sweep;
