//! The first half of a pull: which image a reference means now, down to the list of its blobs. Everything is by digest from the first
//! answer on, so a tag that moves meanwhile cannot mix two images.

use super::{
    Job, PullBehavior, Puller,
    failure::{Failure, spoken},
    registry::{Head, shown},
};
use crate::image::{
    content,
    documents::{
        Descriptor, Document, Index, MAX_INDEX_DEPTH, Manifest, OCI_INDEX, OCI_MANIFEST, Sorted, digest,
    },
};
use bytes::Bytes;
use std::{collections::HashMap, time::Duration};
use tokio::time::{sleep, timeout};

/// Media types of manifests from before 2016.
const SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+";
/// Configs of container images. Registries also hold charts, signatures and other things that are no images.
const CONFIGS: [&str; 2] =
    ["application/vnd.docker.container.image.v1+json", "application/vnd.oci.image.config.v1+json"];
/// Layers that are not in the registry but somewhere else, by a URL in the manifest: Windows' base images.
const FOREIGN: [&str; 2] = ["rootfs.foreign", "layer.nondistributable"];

/// What a reference means.
#[derive(Debug)]
pub(super) enum Meaning {
    /// The image that is here.
    Same(String),
    Other(Box<Plan>),
}

/// What is to be brought.
#[derive(Debug)]
pub(super) struct Plan {
    /// From what the name is to point at down to the manifest; never empty.
    pub(super) documents: Vec<Page>,
    pub(super) manifest: Manifest,
}

impl Plan {
    /// What the name is to point at.
    pub(super) fn root(&self) -> &Descriptor {
        self.documents.first().map_or(&self.manifest.config, |page| &page.blob)
    }
}

/// An index or a manifest.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) blob: Descriptor,
    pub(super) bytes: Bytes,
    /// What containerd's garbage collector is to keep as long as this.
    pub(super) keeps: Vec<String>,
}

impl Puller {
    /// With all tries, within the time for it.
    pub(super) async fn look_up(&self, job: &Job<'_>) -> Result<Meaning, Failure> {
        let limit = self.config.manifest_timeout;
        let mut last = None;
        let found = timeout(limit, self.look_up_again(job, &mut last)).await;
        found.unwrap_or_else(|_| {
            let last = last.map(|text| format!(" (before that: {text})")).unwrap_or_default();
            Err(Failure::Broken(format!("no answer within {}{last}", spoken(limit))))
        })
    }

    async fn look_up_again(&self, job: &Job<'_>, last: &mut Option<String>) -> Result<Meaning, Failure> {
        let mut tries = 0;
        loop {
            tries += 1;
            let failure = match self.look_up_once(job).await {
                Ok(meaning) => return Ok(meaning),
                Err(failure) => failure,
            };
            // A task need not wait for a registry that is not there when its image is, and may be used.
            let will_do = job.have.is_some() && self.config.behavior == PullBehavior::Default;
            let hopeless = will_do && matches!(failure, Failure::NoConnection(_));
            let pause = self.pause(&failure, tries).filter(|_| !hopeless);
            let Some(pause) = pause else { return Err(failure) };
            job.ticket.failed(failure.to_string());
            *last = Some(failure.to_string());
            sleep(pause).await;
        }
    }

    /// How long to wait before the next try, if there is to be one.
    pub(super) fn pause(&self, failure: &Failure, tries: u32) -> Option<Duration> {
        let pause = self.config.retries.pause_after(tries).filter(|_| failure.passes())?;
        match failure {
            Failure::Answer { retry_after: Some(asked), .. } => Some(pause.max(*asked)),
            _ => Some(pause),
        }
    }

