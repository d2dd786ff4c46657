//! Images from registries: what a reference means there now, and all of it brought into containerd's store.
//!
//! ```text
//!  image::Images ──pull──► Puller ──┬─ lookup    reference ─► index ─► manifest of this platform     (may be: the same as here)
//!   (behaviours)           shared   ├─ blob      config and layers ─► ingest ─► content store
//!                          by       ├─ unpack    layers ─► snapshots
//!                          callers  └─ labels    the name, last of all
//!  registry  what a registry can be asked          failure   what it says when it says no
//!  progress  what operators see                    auth      credentials
//! ```
//!
//! Crash-only: until the name is written, nothing that was brought belongs to an image, and a lease with an end holds it against
//! containerd's garbage collector. After kill -9 the next pull of the same image takes that lease over, finds the blobs that are whole,
//! and continues the others. A pull that is dropped (nobody waits for it any more) ends the same way, in good order.

pub(crate) mod auth;
mod blob;
mod config;
mod failure;
mod ingest;
mod lookup;
mod progress;
mod registry;

pub use auth::{AuthError, RegistryAuth};
pub use config::{PullBehavior, PullConfig, RetryPolicy};

use super::{
    content,
    content::read_json,
    documents::{Config, Descriptor},
    labels, unpack,
};
use crate::{
    client::{Client, Lease},
    error::{Fault, Result, within},
    locks::Locks,
    reference::{Parts, normalize},
};
use berth_types::{
    Timestamp,
    image::{PullStage, PullsSnapshot},
};
use failure::Failure;
use futures::{
    FutureExt, StreamExt, TryStreamExt,
    future::{BoxFuture, Shared, WeakShared},
    stream,
};
use jiff::SignedDuration;
use lookup::{Meaning, Plan, keep_labels};
use progress::{Board, Ticket};
use registry::{Registries, Repository};
use std::{
    collections::{HashMap, HashSet},
    io::Cursor,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::{Semaphore, SemaphorePermit, watch};

/// References that are looked up at the same time: of each, up to six documents of 4 MiB are in memory if a registry means ill.
const LOOK_UPS: usize = 8;
/// Label on the lease of a pull: the digest of what is pulled.
pub(super) const LEASE_LABEL: &str = "berth.pull";

/// What is here under the reference.
#[derive(Debug, Clone)]
pub(crate) struct Have {
    pub(crate) digest: String,
    /// Pulled by this agent, and known to be complete.
    pub(crate) whole: bool,
}

type Pulling = BoxFuture<'static, std::result::Result<(), Arc<Fault>>>;

/// Brings images.
#[derive(Debug)]
pub(crate) struct Puller {
    client: Client,
    config: PullConfig,
    registries: Registries,
    look_ups: Semaphore,
    /// One for each pull that brings blobs.
    permits: Semaphore,
    /// By digest of what a name is to point at. Two names of one image are pulled one after the other: the second finds everything, and
    /// does not take the first one's lease away.
    images: Locks,
    /// By digest of the blob.
    downloads: Locks,
    board: Arc<Board>,
    /// By full reference. Weak: a pull lives in those who wait for it.
    under_way: Mutex<HashMap<String, WeakShared<Pulling>>>,
}

/// One pull.
#[derive(Debug)]
struct Job<'a> {
    parts: &'a Parts,
    /// The full reference: the image's name.
    name: &'a str,
    at: Repository,
    have: Option<Have>,
    ticket: &'a Ticket,
}

impl Puller {
    pub(crate) fn new(client: Client, config: PullConfig) -> Arc<Self> {
        let permits = Semaphore::new(config.concurrent_pulls.max(1));
        Arc::new(Self {
            client,
            config,
            registries: Registries::new(),
            look_ups: Semaphore::new(LOOK_UPS),
            permits,
            images: Locks::default(),
            downloads: Locks::default(),
            board: Board::new(),
            under_way: Mutex::default(),
        })
    }

