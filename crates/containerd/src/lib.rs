//! Images, containers, events and logs of containerd behind the engine's port.
//!
//! [`Containerd`] is the port's real side. It talks to containerd's gRPC API as 1.6 and 2.x both have it, and holds no state of its
//! own that a restart would miss: what belongs to a container is stored with the container.
//!
//! ```text
//!  engine ──ports::Containers──► Containerd ─┬─ lifecycle  create, start, signal, remove ──┐
//!     ▲                                      ├─ image      pull, resolve, unpack           ├─ client ──gRPC──► containerd
//!     │                                      ├─ archive    import                          │                      │
//!     └──────────ContainerEvent── events ◄───┴─ observe    list, memory kills ─────────────┘                      ▼
//!                                                                                              shim, runc, berth-logger
//!  spec     definition ─► OCI specification, pure        cgroup   the task's shared cgroup
//!  stored   what is kept with each container             logs     reading what berth-logger has written
//! ```

pub mod archive;
mod cgroup;
mod client;
mod config;
mod error;
mod events;
mod host;
mod image;
mod layers;
mod lifecycle;
mod locks;
pub mod logs;
mod observe;
mod process;
mod reference;
mod signal;
mod spec;
mod stored;

pub use config::{CgroupDriver, ConfigError, ContainerdConfig, Nofile};
pub use image::cleanup::{CleanupConfig, CleanupReport};
pub use image::pull::{AuthError, PullBehavior, PullConfig, RegistryAuth, RetryPolicy};
pub use reference::normalize;
pub use spec::ImageSettings;

use async_trait::async_trait;
use berth_types::{
    Timestamp,
    ids::{ContainerId, TaskArn},
    image::PullsSnapshot,
    ports::{
        CONTAINER_EVENT_QUEUE, ContainerError, ContainerEvent, Containers, CreateContainer, ImageFacts,
        ObservedContainer, Signal,
    },
};
use cgroup::Cgroups;
use client::{
    CREATE_DEADLINE, Client, IMPORT_DEADLINE, LIST_DEADLINE, QUERY_DEADLINE, REMOVE_DEADLINE,
    SIGNAL_DEADLINE, START_DEADLINE,
};
use error::{Fault, blocking, within};
use image::Images;
use spec::HostFacts;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, watch};

/// containerd, as the engine uses it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Containerd {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: ContainerdConfig,
    client: Client,
    images: Images,
    cgroups: Cgroups,
    host: HostFacts,
    starts: mpsc::Sender<events::Watch>,
    /// Taken by the one call of `events`.
    watches: Mutex<Option<mpsc::Receiver<events::Watch>>>,
}

impl Containerd {
    /// Prepares everything; connects on first use, so containerd may still be down. Must be called on a tokio runtime.
    pub fn connect(config: ContainerdConfig) -> Result<Self, ConfigError> {
        config.check()?;
        let client = Client::lazy(&config.socket, &config.namespace, &config.snapshotter)?;
        let cgroups =
            Cgroups::detect(config.cgroup_driver, &config.cgroup_root).map_err(ConfigError::Host)?;
        let host = host::read(&config, &cgroups)?;
        let (starts, watches) = mpsc::channel(events::WATCH_QUEUE);
        let images = Images::new(client.clone(), config.pull.clone());
        let watches = Mutex::new(Some(watches));
        Ok(Self { inner: Arc::new(Inner { config, client, images, cgroups, host, starts, watches }) })
    }

    /// Version of containerd, when it answers.
    pub async fn version(&self) -> Result<String, ContainerError> {
        let client = &self.inner.client;
        let ask = async { client.version().version(client.ask(())).await.map_err(Fault::rpc("version")) };
        let reply =
            within(QUERY_DEADLINE, ask).await.map_err(|fault| fault.of("ask version of", "containerd"))?;
        Ok(reply.into_inner().version)
    }

    /// Pulls under way and those that were over last.
    pub fn pulls(&self) -> watch::Receiver<Arc<PullsSnapshot>> {
        self.inner.images.pulls()
    }

    /// Imports the images of an archive, as `docker save`, `skopeo copy` and `ctr images export` write them, under the names that
    /// they carry or under `name` (then the archive must hold one image).
    pub async fn import_archive(
        &self,
        path: &std::path::Path,
        name: Option<&str>,
    ) -> Result<Vec<ImageFacts>, ContainerError> {
        let import = archive::import(&self.inner, path, name);
        within(IMPORT_DEADLINE, import)
            .await
            .map_err(|fault| fault.of("import archive", path.display().to_string()))
    }

    /// Makes an image of one layer from a tar file with a root file system.
    pub async fn import_image(
        &self,
        name: &str,
        rootfs: &std::path::Path,
        settings: ImageSettings,
    ) -> Result<ImageFacts, ContainerError> {
        let import = archive::import_rootfs(&self.inner, name, rootfs, settings);
        within(IMPORT_DEADLINE, import).await.map_err(|fault| fault.of("import image", name))
    }
}

#[async_trait]
impl Containers for Containerd {
    async fn image(&self, reference: &str) -> Result<ImageFacts, ContainerError> {
        // Has limits of its own for each of its parts: a pull may take hours.
        let image = self.inner.images.bring(reference).await;
        image.map(|image| image.facts(reference)).map_err(|fault| fault.of("pull", reference))
    }

    async fn create(&self, container: &CreateContainer) -> Result<Timestamp, ContainerError> {
        let done = within(CREATE_DEADLINE, self.inner.create(container)).await;
        done.map_err(|fault| fault.of("create container", container.id.short()))
    }

    async fn start(&self, id: &ContainerId) -> Result<(u32, Timestamp), ContainerError> {
        let done = within(START_DEADLINE, self.inner.start(id)).await;
        done.map_err(|fault| fault.of("start container", id.short()))
    }

    async fn signal(&self, id: &ContainerId, signal: Signal) -> Result<(), ContainerError> {
        let done = within(SIGNAL_DEADLINE, self.inner.signal(id, signal)).await;
        done.map_err(|fault| fault.of("signal container", id.short()))
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), ContainerError> {
        let done = within(REMOVE_DEADLINE, self.inner.remove(id)).await;
        done.map_err(|fault| fault.of("remove container", id.short()))
    }

    async fn list(&self) -> Result<Vec<ObservedContainer>, ContainerError> {
        let done = within(LIST_DEADLINE, self.inner.list()).await;
        done.map_err(|fault| fault.of("list", "containers"))
    }

    /// A second call gets a channel on which nothing ever comes.
    fn events(&self) -> mpsc::Receiver<ContainerEvent> {
        let (sender, receiver) = mpsc::channel(CONTAINER_EVENT_QUEUE);
        let watches = self.inner.watches.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(watches) = watches {
            // Ends when the receiver is dropped, so it needs no handle.
            tokio::spawn(events::run(self.inner.clone(), watches, sender));
        }
        receiver
    }

    async fn remove_task(&self, task: &TaskArn) -> Result<(), ContainerError> {
        let (cgroups, arn) = (self.inner.cgroups.clone(), task.clone());
        let done = within(REMOVE_DEADLINE, blocking(move || cgroups.remove_task(&arn))).await;
        done.map_err(|fault| fault.of("remove cgroup of task", task.id()))
    }
}
