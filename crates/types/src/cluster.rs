//! The control plane as the rest of the agent sees it: snapshots of the registration and of the outbox.

use crate::{Timestamp, ids::TaskArn};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, time::Duration};

/// Where the container instance stands in its cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum InstanceStatus {
    /// Not registered (yet); `problem` says why.
    #[default]
    Unregistered,
    /// Takes tasks.
    Active,
    /// Keeps its tasks and takes no new ones.
    Draining,
    /// The control plane has deregistered it: nobody gives it tasks, and those it has keep running.
    Inactive,
}

/// What is known of the control plane now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSnapshot {
    /// Grows with each change.
    pub version: u64,
    /// Name or ARN as configured.
    pub cluster: String,
    /// Given at the first registration, kept over restarts.
    pub container_instance_arn: Option<String>,
    /// The instance's place in the cluster.
    pub status: InstanceStatus,
    /// What is in the way now: of registering, or of hearing the control plane.
    pub problem: Option<String>,
    /// When the control plane last answered which tasks it wants here.
    pub polled_at: Option<Timestamp>,
    /// How long until it is asked again, without jitter.
    pub poll_interval: Duration,
    /// Calls of the last minute, reports included.
    pub calls_last_minute: u32,
    /// The most that the agent makes in a minute, reports not included: they wait for nothing but their own retries.
    pub polls_per_minute: u32,
    /// Tasks that were refused since the start, the latest last; bounded.
    pub refused: Vec<RefusedTask>,
}

/// A task of the control plane that cannot run here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusedTask {
    /// The task.
    pub task: TaskArn,
    /// What the control plane was told.
    pub reason: String,
}

/// What the outbox holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportsSnapshot {
    /// Grows with each change.
    pub version: u64,
    /// Tasks of the engine whose end is on record here, acknowledged or not. The engine keeps a task of the control plane until
    /// it is in this set: from then on the report no longer needs the task.
    pub ended: BTreeSet<TaskArn>,
    /// Tasks with reports that are not acknowledged.
    pub waiting: Vec<WaitingReports>,
}

/// The reports of one task that wait for the control plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WaitingReports {
    /// The task.
    pub task: TaskArn,
    /// How many.
    pub reports: usize,
    /// Since when the oldest waits.
    pub since: Timestamp,
    /// How often the oldest was sent in vain since the agent's start.
    pub attempts: u32,
    /// What the last attempt failed with.
    pub problem: Option<String>,
}
