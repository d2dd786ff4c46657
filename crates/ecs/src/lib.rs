//! The ECS control plane: registration, assignments by polling, state reports until acknowledged.

mod outbox;
mod port;

pub use port::{EcsError, EcsErrorKind};
