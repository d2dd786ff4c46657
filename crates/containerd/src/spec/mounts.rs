//! What is mounted in a container: the kernel's file systems as Docker mounts them, the slot's files, volumes and tmpfs.

use super::{Inputs, ours, path};
use crate::error::{Fault, Result};
use berth_types::task::Tmpfs;
use oci_spec::runtime::{Mount, MountBuilder};
use std::path::Path;

/// MiB of /dev/shm when the definition says nothing: Docker's.
const DEFAULT_SHM_MIB: u64 = 64;

/// All mounts, parents before children. What the definition mounts replaces a default at the same place.
pub(super) fn build(inputs: &Inputs<'_>) -> Result<Vec<Mount>> {
    let own = of_definition(inputs)?;
    let mut all: Vec<Mount> = defaults(inputs)?;
    all.extend(of_slot(inputs)?);
    all.retain(|mount| !own.iter().any(|o| same_place(o.destination(), mount.destination())));
    all.extend(own);
    // Stable: siblings stay in the order of the definition.
    all.sort_by_key(|mount| depth(mount.destination()));
    Ok(all)
}

fn depth(destination: &Path) -> usize {
    destination.components().count()
}

fn same_place(a: &Path, b: &Path) -> bool {
    a.components().eq(b.components())
}

fn mount(typ: &str, source: &str, destination: &str, options: &[&str]) -> Result<Mount> {
    MountBuilder::default()
        .typ(typ)
        .source(path(source))
        .destination(path(destination))
        .options(options.iter().map(|&o| o.to_owned()).collect::<Vec<_>>())
        .build()
        .map_err(ours)
}

fn defaults(inputs: &Inputs<'_>) -> Result<Vec<Mount>> {
    let spec = &*inputs.container.spec;
    let kernel = if spec.privileged { "rw" } else { "ro" };
    let shm = format!("size={}m", spec.shared_memory_size.unwrap_or(DEFAULT_SHM_MIB));
    Ok(vec![
        mount("proc", "proc", "/proc", &["nosuid", "noexec", "nodev"])?,
        mount("tmpfs", "tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"])?,
        mount(
            "devpts",
            "devpts",
            "/dev/pts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        )?,
        mount("sysfs", "sysfs", "/sys", &["nosuid", "noexec", "nodev", kernel])?,
        mount("cgroup", "cgroup", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev", "relatime", kernel])?,
        mount("mqueue", "mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"])?,
        mount("tmpfs", "shm", "/dev/shm", &["nosuid", "noexec", "nodev", "mode=1777", &shm])?,
    ])
}

fn of_slot(inputs: &Inputs<'_>) -> Result<Vec<Mount>> {
    let files = &inputs.container.files;
    // Writable even under a read-only root, as in Docker: programs that edit /etc/hosts exist.
    let bind = |source: &Path, to| mount("bind", &source.to_string_lossy(), to, &["rbind", "rprivate"]);
    Ok(vec![
        bind(&files.resolv_conf, "/etc/resolv.conf")?,
        bind(&files.hosts, "/etc/hosts")?,
        bind(&files.hostname, "/etc/hostname")?,
    ])
}

fn of_definition(inputs: &Inputs<'_>) -> Result<Vec<Mount>> {
    let mut all = Vec::new();
    for (volume, read_only) in &inputs.container.volumes {
        absolute("mount point", &volume.destination)?;
        let access = if *read_only { "ro" } else { "rw" };
        let source = volume.source.to_string_lossy();
        all.push(mount("bind", &source, &volume.destination, &["rbind", "rprivate", access])?);
    }
    for tmpfs in &inputs.container.spec.tmpfs {
        absolute("tmpfs", &tmpfs.path)?;
        let options = tmpfs_options(tmpfs);
        let options: Vec<_> = options.iter().map(String::as_str).collect();
        all.push(mount("tmpfs", "tmpfs", &tmpfs.path, &options)?);
    }
    Ok(all)
}

/// Docker's defaults, each of which the definition can turn round.
fn tmpfs_options(tmpfs: &Tmpfs) -> Vec<String> {
    let turned = |opposite: &str| tmpfs.options.iter().any(|o| o == opposite);
    let safe = [("noexec", "exec"), ("nosuid", "suid"), ("nodev", "dev")];
    let mut options: Vec<String> =
        safe.iter().filter(|(_, off)| !turned(off)).map(|(on, _)| (*on).to_owned()).collect();
    options.extend(
        // `defaults` is mount(8)'s word for nothing in particular: the kernel refuses it.
        tmpfs
            .options
            .iter()
            .filter(|o| !matches!(o.as_str(), "noexec" | "nosuid" | "nodev" | "defaults"))
            .cloned(),
    );
    options.push(format!("size={}m", tmpfs.size));
    options
}

fn absolute(what: &str, destination: &str) -> Result<()> {
    if destination.starts_with('/') && depth(Path::new(destination)) > 1 && !destination.contains('\0') {
        Ok(())
    } else {
        Err(Fault::Invalid(format!("{what} `{destination}` is not an absolute path below /")))
    }
}
