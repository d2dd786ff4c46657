//! What of a task is recorded.

use super::{Goal, Life, Rest, Slot, Task};
use crate::records::{Left, Stopped, TaskRecord};
use berth_types::Timestamp;
use std::sync::Arc;

impl TaskRecord {
    pub(crate) fn of(task: &Task) -> Self {
        let wish = task.wish.as_ref().map(|(_, wish)| wish.clone());
        let stop = match &task.goal {
            Goal::Run => wish,
            Goal::Stop(wish) => Some(wish.clone()),
        };
        let slot = match &task.slot {
            Slot::Wanted { held } => held.clone(),
            Slot::Held(lease) => Some(lease.slot.clone()),
            Slot::Lost(slot) => Some(slot.clone()),
            Slot::GivenBack => None,
        };
        let stopped = match &task.life {
            Life::Live => None,
            Life::Stopped { at, rest } => Some(Stopped { at: *at, left: Left::of(*rest) }),
        };
        Self {
            spec: Arc::clone(&task.spec),
            changes: task.ledger.changes,
            stop,
            slot,
            stages: task.containers.iter().map(|c| c.stage.clone()).collect(),
            times: task.times.clone(),
            stopped,
        }
    }

    /// The record that goes with a container that is about to be made: the container is in it as made.
    pub(crate) fn with_container(task: &Task, index: usize, now: Timestamp) -> Self {
        let mut record = Self::of(task);
        if let Some(stage) = record.stages.get_mut(index) {
            stage.created(now);
        }
        record
    }
}

impl Left {
    fn of(rest: Rest) -> Self {
        match rest {
            Rest::Containers => Self::Containers,
            Rest::Shared => Self::Shared,
            Rest::Slot => Self::Slot,
            // Files are removed again, which is nothing, and the reporter is asked again.
            Rest::Files { .. } | Rest::Report { .. } => Self::Files,
        }
    }
}
