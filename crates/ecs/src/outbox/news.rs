//! From what the engine shows of a task to what the control plane must hear: pure.
//!
//! The engine's watch may skip states, so this does not look at changes but compares what has been told ([`Told`]) with what is. It
//! goes forward only: ATTACHED, PENDING, RUNNING, STOPPED, each at most once except PENDING, whose words may change.

use super::queue::{Kind, Queued};
use crate::port::{ContainerNews, News, Report, TaskNews};
use berth_types::{
    Timestamp,
    ids::TaskArn,
    task::{
        ContainerSnapshot, ContainerStatus, Origin, STOPPED_BY_OPERATOR, StopCode, TaskSnapshot, TaskStatus,
    },
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Longest reason that ECS takes, in characters.
const MAX_REASON: usize = 1024;
/// Longest runtime id and digest that ECS takes, in characters.
const MAX_ID: usize = 255;
/// Reports that say what a pending task waits for, for each task: with [`super::entry::NEWS_PAUSE`] ten minutes of words that change,
/// after which they tell nobody anything new.
const MAX_WAITING_NEWS: u32 = 20;

/// How far the control plane has been told of the task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Phase {
    #[default]
    Nothing,
    Pending,
    Running,
    Stopped,
}

/// What the control plane has been told, or will be by reports that wait already.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Told {
    pub(super) attached: bool,
    pub(super) phase: Phase,
    /// The digests of all containers.
    pub(super) digests: bool,
    /// Containers that have ended.
    pub(super) ended: BTreeSet<String>,
    /// What a pending task waits for.
    pub(super) waiting: Option<String>,
    /// How often it was told what it waits for.
    pub(super) waits: u32,
}

impl Told {
    /// Whether the control plane has heard of this task at all.
    pub(super) fn anything(&self) -> bool {
        self.attached || self.phase > Phase::Nothing
    }

    /// What the task waits for that is worth telling: something else than last time.
    pub(super) fn new_wait<'a>(&self, task: &'a TaskSnapshot) -> Option<&'a str> {
        let waiting = task.waiting.as_deref().filter(|_| is_pending(task) && self.phase <= Phase::Pending)?;
        (self.waits < MAX_WAITING_NEWS && self.waiting.as_deref() != Some(waiting)).then_some(waiting)
    }
}

fn is_pending(task: &TaskSnapshot) -> bool {
    task.started_at.is_none() && task.known < TaskStatus::Running && task.desired < TaskStatus::Stopped
}

/// The reports that lead from what has been told to what is. `may_wait` is whether it is time to say what the task waits for.
pub(super) fn derive(told: &mut Told, task: &TaskSnapshot, may_wait: bool, now: Timestamp) -> Vec<Queued> {
    let mut news = Vec::new();
    if told.phase == Phase::Stopped {
        return news;
    }
    news.extend(attached(told, task, now));
    news.extend(pending(told, task, may_wait, now));
    if task.started_at.is_some() && told.phase < Phase::Running {
        news.push(running(told, task, now));
    } else if told.phase == Phase::Running {
        news.extend(ended_containers(told, task, now));
    }
    if task.known == TaskStatus::Stopped {
        news.push(stopped(told, task, now));
    }
    news
}

/// Whether the task has, or had, a slot: a snapshot that was skipped may have been the only one that showed it.
fn had_slot(task: &TaskSnapshot) -> bool {
    task.lease.is_some()
        || task.lease_micros.is_some()
        || task.containers.iter().any(|c| c.created_at.is_some())
}

fn attached(told: &mut Told, task: &TaskSnapshot, now: Timestamp) -> Option<Queued> {
    let Origin::ControlPlane { attachment: Some(attachment) } = &task.spec.origin else { return None };
    if told.attached || !had_slot(task) {
        return None;
    }
    told.attached = true;
    Some(report(task, Kind::Attached, now, News::Attached { attachment: attachment.clone() }))
}

fn pending(told: &mut Told, task: &TaskSnapshot, may_wait: bool, now: Timestamp) -> Option<Queued> {
    if !is_pending(task) || told.phase > Phase::Pending {
        return None;
    }
    let resolved = task.containers.iter().all(|c| c.image_digest.is_some());
    let wait = told.new_wait(task).filter(|_| may_wait);
    if wait.is_none() && (told.digests || !resolved) {
        return None;
    }
    let reason = wait.map(|text| cut(&format!("Waiting for {text}"), MAX_REASON));
    let tell = |c: &ContainerSnapshot| match c.known {
        ContainerStatus::Stopped => ended(c),
        ContainerStatus::Running => container(c, "RUNNING"),
        ContainerStatus::None
        | ContainerStatus::ManifestPulled
        | ContainerStatus::Pulled
        | ContainerStatus::Created => ContainerNews { reason: reason.clone(), ..container(c, "PENDING") },
    };
    let containers = task.containers.iter().map(tell).collect();
    told.phase = Phase::Pending;
    told.digests = resolved;
    told.waits += u32::from(wait.is_some());
    told.waiting = wait.map(str::to_owned);
    let news = TaskNews { pull_stopped_at: None, ..task_news(task, "PENDING", containers) };
    Some(report(task, Kind::Pending, now, News::Task(news)))
}

