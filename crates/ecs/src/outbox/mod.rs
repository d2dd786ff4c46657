//! The outbox: reports of task state, durable before they are sent, sent in order until they are acknowledged.
//!
//! ```text
//!  watch<EngineSnapshot> ─┐  see   ┌───────┐ plan  ┌─────────┐   Journal (Table::Reports)
//!  refusals ──────────────┼───────►│ world │──────►│   ops   │──► ControlPlane::submit
//!  op results ────────────┘        └───┬───┘       └────┬────┘
//!                                      │ watch<ReportsSnapshot> (to the engine and operators)
//! ```
//!
//! * [`news`]: what the control plane must hear, from what it has been told and what the engine shows; [`queue`]: what waits, in order.
//! * [`entry`], [`world`]: one task, all tasks; [`gate`]: whether the control plane takes anything at all; [`record`]: on disk.
//!
//! A report is recorded before it is sent and before the engine may forget its task, so a crash can repeat a report and cannot lose one.
//! An acknowledgement is recorded before the task's next report goes: a crash repeats the last report at most, and never an older one.

mod entry;
mod gate;
mod news;
mod queue;
mod record;
mod world;

#[cfg(test)]
mod tests;

use crate::{
    config::Clock,
    port::{ControlPlane, EcsError, EcsErrorKind, Report},
};
use berth_types::{
    Chain, Timestamp,
    cluster::ReportsSnapshot,
    ids::TaskArn,
    ports::{Durability, Journal, Table, Write},
    task::EngineSnapshot,
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use world::{Op, Outcome, World};

/// Refusals that may wait. The poller makes them one after another; each waits for a flush.
const REFUSAL_QUEUE: usize = 32;
/// How long a report may be under way. The client gives up earlier, its own tries included; this is for one that never does.
const SUBMIT_DEADLINE: Duration = Duration::from_secs(60);
/// How long what is under way may still take at shutdown. A report whose acknowledgement is not heard is sent again at the next start.
const LAST_OPS: Duration = Duration::from_secs(5);

/// Time since the outbox's start. It does not jump when the clock is set.
type Tick = Duration;

/// An instant, on both clocks.
#[derive(Debug, Clone, Copy)]
struct Now {
    wall: Timestamp,
    tick: Tick,
}

/// Why a task was not refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RefuseError {
    /// The engine has it.
    #[error("task {0} is known to the engine")]
    Known(TaskArn),
    /// The record could not be made durable, so nothing will be reported.
    #[error("the refusal could not be recorded: {0}")]
    NotRecorded(String),
    /// The outbox is gone: the agent is going down.
    #[error("the outbox has stopped")]
    Stopped,
}

#[derive(Debug)]
struct Refusal {
    task: TaskArn,
    cluster: String,
    reason: String,
    containers: Vec<String>,
    reply: oneshot::Sender<Result<(), RefuseError>>,
}

/// The poller's door to the outbox.
#[derive(Debug, Clone)]
pub(crate) struct RefuseHandle(mpsc::Sender<Refusal>);

impl RefuseHandle {
    /// Has a task that cannot run here reported as stopped. Answers when that is durable. A task that was refused before, or that has
    /// ended, is left as it is.
    pub(crate) async fn refuse(
        &self,
        task: TaskArn,
        cluster: &str,
        reason: String,
        containers: Vec<String>,
    ) -> Result<(), RefuseError> {
        let (reply, answer) = oneshot::channel();
        let refusal = Refusal { task, cluster: cluster.to_owned(), reason, containers, reply };
        self.0.send(refusal).await.map_err(|_| RefuseError::Stopped)?;
        answer.await.unwrap_or(Err(RefuseError::Stopped))
    }
}

/// Someone who waits for a change to be durable.
struct Waiter {
    task: TaskArn,
    change: u64,
    reply: oneshot::Sender<Result<(), RefuseError>>,
}

/// The outbox. [`Outbox::run`] is all it does.
pub(crate) struct Outbox {
    journal: Arc<dyn Journal>,
    control_plane: Arc<dyn ControlPlane>,
    engine: watch::Receiver<Arc<EngineSnapshot>>,
    refusals: mpsc::Receiver<Refusal>,
    reports: watch::Sender<Arc<ReportsSnapshot>>,
    heard: Arc<Notify>,
    clock: Clock,
    start: Instant,
    world: World,
    waiters: Vec<Waiter>,
    ops: JoinSet<Outcome>,
}

