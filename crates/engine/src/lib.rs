//! The task engine: it takes assignments and makes containers of them, in the slot that the ENI manager leases to each task.
//!
//! ```text
//!  mpsc<Assignment> ─┐
//!  ContainerEvent ───┤   ┌────────┐ apply ┌─────────┐ ask ┌──────┐ ops ┌─────┐   Containers, Journal, LeaseHandle
//!  op results ───────┼──►│ engine │──────►│ machine │────►│ plan │────►│ ops │──► volume directories
//!  timers ───────────┘   └───┬────┘       └─────────┘     └──────┘     └──┬──┘
//!                            │ watch<EngineSnapshot>      results come back as events
//! ```
//!
//! One loop ([`engine`]) owns the state ([`machine`]): tasks and containers as enums that move forward only. What is to be done
//! follows from the state and the time alone ([`plan`]), so a lost or doubled event costs latency and a restart is the ordinary
//! path: [`machine::recover`] turns the journal and the runtime's list into the same state, and the same planner goes on from there.
//! [`names`] and [`volumes`] derive every outside name from the task, so that an act that was cut off is found again.

mod backoff;
mod config;
mod door;
mod engine;
mod machine;
mod names;
mod op;
mod ops;
mod plan;
mod reasons;
mod records;
mod snapshot;
mod stage;
mod volumes;

pub use config::{Clock, EngineConfig, MAX_STOPPED, MAX_TASKS};
pub use door::{Deps, EngineHandle, RemoveError};
pub use engine::Engine;

#[cfg(test)]
mod tests;
