//! Decides what to do about the tasks that the control plane lists, pure: listings, descriptions and the engine's snapshot come in,
//! decisions come out.
//!
//! Two promises: a task is never run twice, and never stopped because the control plane is silent. The first rests on the set of all
//! tasks that the engine ever had (in this life of the program, or by its snapshot and the outbox's); the second on the rule that only
//! an answer which names the task, or twice says that there is none, stops it.

use super::translate::stop_code;
use crate::port::DescribedTask;
use berth_types::{
    cluster::ReportsSnapshot,
    ids::TaskArn,
    task::{EngineSnapshot, Origin, StopCode, TaskSnapshot, TaskStatus},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Tasks that are remembered as taken or over: all that the engine and the outbox hold, and those of the last hour or so besides, which
/// the control plane still lists as stopped.
const SEEN: usize = 8192;
/// Between the two answers that say a task does not exist: longer than ECS takes to become consistent.
pub(crate) const MISSING_PAUSE: Duration = Duration::from_secs(30);
/// A task of ours that is described as wanted though it is not listed: looked at again after this.
const LOOK_AGAIN: Duration = Duration::from_secs(15);
/// Tasks that are looked at in one poll: five calls. The rest comes at the next.
pub(crate) const LOOKS: usize = 500;

/// What the rest of the agent says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) engine: &'a EngineSnapshot,
    pub(crate) reports: &'a ReportsSnapshot,
}

impl View<'_> {
    /// The task, if the control plane gave it to us and it is not on its way to its end.
    fn running(&self, arn: &TaskArn) -> Option<&TaskSnapshot> {
        self.engine.tasks.get(arn).map(|task| &**task).filter(|task| is_wanted(task))
    }
}

fn is_wanted(task: &TaskSnapshot) -> bool {
    is_theirs(task) && task.desired != TaskStatus::Stopped && task.known != TaskStatus::Stopped
}

fn is_theirs(task: &TaskSnapshot) -> bool {
    matches!(task.spec.origin, Origin::ControlPlane { .. })
}

/// What to do about a task.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Decision {
    /// Run it.
    Run(Box<DescribedTask>),
    /// Stop it.
    Stop { task: TaskArn, reason: String, code: StopCode },
    /// It was stopped before anybody here heard of it: say that it has stopped.
    NeverStarted(Box<DescribedTask>),
}

/// A task of ours that is not listed.
#[derive(Debug, Clone, Copy)]
struct Unlisted {
    /// Not looked at before this.
    again: Duration,
    /// Since when it is said not to exist.
    missing_since: Option<Duration>,
}

/// The memory between polls.
#[derive(Debug, Default)]
pub(crate) struct Watcher {
    /// Tasks that must not be run (again), with the number of the poll that last met them.
    seen: BTreeMap<TaskArn, u64>,
    unlisted: BTreeMap<TaskArn, Unlisted>,
    polls: u64,
}

impl Watcher {
    /// Takes the list of tasks that are wanted here; answers which are to be described, those to be stopped first.
    pub(crate) fn listed(&mut self, listed: &[TaskArn], view: View<'_>, now: Duration) -> Vec<TaskArn> {
        self.polls += 1;
        self.remember(view);
        let listed: BTreeSet<&TaskArn> = listed.iter().collect();
        self.unlisted.retain(|task, _| !listed.contains(task) && view.running(task).is_some());
        let ours = view.engine.tasks.iter().filter(|(_, task)| is_wanted(task)).map(|(arn, _)| arn);
        let unlisted = ours
            .filter(|arn| !listed.contains(arn))
            .filter(|arn| self.unlisted.get(arn).is_none_or(|unlisted| unlisted.again <= now));
        let mut looks: Vec<TaskArn> = unlisted.cloned().collect();
        looks.extend(self.unknown(listed.into_iter(), view));
        looks.truncate(LOOKS);
        self.prune();
        looks
    }

    /// Takes the list of tasks that are to stop or have stopped; answers which are to be described. Those of the engine are found by
    /// [`Watcher::listed`]; here are those that were stopped before they were ever seen.
    pub(crate) fn stopped(&mut self, stopped: &[TaskArn], view: View<'_>) -> Vec<TaskArn> {
        self.remember(view);
        let mut looks = self.unknown(stopped.iter(), view);
        looks.truncate(LOOKS);
        looks
    }

