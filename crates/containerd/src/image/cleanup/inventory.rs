//! What is here: images with their blobs and sizes, and what the containers of our containerd namespace are made of.

use super::{pins::Pins, plan::Candidate};
use crate::{
    client::Client,
    error::{Fault, OrAbsent, Result},
    image::{
        content,
        documents::{Config, Descriptor, Document, Sorted},
        labels,
    },
    process, reference, stored,
};
use berth_types::{Timestamp, image::ImageView};
use containerd_client::services::v1::{
    Container, Image, ListContainersRequest, ListContentRequest, ListImagesRequest,
    snapshots::StatSnapshotRequest,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Documents that are read of one image: an index of all platforms that there are, and their attestations.
const MAX_DOCUMENTS: usize = 64;

/// A name in the image store.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) name: String,
    pub(super) target: Descriptor,
    pulled_at: Option<Timestamp>,
    used_at: Option<Timestamp>,
    created_at: Option<Timestamp>,
}

/// What a container is made of.
#[derive(Debug, Clone)]
pub(super) struct Use {
    /// The reference as its definition has it.
    image: String,
    /// The snapshot that its own is made on.
    parent: Option<String>,
}

impl Use {
    /// Whether it is this image. By name or by snapshot: a tag may have moved since, and a snapshot may be another image's too.
    pub(super) fn is_of(&self, names: &[String], digest: &str, chains: &[String]) -> bool {
        let full = reference::normalize(&self.image);
        names.iter().any(|name| *name == full || *name == self.image)
            || reference::pinned_digest(&full) == Some(digest)
            || self.parent.as_ref().is_some_and(|parent| chains.contains(parent))
    }
}

/// What an image consists of, as far as it is here.
#[derive(Debug, Default)]
struct Parts {
    blobs: BTreeSet<String>,
    chains: Vec<String>,
}

/// All names in the store.
pub(super) async fn records(client: &Client) -> Result<Vec<Record>> {
    let request = client.ask(ListImagesRequest { filters: Vec::new() });
    let reply = client.images().list(request).await.map_err(Fault::rpc("list images"))?;
    let record = |image: Image| {
        Some(Record {
            pulled_at: labels::pulled_at(&image.labels),
            used_at: labels::used_at(&image.labels),
            // An import over an existing name leaves the time of the first.
            created_at: process::time(image.created_at).max(process::time(image.updated_at)),
            target: image.target?.into(),
            name: image.name,
        })
    };
    Ok(reply.into_inner().images.into_iter().filter_map(record).collect())
}

/// What every container in our containerd namespace is made of, whoever made it.
pub(super) async fn uses(client: &Client) -> Result<Vec<Use>> {
    let request = client.ask(ListContainersRequest { filters: Vec::new() });
    let reply = client.containers().list_stream(request).await.map_err(Fault::rpc("list containers"))?;
    let mut stream = reply.into_inner();
    let mut uses = Vec::new();
    while let Some(message) = stream.message().await.map_err(Fault::rpc("list containers"))? {
        if let Some(container) = message.container {
            let parent = match stored::stored(&container) {
                Ok(stored) => Some(stored.parent),
                Err(_) => parent(client, &container).await?,
            };
            uses.push(Use { image: container.image, parent });
        }
    }
    Ok(uses)
}

/// Of a container that somebody else made.
async fn parent(client: &Client, container: &Container) -> Result<Option<String>> {
    if container.snapshot_key.is_empty() {
        return Ok(None);
    }
    let request = StatSnapshotRequest {
        snapshotter: container.snapshotter.clone(),
        key: container.snapshot_key.clone(),
    };
    let reply = client.snapshots().stat(client.ask(request)).await.map_err(Fault::rpc("look at snapshot"));
    Ok(reply.or_absent()?.and_then(|r| r.into_inner().info).map(|info| info.parent))
}

