//! The image of the demo and the tests: busybox and a page, as an archive that `docker save` could have written.

use anyhow::{Context, Result};
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{fs, io::Write, path::Path};

/// Package busybox-static.
const BUSYBOX: &str = "/bin/busybox";

/// Name of the image.
pub const IMAGE: &str = "berth/demo:latest";
/// The same in a registry, in two parts.
pub const REPOSITORY: &str = "berth/demo";
/// See [`REPOSITORY`].
pub const TAG: &str = "latest";

/// Programs that the image has beside `sh`; busybox knows them all.
const APPLETS: [&str; 25] = [
    "sh", "httpd", "wget", "ping", "sleep", "echo", "cat", "grep", "ls", "id", "env", "true", "false",
    "kill", "ip", "nc", "mkdir", "touch", "dd", "stat", "hostname", "mount", "head", "date", "timeout",
];

/// The page that `web` serves.
pub const PAGE: &str = "hello from a task with an ENI of its own\n";

/// Type of the layer as a registry wants it.
pub const LAYER_TYPE: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// The image for a registry: bytes of its config and of its one layer, compressed.
#[derive(Debug, Clone)]
pub struct Image {
    /// JSON.
    pub config: Vec<u8>,
    /// A tar archive, gzip.
    pub layer: Vec<u8>,
}

impl Image {
    /// The image; `more` is a file of that many random bytes in it, for an image that takes a while to pull.
    pub fn new(more: usize) -> Result<Self> {
        let layer = layer(&busybox()?, more)?;
        let config = serde_json::to_vec(&config(&layer))?;
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&layer)?;
        Ok(Self { config, layer: gzip.finish()? })
    }
}

/// `sha256:...` of bytes.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// busybox, the static one: the image has no libraries.
fn busybox() -> Result<Vec<u8>> {
    fs::read(BUSYBOX).with_context(|| format!("read {BUSYBOX} (package busybox-static)"))
}

fn config(layer: &[u8]) -> Value {
    json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "FROM_IMAGE=yes"],
            "Cmd": ["sh"],
            "WorkingDir": "/"
        },
        "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
        "history": [{"created_by": "berth demo"}]
    })
}

/// Writes the image as an archive.
pub fn write_archive(archive: &Path) -> Result<()> {
    let layer = layer(&busybox()?, 0)?;
    let config = serde_json::to_vec(&config(&layer))?;
    let config_name = format!("{}.json", hex::encode(Sha256::digest(&config)));
    let manifest = json!([{"Config": config_name, "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]);
    let mut out = tar::Builder::new(
        fs::File::create(archive).with_context(|| format!("create {}", archive.display()))?,
    );
    add(&mut out, &config_name, 0o644, &config)?;
    add(&mut out, "layer.tar", 0o644, &layer)?;
    add(&mut out, "manifest.json", 0o644, &serde_json::to_vec(&manifest)?)?;
    out.into_inner()?.flush()?;
    Ok(())
}

/// The layer; `more` bytes of it are noise, the same at every call.
fn layer(busybox: &[u8], more: usize) -> Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    for (directory, mode) in
        [("bin", 0o755), ("etc", 0o755), ("srv", 0o755), ("srv/www", 0o755), ("tmp", 0o1777), ("root", 0o700)]
    {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(mode);
        header.set_size(0);
        layer.append_data(&mut header, directory, std::io::empty())?;
    }
    add(&mut layer, "bin/busybox", 0o755, busybox)?;
    for applet in APPLETS {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        layer.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
    }
    add(&mut layer, "etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000:web:/:/bin/sh\n")?;
    add(&mut layer, "etc/group", 0o644, b"root:x:0:\nweb:x:1000:\n")?;
    add(&mut layer, "srv/www/index.html", 0o644, PAGE.as_bytes())?;
    if more > 0 {
        add(&mut layer, "srv/noise", 0o644, &noise(more))?;
    }
    Ok(layer.into_inner()?)
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let blocks = (0u64..).map(|block| Sha256::digest(block.to_be_bytes()));
    blocks.flatten().take(length).collect()
}

fn add<W: Write>(archive: &mut tar::Builder<W>, name: &str, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(bytes.len() as u64);
    archive.append_data(&mut header, name, bytes)?;
    Ok(())
}
