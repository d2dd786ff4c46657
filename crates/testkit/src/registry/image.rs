//! Images made for a registry: layers as gzipped tar archives, a config, a manifest, an index of several platforms.

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::io::{self, Write};
use tokio_util::bytes::Bytes;

/// The names of an image's documents in one of the two dialects.
#[derive(Debug, Clone, Copy)]
struct Dialect {
    index: &'static str,
    manifest: &'static str,
    config: &'static str,
    layer: &'static str,
}

const OCI: Dialect = Dialect {
    index: "application/vnd.oci.image.index.v1+json",
    manifest: "application/vnd.oci.image.manifest.v1+json",
    config: "application/vnd.oci.image.config.v1+json",
    layer: "application/vnd.oci.image.layer.v1.tar+gzip",
};
const DOCKER: Dialect = Dialect {
    index: "application/vnd.docker.distribution.manifest.list.v2+json",
    manifest: "application/vnd.docker.distribution.manifest.v2+json",
    config: "application/vnd.docker.container.image.v1+json",
    layer: "application/vnd.docker.image.rootfs.diff.tar.gzip",
};

/// An image to be made. The same source makes the same digests every time.
#[derive(Debug, Clone)]
pub struct ImageSource {
    layers: Vec<Vec<u8>>,
    config: Value,
    architecture: String,
    dialect: Dialect,
}

impl ImageSource {
    /// An image without layers for this machine's processor.
    pub fn new() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self { layers: Vec::new(), config: json!({}), architecture: architecture.into(), dialect: OCI }
    }

    /// One more layer: a tar archive, not compressed.
    #[must_use]
    pub fn layer(mut self, tar: Vec<u8>) -> Self {
        self.layers.push(tar);
        self
    }

    /// One more layer, with one file in it.
    pub fn file(self, path: &str, bytes: &[u8]) -> io::Result<Self> {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        let mut tar = tar::Builder::new(Vec::new());
        tar.append_data(&mut header, path, bytes)?;
        Ok(self.layer(tar.into_inner()?))
    }

    /// What containers of it run with: `{"Cmd": ["sh"], "Env": ["PATH=/bin"]}`.
    #[must_use]
    pub fn config(mut self, config: Value) -> Self {
        self.config = config;
        self
    }

    /// For another processor.
    #[must_use]
    pub fn architecture(mut self, name: &str) -> Self {
        name.clone_into(&mut self.architecture);
        self
    }

    /// With the media types that Docker uses, instead of OCI's.
    #[must_use]
    pub fn docker(mut self) -> Self {
        self.dialect = DOCKER;
        self
    }

    /// Makes the documents.
    pub fn build(&self) -> io::Result<BuiltImage> {
        let mut layers = Vec::new();
        let mut diff_ids = Vec::new();
        for tar in &self.layers {
            diff_ids.push(digest(tar));
            let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
            gzip.write_all(tar)?;
            layers.push(Blob::new(self.dialect.layer, gzip.finish()?));
        }
        let config = json!({
            "architecture": self.architecture,
            "os": "linux",
            "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = Blob::new(self.dialect.config, serde_json::to_vec(&config)?);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": self.dialect.manifest,
            "config": config.descriptor(),
            "layers": layers.iter().map(Blob::descriptor).collect::<Vec<_>>(),
        });
        let manifest = Blob::new(self.dialect.manifest, serde_json::to_vec(&manifest)?);
        Ok(BuiltImage {
            manifest,
            config,
            layers,
            architecture: self.architecture.clone(),
            index_type: self.dialect.index,
        })
    }
}

impl Default for ImageSource {
    fn default() -> Self {
        Self::new()
    }
}

/// Bytes that have a digest and a type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// As in a `Content-Type`.
    pub media_type: String,
    /// `sha256:...` of the bytes.
    pub digest: String,
    /// The bytes.
    pub bytes: Bytes,
}

impl Blob {
    /// Counts the digest.
    pub fn new(media_type: &str, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { media_type: media_type.into(), digest: digest(&bytes), bytes }
    }

    /// How other documents refer to it.
    pub fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest, "size": self.bytes.len()})
    }
}

/// An image as a registry holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltImage {
    /// What a tag points at.
    pub manifest: Blob,
    /// Its digest is the image's id.
    pub config: Blob,
    /// The lowest first.
    pub layers: Vec<Blob>,
    architecture: String,
    index_type: &'static str,
}

impl BuiltImage {
    /// What the manifest refers to: must be in the registry before it.
    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        self.layers.iter().chain([&self.config])
    }
}

/// One document for images of several platforms.
pub fn index(images: &[BuiltImage]) -> io::Result<Blob> {
    let first = images.first().ok_or_else(|| io::Error::other("an index needs an image"))?;
    let describe = |image: &BuiltImage| {
        let mut descriptor = image.manifest.descriptor();
        descriptor["platform"] = json!({"os": "linux", "architecture": image.architecture});
        descriptor
    };
    let document = json!({
        "schemaVersion": 2,
        "mediaType": first.index_type,
        "manifests": images.iter().map(describe).collect::<Vec<_>>(),
    });
    Ok(Blob::new(first.index_type, serde_json::to_vec(&document)?))
}

/// Bytes that do not compress, the same for the same seed: a layer made of them is as large as it says.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    // xorshift64*: no seed may be 0.
    let mut state = seed | 1 << 63;
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes()
    };
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend(next());
    }
    bytes.truncate(len);
    bytes
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}
