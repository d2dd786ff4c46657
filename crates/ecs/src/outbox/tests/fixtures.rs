//! Tasks as the engine shows them, a control plane with moods, and an outbox between the two.

use crate::{
    outbox::{Outbox, RefuseHandle},
    port::{
        ControlPlane, Descriptions, EcsError, EcsErrorKind, News, Registered, Registration, Report, TaskNews,
    },
};
use async_trait::async_trait;
use berth_testkit::{containers::clock, crash::Crash, journal::FakeJournal, samples};
use berth_types::{
    Timestamp,
    cluster::ReportsSnapshot,
    ids::{ContainerId, TaskArn},
    ports::Table,
    task::{ContainerSpec, ContainerStatus, EngineSnapshot, Origin, TaskSnapshot, TaskSpec, TaskStatus},
};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

pub(super) const ATTACHMENT: &str = "arn:aws:ecs:us-west-2:111122223333:attachment/c0ffee";

pub(super) fn arn(id: &str) -> TaskArn {
    format!("arn:aws:ecs:us-west-2:111122223333:task/demo/{id}").parse().unwrap()
}

pub(super) fn second(n: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + n).unwrap()
}

/// A task that was just assigned, with an essential container `app` and a `side` that is not.
pub(super) fn assigned(id: &str) -> TaskSnapshot {
    let side = ContainerSpec { essential: false, ..samples::container("side", "busybox") };
    let containers = vec![samples::container("app", "busybox"), side];
    let origin = Origin::ControlPlane { attachment: Some(ATTACHMENT.to_owned()) };
    samples::taken(TaskSpec { origin, ..samples::task(arn(id), containers) })
}

pub(super) fn leased(mut task: TaskSnapshot) -> TaskSnapshot {
    task.lease_micros = Some(100);
    for container in &mut task.containers {
        container.id = Some(ContainerId::derive(&task.spec.arn, &container.name, 0));
    }
    task
}

pub(super) fn pulled(mut task: TaskSnapshot) -> TaskSnapshot {
    task.known = TaskStatus::Pulled;
    task.pull_started_at = Some(second(1));
    task.pull_stopped_at = Some(second(2));
    for container in &mut task.containers {
        container.known = ContainerStatus::Pulled;
        container.image_digest = Some(format!("sha256:of-{}", container.name));
    }
    task
}

pub(super) fn running(mut task: TaskSnapshot) -> TaskSnapshot {
    task.known = TaskStatus::Running;
    task.started_at = Some(second(5));
    for container in &mut task.containers {
        container.known = ContainerStatus::Running;
        container.created_at = Some(second(4));
        container.started_at = Some(second(5));
        container.pid = Some(7);
    }
    task
}

/// The container at `index` has ended.
pub(super) fn exited(mut task: TaskSnapshot, index: usize, code: u32) -> TaskSnapshot {
    let container = &mut task.containers[index];
    container.known = ContainerStatus::Stopped;
    container.pid = None;
    container.exit_code = Some(code);
    container.finished_at = container.started_at.map(|_| second(9));
    task
}

pub(super) fn stopped(mut task: TaskSnapshot, code: Option<berth_types::task::StopCode>) -> TaskSnapshot {
    for index in 0..task.containers.len() {
        if task.containers[index].known != ContainerStatus::Stopped {
            let ran = task.containers[index].started_at.is_some();
            task = exited(task, index, 143);
            task.containers[index].exit_code = ran.then_some(143);
        }
    }
    task.desired = TaskStatus::Stopped;
    task.known = TaskStatus::Stopped;
    task.stop_code = code;
    task.stopped_reason = Some("because of something".to_owned());
    task.stopped_at = Some(second(10));
    task.execution_stopped_at = task.started_at.map(|_| second(9));
    task
}

/// `ATTACHED`, or the status that a report says.
pub(super) fn word(report: &Report) -> &str {
    match &report.news {
        News::Attached { .. } => "ATTACHED",
        News::Task(news) => &news.status,
    }
}

pub(super) fn task_news(report: &Report) -> &TaskNews {
    match &report.news {
        News::Attached { .. } => panic!("ATTACHED says nothing of the task"),
        News::Task(news) => news,
    }
}

/// How the control plane takes reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Well,
    /// Nothing arrives.
    Out,
    /// Refuses for the rate.
    Throttling,
    /// Takes the report, and the answer is lost.
    Losing,
    /// The policy does not allow it.
    Forbidding,
}

