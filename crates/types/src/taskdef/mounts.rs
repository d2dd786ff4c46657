//! What a container definition mounts, and where.

use super::{
    problems::{Problems, is_absolute, mib},
    wire,
};
use crate::task::{MountPoint, Tmpfs, VolumeSpec};
use std::collections::BTreeSet;

/// Options of `tmpfs` that take no value; the ECS API's list, less `remount` and the propagation flags, which make no sense on a
/// fresh mount.
const TMPFS_OPTIONS: [&str; 21] = [
    "defaults",
    "ro",
    "rw",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "exec",
    "noexec",
    "sync",
    "async",
    "dirsync",
    "mand",
    "nomand",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
];

/// Two mounts at one place: the later one would hide the other.
pub(super) fn check_targets(c: &wire::ContainerDefinition, at: &str, problems: &mut Problems) {
    let tmpfs = c.linux_parameters.as_ref().and_then(|l| l.tmpfs.as_deref()).unwrap_or_default();
    let mounts = c.mount_points.as_deref().unwrap_or_default();
    let mounts = mounts.iter().enumerate().filter_map(|(i, m)| {
        Some((format!("{at}.mountPoints[{i}].containerPath"), m.container_path.as_deref()?))
    });
    let tmpfs = tmpfs
        .iter()
        .enumerate()
        .map(|(i, t)| (format!("{at}.linuxParameters.tmpfs[{i}].containerPath"), t.container_path.as_str()));
    let mut seen: BTreeSet<Vec<&str>> = BTreeSet::new();
    for (field, path) in mounts.chain(tmpfs) {
        if !seen.insert(parts(path)) {
            problems.add(
                field,
                format!("is `{path}`, where something else is mounted already; expected a place of its own"),
            );
        }
    }
}

pub(super) fn tmpfs(c: &wire::ContainerDefinition, at: &str, problems: &mut Problems) -> Vec<Tmpfs> {
    let list = c.linux_parameters.as_ref().and_then(|l| l.tmpfs.as_deref()).unwrap_or_default();
    let mut mounts = Vec::new();
    for (i, entry) in list.iter().enumerate() {
        let field = format!("{at}.linuxParameters.tmpfs[{i}]");
        if !is_absolute(&entry.container_path) || parts(&entry.container_path).is_empty() {
            problems.add(
                format!("{field}.containerPath"),
                format!("is `{}`; expected an absolute path below / without `..`", entry.container_path),
            );
        }
        let options = entry.mount_options.clone().unwrap_or_default();
        for (j, option) in options.iter().enumerate() {
            let with_value = option.split_once('=').is_some_and(|(name, value)| is_tmpfs_value(name, value));
            if !with_value && !TMPFS_OPTIONS.contains(&option.as_str()) {
                problems.add(
                    format!("{field}.mountOptions[{j}]"),
                    format!(
                        "is `{option}`; expected one of {}, or mode=, uid=, gid=, nr_inodes=, nr_blocks= with a number",
                        TMPFS_OPTIONS.join(", ")
                    ),
                );
            }
        }
        if let Some(size) = mib(Some(entry.size), &format!("{field}.size"), 1, problems) {
            mounts.push(Tmpfs { path: entry.container_path.clone(), size, options });
        }
    }
    mounts
}

/// What the kernel takes behind `name=`.
fn is_tmpfs_value(name: &str, value: &str) -> bool {
    match name {
        "mode" => u32::from_str_radix(value, 8).is_ok_and(|mode| mode <= 0o7777),
        "uid" | "gid" => value.parse::<u32>().is_ok(),
        "nr_inodes" | "nr_blocks" => {
            value.strip_suffix(['k', 'm', 'g']).unwrap_or(value).parse::<u32>().is_ok()
        }
        _ => false,
    }
}

pub(super) fn mount_points(
    c: &wire::ContainerDefinition,
    at: &str,
    volumes: &[VolumeSpec],
    problems: &mut Problems,
) -> Vec<MountPoint> {
    let mut mounts = Vec::new();
    for (i, mount) in c.mount_points.iter().flatten().enumerate() {
        let field = |name: &str| format!("{at}.mountPoints[{i}].{name}");
        let volume = mount.source_volume.clone().unwrap_or_default();
        let path = mount.container_path.clone().unwrap_or_default();
        if !volumes.iter().any(|v| v.name == volume) {
            problems.add(
                field("sourceVolume"),
                format!("is `{volume}`; expected the name of one of the task's volumes"),
            );
        }
        if !is_absolute(&path) || parts(&path).is_empty() {
            problems.add(
                field("containerPath"),
                format!("is `{path}`; expected an absolute path below / without `..`"),
            );
        }
        mounts.push(MountPoint { volume, path, read_only: mount.read_only.unwrap_or(false) });
    }
    mounts
}

/// The names on the way to a path: none for the root, however it is written.
fn parts(path: &str) -> Vec<&str> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".").collect()
}
