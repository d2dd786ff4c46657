//! [`NetnsBuilder`]: the port [`Network`] on the real kernel.
//!
//! Each operation runs on a thread of its own, which enters what namespaces it must, drives its netlink sockets on a `current_thread` runtime,
//! and ends ([`crate::ns`] says why):
//!
//! ```text
//!  caller ──await──► semaphore ──► thread: home ─► slot's namespace ─► end ──oneshot──► BuiltSlot { listener, ... }
//! ```
//!
//! Few run at a time: a move holds the kernel's RTNL lock for 20 ms and more, so more movers would only make everybody else's wait longer.

use crate::{
    error::Fail,
    files, job,
    ns::{self, Netns},
    steer::Pins,
    watch as link_watch,
};
use async_trait::async_trait;
use berth_types::{
    eni::{BuiltSlot, LinkTable, NetworkFacts, SlotSpec},
    ids::{InstanceId, SlotId},
    ports::{Network, NetworkError, NetworkErrorKind},
};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Builds and tear-downs at a time. Moves are serial in the kernel; the second keeps it busy while the first dumps and verifies.
const MOVERS: usize = 2;

/// Observations and labels at a time: short, but each is a thread.
const LOOKERS: usize = 4;

/// How long the caller waits for an operation. The longest one seen took 0.6 s (32 moves at once); waiting for a carrier may take 10 s.
/// The thread itself cannot be stopped: it goes on, and until it ends the slot is busy.
const DEADLINE: Duration = Duration::from_secs(60);

/// Where things are. Several agents on one machine share `netns_dir` and nothing else.
#[derive(Debug, Clone)]
pub struct Config {
    /// The agent's instance: namespaces of other instances are never touched.
    pub instance: InstanceId,
    /// Where namespaces are named, for `ip netns`.
    pub netns_dir: PathBuf,
    /// Where the slots' files are, a directory for each slot.
    pub state_dir: PathBuf,
    /// Where the agent's own bpffs is mounted.
    pub bpffs_dir: PathBuf,
}

impl Config {
    /// The usual places: /run/netns, and the agent's directory under /run for the rest. Not on a disk: all of it dies with the boot, as the
    /// namespaces do.
    pub fn new(instance: InstanceId, run_dir: &Path) -> Self {
        Self {
            instance,
            netns_dir: "/run/netns".into(),
            state_dir: run_dir.join("slots"),
            bpffs_dir: run_dir.join("bpf"),
        }
    }
}

/// What the operations' threads share.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) config: Config,
    /// The agent's own namespace: where ENIs' links arrive and go back to.
    pub(crate) home: Netns,
    pub(crate) pins: Pins,
    /// Slots that a thread is working on.
    busy: Mutex<BTreeSet<SlotId>>,
}

impl World {
    pub(crate) fn netns_path(&self, slot: &SlotId) -> PathBuf {
        self.config.netns_dir.join(slot.netns_name())
    }

    pub(crate) fn state_dir(&self, slot: &SlotId) -> PathBuf {
        self.config.state_dir.join(slot.as_str())
    }

    fn busy(&self) -> std::sync::MutexGuard<'_, BTreeSet<SlotId>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The mark that a thread works on a slot.
#[derive(Debug)]
struct Busy {
    world: Arc<World>,
    slot: SlotId,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.world.busy().remove(&self.slot);
    }
}

/// Makes slots' namespaces and takes them down.
#[derive(Debug)]
pub struct NetnsBuilder {
    world: Arc<World>,
    movers: Arc<Semaphore>,
    lookers: Arc<Semaphore>,
    links: watch::Receiver<Arc<LinkTable>>,
}

