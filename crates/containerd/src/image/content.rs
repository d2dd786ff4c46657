//! Blobs in containerd's content store: read, written, labelled for its garbage collector.

use crate::{
    client::{Client, Lease},
    error::{Fault, OrAbsent, Result},
    image::documents::Descriptor,
};
use containerd_client::services::v1::{
    Info, InfoRequest, ReadContentRequest, UpdateRequest, WriteAction, WriteContentRequest,
};
use futures::stream;
use serde::de::DeserializeOwned;
use std::{collections::HashMap, io::Read};
use tokio::sync::mpsc;
use tokio_util::bytes::Bytes;

/// Largest JSON document of an image: registries refuse manifests above 4 MiB.
pub(crate) const MAX_DOCUMENT: u64 = 4 << 20;
/// Bytes of one message while writing: well below gRPC's limit of 4 MiB, large enough that the number of messages does not count.
const CHUNK: usize = 1 << 20;
/// Chunks read ahead of the socket while writing.
const CHUNKS_AHEAD: usize = 2;

pub(crate) type Labels = HashMap<String, String>;

/// Reads and parses a document.
pub(crate) async fn read_json<T: DeserializeOwned>(client: &Client, blob: &Descriptor) -> Result<T> {
    let bytes = read(client, blob).await?;
    serde_json::from_slice(&bytes)
        .map_err(|e| Fault::Broken(format!("blob {} is not what an image has there: {e}", blob.digest)))
}

/// Reads a document; containerd checked its digest when it was written.
pub(crate) async fn read(client: &Client, blob: &Descriptor) -> Result<Vec<u8>> {
    let too_large = || Fault::Broken(format!("blob {} is larger than {MAX_DOCUMENT} bytes", blob.digest));
    if blob.size > MAX_DOCUMENT {
        return Err(too_large());
    }
    let request = ReadContentRequest { digest: blob.digest.clone(), offset: 0, size: 0 };
    let reply = client.content().read(client.ask(request)).await.map_err(Fault::rpc("read content"))?;
    let mut parts = reply.into_inner();
    let mut bytes = Vec::new();
    while let Some(part) = parts.message().await.map_err(Fault::rpc("read content"))? {
        bytes.extend_from_slice(&part.data);
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(too_large());
        }
    }
    Ok(bytes)
}

/// Whether the content store has it.
pub(crate) async fn has(client: &Client, digest: &str) -> Result<bool> {
    let request = InfoRequest { digest: digest.to_owned() };
    let reply = client
        .content()
        .info(client.ask(request))
        .await
        .map_err(Fault::rpc("look at content"))
        .or_absent()?;
    Ok(reply.is_some())
}

/// Adds labels to a blob: they tell the garbage collector what the blob keeps alive.
pub(crate) async fn label(client: &Client, digest: &str, labels: Labels) -> Result<()> {
    if labels.is_empty() {
        return Ok(());
    }
    let paths = labels.keys().map(|key| format!("labels.{key}")).collect();
    let info = Info { digest: digest.to_owned(), labels, ..Info::default() };
    let request = UpdateRequest { info: Some(info), update_mask: Some(prost_types::FieldMask { paths }) };
    client.content().update(client.ask(request)).await.map_err(Fault::rpc("label content"))?;
    Ok(())
}

/// Writes a blob from a reader unless it is there, with its labels in both cases. containerd checks size and digest.
pub(crate) async fn write(
    client: &Client,
    lease: &Lease,
    blob: &Descriptor,
    labels: Labels,
    source: impl Read + Send + 'static,
) -> Result<()> {
    if has(client, &blob.digest).await? {
        return label(client, &blob.digest, labels).await;
    }
    let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
    let (size, expected, wanted) = (blob.size, blob.digest.clone(), labels.clone());
    let reader = tokio::task::spawn_blocking(move || send_chunks(source, size, &expected, &wanted, &sender));
    let requests = stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|chunk| (chunk, receiver))
    });
    let written = finish(client, lease, requests).await;
    // The reader's error is the cause when both fail: a stream that it broke off is refused by containerd.
    reader.await.map_err(Fault::Thread)??;
    match written {
        Err(fault) if fault.is_already_exists() => label(client, &blob.digest, labels).await,
        Err(Fault::Rpc { status, .. }) if status.message().contains("unexpected commit") => {
            Err(Fault::Invalid(format!(
                "digest mismatch: the content of blob {} is another: {}",
                blob.digest,
                status.message()
            )))
        }
        other => other,
    }
}

async fn finish(
    client: &Client,
    lease: &Lease,
    requests: impl futures::Stream<Item = WriteContentRequest> + Send + 'static,
) -> Result<()> {
    let request = client.ask_leased(requests, lease);
    let reply = client.content().write(request).await.map_err(Fault::rpc("write content"))?;
    let mut answers = reply.into_inner();
    while answers.message().await.map_err(Fault::rpc("write content"))?.is_some() {}
    Ok(())
}

/// Feeds the chunks of a blob; the last one commits. Blocks.
fn send_chunks(
    mut source: impl Read,
    size: u64,
    digest: &str,
    labels: &Labels,
    sender: &mpsc::Sender<WriteContentRequest>,
) -> Result<()> {
    // Named by content, and by us: two imports of the same blob at once must not share a half-written one.
    let reference = format!("berth-import-{}-{digest}", uuid::Uuid::new_v4().simple());
    let mut offset: u64 = 0;
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        let read = source
            .by_ref()
            .take(CHUNK as u64)
            .read_to_end(&mut chunk)
            .map_err(Fault::io("read the archive"))?;
        let after = offset + read as u64;
        let last = after >= size || read == 0;
        let request = WriteContentRequest {
            action: if last { WriteAction::Commit } else { WriteAction::Write }.into(),
            r#ref: reference.clone(),
            total: i64::try_from(size).unwrap_or(i64::MAX),
            expected: digest.to_owned(),
            offset: i64::try_from(offset).unwrap_or(i64::MAX),
            data: Bytes::from(chunk).into(),
            labels: if last { labels.clone() } else { Labels::new() },
        };
        // The other side is gone only when containerd has answered with an error, which says more than we could.
        if sender.blocking_send(request).is_err() || last {
            return Ok(());
        }
        offset = after;
    }
}
