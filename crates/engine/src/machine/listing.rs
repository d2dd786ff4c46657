//! How a look at all containers is taken over: the same way at the start and after every lost connection.

use super::{Look, Recovery, Stray, Task, World, recover};
use crate::{
    backoff::{Now, Retry},
    config::Rules,
    op::{Act, OpError},
    stage::{End, Remains, Stage},
};
use berth_types::{
    Chain,
    ids::TaskArn,
    ports::{ObservedContainer, RuntimeState},
};
use std::collections::{BTreeMap, HashMap};

impl World {
    /// The runtime said what it holds; `seq` is the event count when it was asked.
    pub(super) fn looked(&mut self, seq: u64, result: Result<Vec<ObservedContainer>, OpError>, now: Now) {
        let stale = self.runtime.look == Look::Running { stale: true };
        let found = match result {
            Ok(found) => found,
            Err(error) => {
                self.runtime.ok = false;
                self.runtime.look = Look::Needed;
                let problem = Chain(&error).to_string();
                self.runtime.retry = Some(Retry::after(self.runtime.retry.as_ref(), problem, now));
                return;
            }
        };
        let unsure = found.iter().any(|c| c.state == RuntimeState::Unknown);
        let again = if unsure { super::UNSURE } else { super::AUDIT };
        self.runtime.look = if stale { Look::Needed } else { Look::At(now.tick + again) };
        if !stale {
            self.runtime.ok = true;
            self.runtime.retry = None;
        }
        if self.recovery == Recovery::Looking {
            self.adopt(&found, now);
            self.recovery = Recovery::Leases;
        }
        let by_id: HashMap<_, _> = found.iter().map(|c| (&c.id, c)).collect();
        let rules = self.rules;
        let arns: Vec<TaskArn> = self.tasks.keys().cloned().collect();
        for arn in arns {
            let Some(task) = self.tasks.get_mut(&arn) else { continue };
            let before = (task.ledger.changes, task.retries.len());
            task.unseen = false;
            for index in 0..task.containers.len() {
                task.observed(index, by_id.get(&task.containers[index].id).copied(), seq, now, &rules);
            }
            if !stale {
                // What was unknown about a call that got no answer is known now.
                task.retries.retain(|act, _| {
                    !matches!(act, Act::Image(_) | Act::Create(_) | Act::Start(_) | Act::Signal(_))
                });
            }
            task.settle(now);
            if (task.ledger.changes, task.retries.len()) != before {
                self.changed.insert(arn);
            }
        }
    }

    /// At the start: containers of tasks that the journal does not know bring their tasks with them; what brings nothing readable
    /// is removed unless it runs.
    fn adopt(&mut self, found: &[ObservedContainer], now: Now) {
        let mut unknown: BTreeMap<&TaskArn, Vec<&ObservedContainer>> = BTreeMap::new();
        for container in found.iter().filter(|c| !self.by_id.contains_key(&c.id)) {
            unknown.entry(&container.task).or_default().push(container);
        }
        for (arn, containers) in unknown {
            if !self.tasks.contains_key(arn) {
                match recover::from_containers(&containers, now, &self.rules) {
                    Ok(task) => {
                        tracing::info!(task = %arn, containers = containers.len(), "task adopted from its containers");
                        self.insert(task);
                    }
                    Err(error) => {
                        tracing::error!(task = %arn, error = %Chain(&error), "containers of an unknown task have no readable record");
                    }
                }
            }
            for container in containers.iter().filter(|c| !self.by_id.contains_key(&c.id)) {
                let running = matches!(container.state, RuntimeState::Running { .. } | RuntimeState::Unknown);
                tracing::error!(task = %arn, container = %container.id, name = %container.name, running, "container belongs to no task; it is removed unless it runs");
                if !running {
                    self.strays.insert(container.id.clone(), Stray::default());
                }
            }
        }
    }
}

impl Task {
    /// Takes over what the runtime says of one container, `None` being that it has no such container.
    fn observed(
        &mut self,
        index: usize,
        found: Option<&ObservedContainer>,
        seq: u64,
        now: Now,
        rules: &Rules,
    ) {
        let acting =
            [Act::Create(index), Act::Start(index), Act::Remove(index)].iter().any(|act| self.is_busy(*act));
        let Some(container) = self.containers.get_mut(index) else { return };
        // A list that was begun before the last change says nothing about what it lacks.
        let trusted = !acting && container.touched <= seq;
        let before = container.stage.clone();
        let gone = End::Vanished { at: now.wall };
        match (found.map(|f| &f.state), &before) {
            (None, Stage::Created { .. } | Stage::Running { .. }) if trusted => {
                container.stage.end(gone, Remains::Maybe)
            }
            // Only a reboot takes the process from a container that the runtime still has.
            (Some(RuntimeState::Created), Stage::Running { .. }) if trusted => {
                container.stage.end(gone, Remains::Maybe)
            }
            // Whether it still runs is not known: it is, as far as we know, what it was.
            (Some(RuntimeState::Unknown), Stage::Created { .. } | Stage::Running { .. }) => {}
            (
                Some(state),
                Stage::New | Stage::Pulled { .. } | Stage::Created { .. } | Stage::Running { .. },
            ) => {
                container.adopt_past(found, now);
                match state {
                    RuntimeState::Created | RuntimeState::Unknown => {}
                    RuntimeState::Running { pid } => {
                        if container.stage.status() < berth_types::task::ContainerStatus::Running {
                            container.stage.started(*pid, now.wall);
                            container.note_deadlines(now, rules);
                        }
                    }
                    RuntimeState::Exited { code, at, oom } => container.stage.exited(*code, *at, *oom),
                }
            }
            (None, Stage::New | Stage::Pulled { .. } | Stage::Created { .. } | Stage::Running { .. })
            | (None | Some(_), Stage::Ended { .. }) => {}
        }
        if container.stage != before {
            self.touch();
        }
    }
}

impl super::Container {
    /// A container that the journal knows less of than the runtime brings its image and its time of creation along.
    fn adopt_past(&mut self, found: Option<&ObservedContainer>, now: Now) {
        match &self.stage {
            Stage::New | Stage::Pulled { .. } => {
                let own = found.and_then(|f| recover::own_stage(f).ok());
                let past = own.map(|stage| stage.past()).unwrap_or_default();
                if let Some(image) = past.image {
                    self.stage.pulled(image);
                }
                self.stage.created(past.created_at.unwrap_or(now.wall));
            }
            Stage::Created { .. } | Stage::Running { .. } | Stage::Ended { .. } => {}
        }
    }
}
