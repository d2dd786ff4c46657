//! Which images an archive holds: by `index.json` (OCI layout) or by `manifest.json` (Docker). What has both is read as OCI, except
//! where its index names nothing and Docker's document does.

use super::{Archive, Found, Member};
use crate::{
    error::{Fault, Result},
    image::documents::{
        Config, Descriptor, Document, Index, MAX_INDEX_DEPTH, MAX_LAYERS, Manifest, OCI_CONFIG, OCI_LAYER,
        OCI_LAYER_GZIP, OCI_MANIFEST, Sorted, digest, is_digest,
    },
};
use serde::{Deserialize, de::DeserializeOwned};
use std::io::Read;

/// Annotation with the whole name, by containerd and Docker.
const NAME_WHOLE: &str = "io.containerd.image.name";
/// Annotation with a tag (skopeo) or a whole name (others).
const NAME_OCI: &str = "org.opencontainers.image.ref.name";
/// Images of one archive.
const MAX_IMAGES: usize = 100;

pub(super) fn images(archive: &Archive) -> Result<Vec<Found>> {
    let (index, docker) = (archive.member("index.json"), archive.member("manifest.json"));
    let found = match (index, docker) {
        (Some(index), docker) => {
            let images = oci(archive, index)?;
            match docker {
                Some(docker) if images.iter().all(|i| i.names.is_empty()) => docker_images(archive, docker)?,
                _ => images,
            }
        }
        (None, Some(docker)) => docker_images(archive, docker)?,
        (None, None) => {
            return Err(archive.bad("it has neither index.json nor manifest.json, so it is no image archive"));
        }
    };
    if found.is_empty() {
        return Err(archive.bad("it holds no image"));
    }
    Ok(found)
}

fn parse<T: DeserializeOwned>(archive: &Archive, name: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| archive.bad(&format!("{name} does not parse: {e}")))
}

fn oci(archive: &Archive, index: Member) -> Result<Vec<Found>> {
    let document: Document = parse(archive, "index.json", &archive.document("index.json", index)?)?;
    let Sorted::Index(index) = document.sort("index.json")? else {
        return Err(archive.bad("index.json is not an image index"));
    };
    if index.manifests.len() > MAX_IMAGES {
        return Err(archive.bad(&format!("it holds more than {MAX_IMAGES} images")));
    }
    index.manifests.iter().map(|entry| oci_image(archive, entry)).collect()
}

fn oci_image(archive: &Archive, entry: &Descriptor) -> Result<Found> {
    let mut at = entry.clone();
    for _ in 0..=MAX_INDEX_DEPTH {
        let (_, bytes) = blob(archive, &at)?;
        let document: Document = parse(archive, &at.digest, &bytes)?;
        let mut manifest = match document.sort(&at.digest)? {
            Sorted::Index(index) => {
                at = for_this_platform(archive, &index, &at)?;
                continue;
            }
            Sorted::Manifest(manifest) => manifest,
        };
        // The name by which the blob goes in the content store must be the one that the archive says.
        if !at.media_type.is_empty() {
            manifest.media_type.clone_from(&at.media_type);
        }
        let (_, config_bytes) = blob(archive, &manifest.config)?;
        let config: Config = parse(archive, &manifest.config.digest, &config_bytes)?;
        config.check(&manifest)?;
        let layers = manifest.layers.iter().map(|layer| member(archive, layer)).collect::<Result<_>>()?;
        return Ok(Found {
            names: name_of(entry),
            config,
            manifest,
            manifest_bytes: bytes,
            config_bytes,
            layers,
        });
    }
    Err(archive.bad("its indexes are nested too deep"))
}

fn for_this_platform(archive: &Archive, index: &Index, at: &Descriptor) -> Result<Descriptor> {
    index.for_this_platform(&at.digest).map_err(|fault| archive.bad(&fault.to_string()))
}

/// A tag alone (as skopeo writes it) names no image: whoever imports it must.
fn name_of(entry: &Descriptor) -> Vec<String> {
    let annotation =
        |key: &str| entry.annotations.as_ref().and_then(|a| a.get(key)).filter(|name| !name.is_empty());
    let whole =
        annotation(NAME_WHOLE).or_else(|| annotation(NAME_OCI).filter(|name| name.contains([':', '/'])));
    whole.into_iter().cloned().collect()
}

