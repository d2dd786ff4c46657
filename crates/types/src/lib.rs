//! The words of Berth as types: ids, tasks, ENIs, slots, snapshots, and the ports through which the agent touches the world.
//!
//! There is no I/O here. Every other crate sees this one and no sibling, so what two crates must agree on is written here:
//!
//! ```text
//!  taskdef ──validate──► task::TaskSpec ──Assignment──► engine ──LeaseRequest──► eni
//!                                                         │ watch<EngineSnapshot>  │ watch<EniSnapshot>, mpsc<ListenerChange>
//!                                                         ▼                        ▼
//!                                                   admin, metadata, ecs     metadata, admin
//! ```
//!
//! [`ports`] holds the four traits behind which EC2, the kernel, containerd and the disk lie.

pub mod assignment;
pub mod cluster;
pub mod eni;
pub mod error;
pub mod ids;
pub mod image;
pub mod lease;
pub mod ports;
pub mod task;
pub mod taskdef;

pub use error::{Chain, Class};
/// A point in time as the agent records and prints it: UTC, nanoseconds; its `Display` is RFC 3339 with trailing zeros cut,
/// exactly as the official agent prints times.
pub use jiff::Timestamp;
