//! What an agent or the box can leave behind on a machine, looked at from outside: with system tools, not with Berth's own code.

use crate::{lab::Settings, sweep};
use anyhow::{Context, Result};
use serde::Serialize;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Things on this machine by name. Two of them are compared: before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Belongings {
    /// Named network namespaces of agents and of the box: all begin with `berth-`.
    pub namespaces: BTreeSet<String>,
    /// Links of the machine's own namespace.
    pub links: BTreeSet<String>,
    /// Mount points.
    pub mounts: BTreeSet<String>,
    /// nftables tables of the machine's own namespace.
    pub nftables: BTreeSet<String>,
    /// Cgroups below the agents' own; that one stays, it holds nothing.
    pub cgroups: BTreeSet<String>,
    /// Processes that work in the lab's directory: agents, the box, containerd, shims, loggers.
    pub processes: BTreeSet<String>,
}

impl Belongings {
    /// What there is now; processes are those that name the lab's directory in their command line.
    pub fn observe(settings: &Settings) -> Result<Self> {
        let lab = settings.dir.as_path();
        Ok(Self {
            namespaces: names(Path::new("/run/netns"))
                .into_iter()
                .filter(|n| n.starts_with("berth-"))
                .collect(),
            links: names(Path::new("/sys/class/net")),
            mounts: mounts()?.into_iter().filter(|m| ours(m, lab)).map(|m| m.display().to_string()).collect(),
            nftables: nftables()?,
            cgroups: sweep::cgroups(&settings.name).iter().map(|c| c.display().to_string()).collect(),
            processes: processes(lab)?.into_iter().map(|(pid, command)| format!("{pid} {command}")).collect(),
        })
    }

    /// What is here and was not there before, a line each.
    pub fn since(&self, before: &Self) -> Vec<String> {
        let mut left = Vec::new();
        let mut compare = |kind: &str, now: &BTreeSet<String>, then: &BTreeSet<String>| {
            left.extend(now.difference(then).map(|name| format!("{kind} {name}")));
        };
        compare("namespace", &self.namespaces, &before.namespaces);
        compare("link", &self.links, &before.links);
        compare("mount", &self.mounts, &before.mounts);
        compare("nftables", &self.nftables, &before.nftables);
        compare("cgroup", &self.cgroups, &before.cgroups);
        compare("process", &self.processes, &before.processes);
        left
    }
}

/// Where a lab mounts anything: in its own directory, and where namespaces are named. Others may mount elsewhere meanwhile.
fn ours(mount: &Path, lab: &Path) -> bool {
    mount.starts_with(lab) || mount.file_name().is_some_and(|n| n.to_string_lossy().starts_with("berth-"))
}

fn names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

/// All mount points of this mount namespace, in the order of mounting.
pub fn mounts() -> Result<Vec<PathBuf>> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    Ok(text.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from).collect())
}

fn nftables() -> Result<BTreeSet<String>> {
    let output =
        Command::new("nft").args(["list", "tables"]).output().context("run nft (package nftables)")?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

/// Processes that name a directory in their command line: id and command. This process is left out.
pub fn processes(lab: &Path) -> Result<Vec<(i32, String)>> {
    let wanted = format!("{}/", lab.display());
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("read /proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned();
        if command.contains(&wanted) && pid != std::process::id().cast_signed() {
            found.push((pid, command));
        }
    }
    Ok(found)
}
