//! A node in its cluster without its outbox: the loop under test, an engine that takes assignments, a journal.

use super::{control::FakeEcs, instance};
use crate::{
    board::Board,
    config::EcsConfig,
    meter::Metered,
    node::Node,
    pacing::Jitter,
    poller::{Doors, Poller, Refuse},
    port::ControlPlane,
    registration::Registering,
    saved::check_saved,
};
use async_trait::async_trait;
use berth_testkit::{cloud::FakeCloud, crash::Crash, journal::FakeJournal, network::FakeNetwork, samples};
use berth_types::{
    Timestamp,
    assignment::{ASSIGNMENT_QUEUE, Assignment, AssignmentError},
    cluster::{ClusterSnapshot, ReportsSnapshot},
    ids::TaskArn,
    ports::Journal,
    task::{EngineSnapshot, Origin, StopCode, TaskSnapshot, TaskSpec, TaskStatus},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinSet,
    time::{Duration, timeout},
};

/// What the engine was told, and how it answers.
#[derive(Debug, Default)]
pub(crate) struct Engine {
    /// How often each task was begun.
    pub(crate) begun: BTreeMap<TaskArn, u32>,
    pub(crate) specs: BTreeMap<TaskArn, TaskSpec>,
    pub(crate) stopped: Vec<(TaskArn, String, StopCode)>,
    /// It holds as many tasks as it may.
    pub(crate) full: bool,
}

/// Survives the death of the node, as the engine's records, the journal and the control plane do.
pub(crate) struct Rig {
    pub(crate) ecs: Arc<FakeEcs>,
    pub(crate) crash: Arc<Crash>,
    pub(crate) journal: Arc<FakeJournal>,
    pub(crate) engine: watch::Sender<Arc<EngineSnapshot>>,
    pub(crate) reports: watch::Sender<Arc<ReportsSnapshot>>,
    pub(crate) refused: Arc<Mutex<BTreeMap<TaskArn, String>>>,
    pub(crate) config: EcsConfig,
    told: Arc<Mutex<Engine>>,
    running: JoinSet<()>,
    pub(crate) cluster: watch::Receiver<Arc<ClusterSnapshot>>,
    pub(crate) poke: Arc<Notify>,
}

struct FakeOutbox(Arc<Mutex<BTreeMap<TaskArn, String>>>);

#[async_trait]
impl Refuse for FakeOutbox {
    async fn refuse(
        &self,
        task: TaskArn,
        _cluster: &str,
        reason: String,
        _containers: Vec<String>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.0.lock().unwrap().insert(task, reason);
        Ok(())
    }
}

/// A task as the engine publishes it right after the assignment.
pub(crate) fn snapshot(spec: Arc<TaskSpec>) -> TaskSnapshot {
    TaskSnapshot { containers: Vec::new(), ..samples::taken(spec) }
}

/// A task that only its name and origin matter of.
pub(crate) fn spec(arn: &TaskArn, origin: Origin) -> Arc<TaskSpec> {
    Arc::new(TaskSpec { origin, ..samples::task(arn.clone(), Vec::new()) })
}

fn take(assignment: Assignment, engine: &watch::Sender<Arc<EngineSnapshot>>, told: &Mutex<Engine>) {
    let mut told = told.lock().unwrap();
    match assignment {
        Assignment::Run { spec, reply } => {
            let known = engine.borrow().tasks.contains_key(&spec.arn);
            let result = match (known, told.full) {
                (false, true) => Err(AssignmentError::TooManyTasks(7)),
                (false, false) => {
                    *told.begun.entry(spec.arn.clone()).or_default() += 1;
                    told.specs.insert(spec.arn.clone(), (*spec).clone());
                    change(engine, |s| {
                        s.tasks.insert(spec.arn.clone(), Arc::new(snapshot(Arc::new(*spec))));
                    });
                    Ok(())
                }
                (true, _) => Ok(()),
            };
            drop(reply.send(result));
        }
        Assignment::Stop { task, reason, code, reply } => {
            told.stopped.push((task.clone(), reason, code));
            change(engine, |s| {
                let mut stopped = TaskSnapshot::clone(&s.tasks[&task]);
                (stopped.desired, stopped.known) = (TaskStatus::Stopped, TaskStatus::Stopped);
                s.tasks.insert(task, Arc::new(stopped));
            });
            drop(reply.send(Ok(())));
        }
    }
}

fn change(engine: &watch::Sender<Arc<EngineSnapshot>>, with: impl FnOnce(&mut EngineSnapshot)) {
    engine.send_modify(|snapshot| with(Arc::make_mut(snapshot)));
}

