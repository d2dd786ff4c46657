//! Tests of the whole engine over the fakes, and what they share.

mod crashes;
pub(crate) mod fixtures;
mod harness;
mod launch;
mod random;
mod recovery;
mod reported;
mod stop;
