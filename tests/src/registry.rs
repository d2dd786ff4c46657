//! A registry in the lab's VPC: Debian's `docker-registry`, at every subnet's router address, where every instance reaches it as it
//! would reach one in its VPC.

use crate::{
    image::{Image, LAYER_TYPE},
    process::{Process, eventually, run},
};
use anyhow::{Context, Result};
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// Port of the registry.
const PORT: u16 = 5000;
const PATIENCE: Duration = Duration::from_secs(20);
const MANIFEST_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG_TYPE: &str = "application/vnd.docker.container.image.v1+json";

/// A registry that runs.
#[derive(Debug)]
pub struct Registry {
    /// The server.
    pub process: Process,
    dir: PathBuf,
    netns: String,
    /// `host:port`, as references name it.
    pub host: String,
}

impl Registry {
    /// Starts it in a named network namespace, at this address of that namespace.
    pub fn start(dir: &Path, netns: &str, address: &str) -> Result<Self> {
        let file = dir.join("registry.yml");
        let storage = dir.join("registry");
        fs::create_dir_all(&storage)?;
        let config = format!(
            "version: 0.1\nlog:\n  level: warn\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: {}\n  \
             delete:\n    enabled: true\nhttp:\n  addr: 0.0.0.0:{PORT}\n",
            storage.display()
        );
        fs::write(&file, config)?;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", netns, "docker-registry", "serve"]).arg(&file);
        let process = Process::start("the registry", &mut command, &dir.join("registry.log"))?;
        let host = format!("{address}:{PORT}");
        let mut registry = Self { process, dir: dir.into(), netns: netns.into(), host };
        let url = registry.url("");
        eventually("the registry to answer", PATIENCE, || {
            registry.process.must_run()?;
            Ok(registry.curl(&["--fail", &url]).ok())
        })?;
        Ok(registry)
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/v2/{path}", self.host)
    }

    fn curl(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.netns, "curl", "--silent", "--show-error", "--max-time", "20"]);
        run(command.args(args))
    }

    /// Puts an image there; its reference with the tag, and the digest of its manifest.
    pub fn push(&self, image: &Image, name: &str, tag: &str) -> Result<(String, String)> {
        let mut blobs = Vec::new();
        for (kind, bytes) in [(CONFIG_TYPE, &image.config), (LAYER_TYPE, &image.layer)] {
            let digest = crate::image::digest(bytes);
            let file = self.dir.join("blob");
            fs::write(&file, bytes)?;
            let begun = self.curl(&[
                "--fail",
                "--include",
                "--request",
                "POST",
                &self.url(&format!("{name}/blobs/uploads/")),
            ])?;
            let location = begun
                .lines()
                .find_map(|line| {
                    line.to_ascii_lowercase().starts_with("location:").then(|| line[9..].trim().to_owned())
                })
                .with_context(|| format!("the registry names no place for the upload: {begun}"))?;
            self.put(&format!("{location}&digest={digest}"), "application/octet-stream", &file)?;
            blobs.push(json!({"mediaType": kind, "size": bytes.len(), "digest": digest}));
        }
        let manifest =
            json!({"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": blobs[0], "layers": [blobs[1]]});
        let (file, manifest) = (self.dir.join("blob"), serde_json::to_vec(&manifest)?);
        fs::write(&file, &manifest)?;
        self.put(&self.url(&format!("{name}/manifests/{tag}")), MANIFEST_TYPE, &file)?;
        Ok((format!("{}/{name}:{tag}", self.host), crate::image::digest(&manifest)))
    }

    fn put(&self, url: &str, kind: &str, file: &Path) -> Result<()> {
        let (kind, file) = (format!("Content-Type: {kind}"), format!("@{}", file.display()));
        self.curl(&["--fail", "--request", "PUT", "--header", &kind, "--data-binary", &file, url]).map(drop)
    }
}
