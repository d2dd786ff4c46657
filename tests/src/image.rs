//! The image of the demo and the tests: busybox and a page, as an archive that `docker save` could have written.

use anyhow::{Context, Result};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::{fs, io::Write, path::Path};

/// Name of the image.
pub const IMAGE: &str = "berth/demo:latest";

/// Programs that the image has beside `sh`; busybox knows them all.
const APPLETS: [&str; 25] = [
    "sh", "httpd", "wget", "ping", "sleep", "echo", "cat", "grep", "ls", "id", "env", "true", "false",
    "kill", "ip", "nc", "mkdir", "touch", "dd", "stat", "hostname", "mount", "head", "date", "timeout",
];

/// The page that `web` serves.
pub const PAGE: &str = "hello from a task with an ENI of its own\n";

/// Writes the archive. busybox must be the static one: the image has no libraries.
pub fn write_archive(busybox: &Path, archive: &Path) -> Result<()> {
    let program =
        fs::read(busybox).with_context(|| format!("read {} (package busybox-static)", busybox.display()))?;
    let layer = layer(&program)?;
    let layer_digest = hex::encode(Sha256::digest(&layer));
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "FROM_IMAGE=yes"],
            "Cmd": ["sh"],
            "WorkingDir": "/"
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer_digest}")]},
        "history": [{"created_by": "berth demo"}]
    });
    let config = serde_json::to_vec(&config)?;
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

fn layer(busybox: &[u8]) -> Result<Vec<u8>> {
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
    Ok(layer.into_inner()?)
}

fn add<W: Write>(archive: &mut tar::Builder<W>, name: &str, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(bytes.len() as u64);
    archive.append_data(&mut header, name, bytes)?;
    Ok(())
}
