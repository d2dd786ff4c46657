//! The control plane as operators see it.

use crate::Admin;
use berth_types::{
    Timestamp,
    cluster::{InstanceStatus, RefusedTask, WaitingReports},
};
use serde::{Deserialize, Serialize};

/// `GET /v1/cluster`, and the answer to `POST /v1/drain` and `POST /v1/activate`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterView {
    /// `ecs`, or `none` for a node that only its operators use.
    pub control_plane: String,
    /// Name or ARN as configured.
    pub cluster: String,
    /// The container instance, once the cluster has taken it in.
    pub container_instance_arn: Option<String>,
    /// UNREGISTERED, ACTIVE, DRAINING or INACTIVE.
    pub status: InstanceStatus,
    /// What is in the way now, for people.
    pub problem: Option<String>,
    /// When the control plane last said which tasks it wants here.
    pub polled_at: Option<Timestamp>,
    /// Seconds until it is asked again.
    pub poll_interval_seconds: f64,
    /// Calls of the last minute, reports included.
    pub calls_last_minute: u32,
    /// The most polling calls in a minute.
    pub polls_per_minute: u32,
    /// Tasks that were refused since the start, the latest last.
    pub refused: Vec<RefusedTask>,
    /// Tasks with reports that the control plane has not acknowledged.
    pub reports: Vec<WaitingReports>,
}

impl ClusterView {
    pub(crate) fn new(admin: &Admin) -> Self {
        let cluster = admin.cluster_now();
        Self {
            control_plane: if admin.control_plane.is_some() { "ecs" } else { "none" }.into(),
            cluster: admin.cluster.clone(),
            container_instance_arn: cluster.container_instance_arn.clone(),
            status: cluster.status,
            problem: cluster.problem.clone(),
            polled_at: cluster.polled_at,
            poll_interval_seconds: cluster.poll_interval.as_secs_f64(),
            calls_last_minute: cluster.calls_last_minute,
            polls_per_minute: cluster.polls_per_minute,
            refused: cluster.refused.clone(),
            reports: admin.reports_now().waiting.clone(),
        }
    }
}

/// The word for it, as in the JSON form.
pub fn status_word(status: InstanceStatus) -> &'static str {
    match status {
        InstanceStatus::Unregistered => "UNREGISTERED",
        InstanceStatus::Active => "ACTIVE",
        InstanceStatus::Draining => "DRAINING",
        InstanceStatus::Inactive => "INACTIVE",
    }
}

/// What health says of the control plane. Never a problem of the node: its tasks run without it, and a restart mends nothing.
pub(super) fn warnings(admin: &Admin) -> Vec<String> {
    if admin.control_plane.is_none() {
        return Vec::new();
    }
    let (cluster, reports) = (admin.cluster_now(), admin.reports_now());
    let mut warnings = Vec::new();
    match cluster.status {
        InstanceStatus::Unregistered => warnings.push(format!("not registered in cluster {}", admin.cluster)),
        InstanceStatus::Inactive => {
            warnings.push(format!("cluster {} has deregistered this instance", admin.cluster));
        }
        InstanceStatus::Active | InstanceStatus::Draining => {}
    }
    if let Some(problem) = &cluster.problem {
        warnings.push(format!("control plane: {problem}"));
    }
    let stuck = || reports.waiting.iter().filter(|w| w.problem.is_some());
    if let Some(first) = stuck().min_by_key(|w| w.since) {
        let problem = first.problem.as_deref().unwrap_or_default();
        let tasks = stuck().count();
        warnings.push(format!("reports of {tasks} tasks wait since {}: {problem}", first.since));
    }
    warnings
}
