//! The poller: asks the control plane which tasks it wants here, and hands the engine what follows.
//!
//! ```text
//!  ListTasks ─► Watcher ─► DescribeTasks ─► Watcher ─► DescribeTaskDefinition ─► translate ─┬─ Assignment::Run ──► engine
//!                 ▲ ▲                          ├──────────────────────────────────────────── Assignment::Stop ─► engine
//!  engine, outbox ┘ └── time                   └─ cannot run here, stopped too early ─────── refuse ───────────► outbox
//! ```
//!
//! One ListTasks a poll when nothing changes, every second after a change, every 5 s at rest; every half minute a look at tasks that
//! were stopped before they were seen, every minute one at the container instance itself. All of these calls together stay below the
//! cap of [`pacing::Bucket`](crate::pacing::Bucket). A poll that fails costs back-off and nothing else: what was wanted goes on.

mod act;
mod definitions;
#[cfg(test)]
mod tests;
mod translate;
mod watcher;

use crate::{
    board::Board,
    config::{Abilities, Clock, EcsConfig},
    meter::Metered,
    pacing::{Backoff, Bucket, Interval, Jitter},
    port::{ControlPlane, DescribedTask, EcsError, EcsErrorKind},
    registration::status_of,
};
use act::{Act, Acted, never_started};
use berth_types::{
    Chain, Class, Timestamp,
    assignment::Assignment,
    cluster::{InstanceStatus, ReportsSnapshot},
    ids::TaskArn,
    task::EngineSnapshot,
};
use definitions::{Definitions, Read};
use futures::{StreamExt, stream};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep},
};
use tracing::{debug, info, warn};
use watcher::{Decision, View, Watcher};

pub(crate) use act::Refuse;

/// Between looks at the container instance: it changes when an operator drains or deregisters it.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// Between looks at tasks that were stopped before this node ever saw them.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
/// A container instance that is said not to exist, or of which nothing is said, is looked at again after this.
const UNKNOWN_PAUSE: Duration = Duration::from_secs(10);
/// After polls that got no answer: no more rarely than an idle node asks, so that nobody waits long after an outage.
const PASSING: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(15) };
/// After polls that were refused, which somebody has to mend.
const REFUSED: Backoff = Backoff { first: Duration::from_secs(15), longest: Duration::from_secs(120) };
/// Assignments that wait for the engine's durable answer at a time: they share its flushes of the journal, and leave most of the
/// engine's queue to operators.
const ACTS: usize = 16;
/// Tasks in one page and one DescribeTasks.
const PAGE: usize = crate::client::PAGE;

/// What the poller talks to.
pub(crate) struct Doors {
    pub(crate) control: Metered,
    pub(crate) assignments: mpsc::Sender<Assignment>,
    pub(crate) engine: watch::Receiver<Arc<EngineSnapshot>>,
    pub(crate) reports: watch::Receiver<Arc<ReportsSnapshot>>,
    pub(crate) refuse: Arc<dyn Refuse>,
    /// An operator has changed something: look at the instance now.
    pub(crate) poke: Arc<Notify>,
    /// The control plane is heard again after it was not: the outbox need not wait.
    pub(crate) heard: Arc<Notify>,
}

/// The poller. Its memory outlives a registration.
pub(crate) struct Poller {
    doors: Doors,
    /// Name or ARN as configured.
    cluster: String,
    /// What may run here.
    abilities: Abilities,
    clock: Clock,
    started: Instant,
    watcher: Watcher,
    definitions: Definitions,
    bucket: Bucket,
    jitter: Jitter,
    interval: Interval,
    failures: u32,
    polled_at: Option<Timestamp>,
    /// What was listed last.
    last: BTreeSet<TaskArn>,
    look_at: Duration,
    /// Why the container instance itself cannot be looked at, if that is not allowed.
    blind: Option<String>,
    sweep_at: Duration,
}

/// What the control plane says of the container instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It is there.
    Here,
    /// It was deregistered.
    Gone,
    /// There is none, or it is not to be seen yet.
    Unknown,
}