#[derive(Debug)]
struct Taken {
    mood: Mood,
    /// Tasks whose reports it calls invalid.
    invalid: BTreeSet<TaskArn>,
    reports: Vec<Report>,
    calls: Vec<(Instant, TaskArn)>,
    under_way: Vec<TaskArn>,
    most: usize,
    latency: Duration,
}

/// The control plane.
#[derive(Debug)]
pub(super) struct FakeControlPlane {
    state: Mutex<Taken>,
    crash: Arc<Crash>,
}

impl FakeControlPlane {
    fn state(&self) -> MutexGuard<'_, Taken> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, mood: Mood) {
        self.state().mood = mood;
    }

    pub(super) fn set_latency(&self, latency: Duration) {
        self.state().latency = latency;
    }

    pub(super) fn call_invalid(&self, task: &TaskArn) {
        self.state().invalid.insert(task.clone());
    }

    /// What it has taken of a task, in order.
    pub(super) fn taken(&self, task: &TaskArn) -> Vec<Report> {
        self.state().reports.iter().filter(|r| r.task == *task).cloned().collect()
    }

    pub(super) fn words(&self, task: &TaskArn) -> Vec<String> {
        self.taken(task).iter().map(|r| word(r).to_owned()).collect()
    }

    /// When it was called.
    pub(super) fn calls(&self) -> Vec<Instant> {
        self.state().calls.iter().map(|(at, _)| *at).collect()
    }

    /// The most reports that were under way at a time.
    pub(super) fn most(&self) -> usize {
        self.state().most
    }
}

/// A report that is under way, however it ends.
struct UnderWay<'a>(&'a FakeControlPlane, TaskArn);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if let Some(place) = state.under_way.iter().position(|t| *t == self.1) {
            state.under_way.remove(place);
        }
    }
}

#[async_trait]
impl ControlPlane for FakeControlPlane {
    async fn submit(&self, report: &Report) -> Result<(), EcsError> {
        let dies = self.crash.enter().await;
        let (under_way, latency) = {
            let mut state = self.state();
            assert!(!state.under_way.contains(&report.task), "two reports of {} at a time", report.task);
            state.under_way.push(report.task.clone());
            state.most = state.most.max(state.under_way.len());
            state.calls.push((Instant::now(), report.task.clone()));
            (UnderWay(self, report.task.clone()), state.latency)
        };
        tokio::time::sleep(latency).await;
        let result = {
            let mut state = self.state();
            let invalid = state.invalid.contains(&report.task);
            let text = "as the test wants it".to_owned();
            match state.mood {
                Mood::Out => Err(EcsErrorKind::Unavailable(text)),
                Mood::Throttling => Err(EcsErrorKind::Throttled(text)),
                Mood::Forbidding => Err(EcsErrorKind::Unauthorized(text)),
                Mood::Well | Mood::Losing if invalid => Err(EcsErrorKind::InvalidParameter(text)),
                Mood::Losing => {
                    state.reports.push(report.clone());
                    Err(EcsErrorKind::Unavailable(text))
                }
                Mood::Well => {
                    state.reports.push(report.clone());
                    Ok(())
                }
            }
        };
        drop(under_way);
        self.crash.leave(dies).await;
        result.map_err(|kind| EcsError {
            op: "submit state of",
            target: report.task.to_string(),
            kind,
            source: None,
        })
    }

    async fn register(&self, _: &Registration) -> Result<Registered, EcsError> {
        unreachable!("the outbox only reports")
    }
    async fn create_cluster(&self, _: &str) -> Result<String, EcsError> {
        unreachable!("the outbox only reports")
    }
    async fn list_tasks(&self, _: &str) -> Result<Vec<TaskArn>, EcsError> {
        unreachable!("the outbox only reports")
    }
    async fn describe_tasks(&self, _: &[TaskArn]) -> Result<Descriptions, EcsError> {
        unreachable!("the outbox only reports")
    }
    async fn describe_task_definition(&self, _: &str) -> Result<Vec<u8>, EcsError> {
        unreachable!("the outbox only reports")
    }
    async fn describe_instance(&self, _: &str) -> Result<Option<String>, EcsError> {
        unreachable!("the outbox only reports")
    }
    async fn set_instance_state(&self, _: &str, _: bool) -> Result<(), EcsError> {
        unreachable!("the outbox only reports")
    }
}

