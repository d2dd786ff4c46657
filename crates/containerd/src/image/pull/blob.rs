//! The second half of a pull: blobs from the registry into containerd's content store. Each is downloaded once at a time however many
//! pulls want it, continued where an earlier try ended, and committed only with the digest that the manifest says.

use super::{Job, Puller, failure::Failure, ingest::Ingest};
use crate::{
    client::Lease,
    image::{content, documents::Descriptor},
};
use bytes::BytesMut;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Bytes handed to containerd at a time. Of each blob under way one such piece is in memory and one on its way: with three pulls of three
/// blobs 5 MB; larger ones are not faster, as the hash is what takes the time.
const PIECE: usize = 256 << 10;
/// A try that came this much further than the one before was no failure of the registry but of the way: tries count anew after it.
const GOOD_WAY: u64 = 1 << 20;

impl Puller {
    /// Brings one blob, the `index`-th of its pull, with all tries.
    pub(super) async fn bring_blob(
        &self,
        job: &Job<'_>,
        lease: &Lease,
        index: usize,
        blob: &Descriptor,
    ) -> Result<(), Failure> {
        let _only = self.downloads.lock(&blob.digest).await;
        if self.is_held(lease, blob).await? {
            job.ticket.done(index, blob.size);
            return Ok(());
        }
        let (mut tries, mut before) = (0, 0);
        loop {
            let mut here = 0;
            let failure = match self.try_blob(job, lease, index, blob, &mut here).await {
                Ok(()) => break,
                Err(failure) => failure,
            };
            if here >= before + GOOD_WAY {
                tries = 0;
            }
            (tries, before) = (tries + 1, here);
            let Some(pause) = self.pause(&failure, tries) else { return Err(failure) };
            tracing::debug!(blob = blob.digest, tries, error = %failure, "blob is tried again");
            job.ticket.failed(format!("blob {}: {failure}", blob.digest));
            sleep(pause).await;
        }
        job.ticket.done(index, blob.size);
        Ok(())
    }

    /// Whether the store has it, now under the lease: in this order, so that it cannot be collected in between.
    pub(super) async fn is_held(&self, lease: &Lease, blob: &Descriptor) -> Result<bool, Failure> {
        self.client.hold(lease, &blob.digest).await?;
        Ok(content::has(&self.client, &blob.digest).await?)
    }

    async fn try_blob(
        &self,
        job: &Job<'_>,
        lease: &Lease,
        index: usize,
        blob: &Descriptor,
        here: &mut u64,
    ) -> Result<(), Failure> {
        let Some(mut ingest) = Ingest::open(&self.client, lease, blob).await? else { return Ok(()) };
        let copied = self.copy(job, index, blob, &mut ingest).await;
        *here = ingest.offset;
        match copied {
            Ok(_) if ingest.digest == blob.digest => Ok(ingest.commit().await?),
            Ok(continued) => {
                let text = format!(
                    "the registry sent bytes with digest {}, expected {}",
                    ingest.digest, blob.digest
                );
                ingest.abort(&self.client).await?;
                // Whose part was wrong, the one that was here or the one that came, is seen when all of it comes.
                Err(if continued { Failure::Broken(text) } else { Failure::Unusable(text) })
            }
            Err(failure @ Failure::Unusable(_)) => {
                ingest.abort(&self.client).await?;
                Err(failure)
            }
            Err(failure) => {
                ingest.close().await;
                Err(failure)
            }
        }
    }

    /// Completes the ingest. Answers whether a part of it was there before.
    async fn copy(
        &self,
        job: &Job<'_>,
        index: usize,
        blob: &Descriptor,
        ingest: &mut Ingest,
    ) -> Result<bool, Failure> {
        job.ticket.bytes(index, ingest.offset, 0);
        if ingest.offset >= blob.size {
            return Ok(true);
        }
        let patience = self.config.inactivity_timeout;
        let asked = self.registries.blob(&job.at, &blob.digest, ingest.offset);
        let mut download = timeout(patience, asked).await.map_err(|_| Failure::Stalled(patience))??;
        if download.start == 0 {
            ingest.rewind();
        }
        let continued = ingest.offset > 0;
        let mut piece = BytesMut::with_capacity(PIECE);
        let mut came = ingest.offset;
        loop {
            let next = download.next(patience).await;
            let ended = !matches!(next, Ok(Some(_)));
            if let Ok(Some(bytes)) = &next {
                came += bytes.len() as u64;
                if came > blob.size {
                    let text = format!(
                        "the registry sends more than the {} bytes that the manifest says",
                        blob.size
                    );
                    return Err(Failure::Unusable(text));
                }
                piece.extend_from_slice(bytes);
                job.ticket.bytes(index, came, bytes.len() as u64);
            }
            // What came before a failure is kept: the next try goes on from there.
            if piece.len() >= PIECE || (ended && !piece.is_empty()) {
                ingest.write(piece.split().freeze()).await?;
            }
            next?;
            if ended {
                break;
            }
        }
        if came < blob.size {
            return Err(Failure::Broken(format!(
                "the registry ended it after {came} of {} bytes",
                blob.size
            )));
        }
        Ok(continued)
    }
}

/// A pull's lease outlives the longest pull by so much: what a kill -9 left of one is continued within it, and collected after it.
pub(super) const LEASE_BEYOND: Duration = Duration::from_secs(24 * 3600);
