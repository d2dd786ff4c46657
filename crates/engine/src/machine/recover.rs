//! From records to tasks: what a former life of the agent has left in the journal and with the containers. Pure; the rest of the
//! recovery is the ordinary look at all containers (`machine::listing`) and the ordinary planner.

use super::{Goal, Life, Rest, Slot, Task};
use crate::{
    backoff::Now,
    config::Rules,
    records::{Left, RecordError, TaskRecord},
    stage::{End, Remains, Stage},
};
use berth_types::{
    Chain,
    ports::{ObservedContainer, Record, RuntimeState},
};

/// Tasks of the journal's records. Unreadable ones are logged and left where they are: their containers, if any, bring a copy.
pub(crate) fn from_journal(records: Vec<(String, Record)>, now: Now, rules: &Rules) -> Vec<Task> {
    let mut tasks = Vec::with_capacity(records.len());
    for (key, record) in records {
        match TaskRecord::read(&key, &record) {
            Ok(record) => {
                let mut task = task(record, now, rules);
                let changes = task.ledger.changes;
                (task.ledger.saved, task.ledger.durable, task.ledger.required) = (changes, changes, changes);
                task.unseen = true;
                task.settle(now);
                tasks.push(task);
            }
            Err(error) => {
                tracing::error!(task = key, error = %Chain(&error), "task record cannot be read; it is left alone");
            }
        }
    }
    tasks
}

/// The task of containers that the journal does not know: the newest record among them, each container's own part from its own.
///
/// A container that is in no list was either not made yet or removed already. Removing begins when all have ended, those that
/// never ran first; so as long as one of those that are left has run and none runs, the task is over and nothing is made anew.
pub(crate) fn from_containers(
    found: &[&ObservedContainer],
    now: Now,
    rules: &Rules,
) -> Result<Task, RecordError> {
    let mut newest: Option<TaskRecord> = None;
    let mut problem = None;
    for container in found {
        match record_of(container) {
            Ok(record) if newest.as_ref().is_none_or(|n| n.changes < record.changes) => newest = Some(record),
            Ok(_) => {}
            Err(error) => problem = Some(error),
        }
    }
    let Some(mut record) = newest else {
        return Err(problem.unwrap_or(RecordError::Containers { found: 0, expected: 1 }));
    };
    let ran = found.iter().any(|c| matches!(c.state, RuntimeState::Exited { .. }));
    let runs = found.iter().any(|c| matches!(c.state, RuntimeState::Running { .. } | RuntimeState::Unknown));
    for (stage, spec) in record.stages.iter_mut().zip(&record.spec.containers) {
        match found.iter().find(|c| c.name == spec.name) {
            Some(container) => {
                if let Ok(own) = own_stage(container) {
                    *stage = own;
                }
            }
            None if ran && !runs => stage.end(End::Vanished { at: now.wall }, Remains::Gone),
            None => {}
        }
    }
    let mut task = task(record, now, rules);
    task.require();
    Ok(task)
}

/// The record that came with a container.
pub(crate) fn record_of(container: &ObservedContainer) -> Result<TaskRecord, RecordError> {
    TaskRecord::from_bytes(container.task.as_str(), &container.record)
}

/// What a container's record says about the container itself.
pub(crate) fn own_stage(container: &ObservedContainer) -> Result<Stage, RecordError> {
    let record = record_of(container)?;
    let index = record.spec.containers.iter().position(|c| c.name == container.name);
    index
        .and_then(|i| record.stages.get(i).cloned())
        .ok_or(RecordError::Stranger { found: record.spec.arn.to_string() })
}

fn task(record: TaskRecord, now: Now, rules: &Rules) -> Task {
    let mut task = Task::new(record.spec);
    for (container, stage) in task.containers.iter_mut().zip(record.stages) {
        container.stage = stage;
        container.note_deadlines(now, rules);
    }
    task.goal = record.stop.map_or(Goal::Run, Goal::Stop);
    task.times = record.times;
    task.ledger.changes = record.changes;
    if let Some(stopped) = record.stopped {
        let rest = match stopped.left {
            Left::Containers => Rest::Containers,
            Left::Shared => Rest::Shared,
            Left::Slot => Rest::Slot,
            Left::Files => Rest::Files { due: now.due(stopped.at, rules.cleanup_wait) },
        };
        task.life = Life::Stopped { at: stopped.at, rest };
        task.slot = Slot::GivenBack;
    } else {
        task.slot = Slot::Wanted { held: record.slot };
    }
    task
}

#[cfg(test)]
mod tests;
