//! ECS as `vpcbox status` shows it: clusters, container instances, tasks with the reason why each one waits, and what agents reported.

use super::{
    Ecs,
    clusters::Cluster,
    instances::ContainerInstance,
    tasks::{TaskLine, TaskStatus},
};
use crate::world::state::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// All that ECS knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EcsInventory {
    /// Clusters, by name.
    pub clusters: Vec<ClusterLine>,
    /// Container instances, the deregistered ones that are still remembered included.
    pub instances: Vec<ContainerInstanceLine>,
    /// Tasks, the oldest first, the stopped ones that are still remembered included.
    pub tasks: Vec<TaskLine>,
}

/// A cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterLine {
    /// Its name.
    pub name: String,
    /// `ACTIVE` or `INACTIVE`.
    pub status: String,
    /// Container instances that are registered.
    pub instances: usize,
    /// Tasks that run.
    pub running: usize,
    /// Tasks that do not run yet.
    pub pending: usize,
}

/// A container instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerInstanceLine {
    /// Its ARN.
    pub arn: String,
    /// Its cluster.
    pub cluster: String,
    /// The EC2 instance.
    pub ec2: String,
    /// `ACTIVE`, `DRAINING` or `INACTIVE`.
    pub status: String,
    /// Whether its agent has called lately: without that it gets no tasks.
    pub connected: bool,
    /// When its agent called last.
    pub heard_at: Timestamp,
    /// Tasks that have not stopped.
    pub tasks: usize,
    /// What is left of it for new tasks.
    pub remaining: Remaining,
}

/// What a container instance has left, and what of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remaining {
    /// CPU units.
    pub cpu: i64,
    /// Of so many.
    pub cpu_of: i64,
    /// MiB.
    pub memory: i64,
    /// Of so many.
    pub memory_of: i64,
    /// ENIs.
    pub enis: u32,
    /// Of so many.
    pub enis_of: u32,
}

impl Ecs {
    /// All that is known now; `state` says which ENIs tasks have.
    pub fn inventory(&mut self, state: &State, now: Timestamp) -> EcsInventory {
        self.let_time_pass(now);
        let mut tasks: Vec<_> = self.tasks.values().map(|task| self.task_line(task, state, now)).collect();
        tasks.sort_by(|a, b| (a.created_at, &a.arn).cmp(&(b.created_at, &b.arn)));
        EcsInventory {
            clusters: self.clusters.values().map(|cluster| self.cluster_line(cluster)).collect(),
            instances: self.instances.values().map(|instance| self.instance_line(instance, now)).collect(),
            tasks,
        }
    }

    fn cluster_line(&self, cluster: &Cluster) -> ClusterLine {
        let tasks = |counts: fn(TaskStatus) -> bool| {
            self.tasks.values().filter(|task| task.cluster == cluster.name && counts(task.last)).count()
        };
        ClusterLine {
            name: cluster.name.clone(),
            status: if cluster.active { "ACTIVE" } else { "INACTIVE" }.to_owned(),
            instances: self.registered_in(&cluster.name),
            running: tasks(TaskStatus::counts_as_running),
            pending: tasks(TaskStatus::counts_as_pending),
        }
    }

    fn instance_line(&self, instance: &ContainerInstance, now: Timestamp) -> ContainerInstanceLine {
        let left = self.remaining(instance);
        ContainerInstanceLine {
            arn: self.instance_arn(instance),
            cluster: instance.cluster.clone(),
            ec2: instance.ec2.clone(),
            status: instance.status.as_str().to_owned(),
            connected: self.is_connected(instance, now),
            heard_at: instance.heard_at,
            tasks: self.tasks_on(&instance.id).count(),
            remaining: Remaining {
                cpu: left.cpu,
                cpu_of: instance.resources.cpu,
                memory: left.memory,
                memory_of: instance.resources.memory,
                enis: self.enis_left(instance),
                enis_of: instance.enis,
            },
        }
    }
}