    pub(crate) fn behavior(&self) -> PullBehavior {
        self.config.behavior
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Arc<PullsSnapshot>> {
        self.board.watch()
    }

    /// Brings what the reference means, or joins the pull that does so already.
    pub(crate) async fn pull(self: &Arc<Self>, reference: &str, have: Option<Have>) -> Result<()> {
        let pulling = self.join(reference, have);
        pulling.await.map_err(|fault| fault.again())
    }

    fn join(self: &Arc<Self>, reference: &str, have: Option<Have>) -> Shared<Pulling> {
        let name = normalize(reference);
        let mut all = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        // One that is over may be held by someone who has not looked yet: its answer is not of now.
        all.retain(|_, pulling| pulling.upgrade().is_some_and(|pulling| pulling.peek().is_none()));
        if let Some(pulling) = all.get(&name).and_then(WeakShared::upgrade) {
            return pulling;
        }
        let (puller, reference) = (self.clone(), reference.to_owned());
        let run = async move { puller.run(&reference, have).await.map_err(Arc::new) };
        let pulling = run.boxed().shared();
        if let Some(weak) = pulling.downgrade() {
            all.insert(name, weak);
        }
        pulling
    }

    async fn run(&self, reference: &str, have: Option<Have>) -> Result<()> {
        let parts = Parts::of(reference)
            .ok_or_else(|| Fault::Invalid(format!("`{reference}` is not an image reference")))?;
        let at = Repository::new(&parts, &self.config)?;
        let name = normalize(reference);
        let ticket = self.board.begin(&name);
        let job = Job { parts: &parts, name: &name, at, have, ticket: &ticket };
        let done = within(self.config.pull_timeout, self.bring(&job)).await;
        drop(job);
        match done {
            Ok(digest) => {
                ticket.end(Ok(&digest));
                Ok(())
            }
            Err(fault) => {
                ticket.end(Err(fault.to_string()));
                Err(fault)
            }
        }
    }

    /// Answers the digest that the name points at now.
    async fn bring(&self, job: &Job<'_>) -> Result<String> {
        let turn = enter(&self.look_ups).await?;
        let meaning = self.look_up(job).await.map_err(|failure| unresolved(job, failure))?;
        drop(turn);
        let plan = match meaning {
            Meaning::Same(digest) => return Ok(digest),
            Meaning::Other(plan) => plan,
        };
        let digest = plan.root().digest.clone();
        job.ticket.stage(PullStage::Waiting);
        let _only = self.images.lock(&digest).await;
        let life = SignedDuration::try_from(self.config.pull_timeout.saturating_add(blob::LEASE_BEYOND));
        let labels = HashMap::from([(LEASE_LABEL.to_owned(), digest.clone())]);
        let lease = self.client.lease_for(life.unwrap_or(SignedDuration::MAX), labels).await?;
        self.client.inherit(&lease, LEASE_LABEL, &digest).await?;
        // A lease is left behind by a pull that fails: what it holds is continued by the next, or collected when it ends.
        self.fill(job, &lease, &plan).await.map_err(unpullable)?;
        self.client.release(lease).await;
        Ok(digest)
    }

    async fn fill(&self, job: &Job<'_>, lease: &Lease, plan: &Plan) -> Result<()> {
        let blobs = blobs(plan);
        let sizes: Vec<u64> = blobs.iter().map(|blob| blob.size).collect();
        job.ticket.sized(&sizes);
        let missing = self.missing(job, lease, &blobs).await?;
        let permit = self.permit(job, !missing.is_empty()).await?;
        if !missing.is_empty() {
            job.ticket.stage(PullStage::Downloading);
        }
        // The config is the first: whether the image is one for this machine is known before its layers come.
        let (first, rest) = missing.split_at(usize::from(missing.first() == Some(&0)));
        self.download(job, lease, &blobs, first).await?;
        let config: Config = read_json(&self.client, &plan.manifest.config).await?;
        config.check(&plan.manifest)?;
        config.fits_this_machine()?;
        self.download(job, lease, &blobs, rest).await?;
        drop(permit);
        for page in plan.documents.iter().rev() {
            self.client.hold(lease, &page.blob.digest).await?;
            let bytes = Cursor::new(page.bytes.clone());
            content::write(&self.client, lease, &page.blob, keep_labels(page), bytes).await?;
        }
        job.ticket.stage(PullStage::Unpacking);
        unpack::ensure(&self.client, &plan.manifest, &config).await?;
        let root = plan.root();
        labels::put_pulled(&self.client, job.name, root, Timestamp::now()).await?;
        tracing::info!(image = job.name, digest = root.digest, blobs = missing.len(), "image pulled");
        Ok(())
    }

    /// The positions of the blobs that are not here.
    async fn missing(&self, job: &Job<'_>, lease: &Lease, blobs: &[&Descriptor]) -> Result<Vec<usize>> {
        let mut missing = Vec::new();
        for (index, blob) in blobs.iter().enumerate() {
            if self.is_held(lease, blob).await.map_err(|failure| unbrought(job, blob, failure))? {
                job.ticket.done(index, blob.size);
            } else {
                missing.push(index);
            }
        }
        Ok(missing)
    }

    /// Waits for room if there is anything to bring. What needs nothing waits for nobody.
    async fn permit(&self, job: &Job<'_>, needed: bool) -> Result<Option<SemaphorePermit<'_>>> {
        if !needed {
            return Ok(None);
        }
        job.ticket.stage(PullStage::Waiting);
        enter(&self.permits).await.map(Some)
    }

    async fn download(
        &self,
        job: &Job<'_>,
        lease: &Lease,
        blobs: &[&Descriptor],
        indices: &[usize],
    ) -> Result<()> {
        // Boxed one by one: the compiler cannot see that a closure's futures may go from thread to thread.
        let mut each: Vec<BoxFuture<'_, Result<()>>> = Vec::with_capacity(indices.len());
        for &index in indices {
            let blob = blobs[index];
            let bring = async move {
                let brought = self.bring_blob(job, lease, index, blob).await;
                brought.map_err(|failure| unbrought(job, blob, failure))
            };
            each.push(bring.boxed());
        }
        stream::iter(each).buffer_unordered(self.config.concurrent_blobs.max(1)).try_collect().await
    }
}

async fn enter(room: &Semaphore) -> Result<SemaphorePermit<'_>> {
    room.acquire().await.map_err(|_| Fault::Broken("no pulls are made any more".to_owned()))
}

/// The config, then the layers from the bottom up; each once.
fn blobs(plan: &Plan) -> Vec<&Descriptor> {
    let mut seen = HashSet::new();
    let all = std::iter::once(&plan.manifest.config).chain(&plan.manifest.layers);
    all.filter(|blob| seen.insert(&blob.digest)).collect()
}

fn unresolved(job: &Job<'_>, failure: Failure) -> Fault {
    match failure {
        Failure::Store(fault) => fault.again(),
        other => {
            let (registry, image, hint) = (&job.at.registry, job.parts.short(), job.at.hint(&other));
            Fault::CannotResolve(format!("{registry}: manifest of {image}: {other}{hint}"))
        }
    }
}

fn unbrought(job: &Job<'_>, blob: &Descriptor, failure: Failure) -> Fault {
    match failure {
        Failure::Store(fault) => fault.again(),
        other => {
            let (registry, image, hint) = (&job.at.registry, job.parts.short(), job.at.hint(&other));
            Fault::CannotPull(format!("{registry}: blob {} of {image}: {other}{hint}", blob.digest))
        }
    }
}

/// What is wrong with an image that came from a registry is a failure of its pull.
fn unpullable(fault: Fault) -> Fault {
    match fault {
        Fault::Broken(text) | Fault::Invalid(text) => Fault::CannotPull(text),
        other => other,
    }
}
