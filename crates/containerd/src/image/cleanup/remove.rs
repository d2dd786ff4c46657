//! Removing an image: all its names, if at the very last look nobody needs it. Content and snapshots go with containerd's garbage
//! collector, which the last name waits for.

use super::{inventory, pins::Condemned, plan::Candidate};
use crate::{
    client::Client,
    error::{Fault, OrAbsent, Result},
    image::Images,
    reference,
};
use containerd_client::services::v1::DeleteImageRequest;

impl Images {
    /// Removes a whole image; `false` if somebody needs it after all.
    pub(super) async fn remove(&self, image: &Candidate) -> Result<bool> {
        let Some(condemned) = self.pins.condemn(&image.names, &image.digest) else { return Ok(false) };
        let uses = inventory::uses(&self.client).await?;
        if uses.iter().any(|u| u.is_of(&image.names, &image.digest, &image.chains)) {
            return Ok(false);
        }
        self.delete(&image.names, &image.digest, &condemned).await?;
        Ok(true)
    }

    /// Removes a name for an operator, and the image if that was its last; `false` if there is no such name.
    pub(super) async fn remove_name(&self, wanted: &str) -> Result<bool> {
        let images = inventory::candidates(&self.client, &self.pins).await?;
        let names = reference::candidates(wanted);
        let found = names
            .iter()
            .find_map(|name| images.iter().find(|image| image.names.contains(name)).map(|i| (name, i)));
        let Some((name, image)) = found else { return Ok(false) };
        let going = going_with(name, &image.names);
        let Some(condemned) = self.pins.condemn_now(&going, &image.digest) else {
            return Err(Fault::Invalid("a task that is starting asks for it now".into()));
        };
        let uses = inventory::uses(&self.client).await?;
        let users = uses.iter().filter(|u| u.is_of(&image.names, &image.digest, &image.chains)).count();
        if users > 0 {
            return Err(Fault::Invalid(format!(
                "{users} containers are made of it; remove their tasks first"
            )));
        }
        self.delete(&going, &image.digest, &condemned).await?;
        Ok(true)
    }

    /// The proof that launches are kept away is not looked at, only held.
    async fn delete(&self, names: &[String], digest: &str, _: &Condemned) -> Result<()> {
        for (position, name) in names.iter().enumerate() {
            let last = position + 1 == names.len();
            delete(&self.client, name, last).await?;
        }
        // It may come back, and its snapshots will not be there then.
        self.lock().retain(|known| known.digest != digest);
        Ok(())
    }
}

/// Names by digest that a pull by tag has left go with the last tag: nobody has asked for them by themselves.
fn going_with(name: &str, names: &[String]) -> Vec<String> {
    let by_digest = |name: &str| name.contains('@');
    let another = names.iter().any(|other| other != name && !by_digest(other));
    let rest = names.iter().filter(|other| *other != name && !another && !by_digest(name)).cloned();
    rest.chain([name.to_owned()]).collect()
}

/// One that is gone already is deleted.
async fn delete(client: &Client, name: &str, sync: bool) -> Result<()> {
    let request = client.ask(DeleteImageRequest { name: name.to_owned(), sync, target: None });
    client.images().delete(request).await.map_err(Fault::rpc("delete image")).or_absent().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_by_digest_go_with_the_last_tag() {
        let names = ["r/web:1", "r/web:2", "r/web@sha256:00"].map(str::to_owned);
        assert_eq!(going_with("r/web:1", &names), ["r/web:1"]);
        assert_eq!(going_with("r/web:2", &names[1..]), ["r/web@sha256:00", "r/web:2"]);
        assert_eq!(going_with("r/web@sha256:00", &names[1..]), ["r/web@sha256:00"]);
    }
}
