//! The host's devices, for privileged containers.

use super::ours;
use crate::error::{Fault, Result};
use nix::sys::stat::{major, minor};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceBuilder, LinuxDeviceType};
use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

/// More devices than any host has under /dev; a loop through bind mounts ends here.
const MAX_DEVICES: usize = 8192;
/// Directories of /dev that a container gets of its own.
const OWN: [&str; 5] = ["pts", "shm", "fd", "mqueue", ".lxc"];

/// Every device node under /dev.
pub(super) fn of_host() -> Result<Vec<LinuxDevice>> {
    let mut found = Vec::new();
    walk(Path::new("/dev"), &mut found)?;
    Ok(found)
}

fn walk(dir: &Path, found: &mut Vec<LinuxDevice>) -> Result<()> {
    let read = |e| Fault::io(format!("read {}", dir.display()))(e);
    for entry in fs::read_dir(dir).map_err(read)? {
        let entry = entry.map_err(read)?;
        let path = entry.path();
        // A device may go between the listing and the look at it.
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        let kind = meta.file_type();
        if kind.is_dir() && !OWN.iter().any(|own| entry.file_name() == *own) {
            walk(&path, found)?;
        } else if (kind.is_char_device() || kind.is_block_device())
            && entry.file_name() != "console"
            && found.len() < MAX_DEVICES
        {
            let typ = if kind.is_char_device() { LinuxDeviceType::C } else { LinuxDeviceType::B };
            let number = |n: u64| i64::try_from(n).unwrap_or_default();
            let device = LinuxDeviceBuilder::default()
                .path(path)
                .typ(typ)
                .major(number(major(meta.rdev())))
                .minor(number(minor(meta.rdev())))
                .file_mode(meta.mode() & 0o7777)
                .uid(meta.uid())
                .gid(meta.gid())
                .build()
                .map_err(ours)?;
            found.push(device);
        }
    }
    Ok(())
}