enum Event {
    Refused(Refusal),
    Done(Outcome),
    Heard,
    Time,
}

impl Outbox {
    /// An outbox that has not begun. It publishes on `reports`; `heard` tells that others hear the control plane again; `seed` is
    /// different on each node.
    pub(crate) fn new(
        journal: Arc<dyn Journal>,
        control_plane: Arc<dyn ControlPlane>,
        engine: watch::Receiver<Arc<EngineSnapshot>>,
        reports: watch::Sender<Arc<ReportsSnapshot>>,
        heard: Arc<Notify>,
        clock: Clock,
        seed: u64,
    ) -> (Self, RefuseHandle) {
        let (refuse, refusals) = mpsc::channel(REFUSAL_QUEUE);
        let outbox = Self {
            journal,
            control_plane,
            engine,
            refusals,
            reports,
            heard,
            clock,
            start: Instant::now(),
            world: World::new(seed),
            waiters: Vec::new(),
            ops: JoinSet::new(),
        };
        (outbox, RefuseHandle(refuse))
    }

    /// Runs until `shutdown`. What is not acknowledged by then is sent by the next life.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        self.start = Instant::now();
        if !self.load(&shutdown).await {
            return;
        }
        while !shutdown.is_cancelled() {
            let wake = self.step();
            tokio::select! {
                // Cancel safe, all of them: receiving, joining and sleeping lose nothing when another arm wins.
                () = shutdown.cancelled() => {}
                event = self.next(wake) => self.take(event),
            }
        }
        self.finish().await;
    }

    fn now(&self) -> Now {
        Now { wall: (self.clock)(), tick: self.start.elapsed() }
    }

    /// Reads the journal, however long that takes: a report that is recorded must not be lost, and what has been told must not be told
    /// again. Answers false at shutdown.
    async fn load(&mut self, shutdown: &CancellationToken) -> bool {
        let mut failures = 0;
        loop {
            match self.journal.load(Table::Reports).await {
                Ok(records) => {
                    tracing::info!(tasks = records.len(), "reports read from the journal");
                    self.world.load(records);
                    return true;
                }
                Err(error) => {
                    failures += 1;
                    tracing::error!(error = %Chain(&error), "reports cannot be read from the journal");
                    let why = format!("the journal cannot be read: {}", Chain(&error));
                    tokio::select! {
                        () = shutdown.cancelled() => return false,
                        () = tokio::time::sleep(gate::backoff(failures)) => {}
                        () = self.refuse_all(&why) => {}
                    }
                }
            }
        }
    }

    /// Nothing can be recorded while the journal cannot even be read: the poller hears it instead of waiting.
    async fn refuse_all(&mut self, why: &str) {
        while let Some(refusal) = self.refusals.recv().await {
            drop(refusal.reply.send(Err(RefuseError::NotRecorded(why.to_owned()))));
        }
        std::future::pending().await
    }

    /// Looks, plans, publishes, and begins what is to be done; answers when to look again.
    fn step(&mut self) -> Option<Instant> {
        let now = self.now();
        let engine = Arc::clone(&self.engine.borrow_and_update());
        self.world.see(&engine, now);
        let plan = self.world.plan(now);
        self.publish();
        for op in plan.ops {
            self.ops.spawn(run(op, Arc::clone(&self.journal), Arc::clone(&self.control_plane)));
        }
        plan.wake.map(|tick| self.start + tick)
    }

    async fn next(&mut self, wake: Option<Instant>) -> Event {
        let sleep = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(refusal) = self.refusals.recv() => Event::Refused(refusal),
            Some(result) = self.ops.join_next() => joined(result),
            Ok(()) = self.engine.changed() => Event::Time,
            () = self.heard.notified() => Event::Heard,
            () = sleep => Event::Time,
        }
    }

    fn take(&mut self, event: Event) {
        let now = self.now();
        match event {
            Event::Refused(Refusal { task, cluster, reason, containers, reply }) => {
                match self.world.refuse(&task, cluster, &reason, containers, now) {
                    Ok(change) => {
                        tracing::warn!(%task, reason, "task refused");
                        self.waiters.push(Waiter { task, change, reply });
                        self.answer(None);
                    }
                    // Whoever asked may be gone.
                    Err(error) => drop(reply.send(Err(error))),
                }
            }
            Event::Done(outcome) => {
                let failure = match &outcome {
                    Outcome::Committed { result: Err(why), .. } => Some(why.clone()),
                    Outcome::Committed { result: Ok(()), .. } | Outcome::Sent { .. } => None,
                };
                self.world.apply(outcome, now);
                self.answer(failure);
            }
            Event::Heard => self.world.heard(now.tick),
            Event::Time => {}
        }
    }

    /// Tells those who wait for a commit. Their number is bounded by the refusals: a commit answers all of them, with yes or no.
    fn answer(&mut self, failure: Option<String>) {
        let world = &self.world;
        for waiter in
            self.waiters.extract_if(.., |w| failure.is_some() || world.is_durable(&w.task, w.change))
        {
            let result = match &failure {
                Some(why) if !world.is_durable(&waiter.task, waiter.change) => {
                    Err(RefuseError::NotRecorded(why.clone()))
                }
                Some(_) | None => Ok(()),
            };
            drop(waiter.reply.send(result));
        }
    }

    /// Publishes what has changed, if anything has. The first time it does so in any case: from version 1 on, what the journal holds has
    /// been read, and the poller waits for that.
    fn publish(&mut self) {
        let next = self.world.snapshot();
        self.reports.send_if_modified(|shown| {
            let next = ReportsSnapshot { version: shown.version, ..next };
            // The first one says that the journal has been read, even if nothing was in it: the poller waits for that.
            let differs = shown.version == 0 || **shown != next;
            if differs {
                *shown = Arc::new(ReportsSnapshot { version: next.version + 1, ..next });
            }
            differs
        });
    }

    /// Lets what is under way come to its end and writes down what it brought.
    async fn finish(mut self) {
        let deadline = Instant::now() + LAST_OPS;
        while self.world.is_busy() {
            match tokio::time::timeout_at(deadline, self.ops.join_next()).await {
                Ok(Some(result)) => self.take(joined(result)),
                Ok(None) | Err(_) => break,
            }
        }
        self.ops.abort_all();
        let now = self.now();
        let engine = Arc::clone(&self.engine.borrow_and_update());
        self.world.see(&engine, now);
        for records in self.world.rest().chunks(world::MAX_RECORDS) {
            let (journal, control_plane) = (Arc::clone(&self.journal), Arc::clone(&self.control_plane));
            let commit = Op::Commit {
                records: records.to_vec(),
                deleted: std::collections::BTreeSet::new(),
                durability: Durability::Intent,
            };
            match tokio::time::timeout(LAST_OPS, run(commit, journal, control_plane)).await {
                Ok(outcome) => self.take(Event::Done(outcome)),
                Err(_) => {
                    tracing::error!("reports not recorded in time; the next start finds them out again")
                }
            }
        }
        self.publish();
        tracing::info!("outbox stopped");
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

/// Runs one op. Nothing is decided here.
async fn run(op: Op, journal: Arc<dyn Journal>, control_plane: Arc<dyn ControlPlane>) -> Outcome {
    match op {
        Op::Commit { records, deleted, durability } => {
            let marks = records.iter().map(|(arn, change, _)| (arn.clone(), *change)).collect();
            let deletes =
                deleted.iter().map(|arn| Ok(Write::Delete { table: Table::Reports, key: arn.to_string() }));
            let puts = records.iter().map(|(arn, _, reports)| reports.write(arn));
            let writes: Result<Vec<_>, serde_json::Error> = deletes.chain(puts).collect();
            let result = match writes {
                Ok(writes) => {
                    journal.commit(writes, durability).await.map_err(|error| Chain(&error).to_string())
                }
                Err(error) => Err(format!("encode a record of reports: {error}")),
            };
            Outcome::Committed { marks, deleted, durability, result }
        }
        Op::Send { report, probe } => {
            let result = match tokio::time::timeout(SUBMIT_DEADLINE, control_plane.submit(&report)).await {
                Ok(result) => result,
                Err(_) => Err(no_answer(&report)),
            };
            Outcome::Sent { task: report.task, probe, result }
        }
    }
}

fn no_answer(report: &Report) -> EcsError {
    EcsError {
        op: "submit state of",
        target: report.task.to_string(),
        kind: EcsErrorKind::Unavailable(format!("no answer within {SUBMIT_DEADLINE:?}")),
        source: None,
    }
}