/// Everything, by image.
pub(super) async fn candidates(client: &Client, pins: &Pins) -> Result<Vec<Candidate>> {
    let records = records(client).await?;
    let uses = uses(client).await?;
    let sizes = sizes(client).await?;
    let mut by_digest: BTreeMap<String, Vec<Record>> = BTreeMap::new();
    for record in records {
        by_digest.entry(record.target.digest.clone()).or_default().push(record);
    }
    let mut all = Vec::with_capacity(by_digest.len());
    for (digest, records) in by_digest {
        let parts = match records.first() {
            Some(record) => parts(client, &sizes, &record.target).await?,
            None => continue,
        };
        let names: Vec<String> = records.iter().map(|r| r.name.clone()).collect();
        let count = uses.iter().filter(|u| u.is_of(&names, &digest, &parts.chains)).count();
        let ours = records.iter().all(|r| r.pulled_at.is_some());
        all.push(Candidate {
            bytes: parts.blobs.iter().filter_map(|blob| sizes.get(blob)).sum(),
            pulled_at: records.iter().filter_map(|r| r.pulled_at).max().filter(|_| ours),
            used_at: records.iter().filter_map(|r| r.used_at).max(),
            created_at: records.iter().filter_map(|r| r.created_at).max(),
            containers: u32::try_from(count).unwrap_or(u32::MAX),
            asked: pins.is_asked(&names, &digest),
            chains: parts.chains,
            names,
            digest,
        });
    }
    Ok(all)
}

/// Everything, by name, for people.
pub(super) async fn views(client: &Client, pins: &Pins) -> Result<Vec<ImageView>> {
    let records = records(client).await?;
    let candidates = candidates(client, pins).await?;
    let by_digest: HashMap<&str, &Candidate> = candidates.iter().map(|c| (c.digest.as_str(), c)).collect();
    let view = |record: Record| {
        // One that is not among them came between the two looks; the next listing has it.
        let candidate = by_digest.get(record.target.digest.as_str())?;
        Some(ImageView {
            name: record.name,
            digest: record.target.digest.clone(),
            bytes: candidate.bytes,
            pulled_at: record.pulled_at,
            used_at: record.used_at,
            containers: candidate.containers,
        })
    };
    let mut views: Vec<ImageView> = records.into_iter().filter_map(view).collect();
    views.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(views)
}

/// Sizes of all blobs that are here.
async fn sizes(client: &Client) -> Result<HashMap<String, u64>> {
    let request = client.ask(ListContentRequest { filters: Vec::new() });
    let reply = client.content().list(request).await.map_err(Fault::rpc("list content"))?;
    let mut stream = reply.into_inner();
    let mut sizes = HashMap::new();
    while let Some(message) = stream.message().await.map_err(Fault::rpc("list content"))? {
        let size = |size: i64| u64::try_from(size).unwrap_or_default();
        sizes.extend(message.info.into_iter().map(|info| (info.digest, size(info.size))));
    }
    Ok(sizes)
}

/// Follows an image down to its layers, for all platforms that are here.
async fn parts(client: &Client, sizes: &HashMap<String, u64>, target: &Descriptor) -> Result<Parts> {
    let mut parts = Parts::default();
    let mut ahead = vec![target.clone()];
    let mut documents = 0;
    while let Some(at) = ahead.pop() {
        let here = sizes.contains_key(&at.digest);
        if !here || documents == MAX_DOCUMENTS || !parts.blobs.insert(at.digest.clone()) {
            continue;
        }
        documents += 1;
        match look(client, sizes, &at, &mut parts).await {
            Ok(below) => ahead.extend(below),
            // What does not parse has no parts, which is no reason to keep it; what has just gone has none either.
            Err(fault) if matches!(fault, Fault::Broken(_)) || fault.is_not_found() => {
                tracing::debug!(document = at.digest, error = %fault, "image has a part that cannot be read");
            }
            Err(fault) => return Err(fault),
        }
    }
    Ok(parts)
}

/// One document: notes what it refers to, answers the documents below.
async fn look(
    client: &Client,
    sizes: &HashMap<String, u64>,
    at: &Descriptor,
    parts: &mut Parts,
) -> Result<Vec<Descriptor>> {
    let document: Document = content::read_json(client, at).await?;
    let manifest = match document.sort(&at.digest)? {
        Sorted::Index(index) => return Ok(index.manifests),
        Sorted::Manifest(manifest) => manifest,
    };
    let blobs = manifest.layers.iter().chain([&manifest.config]).map(|blob| &blob.digest);
    parts.blobs.extend(blobs.filter(|digest| sizes.contains_key(*digest)).cloned());
    if sizes.contains_key(&manifest.config.digest) {
        let config: Config = content::read_json(client, &manifest.config).await?;
        parts.chains.extend(config.chain().pop());
    }
    Ok(Vec::new())
}