/// What came of a poll.
#[derive(Debug, Default)]
struct Polled {
    changed: bool,
    problem: Option<String>,
}

/// Shows operators what the control plane says of the container instance.
fn show(instance: &str, word: Option<&str>, board: &Board) -> Place {
    let Some(word) = word else {
        board.problem(Some("the control plane does not know the container instance".to_owned()));
        return Place::Unknown;
    };
    let status = status_of(word);
    if status != board.status() {
        info!(instance, ?status, "the container instance has changed");
    }
    board.update(|snapshot| snapshot.status = status);
    if status == InstanceStatus::Inactive {
        let problem =
            "the container instance was deregistered; its tasks keep running, a restart registers it anew";
        board.problem(Some(problem.to_owned()));
        return Place::Gone;
    }
    Place::Here
}

impl Poller {
    pub(crate) fn new(doors: Doors, config: &EcsConfig) -> Self {
        Self {
            doors,
            cluster: config.cluster.clone(),
            abilities: config.abilities.clone(),
            clock: config.clock,
            started: Instant::now(),
            watcher: Watcher::default(),
            definitions: Definitions::default(),
            bucket: Bucket::new(config.cap()),
            jitter: Jitter::new(config.seed),
            interval: Interval::new(config.poll_min, config.poll_max),
            failures: 0,
            polled_at: None,
            last: BTreeSet::new(),
            look_at: Duration::ZERO,
            blind: None,
            sweep_at: Duration::ZERO,
        }
    }