fn running(told: &mut Told, task: &TaskSnapshot, now: Timestamp) -> Queued {
    let over = task.known == TaskStatus::Stopped;
    let tell = |c: &ContainerSnapshot| {
        // Of a task that is over, what ended after it had started ran at that time.
        let ran_then = over && c.finished_at.zip(task.started_at).is_some_and(|(end, start)| end > start);
        if c.known == ContainerStatus::Stopped && !ran_then { ended(c) } else { container(c, "RUNNING") }
    };
    let containers: Vec<_> = task.containers.iter().map(tell).collect();
    told.phase = Phase::Running;
    told.ended = containers.iter().filter(|c| c.status == "STOPPED").map(|c| c.name.clone()).collect();
    let news = task_news(task, "RUNNING", containers);
    report(task, Kind::Running, task.started_at.unwrap_or(now), News::Task(news))
}

/// Ends that are not the task's end. Once the task is to stop they are told with its own.
fn ended_containers(told: &mut Told, task: &TaskSnapshot, now: Timestamp) -> Option<Queued> {
    if task.desired == TaskStatus::Stopped || task.known == TaskStatus::Stopped {
        return None;
    }
    let is_new =
        |c: &&ContainerSnapshot| c.known == ContainerStatus::Stopped && !told.ended.contains(&c.name);
    let containers: Vec<_> = task.containers.iter().filter(is_new).map(ended).collect();
    if containers.is_empty() {
        return None;
    }
    told.ended.extend(containers.iter().map(|c| c.name.clone()));
    Some(report(task, Kind::Containers, now, News::Task(task_news(task, "RUNNING", containers))))
}

fn stopped(told: &mut Told, task: &TaskSnapshot, now: Timestamp) -> Queued {
    told.phase = Phase::Stopped;
    let shown = task.stopped_reason.as_deref().unwrap_or_default();
    // The control plane has words of its own for an essential container's end, and for what was asked for by way of itself.
    let reason = match task.stop_code {
        Some(
            StopCode::EssentialContainerExited
            | StopCode::UserInitiated
            | StopCode::ServiceSchedulerInitiated
            | StopCode::SpotInterruption
            | StopCode::TerminationNotice,
        ) => String::new(),
        Some(StopCode::OperatorInitiated) if shown == STOPPED_BY_OPERATOR => shown.to_owned(),
        Some(StopCode::OperatorInitiated) => format!("{STOPPED_BY_OPERATOR}: {shown}"),
        Some(StopCode::TaskFailedToStart) | None => shown.to_owned(),
    };
    let containers = task.containers.iter().map(ended).collect();
    let news = TaskNews {
        reason: cut(&reason, MAX_REASON),
        execution_stopped_at: task.execution_stopped_at,
        ..task_news(task, "STOPPED", containers)
    };
    report(task, Kind::Stopped, task.stopped_at.unwrap_or(now), News::Task(news))
}

/// The end of a task that the engine does not have: one that was refused, or whose traces are all lost.
pub(super) fn never_ran(
    task: &TaskArn,
    cluster: &str,
    reason: &str,
    containers: Vec<String>,
    now: Timestamp,
) -> Queued {
    let stopped = |name| ContainerNews {
        name,
        runtime_id: None,
        image_digest: None,
        status: "STOPPED".to_owned(),
        exit_code: None,
        reason: None,
    };
    let news = TaskNews {
        status: "STOPPED".to_owned(),
        reason: cut(reason, MAX_REASON),
        pull_started_at: None,
        pull_stopped_at: None,
        execution_stopped_at: None,
        containers: containers.into_iter().map(stopped).collect(),
    };
    let report = Report { task: task.clone(), cluster: cluster.to_owned(), at: now, news: News::Task(news) };
    Queued { kind: Kind::Stopped, report, change: 0 }
}

fn report(task: &TaskSnapshot, kind: Kind, at: Timestamp, news: News) -> Queued {
    let report = Report { task: task.spec.arn.clone(), cluster: task.spec.cluster.clone(), at, news };
    Queued { kind, report, change: 0 }
}

fn task_news(task: &TaskSnapshot, status: &str, containers: Vec<ContainerNews>) -> TaskNews {
    TaskNews {
        status: status.to_owned(),
        reason: String::new(),
        pull_started_at: task.pull_started_at,
        pull_stopped_at: task.pull_stopped_at,
        execution_stopped_at: None,
        containers,
    }
}

/// A container that has not ended, or had not at the time that is told of.
fn container(c: &ContainerSnapshot, status: &str) -> ContainerNews {
    // The id is decided before there is a container, and means nothing until then.
    let made = c.created_at.is_some();
    ContainerNews {
        name: c.name.clone(),
        runtime_id: c.id.as_ref().filter(|_| made).map(|id| cut(id.as_str(), MAX_ID)),
        image_digest: c.image_digest.as_deref().map(|digest| cut(digest, MAX_ID)),
        status: status.to_owned(),
        exit_code: None,
        reason: None,
    }
}

fn ended(c: &ContainerSnapshot) -> ContainerNews {
    ContainerNews {
        exit_code: c.exit_code,
        reason: c.reason.as_deref().map(|reason| cut(reason, MAX_REASON)),
        ..container(c, "STOPPED")
    }
}

/// At most so many characters. What no one can read is replaced: a runtime's error may hold anything, and six bytes of JSON for each
/// such character would make a record larger than the journal takes.
fn cut(text: &str, most: usize) -> String {
    let readable =
        |c: char| if c.is_control() && c != '\n' && c != '\t' { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().take(most).map(readable).collect()
}
