//! What the agent keeps with an image's record in containerd: when it pulled it, and when a task last asked for it. Kept there and not
//! in the journal, because a label goes when the image goes, whoever removes it, and outlives kill -9.

use crate::{
    client::Client,
    error::{Fault, OrAbsent, Result},
    image::documents::Descriptor,
};
use berth_types::Timestamp;
use containerd_client::services::v1::{CreateImageRequest, Image, UpdateImageRequest};
use std::collections::HashMap;

/// When this agent pulled the image: RFC 3339. An image without it was imported, or brought by somebody else.
pub(crate) const PULLED_AT: &str = "berth.pulled-at";
/// When a task last asked for it, to the minute: RFC 3339.
pub(crate) const USED_AT: &str = "berth.used-at";

/// When this agent pulled it.
pub(crate) fn pulled_at(labels: &HashMap<String, String>) -> Option<Timestamp> {
    read(labels, PULLED_AT)
}

/// When a task last asked for it.
pub(crate) fn used_at(labels: &HashMap<String, String>) -> Option<Timestamp> {
    read(labels, USED_AT)
}

/// A label that does not parse says nothing: the clean-up then leaves the image alone.
fn read(labels: &HashMap<String, String>, key: &str) -> Option<Timestamp> {
    labels.get(key)?.parse().ok()
}

/// Notes that a task asked for the image. One that is gone meanwhile needs no note.
pub(crate) async fn mark_used(client: &Client, name: &str, now: Timestamp) -> Result<()> {
    let labels = HashMap::from([(USED_AT.to_owned(), now.to_string())]);
    let image = Image { name: name.to_owned(), labels, ..Image::default() };
    // Only this label: the record's target may be changed by a pull at the same moment.
    let update_mask = Some(prost_types::FieldMask { paths: vec![format!("labels.{USED_AT}")] });
    let request = UpdateImageRequest { image: Some(image), update_mask, source_date_epoch: None };
    let reply = client.images().update(client.ask(request)).await.map_err(Fault::rpc("label image"));
    reply.or_absent().map(drop)
}

/// Points a name at an image that was just pulled. What else is noted with the name stays.
pub(crate) async fn put_pulled(
    client: &Client,
    name: &str,
    target: &Descriptor,
    now: Timestamp,
) -> Result<()> {
    let labels = [PULLED_AT, USED_AT].map(|key| (key.to_owned(), now.to_string()));
    let image = Image {
        name: name.to_owned(),
        labels: labels.into(),
        target: Some(target.into()),
        ..Image::default()
    };
    let request = client.ask(CreateImageRequest { image: Some(image.clone()), source_date_epoch: None });
    match client.images().create(request).await.map_err(Fault::rpc("create image")) {
        Err(fault) if fault.is_already_exists() => {
            let labels = [PULLED_AT, USED_AT].map(|key| format!("labels.{key}"));
            let paths = [vec!["target".to_owned()], labels.into()].concat();
            let update_mask = Some(prost_types::FieldMask { paths });
            let request = UpdateImageRequest { image: Some(image), update_mask, source_date_epoch: None };
            client.images().update(client.ask(request)).await.map_err(Fault::rpc("update image"))?;
            Ok(())
        }
        other => other.map(drop),
    }
}
