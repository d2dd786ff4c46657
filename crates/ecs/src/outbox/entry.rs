//! One task in the outbox: what has been told of it, what waits, and how far its record in the journal is behind. Pure.

use super::{
    Now, Tick,
    gate::Trouble,
    news::{self, Phase, Told},
    queue::{Kind, Queue, Queued},
    record::TaskReports,
};
use crate::pacing::Jitter;
use berth_types::{
    cluster::WaitingReports,
    ids::TaskArn,
    task::{TaskSnapshot, TaskStatus},
};
use std::{sync::Arc, time::Duration};

/// How long a pending task waits before the control plane hears for what: a launch that goes well is over by then.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Between two reports of what a task waits for.
pub(super) const NEWS_PAUSE: Duration = Duration::from_secs(30);
/// How long a record outlives its task in the engine. The engine deletes its own record a moment later, and if it were the only one to
/// survive a crash, the task would be taken for a new one and reported from the beginning.
pub(super) const AFTERLIFE: Duration = Duration::from_secs(60);

/// Whether the engine has the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// It has; or this is not known yet.
    Here,
    /// Not any more, since then.
    Gone(Tick),
}

/// A send that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Retry {
    pub(super) failures: u32,
    pub(super) not_before: Tick,
    /// For people.
    pub(super) problem: String,
}

/// One task.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) reports: TaskReports,
    pub(super) presence: Presence,
    /// What the engine showed last.
    latest: Option<Arc<TaskSnapshot>>,
    /// That has not been compared with what has been told.
    fresh: bool,
    /// Since when it waits for something.
    waits_since: Option<Tick>,
    /// When the control plane was told last what it waits for.
    wait_told: Option<Tick>,
    /// Changes of the record so far.
    changes: u64,
    /// Of these, handed to the journal.
    saved: u64,
    /// Of these, safe from the death of the agent.
    durable: u64,
    /// Must be durable: reports, and with the last of them the end.
    required: u64,
    /// Must be durable before the next report goes: that the one before was acknowledged. Else a crash would repeat both, and the control
    /// plane would hear an old one after a newer one.
    acknowledged: u64,
    /// The next report is under way.
    pub(super) sending: bool,
    pub(super) retry: Option<Retry>,
}

impl Entry {
    /// A task of which nothing has been told.
    pub(super) fn new(cluster: String) -> Self {
        let reports = TaskReports { cluster, told: Told::default(), queue: Queue::default() };
        Self::recorded(reports)
    }

    /// A task that the engine will never have.
    pub(super) fn refused(cluster: String, now: Tick) -> Self {
        let mut entry = Self::new(cluster);
        entry.presence = Presence::Gone(now);
        entry
    }

    /// A task as a former life recorded it.
    pub(super) fn recorded(reports: TaskReports) -> Self {
        Self {
            reports,
            presence: Presence::Here,
            latest: None,
            fresh: false,
            waits_since: None,
            wait_told: None,
            changes: 0,
            saved: 0,
            durable: 0,
            required: 0,
            acknowledged: 0,
            sending: false,
            retry: None,
        }
    }

    /// The engine shows it.
    pub(super) fn seen(&mut self, task: &Arc<TaskSnapshot>) {
        self.presence = Presence::Here;
        if self.latest.as_ref().is_none_or(|latest| !Arc::ptr_eq(latest, task)) {
            self.latest = Some(Arc::clone(task));
            self.fresh = true;
        }
    }

    /// The engine does not have it any more. What was begun and has no end gets one.
    pub(super) fn gone(&mut self, arn: &TaskArn, now: Now) {
        if self.presence != Presence::Here {
            return;
        }
        self.presence = Presence::Gone(now.tick);
        self.latest = None;
        if self.reports.told.anything() && self.reports.told.phase < Phase::Stopped {
            tracing::error!(task = %arn, "task is gone without an end; it is reported as stopped");
            let reason = "the agent has lost this task: it is neither recorded nor running";
            self.end(arn, reason, Vec::new(), now);
        }
    }

    pub(super) fn is_ended(&self) -> bool {
        self.reports.told.phase == Phase::Stopped
    }

    /// The end of a task that the engine does not have. Answers the change that must be durable.
    pub(super) fn end(&mut self, arn: &TaskArn, reason: &str, containers: Vec<String>, now: Now) -> u64 {
        if self.reports.told.phase < Phase::Stopped {
            self.reports.told.phase = Phase::Stopped;
            let cluster = self.reports.cluster.clone();
            self.push(vec![news::never_ran(arn, &cluster, reason, containers, now.wall)]);
        }
        self.required
    }