    /// Polls for this container instance until the control plane says that there is none.
    pub(crate) async fn run(&mut self, instance: &str, board: &Board) {
        self.look_at = self.now();
        let mut unknown = false;
        loop {
            let wait = match self.round(instance, board, &mut unknown).await {
                Ok(true) => return,
                Ok(false) => self.rest(board),
                Err(error) => self.failed(&error, board),
            };
            let calls = self.doors.control.last_minute();
            board.update(|snapshot| {
                snapshot.polled_at = self.polled_at.or(snapshot.polled_at);
                snapshot.poll_interval = wait;
                snapshot.calls_last_minute = calls;
            });
            let wait = self.jitter.around(wait);
            tokio::select! {
                // Both are cancel-safe: a poke that is not taken stays for the next wait.
                () = sleep(wait) => {}
                () = self.doors.poke.notified() => self.look_at = self.now(),
            }
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// One round of what is due; answers whether the container instance is gone for good.
    async fn round(&mut self, instance: &str, board: &Board, unknown: &mut bool) -> Result<bool, EcsError> {
        if self.look_at <= self.now() {
            let place = self.look(instance, board).await?;
            let was_unknown = std::mem::replace(unknown, place == Place::Unknown);
            if place == Place::Unknown {
                self.look_at = self.now() + UNKNOWN_PAUSE;
                return Ok(was_unknown);
            }
        }
        if *unknown || board.status() == InstanceStatus::Inactive {
            return Ok(false);
        }
        let mut polled = self.poll(instance, board).await?;
        if self.sweep_at <= self.now() {
            let swept = self.sweep(instance, board).await?;
            self.sweep_at = self.now() + SWEEP_INTERVAL;
            polled.changed |= swept.changed;
            polled.problem = polled.problem.or(swept.problem);
        }
        self.interval.polled(polled.changed);
        if std::mem::take(&mut self.failures) > 0 {
            info!(instance, "the control plane is heard again");
            self.doors.heard.notify_one();
        }
        if self.look_at > self.now() {
            // Otherwise the look that is due says what is the matter.
            board.problem(polled.problem.or_else(|| self.blind.clone()));
        }
        Ok(false)
    }

    /// How long to wait, before jitter, after a round that got its answers.
    fn rest(&self, board: &Board) -> Duration {
        match board.status() {
            InstanceStatus::Inactive => self.look_at.saturating_sub(self.now()).max(self.interval.max()),
            InstanceStatus::Unregistered | InstanceStatus::Active | InstanceStatus::Draining => {
                self.interval.get()
            }
        }
    }

    /// The same after one that did not.
    fn failed(&mut self, error: &EcsError, board: &Board) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let wait = match error.class() {
            Class::Retry | Class::RetryAfter(_) => PASSING,
            Class::Permanent | Class::Bug => REFUSED,
        };
        let wait = wait.after(self.failures);
        if matches!(error.kind, EcsErrorKind::InvalidParameter(_) | EcsErrorKind::Refused(_)) {
            // Perhaps the container instance is gone.
            self.look_at = self.now();
        }
        let problem = Chain(error).to_string();
        if self.failures == 1 {
            warn!(error = problem, "the control plane was not heard; what it wanted goes on");
        } else {
            debug!(error = problem, failures = self.failures, "the control plane was not heard");
        }
        board.problem(Some(problem));
        wait
    }

    /// Waits until the cap lets so many calls through.
    async fn allow(&mut self, calls: usize) {
        let calls = u32::try_from(calls).unwrap_or(u32::MAX);
        while let Err(wait) = self.bucket.take(calls, self.now()) {
            sleep(wait).await;
        }
    }

    /// Looks at the container instance itself. One that may not be looked at counts as there: its tasks matter more.
    async fn look(&mut self, instance: &str, board: &Board) -> Result<Place, EcsError> {
        self.allow(1).await;
        let looked = self.doors.control.describe_instance(instance).await;
        self.look_at = self.now() + LOOK_INTERVAL;
        let status = match looked {
            Ok(status) => status,
            Err(error) if error.class() == Class::Retry => {
                self.look_at = self.now() + UNKNOWN_PAUSE;
                return Err(error);
            }
            Err(error) => {
                let problem = Chain(&error).to_string();
                if self.blind.as_ref() != Some(&problem) {
                    warn!(error = problem, "the container instance cannot be looked at");
                }
                self.blind = Some(problem);
                return Ok(Place::Here);
            }
        };
        self.blind = None;
        Ok(show(instance, status.as_deref(), board))
    }

    async fn poll(&mut self, instance: &str, board: &Board) -> Result<Polled, EcsError> {
        let expected = self.last.len() / PAGE + 1;
        self.allow(expected).await;
        let listed = self.doors.control.list_tasks(instance).await?;
        self.pay_for(listed.len() / PAGE + 1, expected);
        self.polled_at = Some((self.clock)());
        let (engine, reports) = self.view();
        let view = View { engine: &engine, reports: &reports };
        let asked = self.watcher.listed(&listed, view, self.now());
        let listed: BTreeSet<TaskArn> = listed.into_iter().collect();
        let differs = listed != self.last;
        self.last = listed;
        // A container instance that was deregistered has no tasks any more, and keeps those that run.
        let unlisted = asked.iter().any(|task| engine.tasks.contains_key(task));
        if unlisted && self.look(instance, board).await? != Place::Here {
            self.look_at = self.now();
            return Ok(Polled::default());
        }
        let mut polled = self.follow(&asked, board).await?;
        polled.changed |= differs;
        Ok(polled)
    }

    /// Finds tasks that were stopped before they were listed here as wanted: nobody else would tell the control plane of their end.
    async fn sweep(&mut self, instance: &str, board: &Board) -> Result<Polled, EcsError> {
        self.allow(1).await;
        let stopped = self.doors.control.list_stopped(instance).await?;
        self.pay_for(stopped.len() / PAGE + 1, 1);
        let (engine, reports) = self.view();
        let asked = self.watcher.stopped(&stopped, View { engine: &engine, reports: &reports });
        self.follow(&asked, board).await
    }

    fn pay_for(&mut self, pages: usize, expected: usize) {
        let more = u32::try_from(pages.saturating_sub(expected)).unwrap_or(u32::MAX);
        self.bucket.spend(more, self.now());
    }

    fn view(&mut self) -> (Arc<EngineSnapshot>, Arc<ReportsSnapshot>) {
        (
            Arc::clone(&self.doors.engine.borrow_and_update()),
            Arc::clone(&self.doors.reports.borrow_and_update()),
        )
    }

    /// Describes these tasks and does what follows.
    async fn follow(&mut self, asked: &[TaskArn], board: &Board) -> Result<Polled, EcsError> {
        if asked.is_empty() {
            return Ok(Polled::default());
        }
        self.allow(asked.len().div_ceil(PAGE)).await;
        let described = self.doors.control.describe_tasks(asked).await?;
        let answered: Vec<TaskArn> = described.answered().into_iter().cloned().collect();
        let (engine, reports) = self.view();
        let view = View { engine: &engine, reports: &reports };
        let decisions = self.watcher.described(&answered, described.tasks, view, self.now());
        let (acts, failed) = self.prepare(decisions).await;
        let mut polled = self.act(acts, board).await;
        // What could be done is done; the rest is tried again.
        match failed {
            Some(error) if error.class() == Class::Retry => return Err(error),
            // It is about that one definition: the other tasks are not to wait for it.
            Some(error) => polled.problem = Some(Chain(&error).to_string()),
            None => {}
        }
        Ok(polled)
    }

    /// Brings what the decisions need. A definition that cannot be had now leaves its tasks for the next poll.
    async fn prepare(&mut self, decisions: Vec<Decision>) -> (Vec<Act>, Option<EcsError>) {
        let (mut acts, mut failed) = (Vec::new(), None);
        for decision in decisions {
            match decision {
                Decision::Stop { task, reason, code } => acts.push(Act::Stop { task, reason, code }),
                Decision::NeverStarted(described) => acts.push(never_started(*described)),
                Decision::Run(described) => match self.definition(&described.definition_arn).await {
                    Ok(definition) => acts.push(self.translate(*described, definition)),
                    Err(error) => failed = Some(error),
                },
            }
        }
        (acts, failed)
    }

    /// The definition, or why it cannot be read.
    async fn definition(&mut self, arn: &str) -> Result<Result<Read, String>, EcsError> {
        if let Some(read) = self.definitions.get(arn) {
            return Ok(Ok(read));
        }
        self.allow(1).await;
        match self.doors.control.describe_task_definition(arn).await {
            Ok(json) => Ok(Ok(self.definitions.insert(arn, &json))),
            // It is deleted, or never was: the task will never run.
            Err(EcsError {
                kind: EcsErrorKind::Refused(text) | EcsErrorKind::InvalidParameter(text),
                ..
            }) => Ok(Err(translate::refusal(&format!("taskDefinition: {arn} cannot be described: {text}")))),
            Err(error) => Err(error),
        }
    }

    fn translate(&self, described: DescribedTask, definition: Result<Read, String>) -> Act {
        let now = (self.clock)();
        let translated = definition
            .and_then(|read| translate::translate(&described, read, &self.cluster, &self.abilities, now));
        let waited_ms = described.created_at.map(|at| now.as_millisecond() - at.as_millisecond());
        match translated {
            Ok(spec) => Act::Run { spec: Box::new(spec), waited_ms },
            Err(reason) => {
                let DescribedTask { arn: task, containers, .. } = described;
                Act::Refuse { task, reason, containers, shown: true }
            }
        }
    }

    async fn act(&mut self, acts: Vec<Act>, board: &Board) -> Polled {
        let (doors, cluster) = (&self.doors, self.cluster.as_str());
        let acted: Vec<Acted> =
            stream::iter(acts).map(|act| doors.act(act, cluster)).buffer_unordered(ACTS).collect().await;
        let mut polled = Polled::default();
        for acted in acted {
            match acted {
                Acted::Settled(task) => self.watcher.settled(&task),
                Acted::Refused(refused) => {
                    self.watcher.settled(&refused.task);
                    board.refused(refused);
                }
                Acted::Stopping => {}
                Acted::NotNow(problem) => {
                    polled.problem = Some(problem);
                    continue;
                }
            }
            polled.changed = true;
        }
        polled
    }
}