/// An outbox between an engine that shows what the test says, a journal and a control plane, all of which survive it.
pub(super) struct Desk {
    pub(super) crash: Arc<Crash>,
    pub(super) journal: Arc<FakeJournal>,
    pub(super) control: Arc<FakeControlPlane>,
    pub(super) engine: watch::Sender<Arc<EngineSnapshot>>,
    pub(super) reports: watch::Receiver<Arc<ReportsSnapshot>>,
    pub(super) refuse: RefuseHandle,
    pub(super) heard: Arc<Notify>,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
}

/// Longer than any back-off.
const PATIENCE: Duration = Duration::from_secs(30 * 60);

impl Desk {
    pub(super) fn start() -> Self {
        let crash = Arc::new(Crash::default());
        let journal = Arc::new(FakeJournal::new(Arc::clone(&crash)));
        let state = Taken {
            mood: Mood::Well,
            invalid: BTreeSet::new(),
            reports: Vec::new(),
            calls: Vec::new(),
            under_way: Vec::new(),
            most: 0,
            latency: Duration::from_millis(20),
        };
        let control = Arc::new(FakeControlPlane { state: Mutex::new(state), crash: Arc::clone(&crash) });
        let shown = EngineSnapshot { recovered: true, runtime_ok: true, ..EngineSnapshot::default() };
        let engine = watch::Sender::new(Arc::new(shown));
        let heard = Arc::new(Notify::new());
        let (reports, refuse, shutdown, running) = run(&journal, &control, &engine, &heard);
        Self { crash, journal, control, engine, reports, refuse, heard, shutdown, running }
    }

    /// kill -9: what is under way ends where it is, and what the journal had not flushed is gone.
    pub(super) async fn kill(&mut self) {
        self.running.abort();
        assert!((&mut self.running).await.unwrap_err().is_cancelled(), "the outbox ended by itself");
        self.crash.revive();
        self.journal.lose_facts();
    }

    pub(super) async fn shut_down(&mut self) {
        self.shutdown.cancel();
        (&mut self.running).await.unwrap();
    }

    pub(super) fn start_again(&mut self) {
        (self.reports, self.refuse, self.shutdown, self.running) =
            run(&self.journal, &self.control, &self.engine, &self.heard);
    }

    /// The engine shows the task so.
    pub(super) fn show(&self, task: TaskSnapshot) {
        self.engine.send_modify(|shown| {
            Arc::make_mut(shown).tasks.insert(task.spec.arn.clone(), Arc::new(task));
        });
    }

    /// The engine has forgotten the task.
    pub(super) fn forget(&self, task: &TaskArn) {
        self.engine.send_modify(|shown| drop(Arc::make_mut(shown).tasks.remove(task)));
    }

    /// Waits until the reports are so.
    pub(super) async fn until(&mut self, what: &str, so: impl Fn(&ReportsSnapshot) -> bool) {
        let wait = tokio::time::timeout(PATIENCE, self.reports.wait_for(|r| so(r))).await;
        assert!(wait.is_ok_and(|w| w.is_ok()), "not in time: {what}; {:#?}", self.reports.borrow());
    }

    /// Everything that was shown is recorded and acknowledged.
    pub(super) async fn until_told(&mut self, task: &TaskArn) {
        self.until("told", |r| r.ended.contains(task) && r.waiting.iter().all(|w| w.task != *task)).await;
    }

    pub(super) async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    pub(super) fn records(&self) -> usize {
        self.journal.records(Table::Reports).len()
    }
}

fn run(
    journal: &Arc<FakeJournal>,
    control: &Arc<FakeControlPlane>,
    engine: &watch::Sender<Arc<EngineSnapshot>>,
    heard: &Arc<Notify>,
) -> (watch::Receiver<Arc<ReportsSnapshot>>, RefuseHandle, CancellationToken, JoinHandle<()>) {
    let reports = watch::Sender::default();
    let shown = reports.subscribe();
    let shutdown = CancellationToken::new();
    let (outbox, refuse) = Outbox::new(
        journal.clone(),
        control.clone(),
        engine.subscribe(),
        reports,
        Arc::clone(heard),
        clock,
        7,
    );
    let running = tokio::spawn(outbox.run(shutdown.clone()));
    (shown, refuse, shutdown, running)
}
