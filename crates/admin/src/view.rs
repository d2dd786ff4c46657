//! What the API answers: the snapshots in the words of `aws ecs describe-tasks` where it has words for them. The CLI reads the same types.

use crate::Admin;
use berth_types::{
    Timestamp,
    eni::{EniSnapshot, EniView, InstanceFacts, PoolView, SlotView},
    ids::{ContainerId, EniId, MacAddr, SlotId, SubnetId, TaskArn},
    task::{ContainerSnapshot, StopCode, TaskSnapshot, TaskStatus},
};
use serde::{Deserialize, Serialize};
use std::{
    net::{Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

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
}

/// `GET /v1/tasks`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskList {
    /// Oldest first.
    pub tasks: Vec<TaskView>,
}

/// `GET /v1/tasks/ID`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskView {
    /// The task.
    pub task_arn: TaskArn,
    /// `FAMILY:REVISION`.
    pub task_definition: String,
    /// PROVISIONING, PENDING, RUNNING, STOPPING or STOPPED.
    pub last_status: String,
    /// RUNNING or STOPPED.
    pub desired_status: String,
    /// `family:NAME` or `service:NAME`.
    pub group: Option<String>,
    /// What it waits for, for people.
    pub waiting: Option<String>,
    /// Why it stopped, for people.
    pub stopped_reason: Option<String>,
    /// Why it stopped, for programs.
    pub stop_code: Option<StopCode>,
    /// Assignment taken.
    pub created_at: Timestamp,
    /// First look at an image.
    pub pull_started_at: Option<Timestamp>,
    /// All images here.
    pub pull_stopped_at: Option<Timestamp>,
    /// All containers started.
    pub started_at: Option<Timestamp>,
    /// First essential container ended.
    pub execution_stopped_at: Option<Timestamp>,
    /// All containers ended.
    pub stopped_at: Option<Timestamp>,
    /// From the request for a slot to the lease, in microseconds.
    pub lease_micros: Option<u64>,
    /// From the assignment to RUNNING, in microseconds.
    pub launch_micros: Option<u64>,
    /// Its network, while it has one.
    pub network: Option<NetworkView>,
    /// In the order of the definition.
    pub containers: Vec<ContainerView>,
    /// Counts changes.
    pub version: u64,
}

/// A task's ENI and namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkView {
    /// The slot.
    pub slot: SlotId,
    /// The ENI.
    pub eni: EniId,
    /// Its MAC.
    pub mac: MacAddr,
    /// Its subnet.
    pub subnet: SubnetId,
    /// IPv4 addresses, primary first.
    pub ipv4: Vec<Ipv4Addr>,
    /// IPv6 addresses.
    pub ipv6: Vec<Ipv6Addr>,
    /// The namespace.
    pub netns_path: PathBuf,
    /// Host name.
    pub private_dns_name: String,
}

/// A container of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerView {
    /// Name in the definition.
    pub name: String,
    /// Id in containerd.
    pub runtime_id: Option<ContainerId>,
    /// As the user wrote it.
    pub image: String,
    /// Digest of the manifest.
    pub image_digest: Option<String>,
    /// NONE, PULLED, CREATED, RUNNING or STOPPED.
    pub last_status: String,
    /// Whether its end is the task's end.
    pub essential: bool,
    /// Process in the host's pid namespace.
    pub pid: Option<u32>,
    /// Exit code.
    pub exit_code: Option<u32>,
    /// `ErrorName: text`.
    pub reason: Option<String>,
    /// Container made.
    pub created_at: Option<Timestamp>,
    /// Process started.
    pub started_at: Option<Timestamp>,
    /// Process ended.
    pub finished_at: Option<Timestamp>,
    /// Log file.
    pub log_path: Option<PathBuf>,
    /// Path of its metadata on 169.254.170.2.
    pub metadata_path: String,
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

impl TaskView {
    /// The task as operators see it. What it waits for is known best by the pool, if it is a slot.
    pub fn new(task: &TaskSnapshot, enis: &EniSnapshot) -> Self {
        let spec = &task.spec;
        let slot =
            enis.pool.waiting.iter().find(|w| w.task == spec.arn).map(|w| format!("a slot: {}", w.reason));
        let launch =
            task.started_at.and_then(|at| u64::try_from(at.duration_since(spec.created_at).as_micros()).ok());
        Self {
            task_arn: spec.arn.clone(),
            task_definition: format!("{}:{}", spec.family, spec.revision),
            last_status: task.last_status().into(),
            desired_status: if task.desired == TaskStatus::Stopped { "STOPPED" } else { "RUNNING" }.into(),
            group: spec.group.clone(),
            waiting: slot.or_else(|| task.waiting.clone()),
            stopped_reason: task.stopped_reason.clone(),
            stop_code: task.stop_code,
            created_at: spec.created_at,
            pull_started_at: task.pull_started_at,
            pull_stopped_at: task.pull_stopped_at,
            started_at: task.started_at,
            execution_stopped_at: task.execution_stopped_at,
            stopped_at: task.stopped_at,
            lease_micros: task.lease_micros,
            launch_micros: launch,
            network: task.lease.as_ref().map(|lease| NetworkView {
                slot: lease.slot.clone(),
                eni: lease.eni.clone(),
                mac: lease.mac,
                subnet: lease.subnet.clone(),
                ipv4: lease.ipv4.clone(),
                ipv6: lease.ipv6.clone(),
                netns_path: lease.netns_path.clone(),
                private_dns_name: lease.private_dns_name.clone(),
            }),
            containers: task.containers.iter().map(|c| ContainerView::new(task, c)).collect(),
            version: task.version,
        }
    }
}

impl ContainerView {
    fn new(task: &TaskSnapshot, container: &ContainerSnapshot) -> Self {
        let spec = task.spec.containers.get(container.index);
        Self {
            name: container.name.clone(),
            runtime_id: container.id.clone(),
            image: spec.map(|s| s.image.clone()).unwrap_or_default(),
            image_digest: container.image_digest.clone(),
            last_status: container.known.as_str().into(),
            essential: spec.is_some_and(|s| s.essential),
            pid: container.pid,
            exit_code: container.exit_code,
            reason: container.reason.clone(),
            created_at: container.created_at,
            started_at: container.started_at,
            finished_at: container.finished_at,
            log_path: container.log_path.clone(),
            metadata_path: spec.map(|s| format!("/v4/{}", s.endpoint_id)).unwrap_or_default(),
        }
    }
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
        }
    }
}
