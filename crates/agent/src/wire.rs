//! The composition root: every component is constructed here, top to bottom in the order of start-up.
//!
//! ```text
//!  who am I (EC2, IMDS) ─► journal ─► which cluster ─► ports ─► ENI manager, engine, ECS ─► metadata ─► admin API ─► READY
//! ```
//!
//! Start-up is recovery: both owners observe what is there and go on from it. The admin socket comes early, because a second
//! agent must be told so before it touches anything; so does the question whether this node belongs to its cluster. The
//! registration comes last and is waited for by nobody: READY says that the tasks of the past are in hand, and those need no cluster.

mod settings;

pub(crate) use settings::containerd;

use crate::{
    backend::{Owners, Plane},
    config::{Config, ControlPlane},
    identity, notify,
};
use anyhow::{Context, Result, bail};
use berth_admin::Admin;
use berth_containerd::Containerd;
use berth_ecs::{Ecs, EcsStartError, Saved};
use berth_engine::{Engine, EngineHandle};
use berth_eni::{EniHandle, EniManager};
use berth_metadata::Metadata;
use berth_netns::{NetnsBuilder, ns::Netns};
use berth_store::SledJournal;
use berth_types::{
    Timestamp,
    cluster::ReportsSnapshot,
    eni::InstanceFacts,
    lease::{LISTENER_QUEUE, ListenerChange},
    ports::{Cloud, Journal, Network},
};
use std::{
    os::unix::fs::DirBuilderExt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

/// How long the parts may take to end. Acts under way have 5 s of their own; systemd gives the unit 15.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(8);

/// Runs the node agent until a signal.
pub(crate) async fn agent(config: Config) -> Result<()> {
    let begin = Instant::now();
    tell_oddities(&config);
    make_directory(&config.paths.data_dir)?;
    make_directory(&config.paths.run_dir)?;
    let mut parts = Parts::default();
    stop_on_signals(&parts.shutdown)?;

    let socket = berth_admin::bind(&config.paths.admin_socket).await?;
    let cloud: Arc<dyn Cloud> = Arc::new(settings::ec2(&config)?);
    let instance = tokio::select! {
        found = identity::find(&*cloud, &config.paths.data_dir) => Arc::new(found?),
        () = parts.shutdown.cancelled() => return Ok(()),
    };
    let journal = open_journal(&config.paths.data_dir, &instance).await?;
    let saved = registration(&config, &*journal, &instance).await?;
    let watchers = TaskTracker::new();
    let network: Arc<dyn Network> =
        Arc::new(netns(&config, &instance, &watchers, parts.shutdown.clone()).await?);
    let containerd = containerd(&config)?;
    let (listeners, listener_queue) = mpsc::channel(LISTENER_QUEUE);
    let (reports, reports_watch) = watch::channel(Arc::default());

    let eni_config = settings::eni(&config, &instance, &*cloud).await;
    let ipv6 = eni_config.ipv6;
    let deps = berth_eni::Deps {
        cloud: Arc::clone(&cloud),
        network,
        journal: Arc::clone(&journal),
        listeners,
        instance: (*instance).clone(),
    };
    let (eni_manager, enis) = EniManager::new(eni_config, deps);
    let deps = berth_engine::Deps {
        containers: Arc::new(containerd.clone()),
        journal: Arc::clone(&journal),
        leases: enis.lease.clone(),
        slots: enis.snapshot.clone(),
        reports: reports_watch,
    };
    let (engine, engine_handle) = Engine::new(settings::engine(&config, &instance), deps);
    let node = Node { config, instance, cloud, journal, containerd, enis, engine: engine_handle };
    let ecs = saved.map(|saved| node.ecs(saved, reports, ipv6)).transpose()?;

    parts.run("the ENI manager", |stop| eni_manager.run(stop));
    parts.run("the engine", |stop| engine.run(stop));
    let metadata = node.start_metadata(listener_queue, parts.shutdown.clone())?;
    let snapshots = (node.engine.snapshot.clone(), node.enis.snapshot.clone());
    parts.run("the notifier", |stop| notify::ready(snapshots.0, snapshots.1, begin, stop));
    node.start_cleanup(&mut parts);
    let control_plane = ecs.map(|(ecs, handle)| {
        parts.run("the ECS client", |stop| ecs.run(stop));
        berth_admin::ControlPlane {
            cluster: handle.cluster.clone(),
            reports: handle.reports.clone(),
            control: Arc::new(Plane(handle)),
        }
    });
    node.start_admin(socket, control_plane, &mut parts);

    let early = parts.first_end().await;
    watchers.close();
    end(parts, watchers, metadata).await;
    early.map_or(Ok(()), |reason| bail!("{reason}"))
}

/// Whether an error will be there again at the next start, until an operator does something.
pub(crate) fn is_terminal(error: &anyhow::Error) -> bool {
    let terminal = |error: &EcsStartError| match error {
        EcsStartError::ClusterChanged { .. } | EcsStartError::NothingLeft { .. } => true,
        EcsStartError::UnknownMemory(_) | EcsStartError::Client(_) | EcsStartError::Journal(_) => false,
    };
    error.chain().filter_map(|cause| cause.downcast_ref::<EcsStartError>()).any(terminal)
}

/// What was set and is not as it says there.
fn tell_oddities(config: &Config) {
    for warning in &config.warnings {
        warn!(setting = warning, "a setting is not taken as it stands");
    }
    if !config.unused.is_empty() {
        info!(settings = config.unused.join(" "), "settings of the official agent that have no effect here");
    }
}

/// What runs until the shutdown. One that ends before has failed, and a restart is the way to recover.
#[derive(Default)]
struct Parts {
    running: JoinSet<&'static str>,
    shutdown: CancellationToken,
}

impl Parts {
    fn run<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        name: &'static str,
        part: impl FnOnce(CancellationToken) -> F,
    ) {
        let part = part(self.shutdown.clone());
        self.running.spawn(async move {
            part.await;
            name
        });
    }

    /// Waits for the shutdown, or for a part that ends before: then the answer says which.
    async fn first_end(&mut self) -> Option<String> {
        let early = match self.running.join_next().await {
            Some(Ok(part)) if !self.shutdown.is_cancelled() => Some(format!("{part} ended early")),
            Some(Err(error)) if !self.shutdown.is_cancelled() => {
                Some(format!("a part of the agent failed: {error}"))
            }
            Some(Ok(_) | Err(_)) | None => None,
        };
        self.shutdown.cancel();
        early
    }
}

