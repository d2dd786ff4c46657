//! The outbox's state and what is to be done now. Pure: no clock, no I/O; the time comes in as `now`.

use super::{
    Now, RefuseError, Tick,
    entry::{Entry, Presence},
    gate::{Gate, Leave, Trouble, backoff},
    record::{RecordError, TaskReports},
};
use crate::{
    pacing::{Bucket, Jitter},
    port::{EcsError, EcsErrorKind, Report},
};
use berth_types::{
    Chain,
    cluster::ReportsSnapshot,
    ids::TaskArn,
    ports::{Durability, Record},
    task::{EngineSnapshot, Origin},
};
use std::collections::{BTreeMap, BTreeSet};

/// Reports that are under way at a time, as many as the official agent's.
pub(super) const MAX_SENDING: usize = 10;
/// Reports in a minute: ten a second in the long run. An instance that starts all of its 120 tasks at once has told everything within the
/// minute, and a fleet that comes back after an outage does not bring the service down again.
pub(super) const REPORTS_PER_MINUTE: u32 = 600;
/// Records in one commit. The journal takes 4 MiB at once, and a full queue is a quarter of a megabyte at the very worst.
pub(super) const MAX_RECORDS: usize = 12;

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Op {
    /// Write these records, and delete those of tasks that are over.
    Commit { records: Vec<(TaskArn, u64, TaskReports)>, deleted: BTreeSet<TaskArn>, durability: Durability },
    /// Send the task's next report.
    Send { report: Box<Report>, probe: bool },
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Outcome {
    Committed {
        marks: Vec<(TaskArn, u64)>,
        deleted: BTreeSet<TaskArn>,
        durability: Durability,
        result: Result<(), String>,
    },
    Sent {
        task: TaskArn,
        probe: bool,
        result: Result<(), EcsError>,
    },
}

/// What is to be done now, and when to look again if nothing happens until then.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) ops: Vec<Op>,
    pub(super) wake: Option<Tick>,
}

impl Plan {
    fn wake_at(&mut self, tick: Tick) {
        self.wake = Some(self.wake.map_or(tick, |t| t.min(tick)));
    }
}

/// What is known of the journal.
#[derive(Debug, Default)]
struct JournalState {
    busy: bool,
    failures: u32,
    not_before: Tick,
    /// Records to delete.
    deleted: BTreeSet<TaskArn>,
}

