//! What the end of a commit means: which changes are safe now, which stops count, and what must be taken back.

use super::{Notice, Slot, Task, World};
use crate::{
    backoff::{Now, Retry},
    op::OpError,
};
use berth_types::{Chain, ids::TaskArn, ports::Durability};
use std::collections::BTreeSet;

impl World {
    /// A commit has ended; answers what that means for those who wait for it.
    pub(super) fn committed(
        &mut self,
        durability: Durability,
        marks: &[(TaskArn, u64)],
        forgotten: BTreeSet<TaskArn>,
        result: Result<(), OpError>,
        now: Now,
    ) -> Vec<Notice> {
        self.journal.busy = false;
        let mut notices = Vec::new();
        match result {
            Ok(()) => {
                let repaired = self.journal.retry.take().is_some();
                self.journal.forgotten.retain(|arn| !forgotten.contains(arn) || self.tasks.contains_key(arn));
                for (arn, change) in marks {
                    self.recorded(arn, *change, durability, now);
                    if repaired {
                        self.changed.insert(arn.clone());
                    }
                    if durability == Durability::Intent {
                        notices.push(Notice::Recorded(arn.clone(), *change));
                    }
                }
            }
            Err(error) => {
                let problem = Chain(&error).to_string();
                self.journal.retry = Some(Retry::after(self.journal.retry.as_ref(), problem.clone(), now));
                for (arn, change) in marks {
                    self.not_recorded(arn, *change);
                    self.changed.insert(arn.clone());
                    notices.push(Notice::NotRecorded(arn.clone(), *change, problem.clone()));
                }
            }
        }
        notices
    }

    fn recorded(&mut self, arn: &TaskArn, change: u64, durability: Durability, now: Now) {
        let Some(task) = self.tasks.get_mut(arn) else { return };
        task.ledger.saved = task.ledger.saved.max(change);
        if durability == Durability::Fact {
            return;
        }
        task.ledger.durable = task.ledger.durable.max(change);
        if let Some((_, wish)) = task.wish.take_if(|(wished, _)| *wished <= change) {
            self.with(arn, now, |task| task.stop(wish.reason, wish.code));
        }
    }

    /// Takes back what was asked for and could not be recorded: nothing has been done about it yet.
    fn not_recorded(&mut self, arn: &TaskArn, change: u64) {
        let Some(task) = self.tasks.get_mut(arn) else { return };
        if task.wish.take_if(|(wished, _)| *wished <= change).is_some() {
            task.touch();
        }
        if !task.ledger.is_admitted() && task.is_fresh() {
            self.forget(arn);
        }
    }

    /// Drops a task and has its record deleted.
    pub(super) fn forget(&mut self, arn: &TaskArn) {
        if let Some(task) = self.tasks.remove(arn) {
            for container in &task.containers {
                self.by_id.remove(&container.id);
            }
            self.journal.forgotten.insert(arn.clone());
            self.changed.insert(arn.clone());
        }
    }
}

impl Task {
    /// Came by an assignment that has not been answered yet.
    fn is_fresh(&self) -> bool {
        matches!(self.slot, Slot::Wanted { held: None } | Slot::GivenBack)
            && self.containers.iter().all(|c| c.touched == 0)
    }
}
