//! Tasks of the control plane are kept until their end is on record with the reporter: a task that is forgotten earlier would never be
//! seen to have stopped. Containers, slot and files do not wait for that.

use super::{Life, Rest, Task, World};
use crate::backoff::{Now, Tick};
use berth_types::{ids::TaskArn, task::Origin};
use std::{collections::BTreeSet, time::Duration};

/// How long a task is kept for a reporter that does not come: as long as the official agent waits for its acknowledgement. A task is a
/// few kilobytes, and what holds the reporter up for so long holds up new tasks as well.
const PATIENCE: Duration = Duration::from_secs(72 * 60 * 60);

impl World {
    /// The reporter holds the ends of these tasks.
    pub(crate) fn note_reports(&mut self, ended: &BTreeSet<TaskArn>, now: Now) {
        let mut over = Vec::new();
        for (arn, task) in &mut self.tasks {
            if matches!(task.life, Life::Live) || task.spec.origin == Origin::Operator {
                continue;
            }
            task.end_on_record = task.end_on_record || ended.contains(arn);
            if task.is_kept_for_report().is_some_and(|until| task.end_on_record || until <= now.tick) {
                over.push(arn.clone());
            }
        }
        for arn in over {
            if self.tasks.get(&arn).is_some_and(|t| !t.end_on_record) {
                tracing::error!(task = %arn, "end of task was not put on record for the control plane in time; the task is forgotten all the same");
            }
            self.forget(&arn);
        }
    }
}

impl Task {
    /// Its files are gone. Answers whether the task is to be forgotten.
    pub(super) fn cleaned_up(&mut self, now: Now) -> bool {
        let Life::Stopped { at, rest } = &mut self.life else { return false };
        if self.end_on_record || self.spec.origin == Origin::Operator {
            return true;
        }
        *rest = Rest::Report { until: now.due(*at, PATIENCE) };
        false
    }

    /// Nothing is left of it, and it is only kept for the reporter, at the longest until then.
    pub(crate) fn is_kept_for_report(&self) -> Option<Tick> {
        match self.life {
            Life::Stopped { rest: Rest::Report { until }, .. } => Some(until),
            Life::Stopped { .. } | Life::Live => None,
        }
    }

    /// Done with runtime and slot.
    pub(crate) fn has_given_all_back(&self) -> bool {
        match self.life {
            Life::Stopped { rest: Rest::Files { .. } | Rest::Report { .. }, .. } => true,
            Life::Stopped { rest: Rest::Containers | Rest::Shared | Rest::Slot, .. } | Life::Live => false,
        }
    }
}
