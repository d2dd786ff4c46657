//! Registries for tests: a real one, and one that misbehaves.
//!
//! ```text
//!  ImageSource ──build──► BuiltImage ──┬─ push ──► Registry     Debian's docker-registry, in any network namespace
//!                                      └─ add ───► BadRegistry  ours, in memory: right until told to lie, stall or vanish
//! ```
//!
//! [`Registry`] shows that we get along with a registry that nobody here wrote; [`BadRegistry`] shows what happens when one is broken in
//! ways that a real one is not on demand, and keeps the list of what it was asked.

mod bad;
mod client;
mod fault;
mod image;
mod real;

pub use bad::{Asked, BadRegistry};
pub use fault::{Fault, Target};
pub use image::{Blob, BuiltImage, ImageSource, index, noise};
pub use real::{Login, Options, Registry};

/// Who may enter a registry that asks.
pub const USER: &str = "berth";
/// With this password.
pub const PASSWORD: &str = "harbour-pilot";
/// Both as a client sends them.
const BASIC: &str = "Basic YmVydGg6aGFyYm91ci1waWxvdA==";

#[cfg(test)]
mod tests;
