//! All parts together, the outbox included: what [`Ecs`](crate::Ecs) promises to the agent.

use super::{
    arn,
    control::FakeEcs,
    instance,
    rig::{snapshot, spec},
};
use crate::{Deps, DrainError, Ecs, EcsConfig, EcsHandle, Saved};
use berth_testkit::{cloud::FakeCloud, crash::Crash, journal::FakeJournal, network::FakeNetwork};
use berth_types::{
    assignment::{ASSIGNMENT_QUEUE, Assignment},
    cluster::{ClusterSnapshot, InstanceStatus, ReportsSnapshot},
    task::{EngineSnapshot, Origin, TaskStatus},
};
use std::sync::Arc;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Duration, timeout},
};
use tokio_util::sync::CancellationToken;

struct Whole {
    ecs: Arc<FakeEcs>,
    handle: EcsHandle,
    engine: watch::Sender<Arc<EngineSnapshot>>,
    assignments: mpsc::Receiver<Assignment>,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
}

fn start(ecs: &Arc<FakeEcs>, found: EngineSnapshot) -> Whole {
    let engine = watch::Sender::new(Arc::new(found));
    let (sender, assignments) = mpsc::channel(ASSIGNMENT_QUEUE);
    let deps = Deps {
        cloud: Arc::new(FakeCloud::new(
            instance(),
            Arc::new(FakeNetwork::new(Arc::default())),
            Arc::default(),
        )),
        journal: Arc::new(FakeJournal::new(Arc::new(Crash::default()))),
        assignments: sender,
        engine: engine.subscribe(),
        reports: watch::Sender::new(Arc::default()),
        instance: instance(),
        saved: Saved::default(),
    };
    let control = Arc::clone(ecs) as Arc<dyn crate::port::ControlPlane>;
    let (running, handle) = Ecs::with_control(EcsConfig::new("demo"), deps, control).unwrap();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(running.run(shutdown.clone()));
    Whole { ecs: Arc::clone(ecs), handle, engine, assignments, shutdown, running }
}

impl Whole {
    async fn cluster(
        &mut self,
        condition: impl FnMut(&Arc<ClusterSnapshot>) -> bool,
    ) -> Arc<ClusterSnapshot> {
        let found = timeout(Duration::from_secs(600), self.handle.cluster.wait_for(condition)).await;
        found.expect("in time").unwrap().clone()
    }

    async fn reports(&mut self, condition: impl FnMut(&Arc<ReportsSnapshot>) -> bool) {
        timeout(Duration::from_secs(600), self.handle.reports.wait_for(condition))
            .await
            .expect("in time")
            .unwrap();
    }

    async fn end(self) {
        self.shutdown.cancel();
        timeout(Duration::from_secs(60), self.running).await.expect("ends in time").unwrap();
    }
}

fn recovered() -> EngineSnapshot {
    EngineSnapshot { recovered: true, ..EngineSnapshot::default() }
}

#[tokio::test(start_paused = true)]
async fn a_task_goes_from_its_listing_to_its_acknowledged_end() {
    let ecs = FakeEcs::new(Arc::default());
    let task = arn("1");
    ecs.run(&task);
    let mut whole = start(&ecs, recovered());
    let assignment = timeout(Duration::from_secs(60), whole.assignments.recv()).await.unwrap().unwrap();
    let Assignment::Run { spec, reply } = assignment else { panic!("{assignment:?}") };
    reply.send(Ok(())).unwrap();
    let mut ended = snapshot(Arc::new(*spec));
    (ended.desired, ended.known) = (TaskStatus::Stopped, TaskStatus::Stopped);
    whole.engine.send_modify(|s| drop(Arc::make_mut(s).tasks.insert(task.clone(), Arc::new(ended))));
    whole.reports(|r| r.ended.contains(&task) && r.waiting.is_empty()).await;
    assert_eq!(whole.ecs.world().tasks[&task].last, "STOPPED");
    assert!(whole.cluster(|s| s.calls_last_minute > 0).await.polled_at.is_some());
    whole.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_task_is_reported_stopped() {
    let ecs = FakeEcs::new(Arc::default());
    let task = arn("1");
    ecs.world()
        .definitions
        .insert("arn:aws:ecs:us-west-2:111122223333:task-definition/bad:1".into(), "{}".into());
    ecs.run_family(&task, "bad");
    let mut whole = start(&ecs, recovered());
    whole.cluster(|s| !s.refused.is_empty()).await;
    whole.reports(|r| r.waiting.is_empty()).await;
    let told = timeout(Duration::from_secs(60), async {
        while whole.ecs.world().tasks[&task].last != "STOPPED" {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    told.await.unwrap();
    whole.end().await;
}

#[tokio::test(start_paused = true)]
async fn reports_are_sent_while_the_node_cannot_register() {
    let ecs = FakeEcs::new(Arc::default());
    let task = arn("1");
    ecs.run(&task);
    ecs.world().refused.insert("register", crate::EcsErrorKind::Unauthorized("no".into()));
    let mut found = recovered();
    let mut ended = snapshot(spec(&task, Origin::ControlPlane { attachment: None }));
    (ended.desired, ended.known) = (TaskStatus::Stopped, TaskStatus::Stopped);
    found.tasks.insert(task.clone(), Arc::new(ended));
    let mut whole = start(&ecs, found);
    whole.reports(|r| r.ended.contains(&task) && r.waiting.is_empty()).await;
    assert_eq!(whole.ecs.world().tasks[&task].last, "STOPPED");
    let snapshot = whole.cluster(|s| s.problem.is_some()).await;
    assert_eq!(snapshot.status, InstanceStatus::Unregistered);
    assert!(matches!(whole.handle.drain(true).await, Err(DrainError::NotRegistered)));
    whole.end().await;
}

#[tokio::test(start_paused = true)]
async fn draining_shows_at_once_and_can_be_undone() {
    let ecs = FakeEcs::new(Arc::default());
    let mut whole = start(&ecs, recovered());
    whole.cluster(|s| s.status == InstanceStatus::Active && s.polled_at.is_some()).await;
    for (draining, status) in [(true, InstanceStatus::Draining), (false, InstanceStatus::Active)] {
        whole.handle.drain(draining).await.unwrap();
        let begin = tokio::time::Instant::now();
        whole.cluster(|s| s.status == status).await;
        assert!(begin.elapsed() < Duration::from_secs(5));
    }
    ecs.world().refused.insert("set_instance_state", crate::EcsErrorKind::Unauthorized("no".into()));
    assert!(matches!(whole.handle.drain(true).await, Err(DrainError::ControlPlane(_))));
    whole.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_everything_whatever_it_waits_for() {
    let ecs = FakeEcs::new(Arc::default());
    ecs.world().outage = true;
    let whole = start(&ecs, recovered());
    tokio::time::sleep(Duration::from_secs(5)).await;
    whole.end().await;
}
