//! Importing images from files: OCI layouts (`skopeo`, `ctr images export`) and Docker archives (`docker save`), both as tar.
//!
//! Nothing is unpacked to disk. [`index`] remembers where each member of the archive lies, [`layout`] reads the few JSON documents
//! and says which images there are, and the blobs go from the archive straight into containerd's content store, which checks their
//! digests. Then the images get their names and are unpacked. The archive is outside data: its paths only ever name members of
//! itself, and every size is bounded.

mod index;
mod layout;
#[cfg(test)]
mod tests;

use crate::{
    Inner,
    client::{Client, Lease},
    error::{Fault, Result, blocking},
    image::{
        content,
        documents::{
            Config, Descriptor, Manifest, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, RootFs, digest, go_arch,
        },
        unpack,
    },
    reference::{candidates, normalize},
    spec::ImageSettings,
};
use berth_types::ports::ImageFacts;
use containerd_client::services::v1::{CreateImageRequest, Image as StoredImage, UpdateImageRequest};
use index::{Archive, Member};
use std::{collections::HashMap, io::Cursor, path::Path, sync::Arc};

/// An image in an archive, ready to be written.
#[derive(Debug)]
struct Found {
    /// Names that the archive gives it.
    names: Vec<String>,
    config: Config,
    manifest: Manifest,
    /// The manifest's own bytes: its digest is the image's.
    manifest_bytes: Vec<u8>,
    /// Where the config and the layers come from, in the manifest's order.
    config_bytes: Vec<u8>,
    layers: Vec<Member>,
}

/// Imports every image of the archive.
pub(crate) async fn import(inner: &Inner, path: &Path, name: Option<&str>) -> Result<Vec<ImageFacts>> {
    let file = path.to_owned();
    let (archive, mut found) = blocking(move || {
        let archive = Arc::new(Archive::open(&file)?);
        let found = layout::images(&archive)?;
        Ok((archive, found))
    })
    .await?;
    if let Some(name) = name {
        let [only] = found.as_mut_slice() else {
            return Err(Fault::Invalid(format!(
                "the archive holds {} images, so it cannot be imported under one name",
                found.len()
            )));
        };
        only.names = vec![name.to_owned()];
    }
    let mut facts = Vec::new();
    for image in found {
        if image.names.is_empty() {
            return Err(Fault::Invalid("the archive names no image: give a name".into()));
        }
        image.config.fits_this_machine()?;
        let names = checked(&image.names)?;
        let source = archive.clone();
        let lease = inner.client.lease().await?;
        let stored = store(inner, &lease, &image, &names, move |member| source.read(member)).await;
        inner.client.release(lease).await;
        stored?;
        facts.extend(names.into_iter().map(|name| ImageFacts {
            reference: name,
            image_id: image.manifest.config.digest.clone(),
            digest: digest(&image.manifest_bytes),
        }));
    }
    Ok(facts)
}

/// Makes an image of one layer.
pub(crate) async fn import_rootfs(
    inner: &Inner,
    name: &str,
    rootfs: &Path,
    settings: ImageSettings,
) -> Result<ImageFacts> {
    let names = checked(&[name.to_owned()])?;
    let (archive, layer) = {
        let path = rootfs.to_owned();
        blocking(move || {
            let archive = Arc::new(Archive::raw(&path)?);
            let (digest, size) = archive.digest(&archive.whole())?;
            let media_type = OCI_LAYER.to_owned();
            Ok((archive, Descriptor { media_type, digest, size, platform: None, annotations: None }))
        })
        .await?
    };
    let rootfs = RootFs { kind: "layers".into(), diff_ids: vec![layer.digest.clone()] };
    let config =
        Config { architecture: go_arch().into(), os: "linux".into(), config: Some(settings), rootfs };
    let config_bytes = json(&config)?;
    let config_blob = Descriptor::of(OCI_CONFIG, &config_bytes);
    let manifest = Manifest {
        schema_version: 2,
        media_type: OCI_MANIFEST.into(),
        config: config_blob,
        layers: vec![layer],
    };
    let manifest_bytes = json(&manifest)?;
    let image_id = manifest.config.digest.clone();
    let digest = digest(&manifest_bytes);
    let layers = vec![archive.whole()];
    let image = Found { names: names.clone(), config, manifest, manifest_bytes, config_bytes, layers };
    let lease = inner.client.lease().await?;
    let stored = store(inner, &lease, &image, &names, move |member| archive.read(member)).await;
    inner.client.release(lease).await;
    stored?;
    Ok(ImageFacts { reference: names.into_iter().next().unwrap_or_default(), image_id, digest })
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| Fault::Broken(format!("write an image document: {e}")))
}

/// Full names, under which `image` finds them again.
fn checked(names: &[String]) -> Result<Vec<String>> {
    let full = |name: &String| {
        if candidates(name).is_empty() || name.contains('@') {
            return Err(Fault::Invalid(format!("`{name}` is not a name that an image can have")));
        }
        Ok(normalize(name))
    };
    names.iter().map(full).collect()
}

/// Writes blobs, children before parents, then names the image and unpacks it.
async fn store(
    inner: &Inner,
    lease: &Lease,
    image: &Found,
    names: &[String],
    open: impl Fn(&Member) -> Result<index::MemberReader>,
) -> Result<()> {
    let client = &inner.client;
    for (blob, member) in image.manifest.layers.iter().zip(&image.layers) {
        content::write(client, lease, blob, HashMap::new(), open(member)?).await?;
    }
    let bytes = Cursor::new(image.config_bytes.clone());
    content::write(client, lease, &image.manifest.config, HashMap::new(), bytes).await?;
    // What the manifest refers to lives as long as the manifest, and that as long as the image's name.
    let children = image.manifest.layers.iter().chain([&image.manifest.config]);
    let labels = children
        .enumerate()
        .map(|(n, blob)| (format!("containerd.io/gc.ref.content.{n}"), blob.digest.clone()));
    let target = Descriptor::of(&image.manifest.media_type, &image.manifest_bytes);
    content::write(client, lease, &target, labels.collect(), Cursor::new(image.manifest_bytes.clone()))
        .await?;
    for name in names {
        put_name(client, name, &target).await?;
    }
    unpack::ensure(client, &image.manifest, &image.config).await?;
    tracing::info!(image = names.join(" "), digest = target.digest, "image imported");
    Ok(())
}

/// Points a name at the image; one that pointed elsewhere is moved.
async fn put_name(client: &Client, name: &str, target: &Descriptor) -> Result<()> {
    let image = StoredImage { name: name.to_owned(), target: Some(target.into()), ..StoredImage::default() };
    let request = client.ask(CreateImageRequest { image: Some(image.clone()), source_date_epoch: None });
    match client.images().create(request).await.map_err(Fault::rpc("create image")) {
        Err(fault) if fault.is_already_exists() => {
            let request =
                UpdateImageRequest { image: Some(image), update_mask: None, source_date_epoch: None };
            client.images().update(client.ask(request)).await.map_err(Fault::rpc("update image"))?;
            Ok(())
        }
        other => other.map(drop),
    }
}
