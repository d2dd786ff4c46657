//! What pulls and imports left behind that nobody will finish: half-written blobs and leases.
//!
//! A pull that was cut off is resumed when a task asks for the image again, so what it brought is kept for a day. When the disk is full
//! and nothing is being pulled, it goes at once: it is the only part of the store that no image needs.

use crate::{
    client::Client,
    error::{Fault, OrAbsent, Result},
    image::pull,
    process,
};
use berth_types::Timestamp;
use containerd_client::services::v1::{AbortRequest, DeleteRequest, ListRequest, ListStatusesRequest};
use jiff::SignedDuration;
use std::collections::HashMap;

/// Half-written blobs that nobody has written to for so long, and leases of that age, are given up.
const GIVEN_UP_AFTER: SignedDuration = SignedDuration::from_hours(24);
/// The same on a full disk. A pull that has begun since we looked is younger.
const GIVEN_UP_ON_A_FULL_DISK_AFTER: SignedDuration = SignedDuration::from_mins(1);
/// References and leases of ours begin so.
const OURS: &str = "berth-";
/// containerd ends a lease at the time that this label says.
const EXPIRES: &str = "containerd.io/gc.expire";

/// What is too old to be taken up again.
#[derive(Debug, Clone, Copy)]
struct Limit {
    now: Timestamp,
    age: SignedDuration,
    /// Leases of pulls go although their end has not come.
    pulls_early: bool,
}

/// What a day has shown to be given up; answers how many blobs and leases went.
pub(super) async fn drop_old(client: &Client, now: Timestamp) -> Result<(usize, usize)> {
    drop_all(client, Limit { now, age: GIVEN_UP_AFTER, pulls_early: false }).await
}

/// All of it, to make room. Only while nothing is being pulled.
pub(super) async fn drop_for_room(client: &Client, now: Timestamp) -> Result<(usize, usize)> {
    drop_all(client, Limit { now, age: GIVEN_UP_ON_A_FULL_DISK_AFTER, pulls_early: true }).await
}

async fn drop_all(client: &Client, limit: Limit) -> Result<(usize, usize)> {
    // Half-written blobs first: they go by themselves, whole ones are collected with the leases.
    let blobs = blobs(client, limit).await?;
    let leases = leases(client, limit).await?;
    Ok((blobs, leases))
}

async fn blobs(client: &Client, limit: Limit) -> Result<usize> {
    let request = client.ask(ListStatusesRequest { filters: Vec::new() });
    let reply =
        client.content().list_statuses(request).await.map_err(Fault::rpc("list half-written blobs"))?;
    let mut dropped = 0;
    for status in reply.into_inner().statuses {
        if status.r#ref.starts_with(OURS) && limit.is_passed(process::time(status.updated_at)) {
            let request = client.ask(AbortRequest { r#ref: status.r#ref });
            let reply = client.content().abort(request).await.map_err(Fault::rpc("drop half-written blob"));
            dropped += usize::from(reply.or_absent()?.is_some());
        }
    }
    Ok(dropped)
}

async fn leases(client: &Client, limit: Limit) -> Result<usize> {
    let request = client.ask(ListRequest { filters: Vec::new() });
    let reply = client.leases().list(request).await.map_err(Fault::rpc("list leases"))?;
    let mut going = reply.into_inner().leases;
    going.retain(|lease| lease.id.starts_with(OURS));
    going.retain(|lease| limit.is_passed(process::time(lease.created_at)) && !limit.is_meant(&lease.labels));
    let (count, mut dropped) = (going.len(), 0);
    for (position, lease) in going.into_iter().enumerate() {
        // The last one waits until what all of them held is collected.
        let request = client.ask(DeleteRequest { id: lease.id, sync: position + 1 == count });
        let reply = client.leases().delete(request).await.map_err(Fault::rpc("drop lease"));
        dropped += usize::from(reply.or_absent()?.is_some());
    }
    Ok(dropped)
}

impl Limit {
    /// What has no time stays.
    fn is_passed(self, since: Option<Timestamp>) -> bool {
        since.is_some_and(|since| self.now.duration_since(since) >= self.age)
    }

    /// Whether a lease is to live on.
    fn is_meant(self, labels: &HashMap<String, String>) -> bool {
        let early = self.pulls_early && labels.contains_key(pull::LEASE_LABEL);
        let end = labels.get(EXPIRES).and_then(|text| text.parse::<Timestamp>().ok());
        !early && end.is_some_and(|end| end > self.now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_without_a_byte_is_enough_and_a_lease_whose_end_has_not_come_stays() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let limit = Limit { now, age: GIVEN_UP_AFTER, pulls_early: false };
        assert!(limit.is_passed(Some(now - GIVEN_UP_AFTER)));
        assert!(!limit.is_passed(Some(now - SignedDuration::from_hours(23))));
        assert!(!limit.is_passed(None));
        let until = |text: &str| HashMap::from([(EXPIRES.to_owned(), text.to_owned())]);
        assert!(limit.is_meant(&until("2026-11-22T12:00:01Z")));
        assert!(!limit.is_meant(&until("2026-11-22T12:00:00Z")));
        assert!(!limit.is_meant(&until("soon")) && !limit.is_meant(&HashMap::new()));
        // On a full disk those of pulls go before their time, and only those: what is unpacked now is about to be an image.
        let full = Limit { pulls_early: true, ..limit };
        let mut labels = until("2026-11-22T12:00:01Z");
        assert!(full.is_meant(&labels));
        labels.insert(pull::LEASE_LABEL.to_owned(), "sha256:00".to_owned());
        assert!(limit.is_meant(&labels) && !full.is_meant(&labels));
    }
}
