//! The state of the engine and how events change it. Pure: no clock, no I/O; the time comes in as `now`.
//!
//! [`World`] holds the tasks and what is known of the runtime and the journal. [`World::apply`] takes the result of an op,
//! [`World::hint`] an event of the runtime, and the `admit`, `request_*` methods take assignments. [`crate::plan`] reads the world
//! and says what is to be done; [`World::begin`] notes what of it is under way.

pub(crate) mod depends;
mod failures;
mod journaling;
mod listing;
mod recording;
pub(crate) mod recover;
mod report;
mod task;

pub(crate) use task::{Container, Goal, Life, Rest, Slot, Task};

use crate::{
    backoff::{Now, Retry, Tick},
    config::{MAX_STOPPED, Rules},
    door::RemoveError,
    op::{Act, Done, Op, OpError, Outcome},
    reasons,
    stage::{Stage, StopWish},
};
use berth_types::{
    Chain,
    assignment::AssignmentError,
    eni::{SlotView, WaitingLease},
    ids::{ContainerId, TaskArn},
    lease::{Lease, LeaseError},
    ports::{ContainerError, ContainerErrorKind, ContainerEvent},
    task::{StopCode, TaskSpec},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

/// How often everything is looked at without a reason. Events are hints, and this bounds what a lost one costs; the official
/// agent looks as often.
const AUDIT: Duration = Duration::from_secs(5 * 60);

/// How soon it is looked again when the runtime could not say of every container whether it runs: it waits for two seconds itself.
const UNSURE: Duration = Duration::from_secs(5);

/// What is known of the runtime.
#[derive(Debug)]
pub(crate) struct Runtime {
    /// Its last answer was an answer, and what it then held has been taken over.
    pub(crate) ok: bool,
    pub(crate) look: Look,
    pub(crate) retry: Option<Retry>,
}

/// The next look at all containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// As soon as possible.
    Needed,
    /// Under way; `stale` when something happened that it may not have seen.
    Running { stale: bool },
    /// Not needed before then.
    At(Tick),
}

/// How far the world of before has been taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Recovery {
    /// The runtime has not been looked at yet.
    Looking,
    /// Slots of former leases are being asked for.
    Leases,
    /// The ENI manager is being told that all have been asked for.
    Announcing,
    /// Over.
    Done,
}

/// What is known of the journal.
#[derive(Debug, Default)]
pub(crate) struct JournalState {
    pub(crate) busy: bool,
    pub(crate) retry: Option<Retry>,
    /// Records to delete.
    pub(crate) forgotten: BTreeSet<TaskArn>,
}

/// A container that belongs to no task that is known.
#[derive(Debug, Default)]
pub(crate) struct Stray {
    pub(crate) busy: bool,
    pub(crate) retry: Option<Retry>,
}

/// What a finished commit means for those who wait for it.
#[derive(Debug)]
pub(crate) enum Notice {
    /// Changes of this task up to this one are durable.
    Recorded(TaskArn, u64),
    /// They are not, and what asked for them was not done.
    NotRecorded(TaskArn, u64, String),
}

/// All that the engine knows.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) rules: Rules,
    pub(crate) tasks: BTreeMap<TaskArn, Task>,
    pub(crate) by_id: HashMap<ContainerId, (TaskArn, usize)>,
    pub(crate) runtime: Runtime,
    pub(crate) recovery: Recovery,
    pub(crate) announce_retry: Option<Retry>,
    pub(crate) journal: JournalState,
    pub(crate) strays: BTreeMap<ContainerId, Stray>,
    /// What keeps tasks from their slots, in the ENI manager's words.
    pub(crate) slot_waits: BTreeMap<TaskArn, String>,
    /// Tasks whose snapshot is out of date.
    pub(crate) changed: BTreeSet<TaskArn>,
    /// Counts events.
    pub(crate) seq: u64,
}

