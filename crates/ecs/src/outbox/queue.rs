//! The reports of one task that wait for the control plane, in order. Pure.
//!
//! What a later report says in full is not told before it: so a queue holds a handful of reports however long an outage lasts.

use crate::port::{News, Report, TaskNews};
use berth_types::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Reports of one task that may wait. Overtaking leaves at most six: ATTACHED, a PENDING, RUNNING, one batch of containers that is being
/// sent and one that is not, STOPPED. So this is a fuse, and it keeps a record far below what the journal takes.
pub(super) const MAX_QUEUE: usize = 8;

/// What a report is to the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    /// The task's ENI is there.
    Attached,
    /// Digests, and what the task waits for. Tells all that is known; anything later overtakes it.
    Pending,
    /// All containers have started.
    Running,
    /// Containers of a running task that have ended.
    Containers,
    /// The end.
    Stopped,
}

impl Kind {
    /// May be left out when there is something newer to say.
    fn is_intermediate(self) -> bool {
        match self {
            Self::Pending | Self::Containers => true,
            Self::Attached | Self::Running | Self::Stopped => false,
        }
    }

    /// Whether a report of this kind says all that one of the other kind said.
    fn overtakes(self, other: Self) -> bool {
        match (self, other) {
            (Self::Pending | Self::Running | Self::Stopped, Self::Pending)
            | (Self::Stopped, Self::Containers) => true,
            (Self::Attached | Self::Containers, _) | (Self::Pending | Self::Running | Self::Stopped, _) => {
                false
            }
        }
    }
}

/// A report that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Queued {
    pub(super) kind: Kind,
    pub(super) report: Report,
    /// The change of the task's record that brought it: it may be sent once that is durable. What is read from the journal is.
    #[serde(skip)]
    pub(super) change: u64,
}

/// The reports of one task, the next one first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Queue(VecDeque<Queued>);

impl Queue {
    pub(super) fn next(&self) -> Option<&Queued> {
        self.0.front()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Since when the oldest waits.
    pub(super) fn since(&self) -> Option<Timestamp> {
        self.next().map(|q| q.report.at)
    }

    /// The next one is acknowledged, or given up.
    pub(super) fn pop(&mut self) {
        self.0.pop_front();
    }

    /// Adds a report. `sent` is how many at the head are under way: those stay as they are.
    pub(super) fn push(&mut self, mut new: Queued, sent: usize) {
        let mut place = 0;
        self.0.retain(|old| {
            place += 1;
            place <= sent || !new.kind.overtakes(old.kind)
        });
        let unsent_batch = self.0.len() > sent && new.kind == Kind::Containers;
        if unsent_batch
            && let Some(old) = self.0.pop_back_if(|last| last.kind == Kind::Containers)
            && let News::Task(news) = &mut new.report.news
        {
            merge(old.report, news);
        }
        if self.0.len() >= MAX_QUEUE {
            let dispensable = (sent..self.0.len()).find(|i| self.0[*i].kind.is_intermediate());
            if let Some(dropped) = dispensable.and_then(|i| self.0.remove(i)) {
                tracing::warn!(task = %dropped.report.task, kind = ?dropped.kind, "report dropped, too many wait");
            }
        }
        self.0.push_back(new);
    }
}

/// Puts containers that were to be told of before in front of those that are to be told of now.
fn merge(before: Report, now: &mut TaskNews) {
    let News::Task(before) = before.news else { return };
    let mut containers = before.containers;
    containers.retain(|c| now.containers.iter().all(|n| n.name != c.name));
    containers.append(&mut now.containers);
    now.containers = containers;
}

impl Queue {
    /// A task other than this one of which something is reported here.
    pub(super) fn stranger(&self, task: &berth_types::ids::TaskArn) -> Option<&berth_types::ids::TaskArn> {
        self.0.iter().map(|q| &q.report.task).find(|t| *t != task)
    }
}
