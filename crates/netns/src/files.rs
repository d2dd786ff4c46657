//! A slot's files: resolv.conf, hosts and hostname, which every container of the task gets mounted, and a record of the link, so that
//! tear-down knows the ENI's MAC though a task may have changed it.
//!
//! Containers hold a bind mount of the file, that is, of its inode. So a file that is right already is left alone, and one that is not is
//! replaced whole: who has the old one mounted keeps reading something complete.

use berth_types::{
    eni::{SlotFiles, SlotSpec},
    ids::{MacAddr, SlotId},
};
use serde::{Deserialize, Serialize};
use std::{
    fmt::Write as _,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

#[cfg(test)]
mod tests;

/// The host's resolver configurations, in the order of trying. With systemd-resolved the first names the stub on 127.0.0.53, which nothing
/// in a task's namespace answers; the second has the real servers.
const HOST_RESOLV_CONF: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

const RECORD: &str = "link.json";

/// What tear-down must know and can no longer ask.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    eni: String,
    mac: MacAddr,
}

/// Where a slot's files are.
pub(crate) fn paths(dir: &Path) -> SlotFiles {
    SlotFiles {
        resolv_conf: dir.join("resolv.conf"),
        hosts: dir.join("hosts"),
        hostname: dir.join("hostname"),
    }
}

/// Writes a slot's files into its directory.
pub(crate) fn write(dir: &Path, spec: &SlotSpec) -> io::Result<SlotFiles> {
    fs::create_dir_all(dir)?;
    let files = paths(dir);
    let resolv_conf =
        if spec.dns_servers.is_empty() { host_resolv_conf(&HOST_RESOLV_CONF) } else { resolv_conf(spec) };
    replace(&files.resolv_conf, &resolv_conf)?;
    replace(&files.hosts, &hosts(spec))?;
    replace(&files.hostname, &format!("{}\n", spec.hostname))?;
    let record = Record { eni: spec.eni.to_string(), mac: spec.mac };
    replace(&dir.join(RECORD), &serde_json::to_string(&record)?)?;
    Ok(files)
}

/// The MAC of the slot's ENI; `None` when the record is missing or damaged.
pub(crate) fn recorded_mac(dir: &Path) -> Option<MacAddr> {
    let text = fs::read(dir.join(RECORD)).ok()?;
    Some(serde_json::from_slice::<Record>(&text).ok()?.mac)
}

/// Removes a slot's files. What is not there is removed.
pub(crate) fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Slots that have files.
pub(crate) fn slots(state_dir: &Path) -> Vec<SlotId> {
    let entries = fs::read_dir(state_dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn resolv_conf(spec: &SlotSpec) -> String {
    let mut text: String = spec.dns_servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    if !spec.dns_search.is_empty() {
        // Writing to a String cannot fail.
        writeln!(text, "search {}", spec.dns_search.join(" ")).unwrap_or_default();
    }
    text
}

/// As the official agent writes it: localhost, and the ENI's name on its primary address.
fn hosts(spec: &SlotSpec) -> String {
    let primary = spec.addresses.first().map(ipnet::IpNet::addr);
    let localhost =
        if primary.is_some_and(|ip| ip.is_ipv6()) { "::1 localhost" } else { "127.0.0.1 localhost" };
    match primary {
        Some(ip) => format!("{localhost}\n{ip} {}\n", spec.hostname),
        None => format!("{localhost}\n"),
    }
}

/// The first configuration with a server that a namespace can reach; else the first that exists; else nothing.
fn host_resolv_conf(candidates: &[impl AsRef<Path>]) -> String {
    let texts: Vec<String> = candidates.iter().filter_map(|path| fs::read_to_string(path).ok()).collect();
    let usable = texts.iter().find(|text| names_a_reachable_server(text));
    usable.or(texts.first()).cloned().unwrap_or_default()
}

fn names_a_reachable_server(text: &str) -> bool {
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    servers.filter_map(|server| server.trim().parse::<IpAddr>().ok()).any(|ip| !ip.is_loopback())
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    if fs::read(path).is_ok_and(|now| now == text.as_bytes()) {
        return Ok(());
    }
    let fresh: PathBuf = path.with_extension("new");
    fs::write(&fresh, text)?;
    fs::rename(&fresh, path)
}