    async fn look_up_once(&self, job: &Job<'_>) -> Result<Meaning, Failure> {
        let head = match &job.parts.digest {
            Some(digest) => Some(Head { digest: digest.clone(), media_type: String::new() }),
            None => self.registries.head(&job.at, &job.parts.tag).await?,
        };
        let same =
            |head: &Head| job.have.as_ref().is_some_and(|have| have.whole && have.digest == head.digest);
        if let Some(head) = head.as_ref().filter(|head| same(head)) {
            return Ok(Meaning::Same(head.digest.clone()));
        }
        let mut page = match head {
            Some(head) => self.page(job, &head.digest, &head.media_type).await?,
            None => self.page_of_tag(job).await?,
        };
        let mut documents = Vec::new();
        for _ in 0..=MAX_INDEX_DEPTH {
            match sort(&page)? {
                Sorted::Manifest(manifest) => {
                    let manifest = usable(manifest)?;
                    let blobs = manifest.layers.iter().chain([&manifest.config]);
                    page.keeps = blobs.map(|blob| blob.digest.clone()).collect();
                    documents.push(page);
                    return Ok(Meaning::Other(Box::new(Plan { documents, manifest })));
                }
                Sorted::Index(index) => {
                    let next = chosen(&index, job)?;
                    page.keeps = vec![next.digest.clone()];
                    documents.push(page);
                    page = self.page(job, &next.digest, &next.media_type).await?;
                }
            }
        }
        Err(Failure::Unusable("its indexes are nested too deep".to_owned()))
    }

    /// A document by its digest, from the store if it is there.
    async fn page(&self, job: &Job<'_>, wanted: &str, media_type: &str) -> Result<Page, Failure> {
        if content::has(&self.client, wanted).await? {
            // The size is not known here; the content of a digest has but one.
            let mut blob = Descriptor::of(media_type, b"");
            blob.digest = wanted.to_owned();
            let bytes = Bytes::from(content::read(&self.client, &blob).await?);
            return Ok(page(wanted, media_type, bytes));
        }
        let received = self.registries.manifest(&job.at, wanted).await?;
        let real = digest(&received.bytes);
        if real != wanted {
            let text = format!("the registry sent a manifest with digest {real}, expected {wanted}");
            return Err(Failure::Unusable(text));
        }
        let told = if received.media_type.is_empty() { media_type } else { &received.media_type };
        Ok(page(wanted, told, received.bytes))
    }

    /// From a registry that does not tell a tag's digest beforehand.
    async fn page_of_tag(&self, job: &Job<'_>) -> Result<Page, Failure> {
        let received = self.registries.manifest(&job.at, &job.parts.tag).await?;
        let real = digest(&received.bytes);
        match received.said {
            Some(said) if said != real && said.starts_with("sha256:") => Err(Failure::Unusable(format!(
                "the registry sent a manifest with digest {real} and says that it has {}",
                shown(&said)
            ))),
            _ => Ok(page(&real, &received.media_type, received.bytes)),
        }
    }
}

/// The document's own word on what it is goes before the registry's.
fn page(digest: &str, media_type: &str, bytes: Bytes) -> Page {
    let document = serde_json::from_slice::<Document>(&bytes).ok();
    let own = document.as_ref().and_then(Document::media_type);
    let guess = match &document {
        Some(document) if document.is_index() => OCI_INDEX,
        _ => OCI_MANIFEST,
    };
    let registrys = Some(media_type).filter(|t| t.contains("manifest") || t.contains("index"));
    let media_type = own.or(registrys).unwrap_or(guess).to_owned();
    let size = bytes.len() as u64;
    let blob = Descriptor { media_type, digest: digest.to_owned(), size, platform: None, annotations: None };
    Page { blob, bytes, keeps: Vec::new() }
}

fn sort(page: &Page) -> Result<Sorted, Failure> {
    let name = &page.blob.digest;
    let document: Document = serde_json::from_slice(&page.bytes)
        .map_err(|e| Failure::Unusable(format!("{name} is not a manifest: {e}")))?;
    if document.is_schema_1() || page.blob.media_type.starts_with(SCHEMA_1) {
        let text =
            "the image has a manifest of schema 1, which is not supported: push it again with a newer tool";
        return Err(Failure::Unusable(text.to_owned()));
    }
    document.sort(name).map_err(|fault| Failure::Unusable(fault.to_string()))
}

