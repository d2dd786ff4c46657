//! The ENI manager: attaches ENIs, keeps the warm pool, leases slots, reaps.
//!
//! One loop ([`EniManager`]) owns the state (`machine`), asks a pure planner (`demand`, `plan`) what is to be done, and runs it
//! as ops (`ops`) against the ports. What a former program left is merged in by `recover`; the journal's records are in
//! `records`; others read the snapshot that `view` makes.

// A new stage must be looked at wherever stages are told apart.
#![warn(clippy::wildcard_enum_match_arm, clippy::match_wildcard_for_single_variants)]

mod address;
mod backoff;
mod config;
mod demand;
mod failure;
mod machine;
mod manager;
mod ops;
mod plan;
mod records;
mod recover;
#[cfg(test)]
mod tests;
mod view;

pub use config::EniConfig;
pub use manager::{ControlError, Deps, EniHandle, EniManager};
