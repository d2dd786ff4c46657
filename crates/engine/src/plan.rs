//! What is to be done now: a function of the world and the time, and of nothing else. Every op it names is repeatable, and none
//! is named twice while it is under way.
//!
//! Which record must be durable before which act:
//!
//! | act | waits for |
//! |---|---|
//! | lease, image, volumes | the task's admission |
//! | create | the record that names the slot |
//! | start, signal | nothing: the runtime remembers them |
//! | remove, release | the record of the task's end: exit codes are nowhere else from then on |

use crate::{
    backoff::{Now, Retry, Tick},
    config::EngineConfig,
    machine::{
        Container, Life, Look, Recovery, Rest, Slot, Task, World,
        depends::{self, Gate},
    },
    names,
    op::{Act, Op, Work},
    records::TaskRecord,
    stage::{End, Remains, Stage},
    volumes,
};
use berth_types::ports::{Durability, Signal};

/// Calls to the runtime at a time that make or remove something. Each forks processes and works on file systems; more of them at
/// once only make each slower, and a burst of a hundred tasks must not delay a stop. Signals are not counted: they are cheap
/// and must not wait. Nor are images,
/// which have a bound of their own.
pub(crate) const MAX_RUNTIME_CALLS: usize = 32;

/// Images that are brought at a time. Most of these calls wait for one of the few pulls that the runtime's side makes at a time, and
/// nothing else may have to wait for them; so this is more than the containers of an instance that is full of tasks (120 ENIs).
pub(crate) const MAX_IMAGE_CALLS: usize = 512;

/// What is to be done, and when to look again if nothing happens until then.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) ops: Vec<Op>,
    pub(crate) wake: Option<Tick>,
}

/// Says what is to be done now.
pub(crate) fn plan(world: &World, config: &EngineConfig, now: Now) -> Plan {
    let busy = |counts: fn(Act) -> bool| {
        world.tasks.values().flat_map(|t| &t.busy).filter(|act| counts(**act)).count()
    };
    let mut planner = Planner {
        world,
        config,
        now,
        calls: MAX_RUNTIME_CALLS.saturating_sub(busy(is_counted)),
        images: MAX_IMAGE_CALLS.saturating_sub(busy(is_image)),
        plan: Plan::default(),
    };
    planner.commit();
    planner.look();
    for task in world.tasks.values() {
        planner.task(task);
    }
    planner.announce();
    planner.strays();
    planner.plan
}

fn needs_runtime(act: Act) -> bool {
    match act {
        Act::Image(_)
        | Act::Create(_)
        | Act::Start(_)
        | Act::Signal(_)
        | Act::Remove(_)
        | Act::RemoveShared => true,
        Act::Lease | Act::Volumes | Act::Release | Act::CleanUp => false,
    }
}

/// Counts against [`MAX_RUNTIME_CALLS`].
fn is_counted(act: Act) -> bool {
    match act {
        Act::Create(_) | Act::Start(_) | Act::Remove(_) | Act::RemoveShared => true,
        Act::Image(_) | Act::Lease | Act::Volumes | Act::Signal(_) | Act::Release | Act::CleanUp => false,
    }
}

fn is_image(act: Act) -> bool {
    matches!(act, Act::Image(_))
}

struct Planner<'a> {
    world: &'a World,
    config: &'a EngineConfig,
    now: Now,
    /// Calls to the runtime that may still begin.
    calls: usize,
    /// Images that may still be asked for.
    images: usize,
    plan: Plan,
}