async fn end(mut parts: Parts, watchers: TaskTracker, metadata: std::thread::JoinHandle<()>) {
    let all = async {
        while parts.running.join_next().await.is_some() {}
        watchers.wait().await;
        tokio::task::spawn_blocking(move || metadata.join().ok()).await.ok();
    };
    if tokio::time::timeout(SHUTDOWN_DEADLINE, all).await.is_err() {
        warn!(
            "parts of the agent did not end in time; what they were doing is taken up again at the next start"
        );
    }
    info!("agent stopped; tasks keep running");
}

fn make_directory(path: &Path) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("make the directory {}", path.display()))
}

/// SIGTERM and SIGINT end the agent; a second one does not wait.
fn stop_on_signals(shutdown: &CancellationToken) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                // Both are cancel-safe: a signal that was not taken is seen by the next recv.
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if shutdown.is_cancelled() {
                #[expect(
                    clippy::exit,
                    reason = "the operator asked twice; every act can be cut off here as by kill -9"
                )]
                std::process::exit(1);
            }
            shutdown.cancel();
        }
    });
    Ok(())
}

async fn open_journal(data_dir: &Path, instance: &InstanceFacts) -> Result<Arc<dyn Journal>> {
    let (path, id) = (data_dir.join("journal"), instance.instance_id.clone());
    let opened = tokio::task::spawn_blocking(move || SledJournal::open(&path, Some(&id))).await?;
    // What was set aside, and why, has been logged by the store.
    let (journal, _report) = opened?;
    Ok(Arc::new(journal))
}

/// What is kept of the registration; an error if it was in another cluster. `None`: no control plane.
async fn registration(
    config: &Config,
    journal: &dyn Journal,
    instance: &InstanceFacts,
) -> Result<Option<Saved>> {
    match config.control.control_plane {
        ControlPlane::None => Ok(None),
        ControlPlane::Ecs => {
            Ok(Some(berth_ecs::check_saved(journal, &config.cluster, &instance.instance_id).await?))
        }
    }
}

