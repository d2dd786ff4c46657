//! Images: from the reference that a user wrote to a root file system that containers can be made on.
//!
//! ```text
//!  reference ──reference::candidates──► image store ──► manifest of this platform ──► config ──► snapshot (unpacked here if need be)
//!                                            ▲
//!                                     pull ──┘  as the behaviour asks for
//! ```
//!
//! What was resolved is kept by the digest that the name points at, so a launch costs one look at the image store. [`Images::bring`] is
//! what a task's launch asks: it pulls first where the configured behaviour wants that. [`Images::resolve`] takes what is here.

pub(crate) mod cleanup;
pub(crate) mod content;
pub(crate) mod documents;
pub(crate) mod labels;
mod noted;
pub(crate) mod pull;
pub(crate) mod unpack;

use crate::{
    client::{Client, IMPORT_DEADLINE, QUERY_DEADLINE},
    error::{Fault, OrAbsent, Result, blocking, within},
    layers, reference,
    spec::ImageSettings,
};
use berth_types::{Timestamp, image::PullsSnapshot, ports::ImageFacts};
use containerd_client::services::v1::{GetImageRequest, Image as StoredImage, ListImagesRequest};
use content::read_json;
use documents::{Config, Descriptor, Document, MAX_INDEX_DEPTH};
use noted::Noted;
use pull::{Have, PullBehavior, PullConfig, Puller};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::watch;

/// Resolved images kept: more than a machine of 120 tasks runs at a time. One is a few KB of config and accounts.
const CACHE: usize = 256;
/// Of `/etc/passwd` and `/etc/group` this much is read: 10,000 accounts.
const MAX_ACCOUNTS: u64 = 1 << 20;

/// An image, ready to make containers on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    /// What the name pointed at when this was resolved: manifest or index.
    pub(crate) digest: String,
    /// Digest of the config.
    pub(crate) image_id: String,
    pub(crate) settings: ImageSettings,
    /// The unpacked snapshot: parent of the containers' own.
    pub(crate) chain: String,
    pub(crate) passwd: String,
    pub(crate) group: String,
}

impl Image {
    pub(crate) fn facts(&self, reference: &str) -> ImageFacts {
        ImageFacts {
            reference: reference.to_owned(),
            image_id: self.image_id.clone(),
            digest: self.digest.clone(),
        }
    }
}

/// An image's record in containerd.
#[derive(Debug)]
struct Local {
    name: String,
    target: Descriptor,
    /// Whether this agent pulled it.
    pulled: bool,
}

/// Finds images, brings those that are wanted; remembers what it has resolved.
#[derive(Debug)]
pub(crate) struct Images {
    client: Client,
    puller: Arc<Puller>,
    noted: Noted,
    /// What launches ask for: the clean-up leaves it alone.
    pub(crate) pins: cleanup::Pins,
    /// The oldest first. Held only to look up and to push, never across a call.
    cache: Mutex<VecDeque<Arc<Image>>>,
}

impl Images {
    pub(crate) fn new(client: Client, pull: PullConfig) -> Self {
        let puller = Puller::new(client.clone(), pull);
        let (pins, noted) = (cleanup::Pins::default(), Noted::default());
        Self { client, puller, noted, pins, cache: Mutex::default() }
    }

    pub(crate) fn pulls(&self) -> watch::Receiver<Arc<PullsSnapshot>> {
        self.puller.watch()
    }

    /// The image behind a reference for a task that is to start now: pulled if the behaviour asks for that, unpacked, noted as used.
    pub(crate) async fn bring(&self, reference: &str) -> Result<Arc<Image>> {
        // Before the first look, so that the clean-up cannot take it away after it.
        let _pin = self.pins.ask(reference).await;
        let local = within(QUERY_DEADLINE, self.local(reference)).await?;
        let pulled = self.pull(reference, local.as_ref()).await?;
        let found = within(IMPORT_DEADLINE, self.whole(reference)).await;
        // An image that is here but does not work has not made up for the failed pull, which is then the reason.
        let image = match (found, pulled) {
            (Ok(image), _) => image,
            (Err(_), Some(failed)) => return Err(failed),
            (Err(fault), None) => return Err(fault),
        };
        if let Some(local) = local.filter(|local| self.noted.is_due(&local.name)) {
            let noted = labels::mark_used(&self.client, &local.name, Timestamp::now());
            if let Err(fault) = within(QUERY_DEADLINE, noted).await {
                tracing::debug!(image = reference, error = %fault, "use of the image not noted");
            }
        }
        Ok(image)
    }

    /// Asks the registry if the behaviour wants that. Answers a failure that the image that is here may make up for.
    async fn pull(&self, reference: &str, local: Option<&Local>) -> Result<Option<Fault>> {
        let behavior = self.puller.behavior();
        if !asks_registry(behavior, reference::pinned_digest(reference).is_some(), local) {
            return Ok(None);
        }
        let have = local.map(|local| Have {
            digest: local.target.digest.clone(),
            whole: local.pulled && self.known(&local.target.digest).is_some(),
        });
        match self.puller.pull(reference, have).await {
            Ok(()) => Ok(None),
            Err(fault) if behavior == PullBehavior::Default && local.is_some() => {
                tracing::warn!(image = reference, error = %fault, "not pulled, the image that is here is used");
                Ok(Some(fault))
            }
            Err(fault) => Err(fault),
        }
    }

