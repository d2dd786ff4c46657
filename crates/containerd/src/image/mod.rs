//! Images: from the reference that a user wrote to a root file system that containers can be made on.
//!
//! ```text
//!  reference ──reference::candidates──► image store ──► manifest of this platform ──► config ──► snapshot (unpacked here if need be)
//! ```
//!
//! What was resolved is kept by the digest that the name points at, so a launch costs one look at the image store. Nothing is pulled
//! here: a pull, when it comes, brings the blobs into the content store as `archive` does and ends in [`Images::resolve`].

pub(crate) mod content;
pub(crate) mod documents;
pub(crate) mod unpack;

use crate::{
    client::Client,
    error::{Fault, OrAbsent, Result, blocking},
    layers, reference,
    spec::ImageSettings,
};
use berth_types::ports::ImageFacts;
use containerd_client::services::v1::{GetImageRequest, ListImagesRequest};
use content::read_json;
use documents::{Config, Descriptor, Document, MAX_INDEX_DEPTH};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

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

/// Finds images; remembers what it has resolved.
#[derive(Debug)]
pub(crate) struct Images {
    client: Client,
    /// The oldest first. Held only to look up and to push, never across a call.
    cache: Mutex<VecDeque<Arc<Image>>>,
}

impl Images {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, cache: Mutex::default() }
    }

    /// The image behind a reference, unpacked.
    pub(crate) async fn resolve(&self, reference: &str) -> Result<Arc<Image>> {
        let target = self.target(reference).await?;
        let known = self.lock().iter().find(|i| i.digest == target.digest).cloned();
        if let Some(image) = known {
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

    /// Forgets an image whose snapshot turned out to be gone.
    pub(crate) fn forget(&self, image: &Image) {
        self.lock().retain(|known| known.digest != image.digest);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Arc<Image>>> {
        // A panic while it was held leaves a cache that is still a cache.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the image store has under the reference.
    async fn target(&self, reference: &str) -> Result<Descriptor> {
        for name in reference::candidates(reference) {
            let request = self.client.ask(GetImageRequest { name });
            let reply =
                self.client.images().get(request).await.map_err(Fault::rpc("get image")).or_absent()?;
            if let Some(target) = reply.and_then(|r| r.into_inner().image?.target) {
                return Ok(target.into());
            }
        }
        if let Some(digest) = reference::pinned_digest(reference) {
            let filters = vec![format!("target.digest=={digest}")];
            let request = self.client.ask(ListImagesRequest { filters });
            let reply = self.client.images().list(request).await.map_err(Fault::rpc("list images"))?;
            if let Some(target) = reply.into_inner().images.into_iter().find_map(|i| i.target) {
                return Ok(target.into());
            }
        }
        let full = reference::normalize(reference);
        Err(Fault::ImageNotFound(format!(
            "image {reference} is not in containerd's store (looked for {full}); import it with `berth image import`"
        )))
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