impl NetnsBuilder {
    /// Starts the link watcher on `tracker`, to run until `stop`, and removes what is left of slots that have no namespace any more.
    ///
    /// `home` is the agent's own namespace, [`Netns::current`] in the agent.
    pub async fn start(
        config: Config,
        home: Netns,
        tracker: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, NetworkError> {
        let watched = home.try_clone().map_err(|e| Fail::caused("start the link watcher", &e).of(None))?;
        let links = link_watch::start(watched, tracker, stop).await;
        let pins = Pins::new(config.bpffs_dir.clone());
        let world = Arc::new(World { config, home, pins, busy: Mutex::default() });
        sweep(&world);
        let (movers, lookers) = (Arc::new(Semaphore::new(MOVERS)), Arc::new(Semaphore::new(LOOKERS)));
        Ok(Self { world, movers, lookers, links })
    }

    /// Runs an operation on a thread of its own.
    async fn on_thread<T: Send + 'static>(
        &self,
        room: &Arc<Semaphore>,
        slot: Option<&SlotId>,
        job: impl FnOnce(&World) -> Result<T, Fail> + Send + 'static,
    ) -> Result<T, NetworkError> {
        let lost = |why: String| Fail::new("run an operation", NetworkErrorKind::Thread(why)).of(slot);
        let busy = slot.map(|slot| self.claim(slot)).transpose()?;
        let permit = Arc::clone(room).acquire_owned().await.map_err(|e| lost(e.to_string()))?;
        let world = Arc::clone(&self.world);
        let (reply, result) = oneshot::channel();
        let work = move || {
            let done = job(&world);
            drop((busy, permit));
            // A caller that has given up: a slot's listener is closed here, and the next build adopts the rest.
            drop(reply.send(done));
        };
        thread::Builder::new().name("netns-op".into()).spawn(work).map_err(|e| lost(e.to_string()))?;
        match tokio::time::timeout(DEADLINE, result).await {
            Ok(Ok(done)) => done.map_err(|fail| fail.of(slot)),
            Ok(Err(_)) => Err(lost("it panicked".into())),
            Err(_) => {
                Err(Fail::kernel("run an operation", format!("no answer within {DEADLINE:?}")).of(slot))
            }
        }
    }

    /// Marks a slot of ours as being worked on.
    fn claim(&self, slot: &SlotId) -> Result<Busy, NetworkError> {
        if !slot.belongs_to(&self.world.config.instance) {
            return Err(Fail::kernel("touch the namespace", "it belongs to another instance").of(Some(slot)));
        }
        if !self.world.busy().insert(slot.clone()) {
            return Err(Fail::kernel("begin an operation", "another one is under way").of(Some(slot)));
        }
        Ok(Busy { world: Arc::clone(&self.world), slot: slot.clone() })
    }
}

#[async_trait]
impl Network for NetnsBuilder {
    async fn observe(&self) -> Result<NetworkFacts, NetworkError> {
        self.on_thread(&self.lookers, None, job::observe).await
    }

    async fn build(&self, spec: &SlotSpec) -> Result<BuiltSlot, NetworkError> {
        let wanted = spec.clone();
        let built =
            self.on_thread(&self.movers, Some(&spec.slot), move |world| job::build(world, &wanted)).await?;
        tracing::info!(slot = %spec.slot, eni = %spec.eni, netns = built.netns.ino, "namespace built");
        Ok(built)
    }

    async fn label(&self, slot: &SlotId, alias: &str) -> Result<(), NetworkError> {
        let (on, alias) = (slot.clone(), alias.to_owned());
        self.on_thread(&self.lookers, Some(slot), move |world| job::label(world, &on, &alias)).await
    }

    async fn tear_down(&self, slot: &SlotId) -> Result<(), NetworkError> {
        let of = slot.clone();
        self.on_thread(&self.movers, Some(slot), move |world| job::tear_down(world, &of)).await?;
        tracing::info!(%slot, "namespace torn down");
        Ok(())
    }

    fn links(&self) -> watch::Receiver<Arc<LinkTable>> {
        self.links.clone()
    }
}

/// Removes files and pins of slots without a namespace: whoever removed the name (an operator, `ip netns delete`) did not know of them.
fn sweep(world: &World) {
    let mut slots = files::slots(&world.config.state_dir);
    slots.extend(world.pins.slots());
    for slot in slots {
        let gone = matches!(ns::inspect(&world.netns_path(&slot)), Ok(ns::Named::Absent));
        if gone && slot.belongs_to(&world.config.instance) {
            tracing::info!(%slot, "removing what is left of a slot without namespace");
            job::forget(world, &slot).into_iter().for_each(|fail| {
                let error = fail.of(Some(&slot));
                tracing::warn!(%slot, %error, "leftovers stay");
            });
        }
    }
}
