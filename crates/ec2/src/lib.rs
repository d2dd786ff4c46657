//! EC2 and IMDS behind the ENI manager's cloud port; the only crate that compiles aws-sdk-ec2.
//!
//! ```text
//!  eni manager ──Cloud──► Ec2Cloud ──► calls (aws-sdk-ec2) ──HTTPS, SigV4──► EC2
//!                            │             └ credentials: environment, else the instance role ─┐
//!                            └──► imds (aws-config's client) ──HTTP, IMDSv2──► 169.254.169.254 ┘
//! ```
//!
//! * [`cloud`]: the port's operations, one call or a few each.
//! * [`convert`]: EC2's words into ours. What cannot be read is told, never guessed.
//! * [`failure`]: EC2's error codes sorted by what to do about them.
//! * [`imds`], [`subnets`], [`config`]: who we are, what the subnets' blocks are, where everything is.
//!
//! Nothing here waits and tries again beyond one more attempt of a read: the planner owns back-off. Acts get a single attempt, because
//! one whose outcome is unknown must be looked at before it is repeated. Nothing is read before the first call either, so an agent
//! that starts before IMDS answers can be made and asked again later.

mod cloud;
mod config;
mod convert;
mod failure;
mod imds;
mod subnets;

pub use cloud::Ec2Cloud;
pub use config::{DEFAULT_CALL_TIMEOUT, Ec2Config};
