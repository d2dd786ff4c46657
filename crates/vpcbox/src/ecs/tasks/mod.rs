//! Tasks: what ECS knows of one, and how its statuses move.
//!
//! `run` makes tasks from the definition and the call that `request` has read; `query` lists, describes and stops them; `report`
//! moves them as agents say, and `history` remembers it; `view` and `line` show them; `network` knows about their ENIs.

mod history;
mod line;
mod network;
mod overrides;
mod query;
mod report;
mod request;
mod run;
mod tokens;
mod view;

use super::{Ecs, placement::Needs, tags::Tags};
use history::History;
use jiff::Timestamp;
use network::{Network, TaskAttachment};
use overrides::Overrides;
use serde_json::Value;
use std::time::Duration;

pub use history::{ContainerLine, ReportLine};
pub use line::TaskLine;
pub(super) use tokens::Tokens;

/// Tasks at a time that have not stopped. More than a thousand instances of any type in the table could hold ENIs for.
const MAX_TASKS: usize = 10_000;
/// Stopped tasks that are remembered; the oldest go first.
const MAX_STOPPED: usize = 2000;
/// For how long a stopped task is remembered: ECS's hour.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// How long ECS waits for a word about a task that is to end and that its agent was told of, but never spoke of: the agent may never
/// have got the reply that told it. Longer than any poll takes.
const UNTAKEN: Duration = Duration::from_secs(60);
/// Longest text of an agent's that is kept: ECS's limit for reasons.
const MAX_REASON: usize = 1024;

/// How far a task is. A task never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TaskStatus {
    /// It has an instance and no ENI yet.
    Provisioning,
    /// Its agent is at it.
    Pending,
    /// All its containers run.
    Running,
    /// Its agent is to end it.
    Stopping,
    /// It has ended.
    Stopped,
}

impl TaskStatus {
    fn as_str(self) -> &'static str {
        match self {
            Self::Provisioning => "PROVISIONING",
            Self::Pending => "PENDING",
            Self::Running => "RUNNING",
            Self::Stopping => "STOPPING",
            Self::Stopped => "STOPPED",
        }
    }

    /// Whether counts of running tasks have it.
    pub(super) fn counts_as_running(self) -> bool {
        matches!(self, Self::Running | Self::Stopping)
    }

    /// Whether counts of pending tasks have it.
    pub(super) fn counts_as_pending(self) -> bool {
        matches!(self, Self::Provisioning | Self::Pending)
    }
}

/// How far a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum ContainerStatus {
    Pending,
    Running,
    Stopped,
}

impl ContainerStatus {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Running => "RUNNING",
            Self::Stopped => "STOPPED",
        }
    }
}

/// A task.
#[derive(Debug)]
pub(super) struct Task {
    /// The last part of its ARN.
    pub(super) id: String,
    /// Its ARN.
    pub(super) arn: String,
    /// The name of its cluster.
    pub(super) cluster: String,
    /// The id of its container instance.
    pub(super) instance: String,
    /// How far it is.
    pub(super) last: TaskStatus,
    /// What it takes of its instance.
    pub(super) needs: Needs,
    /// Its tags.
    pub(super) tags: Tags,
    definition: String,
    family: String,
    group: String,
    started_by: Option<String>,
    exec: bool,
    zone: Option<String>,
    architecture: Option<String>,
    /// Task-level CPU and memory as the reply shows them.
    cpu: String,
    memory: String,
    overrides: Overrides,
    containers: Vec<Container>,
    attachment: Option<TaskAttachment>,
    network: Option<Network>,
    /// Whether a call of its agent's has been answered with it.
    told: bool,
    /// Whether its agent has spoken of it.
    taken: bool,
    /// Whether it is to end.
    stop_wanted: bool,
    stop_code: Option<&'static str>,
    stopped_reason: Option<String>,
    times: Times,
    history: History,
    version: u64,
}

/// What happened when. The agent says when it pulled and when the containers ended, all else is ECS's own clock.
#[derive(Debug)]
struct Times {
    created: Timestamp,
    connectivity: Option<Timestamp>,
    pull_started: Option<Timestamp>,
    pull_stopped: Option<Timestamp>,
    started: Option<Timestamp>,
    stopping: Option<Timestamp>,
    execution_stopped: Option<Timestamp>,
    stopped: Option<Timestamp>,
}

