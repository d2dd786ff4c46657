//! The crate's front: puts registration, poller and outbox together and gives the agent a handle on them.

use crate::{
    board::Board,
    capabilities,
    client::EcsClient,
    config::{EcsConfig, EcsStartError},
    meter::Metered,
    node::Node,
    outbox::{Outbox, RefuseError, RefuseHandle},
    pacing::Jitter,
    poller::{Doors, Poller, Refuse},
    port::{ControlPlane, EcsError},
    registration::Registering,
    saved::Saved,
};
use async_trait::async_trait;
use berth_types::{
    assignment::Assignment,
    cluster::{ClusterSnapshot, ReportsSnapshot},
    eni::InstanceFacts,
    ids::TaskArn,
    ports::{Cloud, Journal},
    task::EngineSnapshot,
};
use std::{fmt, sync::Arc};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

/// What the ECS client works with.
pub struct Deps {
    /// For the instance identity document.
    pub cloud: Arc<dyn Cloud>,
    /// Registration and reports.
    pub journal: Arc<dyn Journal>,
    /// The engine's queue.
    pub assignments: mpsc::Sender<Assignment>,
    /// What the engine has.
    pub engine: watch::Receiver<Arc<EngineSnapshot>>,
    /// What the outbox holds: the engine listens to it, so the agent makes the channel before both.
    pub reports: watch::Sender<Arc<ReportsSnapshot>>,
    /// The instance, as EC2 and IMDS describe it.
    pub instance: InstanceFacts,
    /// From [`check_saved`](crate::check_saved).
    pub saved: Saved,
}

impl fmt::Debug for Deps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deps").field("instance", &self.instance).finish_non_exhaustive()
    }
}

/// Registration, poller and outbox, not yet running.
pub struct Ecs {
    node: Node,
    outbox: Outbox,
}

impl fmt::Debug for Ecs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ecs").finish_non_exhaustive()
    }
}

/// The agent's view of the control plane.
#[derive(Clone)]
pub struct EcsHandle {
    /// Where the node stands in its cluster.
    pub cluster: watch::Receiver<Arc<ClusterSnapshot>>,
    /// What the outbox holds.
    pub reports: watch::Receiver<Arc<ReportsSnapshot>>,
    control: Metered,
    poke: Arc<Notify>,
}

impl fmt::Debug for EcsHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EcsHandle").finish_non_exhaustive()
    }
}

/// The container instance was not drained (or set active again).
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// There is nothing to drain yet.
    #[error("the node has never been registered in its cluster")]
    NotRegistered,
    /// The control plane was asked and did not do it.
    #[error("ask the control plane for another state of this container instance")]
    ControlPlane(#[source] EcsError),
}

impl EcsHandle {
    /// Asks the control plane to give this node no more tasks, or to give it tasks again. Tasks that run are the control plane's to
    /// move; its answer shows in [`EcsHandle::cluster`].
    pub async fn drain(&self, draining: bool) -> Result<(), DrainError> {
        let arn = self.cluster.borrow().container_instance_arn.clone().ok_or(DrainError::NotRegistered)?;
        self.control.set_instance_state(&arn, draining).await.map_err(DrainError::ControlPlane)?;
        tracing::info!(instance = arn, draining, "asked for another state of the container instance");
        self.poke.notify_one();
        Ok(())
    }
}

impl Ecs {
    /// Puts the parts together; talks to nobody yet.
    pub fn new(config: EcsConfig, deps: Deps) -> Result<(Self, EcsHandle), EcsStartError> {
        let client = EcsClient::new(&config, &deps.instance.region).map_err(EcsStartError::Client)?;
        Self::with_control(config, deps, Arc::new(client))
    }

    /// The same with another control plane.
    pub(crate) fn with_control(
        config: EcsConfig,
        deps: Deps,
        control: Arc<dyn ControlPlane>,
    ) -> Result<(Self, EcsHandle), EcsStartError> {
        let resources = capabilities::resources(capabilities::host()?, &config)?;
        let control = Metered::new(control);
        let metered: Arc<dyn ControlPlane> = Arc::new(control.clone());
        let (board, cluster) = Board::new(&config.cluster, config.cap());
        let (poke, heard) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let reports = deps.reports.subscribe();
        let (outbox, refuse) = Outbox::new(
            Arc::clone(&deps.journal),
            Arc::clone(&metered),
            deps.engine.clone(),
            deps.reports,
            Arc::clone(&heard),
            config.clock,
            config.seed,
        );
        let doors = Doors {
            control: control.clone(),
            assignments: deps.assignments,
            engine: deps.engine.clone(),
            reports: reports.clone(),
            refuse: Arc::new(refuse),
            poke: Arc::clone(&poke),
            heard,
        };
        let node = Node {
            poller: Poller::new(doors, &config),
            board,
            jitter: Jitter::new(config.seed),
            earlier: deps.saved.container_instance_arn,
            engine: deps.engine,
            reports: reports.clone(),
            registering: Registering {
                control: metered,
                cloud: deps.cloud,
                journal: deps.journal,
                config,
                instance: deps.instance,
                resources,
            },
        };
        Ok((Self { node, outbox }, EcsHandle { cluster, reports, control, poke }))
    }

    /// Runs until `shutdown`. Reports are sent whether the node is registered or not.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { node, outbox } = self;
        let registered = async {
            tokio::select! {
                // May be dropped at any await: what counts is in the journal or with the control plane.
                () = node.run() => {}
                () = shutdown.cancelled() => {}
            }
        };
        tokio::join!(outbox.run(shutdown.clone()), registered);
    }
}

#[async_trait]
impl Refuse for RefuseHandle {
    async fn refuse(
        &self,
        task: TaskArn,
        cluster: &str,
        reason: String,
        containers: Vec<String>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        match RefuseHandle::refuse(self, task, cluster, reason, containers).await {
            // The engine has it: it will say itself what becomes of it.
            Ok(()) | Err(RefuseError::Known(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
