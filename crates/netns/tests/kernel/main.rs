//! The namespace builder on the real kernel, one scratch machine for each test, veth pairs in place of ENIs. Needs root and iproute2.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at the first failure")]

mod build;
mod port80;
mod scene;
mod tear_down;
mod watch;
