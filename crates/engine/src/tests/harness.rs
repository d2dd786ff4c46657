//! A node: the engine over its fakes, which survive it. Time is paused, so waiting costs none.

use super::fixtures;
use crate::{Deps, Engine, EngineConfig, EngineHandle};
use berth_testkit::{containers::FakeContainers, crash::Crash, journal::FakeJournal, lease::FakeLeases};
use berth_types::{
    assignment::{Assignment, AssignmentError},
    cluster::ReportsSnapshot,
    ids::{ContainerId, TaskArn},
    task::{EngineSnapshot, StopCode, TaskSnapshot, TaskSpec, TaskStatus},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// Longer than any deadline and back-off of the engine, cleanup excepted.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

pub(super) struct Node {
    pub(super) config: EngineConfig,
    pub(super) crash: Arc<Crash>,
    pub(super) containers: Arc<FakeContainers>,
    pub(super) journal: Arc<FakeJournal>,
    pub(super) leases: FakeLeases,
    /// What the reporter has on record.
    pub(super) reports: watch::Sender<Arc<ReportsSnapshot>>,
    pub(super) handle: EngineHandle,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
    pub(super) data: tempfile::TempDir,
}

impl Node {
    pub(super) fn start(slots: u8) -> Self {
        Self::start_with(slots, |_| {})
    }

    pub(super) fn start_with(slots: u8, change: impl FnOnce(&mut EngineConfig)) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut config = EngineConfig { data_dir: data.path().to_owned(), ..fixtures::config() };
        change(&mut config);
        let crash = Arc::new(Crash::default());
        let containers = Arc::new(FakeContainers::new(Arc::clone(&crash)));
        let journal = Arc::new(FakeJournal::new(Arc::clone(&crash)));
        let leases = FakeLeases::new(slots);
        let reports = watch::Sender::default();
        let (handle, shutdown, running) = run(&config, &containers, &journal, &leases, &reports);
        Self { config, crash, containers, journal, leases, reports, handle, shutdown, running, data }
    }

    /// kill -9: the loop and its ops end where they are, and what the journal had not flushed is gone.
    pub(super) async fn kill(&mut self) {
        self.running.abort();
        assert!((&mut self.running).await.unwrap_err().is_cancelled(), "the engine ended by itself");
        self.crash.revive();
        self.journal.lose_facts();
    }

    pub(super) async fn shut_down(&mut self) {
        self.shutdown.cancel();
        (&mut self.running).await.unwrap();
    }

    pub(super) fn start_again(&mut self) {
        (self.handle, self.shutdown, self.running) =
            run(&self.config, &self.containers, &self.journal, &self.leases, &self.reports);
    }

    pub(super) async fn run(&self, spec: TaskSpec) -> Result<(), AssignmentError> {
        let (reply, answer) = oneshot::channel();
        self.handle.assignments.send(Assignment::Run { spec: Box::new(spec), reply }).await.unwrap();
        answer.await.unwrap()
    }

    pub(super) async fn stop(&self, task: &TaskArn) -> Result<(), AssignmentError> {
        let (reply, answer) = oneshot::channel();
        let reason = "Task stopped by user".to_owned();
        let stop = Assignment::Stop { task: task.clone(), reason, code: StopCode::UserInitiated, reply };
        self.handle.assignments.send(stop).await.unwrap();
        answer.await.unwrap()
    }

    pub(super) fn snapshot(&self) -> Arc<EngineSnapshot> {
        Arc::clone(&self.handle.snapshot.borrow())
    }

    pub(super) async fn until(
        &self,
        what: &str,
        mut so: impl FnMut(&EngineSnapshot) -> bool,
    ) -> Arc<EngineSnapshot> {
        let mut snapshot = self.handle.snapshot.clone();
        let wait = tokio::time::timeout(PATIENCE, snapshot.wait_for(|s| so(s))).await;
        match wait {
            Ok(now) => Arc::clone(&now.unwrap()),
            Err(_) => panic!("not in time: {what}; {:#?}", self.snapshot()),
        }
    }

    pub(super) async fn until_task(
        &self,
        task: &TaskArn,
        what: &str,
        so: impl Fn(&TaskSnapshot) -> bool,
    ) -> Arc<TaskSnapshot> {
        let now = self.until(what, |s| s.tasks.get(task).is_some_and(|t| so(t))).await;
        Arc::clone(&now.tasks[task])
    }

    pub(super) async fn until_running(&self, task: &TaskArn) -> Arc<TaskSnapshot> {
        self.until_task(task, "running", |t| t.last_status() == "RUNNING").await
    }

    /// Stopped, containers removed, slot given back.
    pub(super) async fn until_over(&self, task: &TaskArn) -> Arc<TaskSnapshot> {
        let over = self.until_task(task, "stopped and torn down", |t| t.known == TaskStatus::Stopped).await;
        self.until_world("slot given back", || !self.leases.held().contains_key(task)).await;
        let left = self
            .containers
            .ids()
            .into_iter()
            .filter(|id| over.spec.containers.iter().any(|c| *id == id_of(task, &c.name)));
        assert_eq!(left.count(), 0, "the slot was given back before the containers were gone");
        over
    }

    /// Waits for something that no snapshot shows.
    pub(super) async fn until_world(&self, what: &str, so: impl Fn() -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !so() {
            assert!(tokio::time::Instant::now() < deadline, "not in time: {what}; {:#?}", self.snapshot());
            // Time is paused: this lets every task that can go on do so, and then moves to the next deadline.
            tokio::time::advance(Duration::from_millis(1)).await;
            tokio::task::yield_now().await;
        }
    }

    /// Lets the engine do all it would do within this time.
    pub(super) async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

pub(super) fn id_of(task: &TaskArn, name: &str) -> ContainerId {
    ContainerId::derive(task, name, 0)
}

fn run(
    config: &EngineConfig,
    containers: &Arc<FakeContainers>,
    journal: &Arc<FakeJournal>,
    leases: &FakeLeases,
    reports: &watch::Sender<Arc<ReportsSnapshot>>,
) -> (EngineHandle, CancellationToken, JoinHandle<()>) {
    let shutdown = CancellationToken::new();
    let deps = Deps {
        containers: containers.clone(),
        journal: journal.clone(),
        leases: leases.connect(),
        slots: leases.slots(),
        reports: reports.subscribe(),
    };
    let (engine, handle) = Engine::new(config.clone(), deps);
    let running = tokio::spawn(engine.run(shutdown.clone()));
    (handle, shutdown, running)
}
