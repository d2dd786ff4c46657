//! The namespace builder on the real kernel, one scratch machine for each test, veth pairs in place of ENIs. Needs root and iproute2.

mod build;
mod port80;
mod scene;
mod tear_down;
mod watch;
