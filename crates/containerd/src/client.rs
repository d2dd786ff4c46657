//! The connection to containerd: one lazy channel, containerd's namespace on every request, a deadline for every kind of call.
//!
//! The channel connects on first use and again after every loss, so containerd may be down when the agent starts and may be
//! restarted under it. Nothing here retries: a lost call is told to the caller, who repeats the whole (repeatable) operation.

use crate::{
    config::ConfigError,
    error::{Fault, OrAbsent, Result},
    locks::Locks,
};
use containerd_client::services::v1::{
    AddResourceRequest, CreateRequest, DeleteRequest, ListRequest, ListResourcesRequest, Resource,
    containers_client::ContainersClient, content_client::ContentClient, diff_client::DiffClient,
    events_client::EventsClient, images_client::ImagesClient, leases_client::LeasesClient,
    snapshots::snapshots_client::SnapshotsClient, tasks_client::TasksClient, version_client::VersionClient,
};
use jiff::{SignedDuration, Timestamp};
use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};
use tonic::{
    Request,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};

/// Looking at one thing: as long as the official agent gives an inspect.
pub(crate) const QUERY_DEADLINE: Duration = Duration::from_secs(30);
/// Making a container: the official agent's ECS_CONTAINER_CREATE_TIMEOUT. The first use of an image also unpacks it.
pub(crate) const CREATE_DEADLINE: Duration = Duration::from_secs(4 * 60);
/// Starting it: the official agent's ECS_CONTAINER_START_TIMEOUT.
pub(crate) const START_DEADLINE: Duration = Duration::from_secs(3 * 60);
/// Sending a signal: the slack that the official agent gives the runtime on top of the grace period.
pub(crate) const SIGNAL_DEADLINE: Duration = Duration::from_secs(2 * 60);
/// Removing a container with all its layers of state.
pub(crate) const REMOVE_DEADLINE: Duration = Duration::from_secs(5 * 60);
/// Listing all containers, on a machine that swaps.
pub(crate) const LIST_DEADLINE: Duration = Duration::from_secs(10 * 60);
/// Importing or unpacking an image: the official agent's deadline for loading one is two minutes per image; layers of gigabytes
/// on slow disks take longer.
pub(crate) const IMPORT_DEADLINE: Duration = Duration::from_secs(30 * 60);

/// Largest message taken from containerd: a container record with its specification is 40 KB, a list of 1000 processes 100 KB;
/// containerd itself sends at most 16 MiB.
const MAX_MESSAGE: usize = 16 << 20;

/// How long a lease keeps half-imported content alive if we die in the middle.
const LEASE_LIFE: SignedDuration = SignedDuration::from_hours(1);

/// Clients for containerd's services; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    channel: Channel,
    namespace: MetadataValue<Ascii>,
    snapshotter: String,
    /// By chain id: layers that are being unpacked.
    unpacking: Arc<Locks>,
}

macro_rules! service {
    ($name:ident, $client:ident) => {
        pub(crate) fn $name(&self) -> $client<Channel> {
            $client::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
        }
    };
}

impl Client {
    pub(crate) fn lazy(
        socket: &Path,
        namespace: &str,
        snapshotter: &str,
    ) -> std::result::Result<Self, ConfigError> {
        let bad = |source| ConfigError::Socket { value: socket.to_owned(), source };
        let endpoint = Endpoint::try_from(format!("unix://{}", socket.display())).map_err(bad)?;
        let namespace = namespace
            .parse()
            .map_err(|_| ConfigError::NotAWord { field: "namespace", value: namespace.to_owned() })?;
        Ok(Self {
            channel: endpoint.connect_lazy(),
            namespace,
            snapshotter: snapshotter.to_owned(),
            unpacking: Arc::default(),
        })
    }

    pub(crate) fn snapshotter(&self) -> String {
        self.snapshotter.clone()
    }

    pub(crate) fn unpacking(&self) -> &Locks {
        &self.unpacking
    }

