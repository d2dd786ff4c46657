//! The loop. It owns the world: takes events one at a time, asks the planner, publishes a snapshot, spawns the ops, and hears of
//! their results. Nothing else happens here, and nothing here waits for an op.
//!
//! ```text
//!   assignments (128) ─┐
//!   removals (16)      ├─► take ─► settle ─► plan ─► publish ─► spawn ─┐
//!   runtime hints (512)┤                                               │
//!   slots (watch)      ┤                                               │
//!   results (JoinSet) ◄┴───────────────────────────────────────────────┘
//! ```

use crate::{
    backoff::{Now, Retry},
    config::EngineConfig,
    door::{Deps, EngineHandle, REMOVAL_QUEUE, Removal},
    machine::{Notice, Recovery, World, recover},
    op::{Act, Op, OpError, Outcome},
    ops, plan,
    records::TaskRecord,
    snapshot,
};
use berth_types::{
    Chain,
    assignment::{ASSIGNMENT_QUEUE, Assignment, AssignmentError},
    ids::TaskArn,
    ports::{ContainerEvent, Durability, Table},
    task::{EngineSnapshot, TaskSnapshot},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Events taken before the planner is asked again. A burst of exits costs one plan and one snapshot, and no event waits for more
/// than this many others.
const BATCH: usize = 64;
/// How long ops that are under way may still take at shutdown. What is cut off then is found again at the next start.
const LAST_OPS: Duration = Duration::from_secs(5);

/// Someone who waits for a change to be durable.
struct Waiter {
    task: TaskArn,
    change: u64,
    reply: oneshot::Sender<Result<(), AssignmentError>>,
}

/// The task engine. [`Engine::run`] is all it does.
pub struct Engine {
    config: EngineConfig,
    deps: Deps,
    start: Instant,
    world: World,
    waiters: Vec<Waiter>,
    ops: JoinSet<Outcome>,
    /// Images that are being brought: each is cut off when its guard goes.
    pulls: BTreeMap<(TaskArn, Act), DropGuard>,
    assignments: mpsc::Receiver<Assignment>,
    removals: mpsc::Receiver<Removal>,
    published: watch::Sender<Arc<EngineSnapshot>>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Something that happened.
enum Event {
    Assigned(Assignment),
    Removal(Removal),
    Hint(ContainerEvent),
    Done(Outcome),
    Time,
}

impl Engine {
    /// An engine that has not begun.
    pub fn new(config: EngineConfig, deps: Deps) -> (Self, EngineHandle) {
        let (assignments, assigned) = mpsc::channel(ASSIGNMENT_QUEUE);
        let (removals, removed) = mpsc::channel(REMOVAL_QUEUE);
        let (published, snapshot) = watch::channel(Arc::new(EngineSnapshot::default()));
        let engine = Self {
            world: World::new(config.rules()),
            config,
            deps,
            start: Instant::now(),
            waiters: Vec::new(),
            ops: JoinSet::new(),
            pulls: BTreeMap::new(),
            assignments: assigned,
            removals: removed,
            published,
        };
        (engine, EngineHandle { assignments, snapshot, removals })
    }

    /// Runs until `shutdown`. Tasks keep running behind it.
    pub async fn run(mut self, shutdown: CancellationToken) {
        self.start = Instant::now();
        let mut hints = self.deps.containers.events();
        if !self.load(&shutdown).await {
            return;
        }
        while !shutdown.is_cancelled() {
            let wake = self.step();
            tokio::select! {
                // Cancel safe, all of them: receiving, joining and sleeping lose nothing when another arm wins.
                () = shutdown.cancelled() => {}
                event = self.next(&mut hints, wake) => self.take(event),
            }
            for _ in 0..BATCH {
                match self.waiting(&mut hints) {
                    Some(event) => self.take(event),
                    None => break,
                }
            }
        }
        self.finish().await;
    }

    fn now(&self) -> Now {
        Now { wall: (self.config.clock)(), tick: self.start.elapsed() }
    }

    /// Reads the journal, however long that takes: tasks that are recorded there and nowhere else must not be lost, and what
    /// runs goes on running meanwhile. Answers false at shutdown.
    async fn load(&mut self, shutdown: &CancellationToken) -> bool {
        let mut retry: Option<Retry> = None;
        loop {
            match self.deps.journal.load(Table::Tasks).await {
                Ok(records) => {
                    let (now, rules) = (self.now(), self.world.rules);
                    for task in recover::from_journal(records, now, &rules) {
                        self.world.insert(task);
                    }
                    tracing::info!(tasks = self.world.tasks.len(), "tasks read from the journal");
                    return true;
                }
                Err(error) => {
                    tracing::error!(error = %Chain(&error), "tasks cannot be read from the journal");
                    let next = Retry::after(retry.as_ref(), String::new(), self.now());
                    let until = self.start + next.not_before;
                    retry = Some(next);
                    let why = format!("the journal cannot be read: {}", Chain(&error));
                    tokio::select! {
                        () = shutdown.cancelled() => return false,
                        () = tokio::time::sleep_until(until) => {}
                        () = self.refuse_all(&why) => {}
                    }
                }
            }
        }
    }

    /// Nothing can be recorded while the journal cannot even be read: whoever assigns hears it instead of waiting.
    async fn refuse_all(&mut self, why: &str) {
        while let Some(Assignment::Run { reply, .. } | Assignment::Stop { reply, .. }) =
            self.assignments.recv().await
        {
            drop(reply.send(Err(AssignmentError::NotRecorded(why.to_owned()))));
        }
        std::future::pending().await
    }

    /// Plans, publishes, and begins what is to be done; answers when to look again.
    fn step(&mut self) -> Option<Instant> {
        let now = self.now();
        self.world.settle_due(now);
        let slots = Arc::clone(&self.deps.slots.borrow_and_update());
        self.world.note_losses(&slots.slots, now);
        self.world.note_waits(&slots.pool.waiting);
        let reports = Arc::clone(&self.deps.reports.borrow_and_update());
        self.world.note_reports(&reports.ended, now);
        self.pulls.retain(|(task, act), _| self.world.is_wanted(task, *act));
        let plan = plan::plan(&self.world, &self.config, now);
        self.world.begin(&plan.ops, now);
        // Metadata must be able to answer for a container before its process asks.
        self.publish();
        for op in plan.ops {
            self.spawn(op);
        }
        plan.wake.map(|tick| self.start + tick)
    }

    fn spawn(&mut self, op: Op) {
        let deps = self.deps.clone();
        match &op {
            Op::OfTask { task, act: act @ Act::Image(_), .. } => {
                let (task, act, unwanted) = (task.clone(), *act, CancellationToken::new());
                self.pulls.insert((task.clone(), act), unwanted.clone().drop_guard());
                self.ops.spawn(async move {
                    tokio::select! {
                        outcome = ops::run(op, deps) => outcome,
                        () = unwanted.cancelled() => Outcome::OfTask { task, act, result: Err(OpError::Unwanted) },
                    }
                });
            }
            _ => drop(self.ops.spawn(ops::run(op, deps))),
        }
    }

    async fn next(&mut self, hints: &mut mpsc::Receiver<ContainerEvent>, wake: Option<Instant>) -> Event {
        let sleep = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(assignment) = self.assignments.recv() => Event::Assigned(assignment),
            Some(removal) = self.removals.recv() => Event::Removal(removal),
            Some(hint) = hints.recv() => Event::Hint(hint),
            Some(result) = self.ops.join_next() => joined(result),
            // Looked at before every plan, so that a loss that is told before the lease is not missed.
            Ok(()) = self.deps.slots.changed() => Event::Time,
            Ok(()) = self.deps.reports.changed() => Event::Time,
            () = sleep => Event::Time,
        }
    }

    /// An event that is there already.
    fn waiting(&mut self, hints: &mut mpsc::Receiver<ContainerEvent>) -> Option<Event> {
        if let Some(result) = self.ops.try_join_next() {
            return Some(joined(result));
        }
        if let Ok(hint) = hints.try_recv() {
            return Some(Event::Hint(hint));
        }
        if let Ok(removal) = self.removals.try_recv() {
            return Some(Event::Removal(removal));
        }
        self.assignments.try_recv().ok().map(Event::Assigned)
    }

    fn take(&mut self, event: Event) {
        let now = self.now();
        match event {
            Event::Assigned(Assignment::Run { spec, reply }) => {
                let task = spec.arn.clone();
                let change = self.world.admit(*spec, now);
                self.answer_when_durable(task, change, reply);
            }
            Event::Assigned(Assignment::Stop { task, reason, code, reply }) => {
                let change = self.world.request_stop(&task, reason, code);
                self.answer_when_durable(task, change, reply);
            }
            Event::Removal(Removal { task, reply }) => {
                // Whoever asked may be gone; the removal is wanted all the same.
                drop(reply.send(self.world.request_remove(&task, now)));
            }
            Event::Hint(hint) => self.world.hint(hint, now),
            Event::Done(outcome) => {
                log_failure(&outcome, self.is_repeated(&outcome));
                for notice in self.world.apply(outcome, now) {
                    self.notify(notice);
                }
            }
            Event::Time => {}
        }
    }

    /// Whether the op has failed before: the first failure is worth a warning, its repetitions are not.
    fn is_repeated(&self, outcome: &Outcome) -> bool {
        match outcome {
            Outcome::Committed { .. } => self.world.journal.retry.is_some(),
            Outcome::Looked { .. } => self.world.runtime.retry.is_some(),
            Outcome::Announced { .. } => self.world.announce_retry.is_some(),
            Outcome::StrayRemoved { id, .. } => self.world.strays.get(id).is_some_and(|s| s.retry.is_some()),
            Outcome::OfTask { task, act, .. } => {
                self.world.tasks.get(task).is_some_and(|t| t.retries.contains_key(act))
            }
        }
    }

    fn answer_when_durable(
        &mut self,
        task: TaskArn,
        change: Result<u64, AssignmentError>,
        reply: oneshot::Sender<Result<(), AssignmentError>>,
    ) {
        let change = match change {
            Ok(change) => change,
            Err(error) => return drop(reply.send(Err(error))),
        };
        if self.world.tasks.get(&task).is_some_and(|t| t.ledger.durable >= change) {
            return drop(reply.send(Ok(())));
        }
        // Bounded by the commits: each answers all that wait for it, with yes or no.
        self.waiters.push(Waiter { task, change, reply });
    }

    fn notify(&mut self, notice: Notice) {
        let (task, change, answer) = match notice {
            Notice::Recorded(task, change) => (task, change, Ok(())),
            Notice::NotRecorded(task, change, why) => (task, change, Err(AssignmentError::NotRecorded(why))),
        };
        for waiter in self.waiters.extract_if(.., |w| w.task == task && w.change <= change) {
            drop(waiter.reply.send(answer.clone()));
        }
    }

    /// Publishes what has changed, if anything has.
    fn publish(&mut self) {
        let before = Arc::clone(&self.published.borrow());
        let (recovered, runtime_ok) = (self.world.recovery == Recovery::Done, self.world.runtime.ok);
        let same = before.recovered == recovered && before.runtime_ok == runtime_ok;
        if same && self.world.changed.is_empty() {
            return;
        }
        if before.runtime_ok != runtime_ok || before.recovered != recovered {
            tracing::info!(runtime_ok, recovered, "engine changed");
            // What tasks wait for may read differently now.
            let live = self.world.tasks.iter().filter(|(_, t)| !t.has_given_all_back());
            self.world.changed.extend(live.map(|(arn, _)| arn.clone()));
        }
        let mut next = EngineSnapshot {
            version: before.version + 1,
            recovered,
            runtime_ok,
            tasks: before.tasks.clone(),
        };
        for arn in std::mem::take(&mut self.world.changed) {
            match self.world.tasks.get(&arn) {
                Some(task) => {
                    let view = snapshot::task(task, &self.world, &self.config);
                    log_change(before.tasks.get(&arn).map(AsRef::as_ref), &view);
                    next.tasks.insert(arn, Arc::new(view));
                }
                None => drop(next.tasks.remove(&arn)),
            }
        }
        self.published.send_replace(Arc::new(next));
    }

    /// Lets ops that are under way come to their end and writes down what they brought.
    async fn finish(mut self) {
        let deadline = Instant::now() + LAST_OPS;
        // Slots and images may take minutes: they are asked for again at the next start.
        let is_short = |act: &Act| !matches!(act, Act::Lease | Act::Image(_));
        while self.world.tasks.values().any(|t| t.busy.iter().any(is_short)) || self.world.journal.busy {
            match tokio::time::timeout_at(deadline, self.ops.join_next()).await {
                Ok(Some(result)) => self.take(joined(result)),
                Ok(None) | Err(_) => break,
            }
        }
        // Waits for slots and whatever else is left: dropped, as by a crash.
        self.ops.abort_all();
        // Facts follow behind, and behind this there is nothing.
        let behind = self.world.tasks.values().filter(|t| t.ledger.durable < t.ledger.changes);
        let records: Vec<_> = behind.map(TaskRecord::of).collect();
        if !records.is_empty() {
            let forgotten = std::mem::take(&mut self.world.journal.forgotten);
            let commit = Op::Commit { records, forgotten, durability: Durability::Intent };
            match tokio::time::timeout(LAST_OPS, ops::run(commit, self.deps.clone())).await {
                Ok(outcome) => self.take(Event::Done(outcome)),
                Err(_) => {
                    tracing::error!("tasks not recorded in time, they will be found again by what runs")
                }
            }
        }
        self.publish();
        tracing::info!(tasks = self.world.tasks.len(), "engine stopped, tasks keep running");
    }
}

/// An op's result. Ops are not aborted while the loop runs, so what is not a result is a panic, and that is ours to have too.
fn joined(result: Result<Outcome, tokio::task::JoinError>) -> Event {
    match result {
        Ok(outcome) => Event::Done(outcome),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Event::Time,
    }
}

/// State changes at info, each once.
fn log_change(before: Option<&TaskSnapshot>, now: &TaskSnapshot) {
    let task = &now.spec.arn;
    let (was, is) = (before.map(TaskSnapshot::last_status), now.last_status());
    if was != Some(is) {
        let slot = now.lease.as_ref().map(|l| l.slot.as_str());
        tracing::info!(%task, status = is, slot, reason = now.stopped_reason, "task changed");
    }
    for (index, container) in now.containers.iter().enumerate() {
        let was = before.and_then(|b| b.containers.get(index)).map(|c| c.known);
        if was != Some(container.known) {
            let (name, code) = (&container.name, container.exit_code);
            tracing::debug!(%task, container = name, status = %container.known, code, reason = container.reason, "container changed");
        }
    }
}

/// Failures: the first at warn, its repetitions at debug.
fn log_failure(outcome: &Outcome, repeated: bool) {
    let (op, task, error): (_, _, &dyn std::error::Error) = match outcome {
        Outcome::Committed { result: Err(error), .. } => ("record tasks".to_owned(), None, error),
        Outcome::Looked { result: Err(error), .. } => ("list containers".to_owned(), None, error),
        Outcome::Announced { result: Err(error) } => ("announce recovery".to_owned(), None, error),
        Outcome::StrayRemoved { id, result: Err(error) } => {
            (format!("remove stray container {id}"), None, error)
        }
        Outcome::OfTask { result: Err(OpError::Unwanted), .. } => return,
        Outcome::OfTask { task, act, result: Err(error) } => (format!("{act:?}"), Some(task.as_str()), error),
        Outcome::Committed { result: Ok(()), .. }
        | Outcome::Looked { result: Ok(_), .. }
        | Outcome::Announced { result: Ok(()) }
        | Outcome::StrayRemoved { result: Ok(()), .. }
        | Outcome::OfTask { result: Ok(_), .. } => return,
    };
    let error = Chain(error);
    if repeated {
        tracing::debug!(op, task, %error, "op failed again");
    } else {
        tracing::warn!(op, task, %error, "op failed");
    }
}
