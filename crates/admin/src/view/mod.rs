//! What the API answers: the snapshots in the words of `aws ecs describe-tasks` where it has words for them. The CLI reads the same types.

mod cluster;
mod image;
mod task;

pub use cluster::{ClusterView, status_word};
pub use image::{ImageList, progress};
pub(crate) use task::Around;
pub use task::{ContainerView, NetworkView, OriginView, ReportsView, TaskList, TaskView};

use crate::Admin;
use berth_types::{
    Timestamp,
    eni::{EniView, InstanceFacts, PoolView, SlotView},
    ids::TaskArn,
};
use serde::{Deserialize, Serialize};

/// `GET /v1/instance`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceView {
    /// What EC2 says.
    pub instance: InstanceFacts,
    /// As configured.
    pub cluster: String,
    /// Version of the agent.
    pub agent_version: String,
    /// When the agent started.
    pub started_at: Timestamp,
    /// Tasks that are not stopped.
    pub running_tasks: usize,
    /// All tasks, stopped ones included.
    pub tasks: usize,
}

/// `GET /v1/health`: 200 when `healthy`, else 503.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthView {
    /// No problem at all.
    pub healthy: bool,
    /// What was found at start has been taken over.
    pub recovered: bool,
    /// containerd answers.
    pub runtime: bool,
    /// What is wrong, for people.
    pub problems: Vec<String>,
    /// What is not as it should be and is no reason to take the node for broken: the control plane does not answer.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// `POST /v1/tasks`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunView {
    /// The task that was taken.
    pub task: TaskArn,
}

/// `GET /v1/enis`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EniList {
    /// All ENIs of the pool.
    pub enis: Vec<EniView>,
}

/// `GET /v1/slots`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotList {
    /// All finished slots.
    pub slots: Vec<SlotView>,
}

/// `GET /v1/pool` and the answer to `PUT /v1/pool`.
pub type Pool = PoolView;

/// `PUT /v1/pool`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResizeRequest {
    /// Slots to keep ready.
    pub warm: Option<u32>,
    /// ENIs that the pool may hold.
    pub max: Option<u32>,
}

/// `GET /v1/tasks/ID/logs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogView {
    /// Oldest first.
    pub lines: Vec<LogLine>,
    /// What was asked for and is not in the answer, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// One line of a container's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When it was read.
    pub time: Timestamp,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// The text with its line end.
    pub log: String,
    /// Which container.
    pub container: String,
}

impl HealthView {
    /// How the node is.
    pub(crate) fn new(admin: &Admin) -> Self {
        let (engine, enis) = (admin.engine.borrow(), admin.enis.borrow());
        let mut problems = enis.pool.problems.clone();
        if !engine.runtime_ok {
            problems.push("containerd does not answer".into());
        }
        if !(engine.recovered && enis.recovered) {
            problems.push("still taking over what was found at start".into());
        }
        for waiting in &enis.pool.waiting {
            problems.push(format!("task {} waits for a slot: {}", waiting.task.id(), waiting.reason));
        }
        Self {
            healthy: problems.is_empty(),
            recovered: engine.recovered && enis.recovered,
            runtime: engine.runtime_ok,
            problems,
            warnings: cluster::warnings(admin),
        }
    }
}
