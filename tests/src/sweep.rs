//! Removes everything that a lab of this directory and name has left, also after everything in it was killed -9 at any moment.

use crate::{
    leaks,
    process::{eventually, program, run},
};
use anyhow::{Context, Result};
use nix::{
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// How long processes, mounts and cgroups may take to go.
const DEADLINE: Duration = Duration::from_secs(20);

/// Removes it all; nothing there is fine.
pub fn sweep(dir: &Path, name: &str, owner_tags: &[String]) -> Result<()> {
    kill_all(dir, name)?;
    unmount_below(dir)?;
    run(Command::new(program("vpcbox")?).args(["down", "--name", name])).context("remove the box")?;
    for slot in slots_of(owner_tags) {
        // A file that is not a mount, or one that is gone already, is as good.
        umount2(&slot, MntFlags::MNT_DETACH).ok();
        fs::remove_file(&slot).with_context(|| format!("remove {}", slot.display()))?;
    }
    remove_cgroups(name)?;
    if dir.exists() {
        eventually("the lab's directory to go", DEADLINE, || Ok(fs::remove_dir_all(dir).ok()))?;
    }
    Ok(())
}

/// Named namespaces of slots whose agents ran on these instances.
fn slots_of(owner_tags: &[String]) -> Vec<PathBuf> {
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let mine = |name: &str| owner_tags.iter().any(|tag| name.starts_with(&format!("berth-{tag}-")));
    entries.filter(|e| e.file_name().to_str().is_some_and(mine)).map(|e| e.path()).collect()
}

/// Agents, box, containerd, shims and loggers name the lab's directory; containers' processes are in the lab's cgroups.
fn kill_all(dir: &Path, name: &str) -> Result<()> {
    eventually("the lab's processes to end", DEADLINE, || {
        let mut pids: Vec<i32> = leaks::processes(dir)?.into_iter().map(|(pid, _)| pid).collect();
        for cgroup in cgroups(name) {
            let text = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
            pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        }
        for pid in &pids {
            kill(Pid::from_raw(*pid), Signal::SIGKILL).ok();
        }
        Ok(pids.is_empty().then_some(()))
    })
}

fn unmount_below(dir: &Path) -> Result<()> {
    for mount in leaks::mounts()?.into_iter().rev().filter(|m| m.starts_with(dir)) {
        umount2(&mount, MntFlags::MNT_DETACH).with_context(|| format!("unmount {}", mount.display()))?;
    }
    Ok(())
}

/// The lab's cgroups in every hierarchy, children before parents.
pub(crate) fn cgroups(name: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let mut all = Vec::new();
    for hierarchy in std::iter::once(root.to_owned()).chain(children(root)) {
        collect(&hierarchy.join(cgroup_root(name)), &mut all);
    }
    all
}

fn collect(cgroup: &Path, all: &mut Vec<PathBuf>) {
    for child in children(cgroup) {
        collect(&child, all);
    }
    if cgroup.join("cgroup.procs").exists() {
        all.push(cgroup.to_owned());
    }
}

fn children(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

/// The agents' cgroup root in a lab of this name: a word, as the agent wants it.
pub fn cgroup_root(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).collect()
}

fn remove_cgroups(name: &str) -> Result<()> {
    eventually("the lab's cgroups to go", DEADLINE, || {
        for cgroup in cgroups(name) {
            fs::remove_dir(&cgroup).ok();
        }
        Ok(cgroups(name).is_empty().then_some(()))
    })
}
