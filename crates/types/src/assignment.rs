//! Assignments: what a control plane or an operator tells the engine to do, all on one channel.

use crate::{
    ids::TaskArn,
    task::{StopCode, TaskSpec},
};
use tokio::sync::oneshot;

/// Assignments that may wait for the engine. An ECS payload holds at most 10 tasks, a burst is a few payloads; past this the
/// sender is told `Busy` and an operator sees 503.
pub const ASSIGNMENT_QUEUE: usize = 128;

/// An instruction to the engine.
#[derive(Debug)]
pub enum Assignment {
    /// Run this task. A task that is already known is left alone and answered `Ok`.
    Run {
        /// What to run.
        spec: Box<TaskSpec>,
        /// Answered when the task is recorded durably, not when it runs.
        reply: oneshot::Sender<Result<(), AssignmentError>>,
    },
    /// Stop this task.
    Stop {
        /// Which.
        task: TaskArn,
        /// Shown as the task's stopped reason.
        reason: String,
        /// Who wanted it.
        code: StopCode,
        /// Answered when the wish is recorded durably, not when the task has stopped.
        reply: oneshot::Sender<Result<(), AssignmentError>>,
    },
}

/// Why an assignment was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssignmentError {
    /// No such task.
    #[error("there is no task {0}")]
    NoSuchTask(TaskArn),
    /// The engine holds as many tasks as it may.
    #[error("the engine holds {0} tasks already, its limit")]
    TooManyTasks(usize),
    /// The record could not be made durable, so nothing was done.
    #[error("the task could not be recorded: {0}")]
    NotRecorded(String),
}
