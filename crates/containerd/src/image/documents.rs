//! The JSON documents of an image: index, manifest, config. Docker's and OCI's spellings are the same here; null means absent, and
//! fields that are not needed are not looked at, because every tool writes them a little differently.

use crate::{
    error::{Fault, Result},
    spec::ImageSettings,
};
use containerd_client::types;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashMap;

/// Indexes in indexes: one level is usual, `docker buildx` makes two.
pub(crate) const MAX_INDEX_DEPTH: usize = 4;
/// Layers of an image: overlayfs takes no more than 500, Docker makes at most 127.
pub(crate) const MAX_LAYERS: usize = 500;

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A reference to a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) annotations: Option<HashMap<String, String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Platform {
    pub(crate) architecture: String,
    pub(crate) os: String,
}

impl Descriptor {
    pub(crate) fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: digest(bytes),
            size: bytes.len() as u64,
            platform: None,
            annotations: None,
        }
    }
}

impl From<types::Descriptor> for Descriptor {
    fn from(d: types::Descriptor) -> Self {
        let size = u64::try_from(d.size).unwrap_or_default();
        Self { media_type: d.media_type, digest: d.digest, size, platform: None, annotations: None }
    }
}

impl From<&Descriptor> for types::Descriptor {
    fn from(d: &Descriptor) -> Self {
        let size = i64::try_from(d.size).unwrap_or(i64::MAX);
        Self { media_type: d.media_type.clone(), digest: d.digest.clone(), size, annotations: HashMap::new() }
    }
}

/// `sha256:...` of some bytes.
pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Whether a text has the form of the only digest that containerd stores.
pub(crate) fn is_digest(text: &str) -> bool {
    let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    text.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(lower_hex))
}

/// An index or a manifest, not yet known which.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Document {
    schema_version: Option<u32>,
    media_type: Option<String>,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

#[derive(Debug)]
pub(crate) enum Sorted {
    Index(Index),
    Manifest(Manifest),
}

#[derive(Debug, Clone)]
pub(crate) struct Index {
    pub(crate) manifests: Vec<Descriptor>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    pub(crate) media_type: String,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

impl Document {
    /// What it says of itself that it is.
    pub(crate) fn media_type(&self) -> Option<&str> {
        self.media_type.as_deref().filter(|t| !t.is_empty())
    }

    /// Whether it is one of the manifests that registries had before 2016, whose layers cannot be checked.
    pub(crate) fn is_schema_1(&self) -> bool {
        self.schema_version == Some(1)
    }

    /// Whether it lists manifests.
    pub(crate) fn is_index(&self) -> bool {
        self.manifests.is_some()
    }

    /// Which of the two it is; every digest in it is checked here, because they become names of blobs.
    pub(crate) fn sort(self, name: &str) -> Result<Sorted> {
        let sorted = match (self.manifests, self.config, self.layers) {
            (Some(manifests), _, _) => Sorted::Index(Index { manifests }),
            (None, Some(config), Some(layers)) => Sorted::Manifest(Manifest {
                schema_version: 2,
                media_type: OCI_MANIFEST.to_owned(),
                config,
                layers,
            }),
            _ => {
                return Err(Fault::Broken(format!("{name} is neither an image index nor an image manifest")));
            }
        };
        let descriptors: Vec<&Descriptor> = match &sorted {
            Sorted::Index(index) => index.manifests.iter().collect(),
            Sorted::Manifest(manifest) => manifest.layers.iter().chain([&manifest.config]).collect(),
        };
        if let Some(bad) = descriptors.iter().find(|d| !is_digest(&d.digest)) {
            let shown: String = bad.digest.chars().take(100).collect();
            return Err(Fault::Broken(format!("{name} refers to `{shown}`, which is not a sha256 digest")));
        }
        if descriptors.len() > MAX_LAYERS {
            return Err(Fault::Broken(format!(
                "{name} lists {} blobs, more than {MAX_LAYERS}",
                descriptors.len()
            )));
        }
        Ok(sorted)
    }
}

impl Index {
    /// The manifest for this machine's processor.
    pub(crate) fn for_this_platform(&self, name: &str) -> Result<Descriptor> {
        let arch = go_arch();
        let fits = |p: &Platform| p.os == "linux" && p.architecture == arch;
        let exact = self.manifests.iter().find(|d| d.platform.as_ref().is_some_and(fits));
        // An index that names no platform at all holds one image.
        let only = self.manifests.first().filter(|d| self.manifests.len() == 1 && d.platform.is_none());
        exact
            .or(only)
            .cloned()
            .ok_or_else(|| Fault::ImageNotFound(format!("{name} has no image for linux/{arch}")))
    }
}

/// This machine's processor as images name it.
pub(crate) fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// An image's config: what is read of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Config {
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) os: String,
    pub(crate) config: Option<ImageSettings>,
    pub(crate) rootfs: RootFs,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RootFs {
    #[serde(rename = "type", default)]
    pub(crate) kind: String,
    pub(crate) diff_ids: Vec<String>,
}

