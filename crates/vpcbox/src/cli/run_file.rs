//! `/run/vpcbox/NAME.json`: how a box is found by its name. It is a hint only; whether the box is alive is the fabric's claim
//! on the name.

use crate::serve::Status;
use anyhow::Context;
use serde::{Deserialize, de::DeserializeOwned};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Directory of all boxes' files.
const DIR: &str = "/run/vpcbox";

/// What of a box's file is enough to end it. A box is not only taken down by the version of the program that brought it up, so nothing is
/// asked for here that a version may not have written.
#[derive(Debug, Deserialize)]
pub(super) struct Process {
    pub(super) pid: u32,
}

fn path(name: &str) -> PathBuf {
    Path::new(DIR).join(format!("{name}.json"))
}

/// Writes a box's file.
pub(super) fn write(status: &Status) -> anyhow::Result<()> {
    fs::create_dir_all(DIR).with_context(|| format!("create {DIR}"))?;
    write_whole(&path(&status.name), status)
}

/// Writes a status so that a reader finds all of it or nothing.
pub(super) fn write_whole(path: &Path, status: &Status) -> anyhow::Result<()> {
    let new = unfinished(path);
    let text = serde_json::to_vec_pretty(status)?;
    fs::write(&new, text)
        .and_then(|()| fs::rename(&new, path))
        .with_context(|| format!("write {}", path.display()))
}

/// Where a file is written before it takes its name.
fn unfinished(path: &Path) -> PathBuf {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    new.into()
}

/// Reads a box's file.
pub(super) fn read(name: &str) -> anyhow::Result<Status> {
    find(name)?.with_context(|| format!("{name} is not up: there is no {}", path(name).display()))
}

/// Reads a box's file, if there is one.
pub(super) fn find<T: DeserializeOwned>(name: &str) -> anyhow::Result<Option<T>> {
    let path = path(name);
    match fs::read(&path) {
        Ok(text) => {
            let found = serde_json::from_slice(&text).with_context(|| format!("read {}", path.display()))?;
            Ok(Some(found))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// Removes a box's file.
pub(super) fn remove(name: &str) -> anyhow::Result<()> {
    let path = path(name);
    for file in [unfinished(&path), path] {
        match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", file.display()))?;
            }
            _ => {}
        }
    }
    Ok(())
}
