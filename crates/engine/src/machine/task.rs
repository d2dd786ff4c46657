//! One task: its goal, its slot, its containers, and what is left to do after its end. Pure: every method is an event that the
//! task takes, followed by [`Task::settle`], which draws the conclusions that need no act.

use super::depends::{self, Gate};
use crate::{
    backoff::{Now, Retry, Tick},
    config::Rules,
    op::Act,
    reasons,
    stage::{End, Remains, Stage, StopWish, Times},
};
use berth_types::{
    Timestamp,
    ids::{ContainerId, SlotId},
    lease::Lease,
    task::{ContainerSpec, ContainerStatus, StopCode, TaskSpec, TaskStatus},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// After a SIGKILL the process is gone within milliseconds unless the kernel holds it; then the runtime is asked and it is sent
/// again.
const KILL_AGAIN: Duration = Duration::from_secs(5);
/// SIGKILLs before a process counts as stopped: a process in uninterruptible sleep must not keep its task from ending.
pub(crate) const MAX_KILLS: u32 = 5;

/// Where a task is to go.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Goal {
    Run,
    Stop(StopWish),
}

/// A task's slot.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Slot {
    /// Not answered yet. `held` is the slot in which its containers were made, as a former life recorded it.
    Wanted { held: Option<SlotId> },
    /// Leased.
    Held(Lease),
    /// The former life's slot is gone.
    Lost(SlotId),
    /// Given back, or refused.
    GivenBack,
}

/// What is left to do for a stopped task, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Remove its containers from the runtime.
    Containers,
    /// Remove what they shared.
    Shared,
    /// Give the slot back: nothing lives in it any more.
    Slot,
    /// At `due`, remove volumes and logs.
    Files { due: Tick },
    /// Forget the task as soon as its end is on record for the control plane, at the latest at `until`.
    Report { until: Tick },
}

/// Whether the task has ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Life {
    Live,
    Stopped { at: Timestamp, rest: Rest },
}

/// How far the task's record is behind the task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    /// Changes so far.
    pub(crate) changes: u64,
    /// Of these, handed to the journal.
    pub(crate) saved: u64,
    /// Of these, safe from the death of the agent.
    pub(crate) durable: u64,
    /// Must be durable before the next act that depends on the record.
    pub(crate) required: u64,
}

impl Ledger {
    pub(crate) fn is_settled(&self) -> bool {
        self.durable >= self.required
    }

    /// Admitted and durable: acts that only need the task to be known may begin.
    pub(crate) fn is_admitted(&self) -> bool {
        self.durable > 0
    }
}

/// A container and what the loop keeps in memory about it.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    pub(crate) spec: Arc<ContainerSpec>,
    pub(crate) id: ContainerId,
    pub(crate) stage: Stage,
    /// When its dependants give up waiting for its end (its `startTimeout`); set when it starts.
    pub(crate) give_up_at: Option<Tick>,
    /// When the next SIGKILL is due; set by the stop signal.
    pub(crate) kill_at: Tick,
    pub(crate) kills: u32,
    /// Event in which its stage changed last: a list that was begun before says nothing about what it lacks.
    pub(crate) touched: u64,
}

/// A task.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub(crate) spec: Arc<TaskSpec>,
    pub(crate) goal: Goal,
    /// A stop that someone asked for and that is not durable yet, with the change that carries it.
    pub(crate) wish: Option<(u64, StopWish)>,
    pub(crate) slot: Slot,
    pub(crate) containers: Vec<Container>,
    pub(crate) volumes_ready: bool,
    /// Someone wants it forgotten: its files do not wait for their time.
    pub(crate) forget_at_once: bool,
    /// Read from a record that may lag behind its containers, and the runtime has not been asked yet: no conclusions.
    pub(crate) unseen: bool,
    /// The reporter has put its end on record: the control plane will hear of it without this task.
    pub(crate) end_on_record: bool,
    pub(crate) life: Life,
    pub(crate) times: Times,
    pub(crate) ledger: Ledger,
    pub(crate) busy: BTreeSet<Act>,
    pub(crate) retries: BTreeMap<Act, Retry>,
}