    /// Compares what has been told with what is. Answers when to do so again if nothing happens.
    pub(super) fn settle(&mut self, now: Now) -> Option<Tick> {
        if !std::mem::take(&mut self.fresh) && self.waits_since.is_none() {
            return None;
        }
        let task = self.latest.clone()?;
        let waits = task.waiting.is_some() && task.known < TaskStatus::Running;
        self.waits_since = waits.then(|| self.waits_since.unwrap_or(now.tick));
        let due = self.news_due(&task);
        let may_wait = due.is_some_and(|due| due <= now.tick);
        let before = self.reports.told.waits;
        let news = news::derive(&mut self.reports.told, &task, may_wait, now.wall);
        if self.reports.told.waits > before {
            self.wait_told = Some(now.tick);
        }
        if !news.is_empty() {
            self.push(news);
        }
        self.news_due(&task).filter(|due| *due > now.tick)
    }

    /// When the control plane is to hear what the task waits for.
    fn news_due(&self, task: &TaskSnapshot) -> Option<Tick> {
        self.reports.told.new_wait(task)?;
        let patience = self.waits_since? + PATIENCE;
        Some(self.wait_told.map_or(patience, |told| patience.max(told + NEWS_PAUSE)))
    }

    fn push(&mut self, news: Vec<Queued>) {
        self.changes += 1;
        self.required = self.changes;
        for new in news {
            self.reports.queue.push(Queued { change: self.changes, ..new }, usize::from(self.sending));
        }
    }

    /// The report that may be sent now, or the time from which it may be.
    pub(super) fn sendable(&self, now: Tick) -> Result<&Queued, Option<Tick>> {
        let next = self.reports.queue.next().filter(|q| q.change <= self.durable).ok_or(None)?;
        if self.acknowledged > self.durable {
            return Err(None);
        }
        match &self.retry {
            _ if self.sending => Err(None),
            Some(retry) if retry.not_before > now => Err(Some(retry.not_before)),
            Some(_) | None => Ok(next),
        }
    }

    /// The report that is under way is acknowledged, or given up.
    pub(super) fn done(&mut self) {
        self.sending = false;
        self.retry = None;
        self.reports.queue.pop();
        self.changes += 1;
        if !self.reports.queue.is_empty() {
            self.acknowledged = self.changes;
        }
    }

    /// The report that is under way did not get through.
    pub(super) fn failed(&mut self, trouble: Trouble, problem: String, now: Tick, jitter: &mut Jitter) {
        self.sending = false;
        let failures = self.retry.as_ref().map_or(0, |r| r.failures).saturating_add(1);
        let not_before = now + jitter.around(trouble.wait(failures));
        self.retry = Some(Retry { failures, not_before, problem });
    }

    /// What was in the way is over: the next report need not wait.
    pub(super) fn release(&mut self, now: Tick) {
        if let Some(retry) = &mut self.retry {
            retry.not_before = retry.not_before.min(now);
        }
    }

    pub(super) fn failures(&self) -> u32 {
        self.retry.as_ref().map_or(0, |r| r.failures)
    }

    // ------------------------------------------------------------------------------------------------------------ the record

    /// Not all of it has been handed to the journal.
    pub(super) fn is_behind(&self) -> bool {
        self.changes > self.saved || self.needs_intent()
    }

    /// Reports wait for the record to be durable.
    pub(super) fn needs_intent(&self) -> bool {
        self.durable < self.required.max(self.acknowledged)
    }

    /// The change that a record made now carries.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    pub(super) fn is_durable(&self, change: u64) -> bool {
        self.durable >= change
    }

    /// The journal has the changes up to this one.
    pub(super) fn recorded_up_to(&mut self, change: u64, durable: bool) {
        self.saved = self.saved.max(change);
        if durable {
            self.durable = self.durable.max(change);
        }
    }

    /// The control plane will hear of the end, whatever becomes of engine and agent.
    pub(super) fn end_is_on_record(&self) -> bool {
        self.is_ended() && self.durable >= self.required
    }

    /// Nobody needs the record any more, or will not from then on.
    pub(super) fn over_at(&self) -> Option<Tick> {
        match self.presence {
            Presence::Gone(since) if self.reports.queue.is_empty() && !self.sending => {
                Some(since + AFTERLIFE)
            }
            Presence::Gone(_) | Presence::Here => None,
        }
    }

    /// For operators.
    pub(super) fn waiting(&self, arn: &TaskArn) -> Option<WaitingReports> {
        Some(WaitingReports {
            task: arn.clone(),
            reports: self.reports.queue.len(),
            since: self.reports.queue.since()?,
            attempts: self.failures(),
            problem: self.retry.as_ref().map(|r| r.problem.clone()),
        })
    }

    /// Whether the next report is the task's end: for the log.
    pub(super) fn next_kind(&self) -> Option<Kind> {
        self.reports.queue.next().map(|q| q.kind)
    }
}
