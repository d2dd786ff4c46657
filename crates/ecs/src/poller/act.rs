//! What the poller does about a task once everything is at hand: hands it to the engine, or to the outbox.

use super::Doors;
use crate::port::DescribedTask;
use async_trait::async_trait;
use berth_types::{
    Chain,
    assignment::{Assignment, AssignmentError},
    cluster::RefusedTask,
    ids::TaskArn,
    task::{StopCode, TaskSpec},
};
use std::time::Duration;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tracing::info;

/// Longest wait for the engine's durable answer. Later it counts as not taken, which the next poll repairs: everything may be said twice.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Tells the control plane that a task has stopped which the engine never had. The outbox's door.
#[async_trait]
pub(crate) trait Refuse: Send + Sync {
    /// Durable when it answers.
    async fn refuse(
        &self,
        task: TaskArn,
        cluster: &str,
        reason: String,
        containers: Vec<String>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}

/// What is to be done about one task, everything at hand.
pub(super) enum Act {
    Run {
        spec: Box<TaskSpec>,
        /// From the task's creation to this poll, for people.
        waited_ms: Option<i64>,
    },
    Stop {
        task: TaskArn,
        reason: String,
        code: StopCode,
    },
    Refuse {
        task: TaskArn,
        reason: String,
        containers: Vec<String>,
        shown: bool,
    },
}

/// What came of that.
pub(super) enum Acted {
    Settled(TaskArn),
    Refused(RefusedTask),
    Stopping,
    /// The next poll tries again.
    NotNow(String),
}

/// A task that the control plane has stopped already: it waits for somebody to say that it has stopped.
pub(super) fn never_started(described: DescribedTask) -> Act {
    let DescribedTask { arn: task, stopped_reason, containers, .. } = described;
    let reason = stopped_reason.unwrap_or_else(|| {
        format!(
            "TaskStoppedBeforePullBeginError: Task stopped before image pull could begin for task: {task}"
        )
    });
    Act::Refuse { task, reason, containers, shown: false }
}

impl Doors {
    pub(super) async fn act(&self, act: Act, cluster: &str) -> Acted {
        match act {
            Act::Run { spec, waited_ms } => {
                let (task, family, revision) = (spec.arn.clone(), spec.family.clone(), spec.revision.clone());
                match self.assign(|reply| Assignment::Run { spec, reply }).await {
                    Ok(()) => {
                        info!(%task, family, revision, waited_ms, "task taken");
                        Acted::Settled(task)
                    }
                    Err(problem) => Acted::NotNow(format!("{task} waits: {problem}")),
                }
            }
            Act::Stop { task, reason, code } => {
                let told = reason.clone();
                let stop = |reply| Assignment::Stop { task: task.clone(), reason, code, reply };
                match self.assign(stop).await {
                    Ok(()) => {
                        info!(%task, reason = told, "the control plane stops a task");
                        Acted::Stopping
                    }
                    Err(problem) => Acted::NotNow(format!("{task} is not stopped yet: {problem}")),
                }
            }
            Act::Refuse { task, reason, containers, shown } => {
                match self.refuse.refuse(task.clone(), cluster, reason.clone(), containers).await {
                    Ok(()) if shown => Acted::Refused(RefusedTask { task, reason }),
                    Ok(()) => Acted::Settled(task),
                    Err(error) => Acted::NotNow(format!("{task} is not reported yet: {}", Chain(&*error))),
                }
            }
        }
    }

    /// Hands an assignment to the engine; `Ok` when it is durable there.
    async fn assign(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<(), AssignmentError>>) -> Assignment,
    ) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        self.assignments.try_send(make(reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => "the engine is busy".to_owned(),
            mpsc::error::TrySendError::Closed(_) => "the engine has stopped".to_owned(),
        })?;
        match timeout(ANSWER_TIMEOUT, answer).await {
            // It ended by itself meanwhile.
            Ok(Ok(Ok(()) | Err(AssignmentError::NoSuchTask(_)))) => Ok(()),
            Ok(Ok(Err(error))) => Err(error.to_string()),
            Ok(Err(_)) => Err("the engine has stopped".to_owned()),
            Err(_) => Err("the engine has not answered".to_owned()),
        }
    }
}