impl Task {
    pub(crate) fn new(spec: Arc<TaskSpec>) -> Self {
        let containers = spec
            .containers
            .iter()
            .map(|container| Container {
                id: ContainerId::derive(&spec.arn, &container.name, 0),
                spec: Arc::new(container.clone()),
                stage: Stage::New,
                give_up_at: None,
                kill_at: Tick::ZERO,
                kills: 0,
                touched: 0,
            })
            .collect();
        Self {
            spec,
            goal: Goal::Run,
            wish: None,
            slot: Slot::Wanted { held: None },
            containers,
            volumes_ready: false,
            forget_at_once: false,
            unseen: false,
            end_on_record: false,
            life: Life::Live,
            times: Times::default(),
            ledger: Ledger::default(),
            busy: BTreeSet::new(),
            retries: BTreeMap::new(),
        }
    }

    /// The task's status: the least of its containers', an ended one counting as far as it goes.
    pub(crate) fn known(&self) -> TaskStatus {
        if matches!(self.life, Life::Stopped { .. }) {
            return TaskStatus::Stopped;
        }
        let least = self.containers.iter().map(|c| c.stage.status()).min().unwrap_or(ContainerStatus::None);
        match least {
            ContainerStatus::None => TaskStatus::None,
            ContainerStatus::ManifestPulled => TaskStatus::ManifestPulled,
            ContainerStatus::Pulled => TaskStatus::Pulled,
            ContainerStatus::Created => TaskStatus::Created,
            // All ended but not settled yet, or never to be seen from outside.
            ContainerStatus::Running | ContainerStatus::Stopped => TaskStatus::Running,
        }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        matches!(self.goal, Goal::Stop(_))
    }

    /// Stopped and done with runtime and slot: only files are left.
    pub(crate) fn awaits_cleanup(&self) -> Option<(Timestamp, Tick)> {
        match self.life {
            Life::Stopped { at, rest: Rest::Files { due } } => Some((at, due)),
            Life::Stopped { .. } | Life::Live => None,
        }
    }

    pub(crate) fn is_busy(&self, act: Act) -> bool {
        self.busy.contains(&act)
    }

    /// The record has changed.
    pub(crate) fn touch(&mut self) {
        self.ledger.changes += 1;
    }

    /// The record has changed, and acts depend on it.
    pub(crate) fn require(&mut self) {
        self.touch();
        self.ledger.required = self.ledger.changes;
    }

    /// An act failed; answers how often in a row.
    pub(crate) fn failed(&mut self, act: Act, problem: String, now: Now) -> u32 {
        let retry = Retry::after(self.retries.get(&act), problem, now);
        let failures = retry.failures;
        self.retries.insert(act, retry);
        failures
    }

    /// Wants the task stopped; the first reason stays.
    pub(crate) fn stop(&mut self, reason: impl Into<String>, code: Option<StopCode>) {
        if self.goal == Goal::Run {
            self.goal = Goal::Stop(StopWish { reason: reason.into(), code });
            self.touch();
        }
    }

    /// A step of a container failed for good.
    pub(crate) fn fail_container(&mut self, index: usize, reason: String, remains: Remains, now: Now) {
        if let Some(container) = self.containers.get_mut(index) {
            container.stage.end(End::Failed { reason, code: None, at: now.wall }, remains);
            self.touch();
        }
    }

    /// A container's process started.
    pub(crate) fn started(&mut self, index: usize, pid: u32, at: Timestamp, now: Now, rules: &Rules) {
        if let Some(container) = self.containers.get_mut(index) {
            container.stage.started(pid, at);
            container.note_deadlines(now, rules);
            self.touch();
        }
    }

    /// A signal was sent (or could not be sent: the deadline for the next runs all the same).
    pub(crate) fn signalled(&mut self, index: usize, now: Now, rules: &Rules) {
        let Some(container) = self.containers.get_mut(index) else { return };
        match &container.stage {
            Stage::Running { signalled_at: None, .. } => {
                container.stage.signalled(now.wall);
                container.note_deadlines(now, rules);
            }
            Stage::Running { signalled_at: Some(_), .. } => {
                container.kills += 1;
                container.kill_at = now.tick + KILL_AGAIN;
                if container.kills >= MAX_KILLS {
                    let reason = reasons::unkillable(container.kills);
                    container.stage.end(End::Failed { reason, code: None, at: now.wall }, Remains::Maybe);
                }
            }
            Stage::New | Stage::Pulled { .. } | Stage::Created { .. } | Stage::Ended { .. } => {}
        }
        self.touch();
    }