fn member(archive: &Archive, blob: &Descriptor) -> Result<Member> {
    let path = blob.digest.replacen(':', "/", 1);
    let member = archive.member(&format!("blobs/{path}"));
    let member = member.ok_or_else(|| archive.bad(&format!("it lacks the blob {}", blob.digest)))?;
    if member.size != blob.size {
        let text =
            format!("the blob {} has {} bytes and should have {}", blob.digest, member.size, blob.size);
        return Err(archive.bad(&text));
    }
    Ok(member)
}

/// A document by its digest, which is checked.
fn blob(archive: &Archive, descriptor: &Descriptor) -> Result<(Member, Vec<u8>)> {
    let member = member(archive, descriptor)?;
    let bytes = archive.document(&descriptor.digest, member)?;
    let real = digest(&bytes);
    if real != descriptor.digest {
        return Err(archive.bad(&format!("digest mismatch: the blob {} is really {real}", descriptor.digest)));
    }
    Ok((member, bytes))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

fn docker_images(archive: &Archive, manifest: Member) -> Result<Vec<Found>> {
    let bytes = archive.document("manifest.json", manifest)?;
    let images: Vec<DockerImage> = parse(archive, "manifest.json", &bytes)?;
    if images.len() > MAX_IMAGES {
        return Err(archive.bad(&format!("it holds more than {MAX_IMAGES} images")));
    }
    images.into_iter().map(|image| docker_image(archive, image)).collect()
}

fn docker_image(archive: &Archive, image: DockerImage) -> Result<Found> {
    let find = |name: &str| {
        let shown: String = name.chars().take(200).collect();
        archive
            .member(name)
            .ok_or_else(|| archive.bad(&format!("manifest.json names `{shown}`, which is not in it")))
    };
    if image.layers.len() > MAX_LAYERS {
        return Err(archive.bad(&format!("an image has more than {MAX_LAYERS} layers")));
    }
    let config_bytes = archive.document(&image.config, find(&image.config)?)?;
    let config: Config = parse(archive, &image.config, &config_bytes)?;
    let mut layers = Vec::new();
    let mut blobs = Vec::new();
    for (position, name) in image.layers.iter().enumerate() {
        let member = find(name)?;
        let blob = layer(archive, &member)?;
        // A compressed layer is checked when it is unpacked.
        let expected = config.rootfs.diff_ids.get(position).filter(|_| blob.media_type == OCI_LAYER);
        if let Some(expected) = expected.filter(|diff| **diff != blob.digest && is_digest(diff)) {
            return Err(archive.bad(&format!(
                "digest mismatch: the layer {name} is {}, its config says {expected}",
                blob.digest
            )));
        }
        layers.push(member);
        blobs.push(blob);
    }
    let manifest = Manifest {
        schema_version: 2,
        media_type: OCI_MANIFEST.into(),
        config: Descriptor::of(OCI_CONFIG, &config_bytes),
        layers: blobs,
    };
    config.check(&manifest)?;
    let manifest_bytes =
        serde_json::to_vec(&manifest).map_err(|e| Fault::Broken(format!("write an image document: {e}")))?;
    Ok(Found {
        names: image.repo_tags.unwrap_or_default(),
        config,
        manifest,
        manifest_bytes,
        config_bytes,
        layers,
    })
}

/// Docker's document does not say what a layer is: its first bytes do.
fn layer(archive: &Archive, member: &Member) -> Result<Descriptor> {
    let mut magic = Vec::new();
    archive.read(member)?.take(2).read_to_end(&mut magic).map_err(Fault::io("read the archive"))?;
    let media_type = if magic == [0x1f, 0x8b] { OCI_LAYER_GZIP } else { OCI_LAYER };
    let (digest, size) = archive.digest(member)?;
    Ok(Descriptor { media_type: media_type.to_owned(), digest, size, platform: None, annotations: None })
}