fn chosen(index: &Index, job: &Job<'_>) -> Result<Descriptor, Failure> {
    index.for_this_platform(&job.parts.short()).map_err(|fault| Failure::Unusable(fault.to_string()))
}

fn usable(manifest: Manifest) -> Result<Manifest, Failure> {
    let config = &manifest.config;
    if !config.media_type.is_empty() && !CONFIGS.contains(&config.media_type.as_str()) {
        let text = format!("it is not a container image: its config is `{}`", shown(&config.media_type));
        return Err(Failure::Unusable(text));
    }
    if config.size > content::MAX_DOCUMENT {
        let text = format!("its config is larger than {} MiB", content::MAX_DOCUMENT >> 20);
        return Err(Failure::Unusable(text));
    }
    let foreign = manifest.layers.iter().find(|layer| FOREIGN.iter().any(|f| layer.media_type.contains(f)));
    match foreign {
        Some(layer) => Err(Failure::Unusable(format!(
            "layer {} is a foreign one (`{}`), which is not supported",
            layer.digest,
            shown(&layer.media_type)
        ))),
        None => Ok(manifest),
    }
}

/// Labels by which containerd's garbage collector keeps what a document refers to.
pub(super) fn keep_labels(page: &Page) -> HashMap<String, String> {
    let kept = page.keeps.iter().enumerate();
    kept.map(|(n, digest)| (format!("containerd.io/gc.ref.content.{n}"), digest.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(media_type: &str, text: &str) -> Result<Sorted, Failure> {
        sort(&page("sha256:00", media_type, Bytes::copy_from_slice(text.as_bytes())))
    }

    fn manifest(config_type: &str, layer_type: &str) -> Result<Manifest, Failure> {
        let digest = digest(b"x");
        let text = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"{config_type}","digest":"{digest}","size":1}},
                "layers":[{{"mediaType":"{layer_type}","digest":"{digest}","size":1}}]}}"#
        );
        match read("", &text)? {
            Sorted::Manifest(manifest) => usable(manifest),
            Sorted::Index(_) => panic!("{text}"),
        }
    }

    #[test]
    fn what_is_no_image_that_can_run_here_is_refused_by_name() {
        let why = |r: Result<Manifest, Failure>| r.unwrap_err().to_string();
        assert!(manifest(CONFIGS[0], "application/vnd.docker.image.rootfs.diff.tar.gzip").is_ok());
        assert!(manifest("", "").is_ok());
        assert!(
            why(manifest("application/vnd.cncf.helm.config.v1+json", "")).contains("not a container image")
        );
        let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
        assert!(why(manifest(CONFIGS[1], foreign)).contains("foreign"));
        let schema_1 = read("", r#"{"schemaVersion":1,"fsLayers":[]}"#).unwrap_err().to_string();
        assert!(schema_1.contains("schema 1"), "{schema_1}");
        assert!(read(&format!("{SCHEMA_1}prettyjws"), "{}").unwrap_err().to_string().contains("schema 1"));
        assert!(read("", "<html>").unwrap_err().to_string().contains("is not a manifest"));
    }

    #[test]
    fn a_documents_own_media_type_goes_before_what_the_registry_says() {
        let of = |told: &str, text: &'static str| {
            page("d", told, Bytes::from_static(text.as_bytes())).blob.media_type
        };
        assert_eq!(of(OCI_MANIFEST, r#"{"mediaType":"own"}"#), "own");
        assert_eq!(of(OCI_INDEX, r#"{"manifests":[]}"#), OCI_INDEX);
        assert_eq!(of("text/plain", r#"{"manifests":[]}"#), OCI_INDEX);
        assert_eq!(of("", "{}"), OCI_MANIFEST);
    }

    proptest::proptest! {
        #[test]
        fn no_manifest_makes_it_panic(media_type in "\\PC{0,20}", bytes in proptest::collection::vec(0u8.., 0..200)) {
            let page = page("sha256:00", &media_type, Bytes::from(bytes));
            if let Ok(Sorted::Manifest(manifest)) = sort(&page) {
                drop(usable(manifest));
            }
        }
    }
}
