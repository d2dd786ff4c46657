//! The real containerd: each test has its own, with an image made from busybox, and runs containers as the engine does.
//!
//! They need root, containerd, runc and busybox-static; a machine without them fails here and does not skip.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod cleanup;
mod confine;
mod events;
mod images;
mod misbehave;
mod pulls;
mod resume;
mod rig;
mod run;