    /// The ENI manager gave a slot.
    pub(crate) fn leased(&mut self, lease: Lease, waited: Duration) {
        if matches!(self.slot, Slot::Wanted { held: None }) {
            self.times.lease_micros = u64::try_from(waited.as_micros()).ok();
        }
        self.slot = Slot::Held(lease);
        match &mut self.life {
            // The containers are made in this slot: that must be known before the first of them is.
            Life::Live => self.require(),
            // It came after the task had ended: it goes back.
            Life::Stopped { rest, .. } => {
                if matches!(rest, Rest::Files { .. } | Rest::Report { .. }) {
                    *rest = Rest::Slot;
                }
            }
        }
    }

    /// The slot was given back.
    pub(crate) fn released(&mut self, now: Now, rules: &Rules) {
        if matches!(self.slot, Slot::Held(_)) {
            // A lease was granted behind the release: it is given back once more.
            return;
        }
        if let Life::Stopped { at, rest } = &mut self.life {
            let due = if self.forget_at_once { now.tick } else { now.due(*at, rules.cleanup_wait) };
            *rest = Rest::Files { due };
            self.touch();
        }
    }

    /// Draws the conclusions of the last event.
    pub(crate) fn settle(&mut self, now: Now) {
        match self.life {
            Life::Live if self.unseen => {}
            Life::Live => self.settle_live(now),
            Life::Stopped { .. } => self.settle_rest(),
        }
    }

    fn settle_live(&mut self, now: Now) {
        self.note_times(now);
        self.resolve_dependencies(now);
        self.note_essential_end();
        if self.is_stopping() {
            self.drop_unstarted(now);
        }
        if !self.containers.iter().all(|c| c.stage.has_ended()) {
            return;
        }
        // Not even an essential container is needed for this: nothing runs any more.
        self.stop(reasons::ESSENTIAL_EXITED, Some(StopCode::EssentialContainerExited));
        let at = self.containers.iter().filter_map(Container::ended_at).max().unwrap_or(now.wall);
        self.life = Life::Stopped { at, rest: Rest::Containers };
        // Exit codes live in the runtime until the containers are removed, and only in the record from then on.
        self.require();
        self.settle_rest();
    }

    fn note_times(&mut self, now: Now) {
        let known = self.known();
        if self.times.pull_started_at.is_some()
            && self.times.pull_stopped_at.is_none()
            && known >= TaskStatus::Pulled
        {
            self.times.pull_stopped_at = Some(now.wall);
        }
        // A task whose end came before all that it needs had started has never run.
        let has_run = self.containers.iter().all(Container::has_run_or_is_not_missed);
        if known == TaskStatus::Running && has_run && self.times.started_at.is_none() {
            self.times.started_at = self.containers.iter().filter_map(|c| c.stage.past().started_at).max();
        }
    }

    /// Ends containers whose dependencies can never come so far. One such end can be the next one's reason.
    fn resolve_dependencies(&mut self, now: Now) {
        while self.goal == Goal::Run {
            let blocked =
                self.containers.iter().enumerate().find_map(|(index, container)| match &container.stage {
                    Stage::Created { .. } if !self.is_busy(Act::Start(index)) => {
                        match depends::gate(container, &self.containers, now.tick) {
                            Gate::Never(why) => Some((index, why)),
                            Gate::Open | Gate::Waits { .. } => None,
                        }
                    }
                    Stage::New
                    | Stage::Pulled { .. }
                    | Stage::Created { .. }
                    | Stage::Running { .. }
                    | Stage::Ended { .. } => None,
                });
            let Some((index, why)) = blocked else { return };
            let code = Some(reasons::DEPENDENCY_EXIT_CODE);
            let end = End::Failed { reason: reasons::dependency(&why), code, at: now.wall };
            self.containers[index].stage.end(end, Remains::Maybe);
            self.touch();
        }
    }

