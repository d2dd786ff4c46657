//! Behavioural fakes of the ports and namespaces for tests (dev-dependency only).
pub mod cloud;
pub mod containerd;
pub mod crash;
pub mod journal;
pub mod network;

pub mod containers;
pub mod lease;
pub mod netns;
pub mod registry;
pub mod samples;