/// All that the outbox knows.
#[derive(Debug)]
pub(super) struct World {
    /// As many as tasks of the control plane that the engine has or had since the control plane answered last: bounded by the engine's
    /// tables, because nobody assigns tasks while the control plane is silent.
    entries: BTreeMap<TaskArn, Entry>,
    gate: Gate,
    bucket: Bucket,
    jitter: Jitter,
    journal: JournalState,
    /// When a task's wait is to be told.
    news_due: Option<Tick>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            entries: BTreeMap::new(),
            gate: Gate::default(),
            bucket: Bucket::new(REPORTS_PER_MINUTE),
            jitter: Jitter::new(seed),
            journal: JournalState::default(),
            news_due: None,
        }
    }

    /// Takes over what a former life has left. Of a task whose record cannot be read everything is told anew from what the engine shows.
    pub(super) fn load(&mut self, records: Vec<(String, Record)>) {
        for (key, record) in records {
            match TaskReports::read(&key, &record) {
                Ok((task, reports)) => drop(self.entries.insert(task, Entry::recorded(reports))),
                Err(error) => {
                    tracing::error!(task = key, error = %Chain(&error), "record of reports cannot be read; the task is reported anew");
                    // A newer agent may come back for what only it can read.
                    if let (Ok(task), false) = (key.parse(), matches!(error, RecordError::Version(_))) {
                        self.journal.deleted.insert(task);
                    }
                }
            }
        }
    }

    /// What the engine shows, and what time it is.
    pub(super) fn see(&mut self, engine: &EngineSnapshot, now: Now) {
        self.news_due = None;
        for (arn, task) in &engine.tasks {
            if task.spec.origin == Origin::Operator {
                continue;
            }
            let entry =
                self.entries.entry(arn.clone()).or_insert_with(|| Entry::new(task.spec.cluster.clone()));
            entry.seen(task);
        }
        for (arn, entry) in &mut self.entries {
            // Before it has taken over what it found, the engine may not show a task that it has.
            if engine.recovered && !engine.tasks.contains_key(arn) {
                entry.gone(arn, now);
            }
            if let Some(due) = entry.settle(now) {
                self.news_due = Some(self.news_due.map_or(due, |t| t.min(due)));
            }
        }
    }

    /// A task that will never be the engine's. Answers the change that must be durable.
    pub(super) fn refuse(
        &mut self,
        task: &TaskArn,
        cluster: String,
        reason: &str,
        containers: Vec<String>,
        now: Now,
    ) -> Result<u64, RefuseError> {
        let entry = self.entries.entry(task.clone()).or_insert_with(|| Entry::refused(cluster, now.tick));
        if entry.presence == Presence::Here && !entry.is_ended() {
            return Err(RefuseError::Known(task.clone()));
        }
        Ok(entry.end(task, reason, containers, now))
    }

    /// Whether a change of a task's record is durable.
    pub(super) fn is_durable(&self, task: &TaskArn, change: u64) -> bool {
        self.entries.get(task).is_none_or(|e| e.is_durable(change))
    }

    /// The result of an op.
    pub(super) fn apply(&mut self, outcome: Outcome, now: Now) {
        match outcome {
            Outcome::Committed { marks, deleted, durability, result } => {
                self.journal.busy = false;
                match result {
                    Ok(()) => {
                        self.journal.failures = 0;
                        self.journal.deleted.retain(|arn| !deleted.contains(arn));
                        for (arn, change) in marks {
                            if let Some(entry) = self.entries.get_mut(&arn) {
                                entry.recorded_up_to(change, durability == Durability::Intent);
                            }
                        }
                    }
                    Err(error) => {
                        let failures = self.journal.failures.saturating_add(1);
                        if failures == 1 {
                            tracing::error!(error, "reports cannot be recorded, and are not sent");
                        }
                        self.journal.failures = failures;
                        self.journal.not_before = now.tick + backoff(failures);
                    }
                }
            }
            Outcome::Sent { task, probe, result } => self.sent(&task, probe, result, now.tick),
        }
    }

    fn sent(&mut self, task: &TaskArn, probe: bool, result: Result<(), EcsError>, now: Tick) {
        let Some(entry) = self.entries.get_mut(task) else { return };
        let error = match result {
            Ok(()) => {
                entry.done();
                return self.opened(now);
            }
            Err(error) => error,
        };
        let problem = Chain(&error).to_string();
        let trouble = match error.kind {
            EcsErrorKind::Unavailable(_) => Trouble::Away,
            // Said in time but not in words that we know: somebody stands between us and the control plane.
            EcsErrorKind::Throttled(_) | EcsErrorKind::Malformed(_) => Trouble::Busy,
            EcsErrorKind::Unauthorized(_) => Trouble::Unauthorized,
            EcsErrorKind::InvalidParameter(_)
            | EcsErrorKind::Refused(_)
            | EcsErrorKind::ClusterNotFound(_) => {
                let kind = entry.next_kind();
                tracing::error!(%task, ?kind, error = problem, "control plane refuses a report; it is dropped");
                entry.done();
                return self.opened(now);
            }
        };
        entry.failed(trouble, problem.clone(), now, &mut self.jitter);
        if self.gate.failed(trouble, probe, now, &mut self.jitter) {
            tracing::warn!(%task, error = problem, "control plane does not take reports; they wait");
        }
    }

    /// The control plane has taken a report. What was held back by the same trouble waits no longer.
    fn opened(&mut self, now: Tick) {
        if self.gate.open() {
            tracing::info!("control plane takes reports again");
            self.release(now);
        }
    }

    fn release(&mut self, now: Tick) {
        self.entries.values_mut().for_each(|entry| entry.release(now));
    }

    /// The poller hears the control plane again: a report is tried at once.
    pub(super) fn heard(&mut self, now: Tick) {
        self.gate.knock(now);
        self.release(now);
    }

    /// What is to be done now; it counts as under way.
    pub(super) fn plan(&mut self, now: Now) -> Plan {
        let mut plan = Plan { wake: self.news_due, ..Plan::default() };
        self.bury(now.tick, &mut plan);
        self.commit(now.tick, &mut plan);
        self.send(now.tick, &mut plan);
        plan
    }

    /// Forgets tasks that are over.
    fn bury(&mut self, now: Tick, plan: &mut Plan) {
        let deleted = &mut self.journal.deleted;
        self.entries.retain(|arn, entry| match entry.over_at() {
            Some(over) if over <= now => {
                deleted.insert(arn.clone());
                false
            }
            Some(over) => {
                plan.wake_at(over);
                true
            }
            None => true,
        });
    }

    /// One commit at a time, so that records reach the disk in order. Those that reports wait for come first.
    fn commit(&mut self, now: Tick, plan: &mut Plan) {
        if self.journal.busy {
            return;
        }
        if self.journal.failures > 0 && self.journal.not_before > now {
            return plan.wake_at(self.journal.not_before);
        }
        let record = |(arn, entry): (&TaskArn, &Entry)| (arn.clone(), entry.changes(), entry.reports.clone());
        let urgent = self.entries.iter().filter(|(_, e)| e.needs_intent());
        let rest = self.entries.iter().filter(|(_, e)| e.is_behind() && !e.needs_intent());
        let records: Vec<_> = urgent.chain(rest).take(MAX_RECORDS).map(record).collect();
        let gone = self.journal.deleted.iter().filter(|arn| !self.entries.contains_key(*arn));
        let deleted: BTreeSet<_> = gone.take(MAX_RECORDS).cloned().collect();
        // A task that is there again has a record again.
        self.journal.deleted.retain(|arn| !self.entries.contains_key(arn));
        if records.is_empty() && deleted.is_empty() {
            return;
        }
        let durability = match self.entries.values().any(Entry::needs_intent) {
            true => Durability::Intent,
            false => Durability::Fact,
        };
        self.journal.busy = true;
        plan.ops.push(Op::Commit { records, deleted, durability });
    }

    /// Sends what may be sent: those that were tried least first, then those that wait longest, so that one report that never gets
    /// through is not the only probe.
    fn send(&mut self, now: Tick, plan: &mut Plan) {
        let mut sending = self.entries.values().filter(|e| e.sending).count();
        let mut due = Vec::new();
        for (arn, entry) in &self.entries {
            match entry.sendable(now) {
                Ok(_) => due.push((entry.failures(), entry.reports.queue.since(), arn.clone())),
                Err(Some(at)) => plan.wake_at(at),
                Err(None) => {}
            }
        }
        due.sort();
        for (_, _, arn) in due {
            if sending >= MAX_SENDING {
                break;
            }
            let probe = match self.gate.leave(now) {
                Leave::Go => false,
                Leave::Probe => true,
                Leave::Wait(until) => return plan.wake_at(until),
                Leave::Probing => return,
            };
            if let Err(wait) = self.bucket.take(1, now) {
                return plan.wake_at(now + wait);
            }
            let Some(entry) = self.entries.get_mut(&arn) else { continue };
            let Ok(next) = entry.sendable(now) else { continue };
            plan.ops.push(Op::Send { report: Box::new(next.report.clone()), probe });
            entry.sending = true;
            sending += 1;
            if probe {
                self.gate.probe();
            }
        }
    }

    /// Ops under way.
    pub(super) fn is_busy(&self) -> bool {
        self.journal.busy || self.entries.values().any(|e| e.sending)
    }

    /// What everyone else may know, but for its version.
    pub(super) fn snapshot(&self) -> ReportsSnapshot {
        let ended = self.entries.iter().filter(|(_, e)| e.end_is_on_record());
        ReportsSnapshot {
            version: 0,
            ended: ended.map(|(arn, _)| arn.clone()).collect(),
            waiting: self.entries.iter().filter_map(|(arn, e)| e.waiting(arn)).collect(),
        }
    }

    /// All that the journal does not have for certain: the last commit before the agent goes down.
    pub(super) fn rest(&self) -> Vec<(TaskArn, u64, TaskReports)> {
        let behind = self.entries.iter().filter(|(_, e)| !e.is_durable(e.changes()));
        behind.map(|(arn, e)| (arn.clone(), e.changes(), e.reports.clone())).collect()
    }
}