impl Config {
    /// Whether programs of this image run on this machine. One that does not say is believed to.
    pub(crate) fn fits_this_machine(&self) -> Result<()> {
        let (os, arch) = (self.os.as_str(), self.architecture.as_str());
        let fits = (os.is_empty() || os == "linux") && (arch.is_empty() || arch == go_arch());
        if fits {
            return Ok(());
        }
        let shown: String = format!("{os}/{arch}").chars().filter(char::is_ascii_graphic).take(64).collect();
        Err(Fault::Invalid(format!("the image is for {shown}, this machine is linux/{}", go_arch())))
    }

    /// Whether config and manifest speak of the same layers.
    pub(crate) fn check(&self, manifest: &Manifest) -> Result<()> {
        let (layers, diffs) = (manifest.layers.len(), self.rootfs.diff_ids.len());
        if layers != diffs || layers == 0 {
            return Err(Fault::Broken(format!(
                "image {}: {layers} layers in the manifest, {diffs} in the config",
                manifest.config.digest
            )));
        }
        match self.rootfs.diff_ids.iter().find(|d| !is_digest(d)) {
            Some(bad) => Err(Fault::Broken(format!(
                "image {}: `{bad}` is not a sha256 digest",
                manifest.config.digest
            ))),
            None => Ok(()),
        }
    }

    /// Names of the snapshots after each layer: containerd's chain ids.
    pub(crate) fn chain(&self) -> Vec<String> {
        let mut chain: Vec<String> = Vec::new();
        for diff in &self.rootfs.diff_ids {
            let next = match chain.last() {
                None => diff.clone(),
                Some(parent) => digest(format!("{parent} {diff}").as_bytes()),
            };
            chain.push(next);
        }
        chain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_nulls_are_read_as_absent() {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"Env":null,"Entrypoint":null,"Cmd":["sh"],"Volumes":{"/x":{}}},
            "rootfs":{"type":"layers","diff_ids":["sha256:00"]},"history":[{"created":"x"}]}"#;
        let config: Config = serde_json::from_str(text).unwrap();
        assert_eq!(config.config.unwrap().cmd.unwrap(), ["sh"]);
    }

    #[test]
    fn a_chain_id_is_the_digest_of_parent_and_layer() {
        let diff_ids = vec!["sha256:aa".to_owned(), "sha256:bb".to_owned()];
        let rootfs = RootFs { kind: "layers".into(), diff_ids };
        let config = Config { architecture: String::new(), os: String::new(), config: None, rootfs };
        assert_eq!(config.chain(), ["sha256:aa".to_owned(), digest(b"sha256:aa sha256:bb")]);
    }

    #[test]
    fn an_image_for_another_machine_is_refused_by_name() {
        let config = |os: &str, arch: &str| Config {
            architecture: arch.into(),
            os: os.into(),
            config: None,
            rootfs: RootFs { kind: "layers".into(), diff_ids: vec![] },
        };
        let text = config("linux", "s390x").fits_this_machine().unwrap_err().to_string();
        assert_eq!(text, format!("the image is for linux/s390x, this machine is linux/{}", go_arch()));
        assert!(config("windows", go_arch()).fits_this_machine().is_err());
        assert!(config("linux", go_arch()).fits_this_machine().is_ok());
        assert!(config("", "").fits_this_machine().is_ok());
    }

    #[test]
    fn the_manifest_of_this_platform_is_chosen() {
        let one = |arch: &str, hex: &str| {
            let mut d = Descriptor::of(OCI_MANIFEST, hex.as_bytes());
            d.platform = Some(Platform { architecture: arch.into(), os: "linux".into() });
            d
        };
        let mine = one(go_arch(), "mine");
        let index = Index { manifests: vec![one("mips", "other"), mine.clone()] };
        assert_eq!(index.for_this_platform("x").unwrap(), mine);
        let foreign = Index { manifests: vec![one("mips", "other")] };
        assert!(foreign.for_this_platform("x").unwrap_err().to_string().contains("has no image for linux/"));
    }

    proptest::proptest! {
        #[test]
        fn no_document_makes_it_panic(text in "\\PC{0,200}") {
            if let Ok(document) = serde_json::from_str::<Document>(&text) {
                drop(document.sort("x"));
            }
        }
    }
}
