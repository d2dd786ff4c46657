//! A task as `vpcbox status` shows it, with the one sentence that says what it is waiting for.

use super::{ContainerStatus, Task, TaskStatus, history::ReportLine, network::Network};
use crate::{ecs::Ecs, world::state::State};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskLine {
    /// Its ARN.
    pub arn: String,
    /// Its cluster.
    pub cluster: String,
    /// `FAMILY:REVISION`.
    pub definition: String,
    /// The EC2 instance that it is on.
    pub ec2: Option<String>,
    /// `PROVISIONING`, `PENDING`, `RUNNING`, `STOPPING` or `STOPPED`.
    pub status: String,
    /// `RUNNING` or `STOPPED`.
    pub desired: String,
    /// What it waits for, or why it has stopped. A task that runs has nothing to say.
    pub why: Option<String>,
    /// What kind of end it was.
    pub stop_code: Option<String>,
    /// Why it has stopped or is to.
    pub stopped_reason: Option<String>,
    /// The ENI that it has or had.
    pub eni: Option<String>,
    /// The ENI's address.
    pub ipv4: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ended.
    pub stopped_at: Option<Timestamp>,
    /// What its agent reported and ECS acknowledged, in order; the latest 64.
    pub reports: Vec<ReportLine>,
}

impl Ecs {
    pub(in crate::ecs) fn task_line(&self, task: &Task, state: &State, now: Timestamp) -> TaskLine {
        let instance = self.instances.get(&task.instance);
        // As for DescribeTasks: a stopped one keeps what it had, its tag is another's by now.
        let live = task.attachment.is_some() && task.last != TaskStatus::Stopped;
        let current = instance.filter(|_| live).and_then(|i| Network::find(state, &i.ec2, &task.arn));
        let network = current.as_ref().or(task.network.as_ref());
        let silent = instance.is_some_and(|i| !self.is_connected(i, now));
        TaskLine {
            arn: task.arn.clone(),
            cluster: task.cluster.clone(),
            definition: task.definition.rsplit('/').next().unwrap_or_default().to_owned(),
            ec2: instance.map(|i| i.ec2.clone()),
            status: task.last.as_str().to_owned(),
            desired: task.desired().to_owned(),
            why: task.why(silent),
            stop_code: task.stop_code.map(str::to_owned),
            stopped_reason: task.stopped_reason.clone(),
            eni: network.map(|n| n.eni.clone()),
            ipv4: network.map(|n| n.ipv4.clone()),
            created_at: task.times.created,
            stopped_at: task.times.stopped,
            reports: task.history.lines(),
        }
    }
}

impl Task {
    /// What it waits for, or why it has stopped, in the best words there are.
    fn why(&self, agent_is_silent: bool) -> Option<String> {
        if self.last == TaskStatus::Stopped {
            return self.stopped_reason.clone();
        }
        if self.last == TaskStatus::Running && !self.stop_wanted {
            return None;
        }
        let agent = if agent_is_silent { "its agent, which is silent" } else { "its agent" };
        if self.stop_wanted {
            return Some(format!("waits for {agent}, to end it"));
        }
        if !self.taken {
            let what = if self.told { "to report" } else { "to ask for its tasks" };
            return Some(format!("waits for {agent}, {what}"));
        }
        let waiting = |c: &&super::Container| c.status == ContainerStatus::Pending;
        let reason = self.containers.iter().filter(waiting).find_map(|c| c.reason.clone());
        let usual = || match self.last {
            TaskStatus::Provisioning => format!("waits for {agent}, to give it an ENI"),
            _ => format!("waits for {agent}, to start its containers"),
        };
        Some(reason.unwrap_or_else(usual))
    }
}