    /// The image behind a reference with its snapshot in place; resolves anew where that is gone.
    async fn whole(&self, reference: &str) -> Result<Arc<Image>> {
        let image = self.resolve(reference).await?;
        if unpack::exists(&self.client, &image.chain).await? {
            return Ok(image);
        }
        self.forget(&image);
        self.resolve(reference).await
    }

    /// The image behind a reference, unpacked.
    pub(crate) async fn resolve(&self, reference: &str) -> Result<Arc<Image>> {
        let _pin = self.pins.ask(reference).await;
        let Some(Local { target, .. }) = self.local(reference).await? else {
            let full = reference::normalize(reference);
            return Err(Fault::ImageNotFound(format!(
                "image {reference} is not in containerd's store (looked for {full}); import it with `berth image import`"
            )));
        };
        if let Some(image) = self.known(&target.digest) {
            return Ok(image);
        }
        let image = Arc::new(self.load(&target).await?);
        let mut cache = self.lock();
        if cache.len() == CACHE {
            cache.pop_front();
        }
        cache.push_back(image.clone());
        Ok(image)
    }

    fn known(&self, digest: &str) -> Option<Arc<Image>> {
        self.lock().iter().find(|image| image.digest == digest).cloned()
    }

    /// Forgets an image whose snapshot turned out to be gone.
    pub(crate) fn forget(&self, image: &Image) {
        self.lock().retain(|known| known.digest != image.digest);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Arc<Image>>> {
        // A panic while it was held leaves a cache that is still a cache.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the image store has under the reference.
    async fn local(&self, reference: &str) -> Result<Option<Local>> {
        for name in reference::candidates(reference) {
            let request = self.client.ask(GetImageRequest { name });
            let reply =
                self.client.images().get(request).await.map_err(Fault::rpc("get image")).or_absent()?;
            if let Some(found) = reply.and_then(|reply| reply.into_inner().image).and_then(local) {
                return Ok(Some(found));
            }
        }
        let Some(digest) = reference::pinned_digest(reference) else { return Ok(None) };
        let filters = vec![format!("target.digest=={digest}")];
        let request = self.client.ask(ListImagesRequest { filters });
        let reply = self.client.images().list(request).await.map_err(Fault::rpc("list images"))?;
        Ok(reply.into_inner().images.into_iter().find_map(local))
    }

    async fn load(&self, target: &Descriptor) -> Result<Image> {
        let manifest = self.manifest(target).await?;
        let config: Config = read_json(&self.client, &manifest.config).await?;
        config.check(&manifest)?;
        let chain = unpack::ensure(&self.client, &manifest, &config).await?;
        let (passwd, group) = self.accounts(&chain).await?;
        Ok(Image {
            digest: target.digest.clone(),
            image_id: manifest.config.digest,
            settings: config.config.unwrap_or_default(),
            chain,
            passwd,
            group,
        })
    }

    /// The manifest of this platform, through indexes if there are any.
    async fn manifest(&self, target: &Descriptor) -> Result<documents::Manifest> {
        let mut at = target.clone();
        for _ in 0..=MAX_INDEX_DEPTH {
            let document: Document = read_json(&self.client, &at).await?;
            match document.sort(&at.digest)? {
                documents::Sorted::Manifest(manifest) => return Ok(manifest),
                documents::Sorted::Index(index) => at = index.for_this_platform(&at.digest)?,
            }
        }
        Err(Fault::Broken(format!("{}: indexes are nested too deep", target.digest)))
    }

    /// The image's own lists of users and groups.
    async fn accounts(&self, chain: &str) -> Result<(String, String)> {
        let mounts = unpack::look_into(&self.client, chain).await?;
        blocking(move || {
            let layers = layers::directories(&mounts)?;
            let passwd = layers::read_text(&layers, "/etc/passwd", MAX_ACCOUNTS)?.unwrap_or_default();
            let group = layers::read_text(&layers, "/etc/group", MAX_ACCOUNTS)?.unwrap_or_default();
            Ok((passwd, group))
        })
        .await
    }
}

fn local(image: StoredImage) -> Option<Local> {
    let pulled = labels::pulled_at(&image.labels).is_some();
    Some(Local { name: image.name, target: image.target?.into(), pulled })
}

/// Whether a launch asks the registry before it takes what is here.
fn asks_registry(behavior: PullBehavior, pinned: bool, local: Option<&Local>) -> bool {
    match (local, behavior) {
        (None, _) => true,
        // A digest means the same wherever it is.
        (Some(_), _) if pinned => false,
        (Some(_), PullBehavior::Default | PullBehavior::Always) => true,
        (Some(local), PullBehavior::Once) => !local.pulled,
        (Some(_), PullBehavior::PreferCached) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_a_registry_is_asked_is_what_the_official_agents_table_says() {
        let local = |pulled| {
            let target = Descriptor::of(documents::OCI_MANIFEST, b"");
            Some(Local { name: "web".into(), target, pulled })
        };
        let asks = |behavior, pinned| {
            [None, local(false), local(true)].map(|local| asks_registry(behavior, pinned, local.as_ref()))
        };
        //                                       not here, imported, pulled
        assert_eq!(asks(PullBehavior::Default, false), [true, true, true]);
        assert_eq!(asks(PullBehavior::Always, false), [true, true, true]);
        assert_eq!(asks(PullBehavior::Once, false), [true, true, false]);
        assert_eq!(asks(PullBehavior::PreferCached, false), [true, false, false]);
        for behavior in
            [PullBehavior::Default, PullBehavior::Always, PullBehavior::Once, PullBehavior::PreferCached]
        {
            assert_eq!(asks(behavior, true), [true, false, false]);
        }
    }
}