impl World {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            tasks: BTreeMap::new(),
            by_id: HashMap::new(),
            runtime: Runtime { ok: false, look: Look::Needed, retry: None },
            recovery: Recovery::Looking,
            announce_retry: None,
            journal: JournalState::default(),
            strays: BTreeMap::new(),
            slot_waits: BTreeMap::new(),
            changed: BTreeSet::new(),
            seq: 0,
        }
    }

    /// Takes over a task, from an assignment or from a former life.
    pub(crate) fn insert(&mut self, task: Task) {
        let arn = task.spec.arn.clone();
        for (index, container) in task.containers.iter().enumerate() {
            self.by_id.insert(container.id.clone(), (arn.clone(), index));
        }
        self.changed.insert(arn.clone());
        // One that was forgotten and has come again: its record is not to be deleted any more.
        self.journal.forgotten.remove(&arn);
        self.tasks.insert(arn, task);
    }

    /// A task to run. Answers the change that must be durable before the assignment is.
    pub(crate) fn admit(&mut self, spec: TaskSpec, now: Now) -> Result<u64, AssignmentError> {
        self.seq += 1;
        if let Some(task) = self.tasks.get(&spec.arn) {
            return Ok(task.ledger.required);
        }
        let live = self.tasks.values().filter(|t| !t.has_given_all_back()).count();
        if live >= self.rules.max_tasks {
            return Err(AssignmentError::TooManyTasks(self.rules.max_tasks));
        }
        let mut task = Task::new(Arc::new(spec));
        task.times.taken_at = Some(now.wall);
        task.require();
        if let Err(why) = depends::check(&task.spec.containers) {
            let reason = reasons::unresolvable(&task.spec.arn, &why.to_string());
            task.stop(reason, Some(StopCode::TaskFailedToStart));
            task.settle(now);
        }
        let change = task.ledger.required;
        self.insert(task);
        Ok(change)
    }

    /// A task to stop. The wish counts from the moment it is durable.
    pub(crate) fn request_stop(
        &mut self,
        arn: &TaskArn,
        reason: String,
        code: StopCode,
    ) -> Result<u64, AssignmentError> {
        self.seq += 1;
        let task = self.tasks.get_mut(arn).ok_or_else(|| AssignmentError::NoSuchTask(arn.clone()))?;
        if let Some((change, _)) = &task.wish {
            return Ok(*change);
        }
        if task.goal == Goal::Run {
            task.touch();
            task.wish = Some((task.ledger.changes, StopWish { reason, code: Some(code) }));
        }
        Ok(task.wish.as_ref().map_or(task.ledger.required, |(change, _)| *change))
    }

    /// A stopped task to forget now, or as soon as its containers and its slot are given back.
    pub(crate) fn request_remove(&mut self, arn: &TaskArn, now: Now) -> Result<(), RemoveError> {
        let task = self.tasks.get_mut(arn).ok_or_else(|| RemoveError::NoSuchTask(arn.clone()))?;
        match &mut task.life {
            Life::Stopped { rest: Rest::Files { due }, .. } => {
                *due = now.tick;
                Ok(())
            }
            Life::Stopped { rest: Rest::Containers | Rest::Shared | Rest::Slot, .. } => {
                task.forget_at_once = true;
                Ok(())
            }
            // Nothing is left to remove; it goes when its end is on record.
            Life::Stopped { rest: Rest::Report { .. }, .. } => Ok(()),
            Life::Live => Err(RemoveError::NotStopped(arn.clone())),
        }
    }

    /// Deadlines pass without an event: a dependency that has taken too long ends its dependants.
    pub(crate) fn settle_due(&mut self, now: Now) {
        let due = |c: &Container| c.give_up_at.is_some_and(|at| at <= now.tick) && !c.stage.has_ended();
        let late = |t: &Task| !t.is_stopping() && t.containers.iter().any(due);
        let arns: Vec<_> = self.tasks.iter().filter(|(_, t)| late(t)).map(|(arn, _)| arn.clone()).collect();
        for arn in arns {
            let before = self.tasks.get(&arn).map(|t| t.ledger.changes);
            let changed = self.changed.contains(&arn);
            self.with(&arn, now, |_| {});
            if !changed && before == self.tasks.get(&arn).map(|t| t.ledger.changes) {
                self.changed.remove(&arn);
            }
        }
    }

    /// Slots that are of no use any more: the tasks in them are stopped, each with the reason.
    pub(crate) fn note_losses(&mut self, slots: &[SlotView], now: Now) {
        for SlotView { facts, task, lost, .. } in slots {
            let (Some(arn), Some(reason)) = (task, lost) else { continue };
            let holds = |t: &&Task| !t.is_stopping() && lease_of(t).is_some_and(|l| l.slot == facts.slot);
            if self.tasks.get(arn).filter(holds).is_none() {
                continue;
            }
            let error = LeaseError::Lost { slot: facts.slot.clone(), reason: reason.clone() };
            self.with(arn, now, |task| task.lost(&error));
        }
    }

    /// Whether what an image is brought for is still to start.
    pub(crate) fn is_wanted(&self, task: &TaskArn, act: Act) -> bool {
        self.tasks.get(task).is_some_and(|t| t.is_busy(act) && !t.is_stopping())
    }

    /// Why tasks wait for their slots: shown with them.
    pub(crate) fn note_waits(&mut self, waiting: &[WaitingLease]) {
        let now: BTreeMap<TaskArn, String> =
            waiting.iter().map(|w| (w.task.clone(), w.reason.clone())).collect();
        let before = std::mem::replace(&mut self.slot_waits, now);
        for (task, reason) in &self.slot_waits {
            if before.get(task) != Some(reason) && self.tasks.contains_key(task) {
                self.changed.insert(task.clone());
            }
        }
    }

    /// The planner's ops are under way now.
    pub(crate) fn begin(&mut self, ops: &[Op], now: Now) {
        for op in ops {
            match op {
                Op::Commit { .. } => self.journal.busy = true,
                Op::Look { .. } => self.runtime.look = Look::Running { stale: false },
                Op::Announce => self.recovery = Recovery::Announcing,
                Op::RemoveStray { id } => {
                    if let Some(stray) = self.strays.get_mut(id) {
                        stray.busy = true;
                    }
                }
                Op::OfTask { task, act, .. } => {
                    let Some(state) = self.tasks.get_mut(task) else { continue };
                    state.busy.insert(*act);
                    if let Act::Image(_) = act {
                        state.times.pull_started_at = state.times.pull_started_at.or(Some(now.wall));
                    }
                    if *act == Act::Release {
                        // From here on the slot may be someone else's.
                        state.slot = Slot::GivenBack;
                        self.changed.insert(task.clone());
                    }
                }
            }
        }
    }

    /// A hint from the runtime.
    pub(crate) fn hint(&mut self, event: ContainerEvent, now: Now) {
        self.seq += 1;
        match event {
            ContainerEvent::Exited { id, code, at, oom } => {
                let Some((arn, index)) = self.by_id.get(&id).cloned() else { return };
                let seq = self.seq;
                self.with(&arn, now, |task| {
                    if let Some(container) = task.containers.get_mut(index).filter(|c| !c.stage.has_ended()) {
                        container.stage.exited(code, at, oom);
                        container.touched = seq;
                        task.touch();
                    }
                });
            }
            ContainerEvent::Resync => {
                self.runtime.retry = None;
                self.look_again();
            }
            ContainerEvent::Disconnected => self.runtime_lost("the connection was lost".to_owned(), now),
        }
    }

    /// The result of an op.
    pub(crate) fn apply(&mut self, outcome: Outcome, now: Now) -> Vec<Notice> {
        self.seq += 1;
        match outcome {
            Outcome::Committed { durability, marks, forgotten, result } => {
                return self.committed(durability, &marks, forgotten, result, now);
            }
            Outcome::Looked { seq, result } => self.looked(seq, result, now),
            Outcome::Announced { result } => match result {
                Ok(()) => self.recovery = Recovery::Done,
                Err(error) => {
                    self.recovery = Recovery::Leases;
                    self.announce_retry =
                        Some(Retry::after(self.announce_retry.as_ref(), error.to_string(), now));
                }
            },
            Outcome::StrayRemoved { id, result } => match result {
                Ok(()) => drop(self.strays.remove(&id)),
                Err(error) => {
                    if let Some(stray) = self.strays.get_mut(&id) {
                        stray.busy = false;
                        stray.retry =
                            Some(Retry::after(stray.retry.as_ref(), Chain(&error).to_string(), now));
                    }
                }
            },
            Outcome::OfTask { task, act, result } => self.of_task(&task, act, result, now),
        }
        Vec::new()
    }

    /// Lets one task take an event and draw its conclusions.
    fn with(&mut self, arn: &TaskArn, now: Now, event: impl FnOnce(&mut Task)) {
        let Some(task) = self.tasks.get_mut(arn) else { return };
        event(task);
        task.settle(now);
        self.changed.insert(arn.clone());
    }

    fn of_task(&mut self, arn: &TaskArn, act: Act, result: Result<Done, OpError>, now: Now) {
        if let Err(OpError::Runtime(ContainerError { kind: ContainerErrorKind::Unavailable(why), .. })) =
            &result
        {
            self.runtime_lost(why.clone(), now);
        }
        let (seq, rules) = (self.seq, self.rules);
        let mut forget = false;
        self.with(arn, now, |task| {
            task.busy.remove(&act);
            if let Act::Create(index)
            | Act::Start(index)
            | Act::Image(index)
            | Act::Signal(index)
            | Act::Remove(index) = act
                && let Some(container) = task.containers.get_mut(index)
            {
                container.touched = seq;
            }
            match result {
                Err(error) => forget = task.act_failed(act, &error, now, &rules),
                Ok(done) => {
                    task.retries.remove(&act);
                    match (act, done) {
                        (_, Done::Leased { lease, waited }) => task.leased(lease, waited),
                        (Act::Image(index), Done::Image(image)) => {
                            task.note(index, |stage| stage.pulled(image))
                        }
                        (Act::Create(index), Done::Created(at)) => {
                            task.note(index, |stage| stage.created(at))
                        }
                        (Act::Start(index), Done::Started { pid, at }) => {
                            task.started(index, pid, at, now, &rules)
                        }
                        (Act::Signal(index), _) => task.signalled(index, now, &rules),
                        (Act::Remove(index), _) => task.note(index, Stage::gone),
                        (Act::Volumes, _) => task.volumes_ready = true,
                        (Act::RemoveShared, _) => task.shared_removed(),
                        (Act::Release, _) => task.released(now, &rules),
                        (Act::CleanUp, _) => forget = task.cleaned_up(now),
                        (Act::Lease | Act::Image(_) | Act::Create(_) | Act::Start(_), _) => {}
                    }
                }
            }
        });
        if forget {
            self.forget(arn);
        } else if let Act::Signal(_) = act {
            self.look_if_killed(arn, act);
        }
        if act == Act::Release {
            self.bound_stopped(now);
        }
    }

    /// A process that does not go after a SIGKILL may be gone already, its exit lost.
    fn look_if_killed(&mut self, arn: &TaskArn, act: Act) {
        let Act::Signal(index) = act else { return };
        let killed = self.tasks.get(arn).and_then(|t| t.containers.get(index)).is_some_and(|c| c.kills > 1);
        if killed {
            self.look_again();
        }
    }

    /// Cleans up the oldest stopped tasks early when there are too many.
    fn bound_stopped(&mut self, now: Now) {
        let waiting: Vec<_> = self
            .tasks
            .iter()
            .filter_map(|(arn, t)| t.awaits_cleanup().map(|(at, due)| (at, due, arn.clone())))
            .collect();
        let mut late: Vec<_> = waiting.iter().filter(|(_, due, _)| *due > now.tick).collect();
        let surplus = waiting.len().saturating_sub(MAX_STOPPED).saturating_sub(waiting.len() - late.len());
        late.sort();
        for (_, _, arn) in late.into_iter().take(surplus) {
            if let Some(Task { life: Life::Stopped { rest: Rest::Files { due }, .. }, .. }) =
                self.tasks.get_mut(arn)
            {
                *due = now.tick;
            }
        }
    }

    fn look_again(&mut self) {
        self.runtime.look = match self.runtime.look {
            Look::Needed | Look::At(_) => Look::Needed,
            Look::Running { .. } => Look::Running { stale: true },
        };
    }

    fn runtime_lost(&mut self, why: String, now: Now) {
        if self.runtime.ok || self.runtime.retry.is_none() {
            self.runtime.retry = Some(Retry::after(self.runtime.retry.as_ref(), why, now));
        }
        self.runtime.ok = false;
        self.look_again();
    }
}

impl Task {
    /// Lets a container take an event.
    fn note(&mut self, index: usize, event: impl FnOnce(&mut Stage)) {
        if let Some(container) = self.containers.get_mut(index) {
            event(&mut container.stage);
            self.touch();
        }
    }

    fn shared_removed(&mut self) {
        if let Life::Stopped { rest: rest @ Rest::Shared, .. } = &mut self.life {
            *rest = Rest::Slot;
            self.touch();
        }
    }
}

/// The lease a task holds.
pub(crate) fn lease_of(task: &Task) -> Option<&Lease> {
    match &task.slot {
        Slot::Held(lease) => Some(lease),
        Slot::Wanted { .. } | Slot::Lost(_) | Slot::GivenBack => None,
    }
}

#[cfg(test)]
mod tests;