/// A container.
#[derive(Debug)]
struct Container {
    arn: String,
    name: String,
    image: String,
    essential: bool,
    cpu: i64,
    memory: Option<i64>,
    memory_reservation: Option<i64>,
    status: ContainerStatus,
    exit_code: Option<i64>,
    reason: Option<String>,
    runtime_id: Option<String>,
    image_digest: Option<String>,
    network_bindings: Value,
}

impl Task {
    /// Moves on, never back.
    fn advance(&mut self, to: TaskStatus) {
        self.last = self.last.max(to);
    }

    /// Somebody wants it to end.
    fn want_stopped(&mut self, code: &'static str, reason: &str, now: Timestamp) {
        if self.stop_wanted {
            return;
        }
        self.stop_wanted = true;
        self.stop_code = Some(code);
        self.stopped_reason = Some(reason.to_owned());
        self.times.stopping = Some(now);
        if self.last == TaskStatus::Running {
            self.advance(TaskStatus::Stopping);
        }
        self.version += 1;
    }

    /// Ends it if it is to end and its agent does not know of it, so that nobody would ever report its end: an agent that polls
    /// never hears of a task that came and went between two polls.
    fn end_untaken(&mut self, heard_at: Option<Timestamp>, now: Timestamp) {
        let Some(since) = self.times.stopping.filter(|_| self.stop_wanted && !self.taken) else { return };
        // An agent that has been away since then may still know of it.
        let waited = heard_at.is_some_and(|heard| heard > since + UNTAKEN);
        if self.last != TaskStatus::Stopped && (!self.told || waited) {
            self.end(now);
        }
    }

    /// It has ended, as its agent says or because nobody will ever say so.
    fn end(&mut self, now: Timestamp) {
        self.stop_wanted = true;
        self.advance(TaskStatus::Stopped);
        self.times.stopping.get_or_insert(now);
        self.times.stopped.get_or_insert(now);
        for container in &mut self.containers {
            container.status = ContainerStatus::Stopped;
        }
        if let Some(attachment) = &mut self.attachment {
            attachment.end();
        }
        self.version += 1;
    }

    /// Its instance is gone from the cluster. Its containers may run on, but nobody reports them any more.
    pub(super) fn orphan(&mut self, reason: &str, now: Timestamp) {
        self.want_stopped("UserInitiated", reason, now);
        self.end(now);
    }
}

impl Ecs {
    /// The task of this name in a cluster.
    fn find_task(&self, cluster: &str, reference: &str) -> Option<&Task> {
        let reference = self.names.reference("task", reference)?;
        let found = self.tasks.get(reference.id).filter(|task| task.cluster == cluster)?;
        reference.cluster.is_none_or(|named| named == cluster).then_some(found)
    }

    /// Ends tasks that are to end and that no agent has taken.
    pub(super) fn end_untaken_tasks(&mut self, now: Timestamp) {
        for task in self.tasks.values_mut() {
            let heard_at = self.instances.get(&task.instance).map(|instance| instance.heard_at);
            task.end_untaken(heard_at, now);
        }
    }

    /// Drops tasks that ended long ago, and the oldest when there are too many.
    pub(super) fn forget_stopped_tasks(&mut self, now: Timestamp) {
        self.tasks.retain(|_, task| task.times.stopped.is_none_or(|end| end + REMEMBERED > now));
        let mut stopped: Vec<_> =
            self.tasks.values().filter_map(|t| Some((t.times.stopped?, t.id.clone()))).collect();
        let Some(beyond) = stopped.len().checked_sub(MAX_STOPPED).filter(|beyond| *beyond > 0) else {
            return;
        };
        stopped.sort();
        for (_, id) in stopped.into_iter().take(beyond) {
            self.tasks.remove(&id);
        }
    }
}

/// A text of an agent's, no longer than ECS keeps it; empty is none.
fn kept(text: Option<&str>) -> Option<String> {
    text.filter(|text| !text.is_empty()).map(|text| text.chars().take(MAX_REASON).collect())
}
