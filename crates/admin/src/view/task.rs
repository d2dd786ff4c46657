//! Tasks as operators see them: what the engine knows, and around it what the pool, the pulls and the outbox know of the same task.

use crate::Backend;
use berth_types::{
    Timestamp,
    cluster::{ReportsSnapshot, WaitingReports},
    eni::{EniSnapshot, SlotFacts, WaitingLease},
    ids::{ContainerId, EniId, MacAddr, SlotId, SubnetId, TaskArn},
    image::{PullView, PullsSnapshot},
    task::{ContainerSnapshot, ContainerStatus, Origin, StopCode, TaskSnapshot, TaskStatus},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

/// What others know of tasks, at one moment.
#[derive(Debug)]
pub(crate) struct Around<'a> {
    waiting: BTreeMap<&'a TaskArn, &'a WaitingLease>,
    reports: BTreeMap<&'a TaskArn, &'a WaitingReports>,
    pulls: &'a PullsSnapshot,
    backend: &'a dyn Backend,
}

impl<'a> Around<'a> {
    pub(crate) fn new(
        enis: &'a EniSnapshot,
        reports: &'a ReportsSnapshot,
        pulls: &'a PullsSnapshot,
        backend: &'a dyn Backend,
    ) -> Self {
        Self {
            waiting: enis.pool.waiting.iter().map(|w| (&w.task, w)).collect(),
            reports: reports.waiting.iter().map(|w| (&w.task, w)).collect(),
            pulls,
            backend,
        }
    }

    /// The pull that brings the image a container was written with.
    fn pull(&self, image: &str) -> Option<PullView> {
        if self.pulls.active.is_empty() {
            return None;
        }
        let full = self.backend.full_reference(image);
        self.pulls.active.iter().find(|pull| pull.reference == full).cloned()
    }
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
    /// Who asked for it.
    #[serde(default)]
    pub origin: OriginView,
    /// Of a task of the control plane: what it has not heard yet. `None` when it has heard everything.
    #[serde(default)]
    pub reports: Option<ReportsView>,
    /// What it waits for, for people.
    pub waiting: Option<String>,
    /// Why it stopped, for people.
    pub stopped_reason: Option<String>,
    /// Why it stopped, for programs.
    pub stop_code: Option<StopCode>,
    /// Assignment taken.
    pub created_at: Timestamp,
    /// When this agent took it.
    pub taken_at: Timestamp,
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

/// Who asked for a task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", rename_all_fields = "camelCase", tag = "by")]
pub enum OriginView {
    /// An operator, through this API.
    #[default]
    Operator,
    /// The control plane.
    ControlPlane {
        /// The ENI attachment that it made for the task.
        attachment_arn: Option<String>,
    },
}

/// Reports of a task that wait for the control plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportsView {
    /// How many.
    pub waiting: usize,
    /// Since when the oldest waits.
    pub since: Timestamp,
    /// How often it was sent in vain.
    pub attempts: u32,
    /// What the control plane said to that, or why it said nothing.
    pub problem: Option<String>,
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
    /// The pull of its image, while it is under way.
    #[serde(default)]
    pub pull: Option<PullView>,
}

impl TaskView {
    /// The task as operators see it. What it waits for is known best by the pool, if it is a slot.
    pub(crate) fn new(task: &TaskSnapshot, around: &Around<'_>) -> Self {
        let spec = &task.spec;
        let slot = around.waiting.get(&spec.arn).map(|w| format!("a slot: {}", w.reason));
        let taken_at = task.taken_at.unwrap_or(spec.created_at);
        let launch =
            task.started_at.and_then(|at| u64::try_from(at.duration_since(taken_at).as_micros()).ok());
        Self {
            task_arn: spec.arn.clone(),
            task_definition: format!("{}:{}", spec.family, spec.revision),
            last_status: task.last_status().into(),
            desired_status: if task.desired == TaskStatus::Stopped { "STOPPED" } else { "RUNNING" }.into(),
            group: spec.group.clone(),
            origin: OriginView::new(&spec.origin),
            reports: around.reports.get(&spec.arn).map(|waiting| ReportsView::new(waiting)),
            waiting: slot.or_else(|| task.waiting.clone()),
            stopped_reason: task.stopped_reason.clone(),
            stop_code: task.stop_code.map(StopCode::in_ecs),
            created_at: spec.created_at,
            taken_at,
            pull_started_at: task.pull_started_at,
            pull_stopped_at: task.pull_stopped_at,
            started_at: task.started_at,
            execution_stopped_at: task.execution_stopped_at,
            stopped_at: task.stopped_at,
            lease_micros: task.lease_micros,
            launch_micros: launch,
            network: task.lease.as_deref().map(NetworkView::new),
            containers: task.containers.iter().map(|c| ContainerView::new(task, c, around)).collect(),
            version: task.version,
        }
    }
}

impl OriginView {
    fn new(origin: &Origin) -> Self {
        match origin {
            Origin::Operator => Self::Operator,
            Origin::ControlPlane { attachment } => Self::ControlPlane { attachment_arn: attachment.clone() },
        }
    }
}

impl ReportsView {
    fn new(waiting: &WaitingReports) -> Self {
        Self {
            waiting: waiting.reports,
            since: waiting.since,
            attempts: waiting.attempts,
            problem: waiting.problem.clone(),
        }
    }
}

impl NetworkView {
    fn new(lease: &SlotFacts) -> Self {
        Self {
            slot: lease.slot.clone(),
            eni: lease.eni.clone(),
            mac: lease.mac,
            subnet: lease.subnet.clone(),
            ipv4: lease.ipv4.clone(),
            ipv6: lease.ipv6.clone(),
            netns_path: lease.netns_path.clone(),
            private_dns_name: lease.private_dns_name.clone(),
        }
    }
}

impl ContainerView {
    fn new(task: &TaskSnapshot, container: &ContainerSnapshot, around: &Around<'_>) -> Self {
        let spec = task.spec.containers.get(container.index);
        let on_its_way = task.desired != TaskStatus::Stopped && container.known < ContainerStatus::Pulled;
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
            pull: spec.filter(|_| on_its_way).and_then(|s| around.pull(&s.image)),
        }
    }
}