    /// Takes the answer to a look: which tasks were asked for, and which of them exist.
    pub(crate) fn described(
        &mut self,
        asked: &[TaskArn],
        described: Vec<DescribedTask>,
        view: View<'_>,
        now: Duration,
    ) -> Vec<Decision> {
        let mut described: BTreeMap<TaskArn, DescribedTask> =
            described.into_iter().map(|task| (task.arn.clone(), task)).collect();
        let decide = |arn: &TaskArn| match (described.remove(arn), view.running(arn)) {
            (Some(described), Some(_)) => self.still_wanted(arn, &described, now),
            (None, Some(_)) => self.missing(arn, now),
            (Some(described), None) if !self.is_known(arn, view) => self.new_task(described),
            (Some(_) | None, None) => None,
        };
        asked.iter().filter_map(decide).collect()
    }

    /// The task has been handed over, or refused: whatever is listed from now on, it is not run again.
    pub(crate) fn settled(&mut self, task: &TaskArn) {
        self.seen.insert(task.clone(), self.polls);
    }

    fn still_wanted(&mut self, arn: &TaskArn, described: &DescribedTask, now: Duration) -> Option<Decision> {
        self.unlisted.remove(arn);
        if is_to_stop(described) {
            let reason = described.stopped_reason.clone();
            return Some(Decision::Stop {
                task: arn.clone(),
                reason: reason.unwrap_or_else(|| "Task stopped by the control plane".to_owned()),
                code: stop_code(described.stop_code.as_deref()),
            });
        }
        self.unlisted.insert(arn.clone(), Unlisted { again: now + LOOK_AGAIN, missing_since: None });
        None
    }

    fn missing(&mut self, arn: &TaskArn, now: Duration) -> Option<Decision> {
        let since = self.unlisted.get(arn).and_then(|unlisted| unlisted.missing_since).unwrap_or(now);
        if now.saturating_sub(since) >= MISSING_PAUSE {
            return Some(Decision::Stop {
                task: arn.clone(),
                reason: "Task is unknown to the control plane".to_owned(),
                code: StopCode::UserInitiated,
            });
        }
        let unlisted = Unlisted { again: since + MISSING_PAUSE, missing_since: Some(since) };
        self.unlisted.insert(arn.clone(), unlisted);
        None
    }

    fn new_task(&mut self, described: DescribedTask) -> Option<Decision> {
        if described.last_status == "STOPPED" {
            self.settled(&described.arn);
            return None;
        }
        match described.desired_status.as_str() {
            "RUNNING" => Some(Decision::Run(Box::new(described))),
            "STOPPED" => Some(Decision::NeverStarted(Box::new(described))),
            _ => None,
        }
    }

    fn unknown<'a>(&mut self, tasks: impl Iterator<Item = &'a TaskArn>, view: View<'_>) -> Vec<TaskArn> {
        let mut unknown = Vec::new();
        for arn in tasks {
            match self.seen.get_mut(arn) {
                Some(met) => *met = self.polls,
                None if view.engine.tasks.contains_key(arn) => {}
                None => unknown.push(arn.clone()),
            }
        }
        unknown
    }

    fn is_known(&self, arn: &TaskArn, view: View<'_>) -> bool {
        self.seen.contains_key(arn)
            || view.engine.tasks.contains_key(arn)
            || view.reports.ended.contains(arn)
            || view.reports.waiting.iter().any(|waiting| waiting.task == *arn)
    }

    /// Every task that the engine or the outbox holds has been taken once.
    fn remember(&mut self, view: View<'_>) {
        let theirs = view.engine.tasks.iter().filter(|(_, task)| is_theirs(task)).map(|(arn, _)| arn);
        let reported = view.reports.waiting.iter().map(|waiting| &waiting.task);
        for arn in theirs.chain(&view.reports.ended).chain(reported) {
            match self.seen.get_mut(arn) {
                Some(met) => *met = self.polls,
                None => drop(self.seen.insert(arn.clone(), self.polls)),
            }
        }
    }

    /// Forgets the tasks that were met longest ago.
    fn prune(&mut self) {
        let excess = self.seen.len().saturating_sub(SEEN);
        if excess == 0 {
            return;
        }
        let mut by_age: Vec<(u64, TaskArn)> =
            self.seen.iter().map(|(arn, met)| (*met, arn.clone())).collect();
        by_age.sort_unstable();
        for (_, arn) in by_age.into_iter().filter(|(met, _)| *met < self.polls).take(excess) {
            self.seen.remove(&arn);
        }
    }
}

/// Whether the control plane wants its end, or takes it for ended.
fn is_to_stop(described: &DescribedTask) -> bool {
    described.desired_status == "STOPPED" || described.last_status == "STOPPED"
}