    /// A request in our containerd namespace.
    pub(crate) fn ask<T>(&self, body: T) -> Request<T> {
        let mut request = Request::new(body);
        request.metadata_mut().insert("containerd-namespace", self.namespace.clone());
        request
    }

    /// As `ask`; what the call makes belongs to the lease, so the garbage collector leaves it alone until something refers to it.
    pub(crate) fn ask_leased<T>(&self, body: T, lease: &Lease) -> Request<T> {
        let mut request = self.ask(body);
        request.metadata_mut().insert("containerd-lease", lease.id.clone());
        request
    }

    /// A fresh lease. One that is never released (kill -9) ends by itself.
    pub(crate) async fn lease(&self) -> Result<Lease> {
        self.lease_for(LEASE_LIFE, HashMap::new()).await
    }

    /// A fresh lease that ends after its life, with labels to find it by.
    pub(crate) async fn lease_for(
        &self,
        life: SignedDuration,
        mut labels: HashMap<String, String>,
    ) -> Result<Lease> {
        let name = format!("berth-{}", uuid::Uuid::new_v4().simple());
        let until = Timestamp::now().saturating_add(life).unwrap_or(Timestamp::MAX).to_string();
        labels.insert("containerd.io/gc.expire".to_owned(), until);
        let id = name.parse().map_err(|_| Fault::Broken(format!("lease name {name}")))?;
        self.leases()
            .create(self.ask(CreateRequest { id: name, labels }))
            .await
            .map_err(Fault::rpc("create lease"))?;
        Ok(Lease { id })
    }

    /// Ends the lease; a failure only leaves it to expire.
    pub(crate) async fn release(&self, lease: Lease) {
        let id = lease.id.to_str().unwrap_or_default().to_owned();
        if let Err(status) = self.leases().delete(self.ask(DeleteRequest { id, sync: false })).await {
            tracing::debug!(error = status.message(), "lease left to expire");
        }
    }

    /// Puts content under the lease, whether it is there yet or not.
    pub(crate) async fn hold(&self, lease: &Lease, digest: &str) -> Result<()> {
        self.add(lease, Resource { id: digest.to_owned(), r#type: "content".to_owned() }).await
    }

    async fn add(&self, lease: &Lease, resource: Resource) -> Result<()> {
        let id = lease.id.to_str().unwrap_or_default().to_owned();
        let request = self.ask(AddResourceRequest { id, resource: Some(resource) });
        self.leases().add_resource(request).await.map_err(Fault::rpc("add to lease"))?;
        Ok(())
    }

    /// Takes everything over from other leases that have this label with this value, and ends those.
    pub(crate) async fn inherit(&self, lease: &Lease, label: &str, value: &str) -> Result<()> {
        let filters = vec![format!("labels.\"{label}\"==\"{value}\"")];
        let request = self.ask(ListRequest { filters });
        let found = self.leases().list(request).await.map_err(Fault::rpc("list leases"))?.into_inner().leases;
        for old in found.into_iter().filter(|old| lease.id != old.id.as_str()) {
            let request = self.ask(ListResourcesRequest { id: old.id.clone() });
            let reply = self.leases().list_resources(request).await;
            // One that ended in this moment has nothing to leave.
            let reply = reply.map_err(Fault::rpc("list resources of lease")).or_absent()?;
            for resource in reply.into_iter().flat_map(|reply| reply.into_inner().resources) {
                self.add(lease, resource).await?;
            }
            let request = self.ask(DeleteRequest { id: old.id, sync: false });
            self.leases().delete(request).await.map_err(Fault::rpc("delete lease")).or_absent()?;
        }
        Ok(())
    }

    service!(containers, ContainersClient);
    service!(content, ContentClient);
    service!(diff, DiffClient);
    service!(events, EventsClient);
    service!(images, ImagesClient);
    service!(leases, LeasesClient);
    service!(snapshots, SnapshotsClient);
    service!(tasks, TasksClient);
    service!(version, VersionClient);
}

/// A hold on content against containerd's garbage collector.
#[derive(Debug)]
pub(crate) struct Lease {
    id: MetadataValue<Ascii>,
}
