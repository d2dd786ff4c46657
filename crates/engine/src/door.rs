//! The doors of the engine: what it is given, and what it gives everyone else.

use berth_types::{
    assignment::Assignment,
    cluster::ReportsSnapshot,
    eni::EniSnapshot,
    ids::TaskArn,
    lease::LeaseHandle,
    ports::{Containers, Journal},
    task::EngineSnapshot,
};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};

/// Removals that may wait: people make them, one at a time.
pub(crate) const REMOVAL_QUEUE: usize = 16;

/// Through what the engine touches the world.
#[derive(Clone)]
pub struct Deps {
    /// The container runtime.
    pub containers: Arc<dyn Containers>,
    /// Where tasks are recorded.
    pub journal: Arc<dyn Journal>,
    /// The ENI manager.
    pub leases: LeaseHandle,
    /// What the ENI manager knows of its slots: a task whose slot is lost is stopped.
    pub slots: watch::Receiver<Arc<EniSnapshot>>,
    /// What the reporter has on record: a task of the control plane is kept until its end is.
    pub reports: watch::Receiver<Arc<ReportsSnapshot>>,
}

impl std::fmt::Debug for Deps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deps").field("leases", &self.leases).finish_non_exhaustive()
    }
}

/// Why a task was not removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoveError {
    /// No such task.
    #[error("there is no task {0}")]
    NoSuchTask(TaskArn),
    /// It runs, or is on its way.
    #[error("task {0} has not come to its end yet; stop it first")]
    NotStopped(TaskArn),
    /// Too many removals wait.
    #[error("the engine is busy: {REMOVAL_QUEUE} removals wait already")]
    Busy,
    /// The engine is gone: the agent is going down.
    #[error("the engine has stopped")]
    Stopped,
}

/// A wish to remove a task.
#[derive(Debug)]
pub(crate) struct Removal {
    pub(crate) task: TaskArn,
    pub(crate) reply: oneshot::Sender<Result<(), RemoveError>>,
}

/// Everyone's door to the engine.
#[derive(Debug, Clone)]
pub struct EngineHandle {
    /// What is to be run and stopped. Use `try_send`: a full queue is an answer.
    pub assignments: mpsc::Sender<Assignment>,
    /// What there is.
    pub snapshot: watch::Receiver<Arc<EngineSnapshot>>,
    pub(crate) removals: mpsc::Sender<Removal>,
}

impl EngineHandle {
    /// Cleans up a stopped task now instead of later: volumes, logs, and the task itself. Answers when that has begun, or is to begin
    /// as soon as its containers and its slot are given back. A task of the control plane stays visible until its end is on record for
    /// the control plane.
    pub async fn remove(&self, task: &TaskArn) -> Result<(), RemoveError> {
        let (reply, answer) = oneshot::channel();
        self.removals.try_send(Removal { task: task.clone(), reply }).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => RemoveError::Busy,
            mpsc::error::TrySendError::Closed(_) => RemoveError::Stopped,
        })?;
        answer.await.unwrap_or(Err(RemoveError::Stopped))
    }
}