async fn netns(
    config: &Config,
    instance: &InstanceFacts,
    tracker: &TaskTracker,
    stop: CancellationToken,
) -> Result<NetnsBuilder> {
    let mut netns = berth_netns::Config::new(instance.instance_id.clone(), &config.paths.run_dir);
    netns.netns_dir.clone_from(&config.paths.netns_dir);
    netns.bpffs_dir.clone_from(&config.paths.bpf_dir);
    let home = Netns::current().context("open the agent's own network namespace")?;
    Ok(NetnsBuilder::start(netns, home, tracker, stop).await?)
}

/// What the parts beside the two owners are made of.
struct Node {
    config: Config,
    instance: Arc<InstanceFacts>,
    cloud: Arc<dyn Cloud>,
    journal: Arc<dyn Journal>,
    containerd: Containerd,
    enis: EniHandle,
    engine: EngineHandle,
}

impl Node {
    /// The ECS client; talks to nobody yet.
    fn ecs(
        &self,
        saved: Saved,
        reports: watch::Sender<Arc<ReportsSnapshot>>,
        ipv6: bool,
    ) -> Result<(Ecs, berth_ecs::EcsHandle), EcsStartError> {
        let deps = berth_ecs::Deps {
            cloud: Arc::clone(&self.cloud),
            journal: Arc::clone(&self.journal),
            assignments: self.engine.assignments.clone(),
            engine: self.engine.snapshot.clone(),
            reports,
            instance: (*self.instance).clone(),
            saved,
        };
        Ecs::new(settings::ecs(&self.config, &self.instance, ipv6), deps)
    }

    /// The metadata endpoint has a thread and a runtime of its own: a flood of requests does not delay a launch.
    fn start_metadata(
        &self,
        listeners: mpsc::Receiver<ListenerChange>,
        shutdown: CancellationToken,
    ) -> Result<std::thread::JoinHandle<()>> {
        let settings = settings::metadata(&self.config, &self.instance);
        let metadata = Metadata::new(settings, self.engine.snapshot.clone(), self.enis.snapshot.clone());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("make the metadata runtime")?;
        std::thread::Builder::new()
            .name("metadata".into())
            .spawn(move || runtime.block_on(metadata.run(listeners, shutdown)))
            .context("start the metadata thread")
    }

    fn start_cleanup(&self, parts: &mut Parts) {
        let (containerd, config) = (self.containerd.clone(), self.config.images.cleanup.clone());
        parts.run("the image clean-up", |stop| async move {
            containerd.run_image_cleanup(config, stop.clone()).await;
            // Where it is off it ends at once, and that is no failure.
            stop.cancelled().await;
        });
    }

    fn start_admin(
        self,
        socket: UnixListener,
        control_plane: Option<berth_admin::ControlPlane>,
        parts: &mut Parts,
    ) {
        let Self { config, instance, containerd, enis, engine, .. } = self;
        let admin = Admin {
            engine: engine.snapshot.clone(),
            enis: enis.snapshot.clone(),
            pulls: containerd.pulls(),
            control_plane,
            assignments: engine.assignments.clone(),
            backend: Arc::new(Owners { enis, engine, containerd }),
            instance,
            cluster: config.cluster,
            cluster_name: config.cluster_name,
            privileged: !config.control.disable_privileged,
            version: env!("CARGO_PKG_VERSION"),
            started_at: Timestamp::now(),
            now: Timestamp::now,
        };
        parts.run("the admin API", |stop| async move {
            if let Err(error) = berth_admin::serve(socket, admin, stop).await {
                tracing::error!(error = %berth_types::Chain(&error), "admin api stopped");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_an_operator_must_mend_keeps_the_agent_from_being_restarted() {
        let moved = || EcsStartError::ClusterChanged { saved: "demo".into(), configured: "other".into() };
        assert!(is_terminal(&moved().into()));
        assert!(is_terminal(&anyhow::Error::new(moved()).context("start")));
        assert!(is_terminal(&EcsStartError::NothingLeft { reserved: 9, total: 8 }.into()));
        let passing = EcsStartError::UnknownMemory(std::io::ErrorKind::Interrupted.into());
        assert!(!is_terminal(&passing.into()));
        assert!(!is_terminal(&anyhow::anyhow!("the engine ended early")));
    }
}
