//! The composition root: every component is constructed here, top to bottom in the order of start-up.
//!
//! ```text
//!  who am I (EC2, IMDS) ─► journal ─► admin socket ─► ports ─► ENI manager, engine ─► metadata ─► admin API ─► READY
//! ```
//!
//! Start-up is recovery: both owners observe what is there and go on from it. The admin socket comes early, because a second
//! agent must be told so before it touches anything.

use crate::{backend::Owners, config::Config, identity, notify};
use anyhow::{Context, Result, bail};
use berth_admin::Admin;
use berth_containerd::{Containerd, ContainerdConfig};
use berth_ec2::{Ec2Cloud, Ec2Config};
use berth_engine::{Engine, EngineConfig, EngineHandle};
use berth_eni::{EniConfig, EniHandle, EniManager};
use berth_metadata::{Metadata, MetadataConfig, MetadataLimits};
use berth_netns::{NetnsBuilder, ns::Netns};
use berth_store::SledJournal;
use berth_types::{
    Timestamp,
    eni::InstanceFacts,
    lease::{LISTENER_QUEUE, ListenerChange},
    ports::{Cloud, Containers, Journal, Network},
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
    sync::mpsc,
    task::JoinSet,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

/// How long the parts may take to end. Acts under way have 5 s of their own; systemd gives the unit 15.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(8);

/// Runs the node agent until a signal.
pub(crate) async fn agent(config: Config) -> Result<()> {
    let begin = Instant::now();
    if !config.unused.is_empty() {
        info!(settings = config.unused.join(" "), "settings of the official agent that have no effect here");
    }
    make_directory(&config.paths.data_dir)?;
    make_directory(&config.paths.run_dir)?;
    let shutdown = CancellationToken::new();
    stop_on_signals(&shutdown)?;

    let socket = berth_admin::bind(&config.paths.admin_socket).await?;
    let cloud: Arc<dyn Cloud> = Arc::new(ec2(&config)?);
    let instance = tokio::select! {
        found = identity::find(&*cloud, &config.paths.data_dir) => Arc::new(found?),
        () = shutdown.cancelled() => return Ok(()),
    };
    let journal = open_journal(&config.paths.data_dir, &instance).await?;
    let watchers = TaskTracker::new();
    let network: Arc<dyn Network> = Arc::new(netns(&config, &instance, &watchers, shutdown.clone()).await?);
    let containers: Arc<dyn Containers> = Arc::new(containerd(&config)?);
    let (listeners, listener_queue) = mpsc::channel(LISTENER_QUEUE);

    let eni_config = eni_config(&config, &instance, &*cloud).await;
    let deps = berth_eni::Deps {
        cloud,
        network,
        journal: Arc::clone(&journal),
        listeners,
        instance: (*instance).clone(),
    };
    let (eni_manager, enis) = EniManager::new(eni_config, deps);
    let deps =
        berth_engine::Deps { containers, journal, leases: enis.lease.clone(), slots: enis.snapshot.clone() };
    let (engine, engine_handle) = Engine::new(engine_config(&config, &instance), deps);

    let mut parts: JoinSet<&'static str> = JoinSet::new();
    let token = shutdown.clone();
    parts.spawn(async move {
        eni_manager.run(token).await;
        "the ENI manager"
    });
    let token = shutdown.clone();
    parts.spawn(async move {
        engine.run(token).await;
        "the engine"
    });
    let metadata =
        start_metadata(&config, &instance, &engine_handle, &enis, listener_queue, shutdown.clone())?;
    let ready = notify::ready(engine_handle.snapshot.clone(), enis.snapshot.clone(), begin, shutdown.clone());
    parts.spawn(async move {
        ready.await;
        "the notifier"
    });
    start_admin(&config, &instance, socket, engine_handle, enis, &shutdown, &mut parts);

    // All parts run until the shutdown: one that ends before has failed, and a restart is the way to recover.
    let early = match parts.join_next().await {
        Some(Ok(part)) if !shutdown.is_cancelled() => Some(format!("{part} ended early")),
        Some(Err(error)) if !shutdown.is_cancelled() => Some(format!("a part of the agent failed: {error}")),
        Some(Ok(_) | Err(_)) | None => None,
    };
    shutdown.cancel();
    watchers.close();
    end(parts, watchers, metadata).await;
    early.map_or(Ok(()), |reason| bail!("{reason}"))
}

async fn end(mut parts: JoinSet<&'static str>, watchers: TaskTracker, metadata: std::thread::JoinHandle<()>) {
    let all = async {
        while parts.join_next().await.is_some() {}
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

fn ec2(config: &Config) -> Result<Ec2Cloud> {
    let ec2 = Ec2Config {
        ec2_endpoint: config.ec2_endpoint.clone(),
        imds_endpoint: config.imds_endpoint.clone(),
        region: config.region.clone(),
        ..Ec2Config::default()
    };
    Ok(Ec2Cloud::new(ec2)?)
}

async fn open_journal(data_dir: &Path, instance: &InstanceFacts) -> Result<Arc<dyn Journal>> {
    let (path, id) = (data_dir.join("journal"), instance.instance_id.clone());
    let opened = tokio::task::spawn_blocking(move || SledJournal::open(&path, Some(&id))).await?;
    // What was set aside, and why, has been logged by the store.
    let (journal, _report) = opened?;
    Ok(Arc::new(journal))
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

/// The client of containerd; the CLI imports images with it too. Connects when it is first used.
pub(crate) fn containerd(config: &Config) -> Result<Containerd> {
    let settings = &config.containerd;
    let mut containerd = ContainerdConfig::new(&settings.socket, &settings.logger);
    containerd.namespace.clone_from(&settings.namespace);
    containerd.snapshotter.clone_from(&settings.snapshotter);
    containerd.runtime.clone_from(&settings.runtime);
    containerd.cgroup_root.clone_from(&settings.cgroup_root);
    Ok(Containerd::connect(containerd)?)
}

async fn eni_config(config: &Config, instance: &InstanceFacts, cloud: &dyn Cloud) -> EniConfig {
    let pool = &config.pool;
    EniConfig {
        cluster: config.cluster.clone(),
        warm: pool.warm,
        max_enis: pool.max_enis,
        warm_max: pool.warm_max,
        cooldown: pool.cooldown,
        subnets: pool.subnets.clone(),
        security_groups: pool.security_groups.clone(),
        mtu: pool.mtu,
        block_imds: pool.block_imds,
        dns_servers: pool.dns_servers.clone(),
        dns_search: pool.dns_search.clone(),
        link_timeout: pool.link_timeout,
        lease_timeout: pool.lease_timeout,
        audit: pool.audit,
        ipv6: match pool.ipv6 {
            Some(ipv6) => ipv6,
            None => subnet_has_ipv6(instance, cloud).await,
        },
        seed: seed(instance),
    }
}

/// Whether the instance's own subnet has an IPv6 block: then tasks get an IPv6 address too.
async fn subnet_has_ipv6(instance: &InstanceFacts, cloud: &dyn Cloud) -> bool {
    match cloud.enis().await {
        Ok(enis) => enis.iter().any(|e| e.mac == instance.primary_mac && e.subnet_ipv6.is_some()),
        Err(error) => {
            warn!(error = %berth_types::Chain(&error), "cannot see whether the subnet has ipv6; new enis get none until the next start");
            false
        }
    }
}

/// Different on every instance, so that they do not retry together.
fn seed(instance: &InstanceFacts) -> u64 {
    u64::from_str_radix(&instance.instance_id.owner_tag(), 16).unwrap_or_default()
}

fn engine_config(config: &Config, instance: &InstanceFacts) -> EngineConfig {
    EngineConfig {
        stop_timeout: config.stop_timeout,
        cleanup_wait: config.cleanup_wait,
        ..EngineConfig::new(&instance.region, &config.paths.data_dir)
    }
}

/// The metadata endpoint has a thread and a runtime of its own: a flood of requests does not delay a launch.
fn start_metadata(
    config: &Config,
    instance: &InstanceFacts,
    engine: &EngineHandle,
    enis: &EniHandle,
    listeners: mpsc::Receiver<ListenerChange>,
    shutdown: CancellationToken,
) -> Result<std::thread::JoinHandle<()>> {
    let zone = (!config.disable_az).then_some(());
    let settings = MetadataConfig {
        cluster: config.cluster.clone(),
        vpc: instance.vpc.clone(),
        availability_zone: zone.map(|()| instance.availability_zone.clone()),
        availability_zone_id: zone.and(instance.availability_zone_id.clone()),
        limits: MetadataLimits::default(),
    };
    let metadata = Metadata::new(settings, engine.snapshot.clone(), enis.snapshot.clone());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("make the metadata runtime")?;
    std::thread::Builder::new()
        .name("metadata".into())
        .spawn(move || runtime.block_on(metadata.run(listeners, shutdown)))
        .context("start the metadata thread")
}

fn start_admin(
    config: &Config,
    instance: &Arc<InstanceFacts>,
    socket: UnixListener,
    engine: EngineHandle,
    enis: EniHandle,
    shutdown: &CancellationToken,
    parts: &mut JoinSet<&'static str>,
) {
    let admin = Admin {
        engine: engine.snapshot.clone(),
        enis: enis.snapshot.clone(),
        assignments: engine.assignments.clone(),
        backend: Arc::new(Owners { enis, engine }),
        instance: Arc::clone(instance),
        cluster: config.cluster.clone(),
        cluster_name: config.cluster_name.clone(),
        version: env!("CARGO_PKG_VERSION"),
        started_at: Timestamp::now(),
        now: Timestamp::now,
    };
    let shutdown = shutdown.clone();
    parts.spawn(async move {
        if let Err(error) = berth_admin::serve(socket, admin, shutdown).await {
            tracing::error!(error = %berth_types::Chain(&error), "admin api stopped");
        }
        "the admin API"
    });
}
