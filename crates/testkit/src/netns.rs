//! A scratch machine for tests of the network: a namespace that plays the instance, one that plays the subnet, and directories of its own.
//! Nothing outside of it is touched, and all of it goes away on drop.
//!
//! ```text
//!  fabric namespace                     host namespace ("the instance")
//!  ┌──────────────────────────┐         ┌────────────────┐
//!  │ br0 (gateway addresses)  ├── veth ─┤ any name, MAC  │──► moved into a slot by what is under test
//!  └──────────────────────────┘         └────────────────┘
//! ```
//!
//! Links are made by iproute2 and looked at with `ip -j`, so that what is tested is compared with another program's view.

use berth_netns::ns::{self, Netns};
use berth_types::ids::MacAddr;
use std::{
    error::Error,
    fs,
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

/// Why the scratch machine could not do something: for a test's panic message.
pub type Failure = Box<dyn Error + Send + Sync>;

/// A scratch machine.
#[derive(Debug)]
pub struct Scratch {
    host: Netns,
    fabric: Netns,
    dir: TempDir,
}

impl Scratch {
    /// An instance without ENIs, and a subnet whose router has these addresses, such as `10.0.1.1/24` and `fe80::1/64`.
    pub fn new(router: &[&str]) -> Result<Self, Failure> {
        let dir = tempfile::Builder::new().prefix("berth-test-").tempdir()?;
        let scratch = Self { host: Netns::create()?, fabric: Netns::create()?, dir };
        scratch.ip(&scratch.host, "link set lo up")?;
        scratch.ip(&scratch.fabric, "link set lo up")?;
        scratch.ip(&scratch.fabric, "link add br0 type bridge")?;
        scratch.ip(&scratch.fabric, "link set br0 up")?;
        for address in router {
            let nodad = if address.contains(':') { "nodad" } else { "" };
            scratch.ip(&scratch.fabric, &format!("address add {address} dev br0 {nodad}"))?;
        }
        Ok(scratch)
    }

    /// The namespace that plays the instance.
    pub fn host(&self) -> &Netns {
        &self.host
    }

    /// The namespace that plays the subnet.
    pub fn fabric(&self) -> &Netns {
        &self.fabric
    }

    /// In place of /run/netns.
    pub fn netns_dir(&self) -> PathBuf {
        self.dir.path().join("netns")
    }

    /// In place of the agent's directory under /run.
    pub fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// Attaches an ENI: a link with this name and MAC shows up in the instance, its other end up in the subnet.
    pub fn attach(&self, name: &str, mac: MacAddr) -> Result<(), Failure> {
        let fabric = format!("/proc/{}/fd/{}", std::process::id(), self.fabric.as_fd().as_raw_fd());
        // Single queues: veth otherwise spends most of its creation on queues for every CPU.
        let queues = "numtxqueues 1 numrxqueues 1";
        let peer = format!("f-{name}");
        self.ip(
            &self.host,
            &format!(
                "link add {name} address {mac} {queues} type veth peer name {peer} {queues} netns {fabric}"
            ),
        )?;
        self.ip(&self.fabric, &format!("link set {peer} master br0 up"))
    }

    /// Detaches an ENI: its link vanishes, wherever it is.
    pub fn detach(&self, name: &str) -> Result<(), Failure> {
        self.ip(&self.fabric, &format!("link delete f-{name}"))
    }

    /// Runs `ip ARGS` in a namespace.
    pub fn ip(&self, netns: &Netns, args: &str) -> Result<(), Failure> {
        run_ip(netns, args).map(drop)
    }

    /// What `ip -j ARGS` says in a namespace.
    pub fn ip_json(&self, netns: &Netns, args: &str) -> Result<serde_json::Value, Failure> {
        let out = run_ip(netns, &format!("-j -d {args}"))?;
        // Some versions print nothing at all for an empty list.
        if out.trim_ascii().is_empty() {
            Ok(serde_json::json!([]))
        } else {
            Ok(serde_json::from_slice(&out)?)
        }
    }

    /// Threads of this process that are in another network namespace than the process: there must be none after an operation.
    pub fn strayed_threads() -> Result<Vec<String>, Failure> {
        let home = fs::read_link("/proc/self/ns/net")?;
        let mut strayed = Vec::new();
        for task in fs::read_dir("/proc/self/task")? {
            let task = task?.path();
            // A thread may end between the listing and the look.
            let Ok(there) = fs::read_link(task.join("ns/net")) else { continue };
            if there != home {
                strayed.push(format!("{} in {}", task.display(), there.display()));
            }
        }
        Ok(strayed)
    }
}

fn run_ip(netns: &Netns, args: &str) -> Result<Vec<u8>, Failure> {
    let out = netns.run(|| Command::new("ip").args(args.split_whitespace()).output())??;
    if !out.status.success() {
        return Err(format!("ip {args}: {}", String::from_utf8_lossy(&out.stderr).trim()).into());
    }
    Ok(out.stdout)
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.netns_dir()).into_iter().flatten().flatten() {
            report(ns::remove_named(&entry.path()));
        }
        for mounted in [self.netns_dir(), self.run_dir().join("bpf")] {
            unmount_all(&mounted);
        }
    }
}

/// Lazily, because a failed test may still hold something open; more than once, because mounts stack.
fn unmount_all(dir: &Path) {
    while nix::mount::umount2(dir, nix::mount::MntFlags::MNT_DETACH).is_ok() {}
}

/// A drop cannot fail, but a leak must not be silent.
fn report(result: Result<(), ns::NsError>) {
    if let Err(error) = result {
        tracing::error!(%error, "scratch machine leaves something behind");
    }
}