    fn note_essential_end(&mut self) {
        for index in 0..self.containers.len() {
            let container = &self.containers[index];
            let Stage::Ended { end, .. } = &container.stage else { continue };
            if !container.spec.essential {
                continue;
            }
            match end.clone() {
                End::Exited { at, .. } | End::Vanished { at } => {
                    self.times.execution_stopped_at = self.times.execution_stopped_at.or(Some(at));
                    self.stop(reasons::ESSENTIAL_EXITED, Some(StopCode::EssentialContainerExited));
                }
                End::Failed { reason, .. } => self.stop(reason, Some(StopCode::TaskFailedToStart)),
                End::Unneeded { .. } => {}
            }
        }
    }

    /// Ends what has not started and now never will. A call that is under way, or whose outcome is unknown, is waited for.
    fn drop_unstarted(&mut self, now: Now) {
        let end = End::Unneeded { at: now.wall };
        for index in 0..self.containers.len() {
            let remains = match &self.containers[index].stage {
                Stage::New | Stage::Pulled { .. } if self.is_busy(Act::Create(index)) => continue,
                Stage::New | Stage::Pulled { .. } if self.retries.contains_key(&Act::Create(index)) => {
                    Remains::Maybe
                }
                Stage::New | Stage::Pulled { .. } => Remains::Never,
                Stage::Created { .. } if self.is_busy(Act::Start(index)) => continue,
                Stage::Created { .. } if self.retries.contains_key(&Act::Start(index)) => continue,
                Stage::Created { .. } => Remains::Maybe,
                Stage::Running { .. } | Stage::Ended { .. } => continue,
            };
            self.containers[index].stage.end(end.clone(), remains);
            self.touch();
        }
    }

    fn settle_rest(&mut self) {
        let Life::Stopped { rest, .. } = &mut self.life else { return };
        if *rest != Rest::Containers {
            return;
        }
        let remains = |wanted: Remains| move |c: &Container| matches!(&c.stage, Stage::Ended { remains, .. } if *remains == wanted);
        if self.containers.iter().all(remains(Remains::Never)) {
            *rest = Rest::Slot;
        } else if !self.containers.iter().any(remains(Remains::Maybe)) {
            *rest = Rest::Shared;
        }
    }
}

impl Container {
    /// Between the stop signal and SIGKILL.
    fn grace(&self, rules: &Rules) -> Duration {
        self.spec
            .stop_timeout
            .filter(|s| *s > 0)
            .map_or(rules.stop_timeout, |s| Duration::from_secs(s.into()))
    }

    /// Sets the deadlines that follow from what has been recorded, now or in a former life.
    pub(crate) fn note_deadlines(&mut self, now: Now, rules: &Rules) {
        match &self.stage {
            Stage::Running { started_at, signalled_at, .. } => {
                let patience = self.spec.start_timeout.map(|s| Duration::from_secs(s.into()));
                self.give_up_at = patience.map(|span| now.due(*started_at, span));
                self.kill_at = signalled_at.map_or(Tick::ZERO, |at| now.due(at, self.grace(rules)));
            }
            Stage::New | Stage::Pulled { .. } | Stage::Created { .. } | Stage::Ended { .. } => {}
        }
    }

    /// Started once; or one that the task can do without and that failed before, rather than never being asked for.
    fn has_run_or_is_not_missed(&self) -> bool {
        match &self.stage {
            Stage::Ended { past, end, .. } => {
                past.started_at.is_some() || !self.spec.essential && !matches!(end, End::Unneeded { .. })
            }
            Stage::New | Stage::Pulled { .. } | Stage::Created { .. } => false,
            Stage::Running { .. } => true,
        }
    }

    fn ended_at(&self) -> Option<Timestamp> {
        match &self.stage {
            Stage::Ended { end, .. } => Some(end.at()),
            Stage::New | Stage::Pulled { .. } | Stage::Created { .. } | Stage::Running { .. } => None,
        }
    }
}