impl Rig {
    /// Everything but the node.
    pub(crate) fn new() -> Self {
        Self::of("demo")
    }

    pub(crate) fn of(cluster: &str) -> Self {
        let crash = Arc::new(Crash::default());
        let (board, cluster_snapshot) = Board::new(cluster, 100);
        drop(board);
        Self {
            ecs: FakeEcs::of(cluster, Arc::clone(&crash)),
            journal: Arc::new(FakeJournal::new(Arc::clone(&crash))),
            engine: watch::Sender::new(Arc::new(EngineSnapshot { recovered: true, ..Default::default() })),
            reports: watch::Sender::new(Arc::new(ReportsSnapshot { version: 1, ..Default::default() })),
            refused: Arc::default(),
            config: EcsConfig { clock: || Timestamp::UNIX_EPOCH, ..EcsConfig::new(cluster) },
            told: Arc::default(),
            running: JoinSet::new(),
            cluster: cluster_snapshot,
            poke: Arc::default(),
            crash,
        }
    }

    /// A node that runs.
    pub(crate) async fn started() -> Self {
        let mut rig = Self::new();
        rig.start().await;
        rig
    }

    /// Starts the node (again), from what the journal holds.
    pub(crate) async fn start(&mut self) {
        let journal: Arc<dyn Journal> = Arc::clone(&self.journal) as _;
        let id = instance().instance_id;
        let saved = tokio::select! {
            saved = check_saved(&*journal, &self.config.cluster, &id) => saved.unwrap(),
            () = self.crash.died() => return,
        };
        let control = Metered::new(Arc::clone(&self.ecs) as Arc<dyn ControlPlane>);
        let (board, cluster) = Board::new(&self.config.cluster, self.config.cap());
        self.cluster = cluster;
        let (assignments, mut queue) = mpsc::channel(ASSIGNMENT_QUEUE);
        let (engine, told) = (self.engine.clone(), Arc::clone(&self.told));
        self.running.spawn(async move {
            while let Some(assignment) = queue.recv().await {
                take(assignment, &engine, &told);
            }
        });
        let doors = Doors {
            control: control.clone(),
            assignments,
            engine: self.engine.subscribe(),
            reports: self.reports.subscribe(),
            refuse: Arc::new(FakeOutbox(Arc::clone(&self.refused))),
            poke: Arc::clone(&self.poke),
            heard: Arc::default(),
        };
        let config = self.config.clone();
        let node = Node {
            poller: Poller::new(doors, &config),
            board,
            jitter: Jitter::new(1),
            earlier: saved.container_instance_arn,
            engine: self.engine.subscribe(),
            reports: self.reports.subscribe(),
            registering: Registering {
                control: Arc::new(control),
                cloud: Arc::new(FakeCloud::new(
                    instance(),
                    Arc::new(FakeNetwork::new(Arc::default())),
                    Arc::default(),
                )),
                journal,
                config,
                instance: instance(),
                resources: (2048, 1000),
            },
        };
        self.running.spawn(node.run());
    }

    /// kill -9.
    pub(crate) async fn kill(&mut self) {
        self.running.shutdown().await;
        self.journal.lose_facts();
    }

    pub(crate) fn told(&self) -> MutexGuard<'_, Engine> {
        self.told.lock().unwrap()
    }

    pub(crate) fn change(&self, with: impl FnOnce(&mut EngineSnapshot)) {
        change(&self.engine, with);
    }

    pub(crate) fn refusals(&self) -> BTreeMap<TaskArn, String> {
        self.refused.lock().unwrap().clone()
    }

    /// Waits for the cluster's snapshot to be so.
    pub(crate) async fn wait_for(
        &mut self,
        what: &str,
        condition: impl FnMut(&Arc<ClusterSnapshot>) -> bool,
    ) -> Arc<ClusterSnapshot> {
        let found = timeout(Duration::from_secs(3600), self.cluster.wait_for(condition)).await;
        found.unwrap_or_else(|_| panic!("never: {what}")).unwrap().clone()
    }

    /// Waits for the engine to be so.
    pub(crate) async fn wait_engine(&self, what: &str, mut condition: impl FnMut(&EngineSnapshot) -> bool) {
        let mut engine = self.engine.subscribe();
        let found = timeout(Duration::from_secs(3600), engine.wait_for(|s| condition(s))).await;
        assert!(found.is_ok(), "never: {what}");
    }

    /// Lets this much time pass.
    pub(crate) async fn pass(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
}
