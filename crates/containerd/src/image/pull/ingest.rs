//! One blob into containerd's content store, piece by piece, so that a try that ends in the middle is continued and not repeated.
//!
//! What has been written of a blob is an *ingest* of containerd's, under a name that its digest gives. It outlives us: the next try,
//! or the next agent after kill -9, finds how much of it is there. Pieces are written one at a time, each after the answer to the one
//! before, so a slow disk slows the network down instead of filling memory.

use crate::{
    client::{Client, Lease},
    error::{Fault, Result},
    image::documents::Descriptor,
};
use bytes::Bytes;
use containerd_client::services::v1::{AbortRequest, WriteAction, WriteContentRequest, WriteContentResponse};
use futures::stream;
use std::time::Duration;
use tokio::{sync::mpsc, time::sleep};
use tonic::{Code, Streaming};

/// Every answer is waited for, so there is never more than one piece in it.
const PIECES: usize = 1;
/// A try that was cut off leaves containerd to notice: it holds the ingest for some more milliseconds. So often is it asked again.
const LOCKED_TRIES: u32 = 100;
/// Between two of those: 100 of them are ten seconds.
const LOCKED_PAUSE: Duration = Duration::from_millis(100);

/// A blob being written.
#[derive(Debug)]
pub(super) struct Ingest {
    sender: mpsc::Sender<WriteContentRequest>,
    answers: Streaming<WriteContentResponse>,
    blob: Descriptor,
    /// Bytes that are there.
    pub(super) offset: u64,
    /// Digest of these bytes.
    pub(super) digest: String,
}

/// The name of a blob's ingest. With the size, because containerd refuses to continue one with another: a manifest that lies about a
/// size must not stand in the way of one that does not.
fn name(blob: &Descriptor) -> String {
    format!("berth-pull-{}-{}", blob.digest, blob.size)
}

impl Ingest {
    /// Begins or continues a blob; `None` if the store has all of it.
    pub(super) async fn open(client: &Client, lease: &Lease, blob: &Descriptor) -> Result<Option<Self>> {
        let mut tries = 0;
        loop {
            tries += 1;
            match Self::try_open(client, lease, blob).await {
                Ok(ingest) => return Ok(Some(ingest)),
                Err(fault) if fault.is_already_exists() => return Ok(None),
                Err(fault) if is_locked(&fault) && tries < LOCKED_TRIES => sleep(LOCKED_PAUSE).await,
                Err(fault) => return Err(fault),
            }
        }
    }

    async fn try_open(client: &Client, lease: &Lease, blob: &Descriptor) -> Result<Self> {
        let (sender, receiver) = mpsc::channel(PIECES);
        let requests = stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|piece| (piece, receiver))
        });
        let first = request(blob, WriteAction::Stat, 0, Bytes::new());
        // There is room: nothing is in it yet.
        sender.try_send(first).map_err(|_| Fault::Broken("containerd hung up".into()))?;
        let reply = client.content().write(client.ask_leased(requests, lease)).await;
        let answers = reply.map_err(Fault::rpc("open content"))?.into_inner();
        let mut ingest = Self { sender, answers, blob: blob.clone(), offset: 0, digest: String::new() };
        ingest.answer().await?;
        Ok(ingest)
    }

    /// Adds a piece.
    pub(super) async fn write(&mut self, piece: Bytes) -> Result<()> {
        let request = request(&self.blob, WriteAction::Write, self.offset, piece);
        self.send(request).await
    }

    /// Makes a blob of it. The digest was compared before; containerd compares it again.
    pub(super) async fn commit(mut self) -> Result<()> {
        let request = request(&self.blob, WriteAction::Commit, self.offset, Bytes::new());
        match self.send(request).await {
            Err(fault) if fault.is_already_exists() => Ok(()),
            other => other,
        }
    }

    /// Lets containerd know that there is no more for now.
    pub(super) async fn close(self) {
        let Self { sender, mut answers, .. } = self;
        drop(sender);
        // It ends when containerd has let go of it, or has died.
        while let Ok(Some(_)) = answers.message().await {}
    }

    /// Forgets what was written.
    pub(super) async fn abort(self, client: &Client) -> Result<()> {
        let r#ref = name(&self.blob);
        self.close().await;
        let reply = client.content().abort(client.ask(AbortRequest { r#ref })).await;
        match reply.map_err(Fault::rpc("abort content")) {
            Err(fault) if fault.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }

    /// The next piece is the blob's first: containerd drops what it has.
    pub(super) fn rewind(&mut self) {
        self.offset = 0;
    }

    async fn send(&mut self, request: WriteContentRequest) -> Result<()> {
        // The other side is gone only when it has answered with an error, which is read next.
        let _gone = self.sender.send(request).await;
        self.answer().await
    }

    async fn answer(&mut self) -> Result<()> {
        let answer = self.answers.message().await.map_err(Fault::rpc("write content"))?;
        let answer =
            answer.ok_or_else(|| Fault::Broken("containerd hung up in the middle of a blob".into()))?;
        self.offset = u64::try_from(answer.offset).unwrap_or_default();
        self.digest = answer.digest;
        Ok(())
    }
}

fn request(blob: &Descriptor, action: WriteAction, offset: u64, data: Bytes) -> WriteContentRequest {
    WriteContentRequest {
        action: action.into(),
        r#ref: name(blob),
        total: i64::try_from(blob.size).unwrap_or(i64::MAX),
        expected: blob.digest.clone(),
        offset: i64::try_from(offset).unwrap_or(i64::MAX),
        data: data.into(),
        ..WriteContentRequest::default()
    }
}

/// Whether another writer has not let go of it yet. containerd says so with the code that also means that there is no containerd.
fn is_locked(fault: &Fault) -> bool {
    matches!(fault, Fault::Rpc { status, .. } if status.code() == Code::Unavailable && status.message().contains("locked"))
}
