//! Layers to snapshots: containerd's own unpacking, step by step over its API, so that it works on 1.6 (whose transfer service does
//! not exist) as on 2.x.

use crate::{
    client::{Client, Lease},
    error::{Fault, OrAbsent, Result},
    image::{
        content,
        documents::{Config, Descriptor, Manifest},
    },
};
use containerd_client::{
    services::v1::{
        ApplyRequest,
        snapshots::{
            CommitSnapshotRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest,
            ViewSnapshotRequest,
        },
    },
    types::Mount,
};
use std::collections::HashMap;

/// The snapshot of the whole image; makes what of it is missing.
pub(crate) async fn ensure(client: &Client, manifest: &Manifest, config: &Config) -> Result<String> {
    let chain = config.chain();
    let whole = chain.last().cloned().unwrap_or_default();
    // First of all: from now on the image keeps the snapshot alive, through its config. A snapshot that is there already may be there
    // for another image only, and go with it.
    let label = format!("containerd.io/gc.ref.snapshot.{}", client.snapshotter());
    content::label(client, &manifest.config.digest, HashMap::from([(label, whole.clone())])).await?;
    if exists(client, &whole).await? {
        return Ok(whole);
    }
    let lease = client.lease().await?;
    let made = unpack(client, &lease, manifest, config, &chain).await;
    client.release(lease).await;
    made?;
    tracing::info!(image = manifest.config.digest, layers = chain.len(), "image unpacked");
    Ok(whole)
}

async fn unpack(
    client: &Client,
    lease: &Lease,
    manifest: &Manifest,
    config: &Config,
    chain: &[String],
) -> Result<()> {
    for (position, name) in chain.iter().enumerate() {
        // Two images that share a layer, found or pulled at the same time, unpack it once.
        let _only = client.unpacking().lock(name).await;
        if !exists(client, name).await? {
            let parent = position.checked_sub(1).map(|p| chain[p].clone()).unwrap_or_default();
            let layer = &manifest.layers[position];
            apply(client, lease, layer, &config.rootfs.diff_ids[position], &parent, name).await?;
        }
    }
    Ok(())
}

async fn apply(
    client: &Client,
    lease: &Lease,
    layer: &Descriptor,
    diff_id: &str,
    parent: &str,
    name: &str,
) -> Result<()> {
    let key = format!("berth-unpack-{} {name}", uuid::Uuid::new_v4().simple());
    let request = PrepareSnapshotRequest {
        snapshotter: client.snapshotter(),
        key: key.clone(),
        parent: parent.to_owned(),
        labels: HashMap::new(),
    };
    let request = client.ask_leased(request, lease);
    let mounts = client
        .snapshots()
        .prepare(request)
        .await
        .map_err(Fault::rpc("prepare snapshot"))?
        .into_inner()
        .mounts;
    let done = fill(client, lease, layer, diff_id, mounts, &key, name).await;
    if done.is_err() {
        remove(client, &key).await;
    }
    done
}

async fn fill(
    client: &Client,
    lease: &Lease,
    layer: &Descriptor,
    diff_id: &str,
    mounts: Vec<Mount>,
    key: &str,
    name: &str,
) -> Result<()> {
    let request = ApplyRequest { diff: Some(layer.into()), mounts, payloads: HashMap::new(), sync_fs: false };
    let request = client.ask_leased(request, lease);
    let reply = client.diff().apply(request).await.map_err(Fault::rpc("unpack layer"))?;
    let applied = reply.into_inner().applied.unwrap_or_default().digest;
    if applied != diff_id {
        let text = format!(
            "digest mismatch: layer {} unpacks to {applied}, its config says {diff_id}",
            layer.digest
        );
        return Err(Fault::Invalid(text));
    }
    let request = CommitSnapshotRequest {
        snapshotter: client.snapshotter(),
        name: name.to_owned(),
        key: key.to_owned(),
        labels: HashMap::new(),
    };
    let request = client.ask_leased(request, lease);
    match client.snapshots().commit(request).await.map_err(Fault::rpc("commit snapshot")) {
        // Someone else unpacked the same layer meanwhile.
        Err(fault) if fault.is_already_exists() => {
            remove(client, key).await;
            Ok(())
        }
        other => other.map(drop),
    }
}

/// Whether a snapshot exists.
pub(crate) async fn exists(client: &Client, key: &str) -> Result<bool> {
    let request = client.ask(StatSnapshotRequest { snapshotter: client.snapshotter(), key: key.to_owned() });
    let reply = client.snapshots().stat(request).await.map_err(Fault::rpc("look at snapshot")).or_absent()?;
    Ok(reply.is_some())
}

/// Where an image's layers lie on disk. The view itself is only needed to be told.
pub(crate) async fn look_into(client: &Client, chain: &str) -> Result<Vec<Mount>> {
    let lease = client.lease().await?;
    let key = format!("berth-view-{}", uuid::Uuid::new_v4().simple());
    let request = ViewSnapshotRequest {
        snapshotter: client.snapshotter(),
        key: key.clone(),
        parent: chain.to_owned(),
        labels: HashMap::new(),
    };
    let request = client.ask_leased(request, &lease);
    let reply = client.snapshots().view(request).await.map_err(Fault::rpc("view snapshot"));
    remove(client, &key).await;
    client.release(lease).await;
    Ok(reply?.into_inner().mounts)
}

/// Removes a snapshot of no use; one that stays is collected when its lease ends.
async fn remove(client: &Client, key: &str) {
    let request =
        client.ask(RemoveSnapshotRequest { snapshotter: client.snapshotter(), key: key.to_owned() });
    if let Err(status) = client.snapshots().remove(request).await {
        tracing::debug!(key, error = status.message(), "snapshot left to the garbage collector");
    }
}
