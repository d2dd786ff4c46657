//! The ECS control plane: registers the node in its cluster, finds its tasks by polling, reports what becomes of them.
//!
//! ```text
//!              ┌─────────────────────── Ecs ───────────────────────┐
//!  ECS ◄──┬────┤ registration ─► poller ──mpsc<Assignment>─────────┼──► engine
//!         │    │                   │ refuse        ▲ ended, waiting │       │
//!         │    │                   ▼               │                │       │ watch<EngineSnapshot>
//!         └────┤ outbox (journal: until acknowledged) ◄─────────────┼───────┘
//!              └──┬──────────────────────────┬─────────────────────┘
//!                 ▼ watch<ClusterSnapshot>   ▼ watch<ReportsSnapshot>
//!              operators                  engine (forgets no task before its end is on record), operators
//! ```
//!
//! * [`registration`]: makes the node a container instance, under the same ARN after a restart.
//! * [`poller`]: which tasks are wanted here, which are to stop. Another source of assignments (the websocket) takes its place
//!   beside it: the engine does not know who assigns.
//! * [`outbox`]: reports, in order per task, durable before they are sent.
//! * [`client`]: the calls, behind [`port`]. The only crate that compiles aws-sdk-ecs.
//! * [`capabilities`], [`pacing`], [`saved`], [`board`], [`meter`]: what the node claims, how often it asks, what it keeps, shows, counts.
//!
//! Nothing here keeps the agent from starting or its tasks from running, except [`check_saved`]: a node that belongs to another cluster
//! must not begin.

mod board;
mod capabilities;
mod client;
mod config;
mod ecs;
mod failure;
mod meter;
mod node;
mod outbox;
mod pacing;
mod poller;
mod port;
mod registration;
mod saved;
#[cfg(test)]
mod tests;

pub use config::{
    Abilities, Clock, DEFAULT_CLUSTER, EcsConfig, EcsStartError, POLLS_PER_MINUTE, RESERVED_PORTS,
};
pub use ecs::{Deps, DrainError, Ecs, EcsHandle};
pub use pacing::{POLL_MAX, POLL_MIN, POLLS_PER_MINUTE_MIN};
pub use port::{EcsError, EcsErrorKind};
pub use saved::{Saved, check_saved};