impl Planner<'_> {
    fn wake_at(&mut self, tick: Tick) {
        self.plan.wake = Some(self.plan.wake.map_or(tick, |t| t.min(tick)));
    }

    /// Whether an act that failed may be tried again.
    fn is_due(&mut self, retry: Option<&Retry>) -> bool {
        match retry {
            Some(retry) if retry.not_before > self.now.tick => {
                self.wake_at(retry.not_before);
                false
            }
            Some(_) | None => true,
        }
    }

    /// One commit at a time, of all that has changed: a burst of tasks shares its flushes, and records reach the disk in order.
    fn commit(&mut self) {
        let journal = &self.world.journal;
        if journal.busy || !self.is_due(journal.retry.as_ref()) {
            return;
        }
        let needs_intent = |t: &Task| t.wish.is_some() || !t.ledger.is_settled();
        let behind = |t: &&Task| t.ledger.changes > t.ledger.saved || needs_intent(t);
        let tasks: Vec<&Task> = self.world.tasks.values().filter(behind).collect();
        let forgotten: std::collections::BTreeSet<_> =
            journal.forgotten.iter().filter(|arn| !self.world.tasks.contains_key(*arn)).cloned().collect();
        if tasks.is_empty() && forgotten.is_empty() {
            return;
        }
        let durability = match tasks.iter().any(|t| needs_intent(t)) {
            true => Durability::Intent,
            false => Durability::Fact,
        };
        let records = tasks.into_iter().map(TaskRecord::of).collect();
        self.plan.ops.push(Op::Commit { records, forgotten, durability });
    }

    fn look(&mut self) {
        match self.world.runtime.look {
            Look::Running { .. } => return,
            Look::At(tick) if tick > self.now.tick => return self.wake_at(tick),
            Look::At(_) | Look::Needed => {}
        }
        if self.is_due(self.world.runtime.retry.as_ref()) {
            self.plan.ops.push(Op::Look { seq: self.world.seq });
        }
    }

    fn announce(&mut self) {
        let asks = |t: &Task| matches!(t.slot, Slot::Wanted { held: Some(_) });
        if self.world.recovery == Recovery::Leases
            && !self.world.tasks.values().any(asks)
            && self.is_due(self.world.announce_retry.as_ref())
        {
            self.plan.ops.push(Op::Announce);
        }
    }

    fn strays(&mut self) {
        for (id, stray) in &self.world.strays {
            if self.world.runtime.ok && !stray.busy && self.is_due(stray.retry.as_ref()) {
                self.plan.ops.push(Op::RemoveStray { id: id.clone() });
            }
        }
    }

    /// Adds an op unless it is under way, failed a moment ago, or the runtime cannot take it.
    fn push(&mut self, task: &Task, act: Act, work: impl FnOnce() -> Work) {
        if task.is_busy(act) || (needs_runtime(act) && !self.world.runtime.ok) {
            return;
        }
        let (counted, image) = (is_counted(act), is_image(act));
        if (counted && self.calls == 0) || (image && self.images == 0) || !self.is_due(task.retries.get(&act))
        {
            return;
        }
        self.calls -= usize::from(counted);
        self.images -= usize::from(image);
        self.plan.ops.push(Op::OfTask { task: task.spec.arn.clone(), act, work: work() });
    }

    fn task(&mut self, task: &Task) {
        match task.life {
            Life::Live => {
                self.lease(task);
                if task.is_stopping() {
                    self.stop(task);
                } else {
                    self.launch(task);
                }
                self.remove_failed(task);
            }
            Life::Stopped { rest, .. } => self.finish(task, rest),
        }
    }

    /// Slots of former leases are asked for before anything else, stopping tasks' included: their containers still live there.
    /// New leases wait until that is over, so that none of the old slots can be given to someone else.
    fn lease(&mut self, task: &Task) {
        let Slot::Wanted { held } = &task.slot else { return };
        let may = match held {
            Some(_) => true,
            None => !task.is_stopping() && task.ledger.is_admitted() && self.world.recovery == Recovery::Done,
        };
        if may {
            let work = || Work::Lease { needs: names::lease_needs(&task.spec), held: held.clone() };
            self.push(task, Act::Lease, work);
        }
    }

    fn launch(&mut self, task: &Task) {
        if !task.ledger.is_admitted() {
            return;
        }
        let mut ready = true;
        for (index, container) in task.containers.iter().enumerate() {
            if container.stage == Stage::New {
                ready = false;
                self.push(task, Act::Image(index), || Work::Image {
                    reference: container.spec.image.clone(),
                });
            }
        }
        let needs_volumes = !task.volumes_ready
            && volumes::are_used(&task.spec)
            && task.containers.iter().any(|c| matches!(c.stage, Stage::New | Stage::Pulled { .. }));
        if needs_volumes {
            ready = false;
            // A definition that cannot have its volumes fails in the op, where every other failure does.
            let config = self.config;
            self.push(task, Act::Volumes, || Work::Volumes { wanted: volumes::wanted(config, &task.spec) });
        }
        // After a restart, too, nothing is made or started in a slot that the ENI manager has not confirmed.
        let Slot::Held(lease) = &task.slot else { return };
        if ready && task.ledger.is_settled() {
            self.create(task, lease);
        }
        self.start(task);
    }

    fn create(&mut self, task: &Task, lease: &berth_types::lease::Lease) {
        let (config, now) = (self.config, self.now.wall);
        for (index, container) in task.containers.iter().enumerate() {
            if let Stage::Pulled { .. } = container.stage {
                self.push(task, Act::Create(index), || Work::Create {
                    container: Box::new(names::create_request(config, &task.spec, container, lease)),
                    record: Box::new(TaskRecord::with_container(task, index, now)),
                });
            }
        }
    }

    fn start(&mut self, task: &Task) {
        for (index, container) in task.containers.iter().enumerate() {
            let Stage::Created { .. } = container.stage else { continue };
            match depends::gate(container, &task.containers, self.now.tick) {
                Gate::Open => self.push(task, Act::Start(index), || Work::Start { id: container.id.clone() }),
                // Settled when its time comes: the wake is what brings the next look.
                Gate::Waits { until: Some(tick), .. } => self.wake_at(tick),
                Gate::Waits { until: None, .. } | Gate::Never(_) => {}
            }
        }
    }

    /// Signals, dependants first.
    fn stop(&mut self, task: &Task) {
        for (index, container) in task.containers.iter().enumerate() {
            let Stage::Running { signalled_at, .. } = &container.stage else { continue };
            let signal = match signalled_at {
                None if depends::may_stop(container, &task.containers) => Signal::Stop,
                None => continue,
                Some(_) if container.kill_at <= self.now.tick => Signal::Kill,
                Some(_) => {
                    self.wake_at(container.kill_at);
                    continue;
                }
            };
            self.push(task, Act::Signal(index), || Work::Signal { id: container.id.clone(), signal });
        }
    }

    /// A call that failed may have left a container, or even a process, behind in a task that goes on.
    fn remove_failed(&mut self, task: &Task) {
        for (index, container) in task.containers.iter().enumerate() {
            if let Stage::Ended { end: End::Failed { code: None, .. }, remains: Remains::Maybe, .. } =
                container.stage
            {
                self.push(task, Act::Remove(index), || Work::Remove { id: container.id.clone() });
            }
        }
    }

    /// Tears down, in the order of [`Rest`].
    fn finish(&mut self, task: &Task, rest: Rest) {
        if !task.ledger.is_settled() {
            return;
        }
        match rest {
            Rest::Containers => self.remove(task),
            Rest::Shared => self.push(task, Act::RemoveShared, || Work::RemoveShared),
            Rest::Slot => self.push(task, Act::Release, || Work::Release),
            Rest::Files { due } if due > self.now.tick => self.wake_at(due),
            Rest::Files { .. } if task.busy.is_empty() => {
                let directories = vec![
                    volumes::directory(self.config, &task.spec),
                    names::log_directory(self.config, &task.spec),
                ];
                self.push(task, Act::CleanUp, || Work::CleanUp { directories });
            }
            Rest::Files { .. } => {}
            Rest::Report { until } => self.wake_at(until),
        }
    }

    /// Removes containers, those that never ran first: whoever finds the rest without a journal sees that the task is over
    /// (`machine::recover`).
    fn remove(&mut self, task: &Task) {
        let left = |ran: bool| {
            move |(index, container): (usize, &Container)| match &container.stage {
                Stage::Ended { past, remains: Remains::Maybe, .. } if past.started_at.is_some() == ran => {
                    Some((index, container.id.clone()))
                }
                Stage::New
                | Stage::Pulled { .. }
                | Stage::Created { .. }
                | Stage::Running { .. }
                | Stage::Ended { .. } => None,
            }
        };
        let mut next: Vec<_> = task.containers.iter().enumerate().filter_map(left(false)).collect();
        if next.is_empty() {
            next = task.containers.iter().enumerate().filter_map(left(true)).collect();
        }
        for (index, id) in next {
            self.push(task, Act::Remove(index), || Work::Remove { id });
        }
    }
}

#[cfg(test)]
mod tests;
