//! How 169.254.170.2:80 reaches our listener while port 80 stays free for the task.
//!
//! A listener on 169.254.170.2:80 makes a task's own bind of `0.0.0.0:80` or `[::]:80` fail with EADDRINUSE: every web server breaks. So the
//! listener has another port ([`crate::listener`]), and a BPF program of some thirty instructions on the task's namespace (type sk_lookup, run when
//! the kernel looks for the listener of an incoming SYN) hands connections for 169.254.170.2:80 to it through a map of one socket.
//!
//! # Why this way
//!
//! | | sk_lookup (chosen) | nftables DNAT in the namespace | listener outside, behind a second veth |
//! |---|---|---|---|
//! | isolation | the listener is in the namespace: who asks is known by where | the same | one more device for each task, and a bind to it |
//! | task rewrites netfilter (Istio, Docker in a task) | not touched: no netfilter involved | metadata lost | untouched, unless it drops by interface |
//! | agent dead | refused, see below | refused (the rule stays, the port is closed) | refused |
//! | IPv6 | not concerned: the address is IPv4, `::ffff:169.254.170.2` arrives as IPv4 | the same | the same |
//! | cost in the task's packets | one hash-miss path per SYN; established connections never run it | conntrack for all its traffic | a veth hop |
//! | cost at build | see below | one netlink batch | veth pair: 0.33 ms, deleting it 15 ms |
//! | kernel | 5.9 | any | any |
//!
//! Measured on Linux 6.18, 2 cores (`benches/cold_build.rs`): map, program, link and pins 0.4 ms, which is 1 to 2 % of a build (a link
//! move takes 20 to 30 ms); with the pins found 0.03 ms; connect + accept 18.9 us through it and 18.6 us without, medians of 2000.
//! Amazon Linux 2 with its 5.10 kernel, Amazon Linux 2023, Debian 12 and Ubuntu 24.04 all have it, so there is no second way in here that would have to
//! be kept right: on older kernels the build fails and says what is missing. A BPF program at cgroup/connect4 would do too, but it needs
//! cgroup v2 and a hold on every container's cgroup.
//!
//! # While the agent is dead
//!
//! A lookup link lives as long as its descriptor: when the agent died, 169.254.170.2:80 would fall to whatever the task has on
//! 0.0.0.0:80, and a task's SDK would ask the task's own web server for credentials. So map and link are pinned in a bpffs of our own, and
//! an empty map means **drop** (connection refused), never "pass on". The kernel itself empties the map when the listener is closed. The
//! next agent finds map and link by their pins and puts its new listener in: nothing is unattached in between. A listener that the service
//! manager keeps open meanwhile stays in the map, and requests wait in its queue.
//!
//! # From outside
//!
//! Linux answers for an address on lo through any device (and even answers ARP for it), so a neighbour in the subnet could send packets for
//! 169.254.170.2 to the task's ENI. In a VPC the source/destination check stops that; we do not rely on it: the program drops what did not
//! come in through lo (kernels from 5.17, which show the device), and the listener is bound to lo besides.
//!
//! A privileged task (CAP_SYS_ADMIN on the host) can detach the program. It then cuts off, or opens, only its own metadata.

use crate::{ns::Netns, sys};
use berth_types::ids::SlotId;
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use program::{Device, program};
use std::{
    ffi::CString,
    fs, io,
    net::TcpListener,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

mod program;
#[cfg(test)]
mod tests;

/// A step of the steering that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SteerError {
    #[error("mount a bpffs on {path}")]
    Mount { path: PathBuf, source: io::Error },
    #[error("make the map of the metadata listener: the kernel needs CONFIG_BPF_SYSCALL")]
    Map(#[source] Errno),
    #[error("load the socket lookup program: the kernel must be 5.9 or newer with CONFIG_BPF_SYSCALL")]
    Load(#[source] Errno),
    #[error("attach the socket lookup program: the kernel must be 5.9 or newer")]
    Attach(#[source] Errno),
    #[error("pin {path}")]
    Pin { path: PathBuf, source: Errno },
    #[error("open the pinned object {path}")]
    Pinned { path: PathBuf, source: Errno },
    #[error("put the metadata listener into its map")]
    Set(#[source] Errno),
    #[error("read back the metadata listener's map")]
    ReadBack(#[source] Errno),
    #[error("the map holds another socket than the metadata listener")]
    NotOurs,
    #[error("remove the pin {path}")]
    Unpin { path: PathBuf, source: io::Error },
}

/// The pins of this agent: a bpffs, mounted when the first slot needs it and unmounted with the last, so that nothing is left behind.
#[derive(Debug)]
pub(crate) struct Pins {
    dir: PathBuf,
    /// Held while the mount is made or taken away, so that no pin is made on a directory that is about to lose its mount.
    mounting: Mutex<()>,
}

impl Pins {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir, mounting: Mutex::new(()) }
    }

    /// Makes connections to 169.254.170.2:80 in the namespace arrive at the listener, whatever of it exists already.
    pub(crate) fn steer(
        &self,
        slot: &SlotId,
        netns: &Netns,
        listener: &TcpListener,
    ) -> Result<(), SteerError> {
        let _held = self.mounting.lock().unwrap_or_else(PoisonError::into_inner);
        self.mount()?;
        let (map_pin, link_pin) = self.paths(slot);
        let map = match open_pin(&map_pin)? {
            Some(map) => map,
            None => {
                // A link without its map steers into a map that nobody can fill.
                unlink(&link_pin)?;
                let map = sys::sockmap_create().map_err(SteerError::Map)?;
                pin(&map, &map_pin)?;
                map
            }
        };
        // First the listener, then the program: the first connection that is steered finds it.
        sys::sockmap_set(&map, listener).map_err(SteerError::Set)?;
        if !is_attached(&link_pin, netns)? {
            unlink(&link_pin)?;
            let program = load(&map)?;
            let link = sys::sk_lookup_attach(&program, netns).map_err(SteerError::Attach)?;
            pin(&link, &link_pin)?;
        }
        let held = sys::sockmap_cookie(&map).map_err(SteerError::ReadBack)?;
        let ours = sys::socket_cookie(listener).map_err(SteerError::ReadBack)?;
        if held == Some(ours) { Ok(()) } else { Err(SteerError::NotOurs) }
    }

    /// Takes the steering of a slot away, and the bpffs with the last one.
    pub(crate) fn forget(&self, slot: &SlotId) -> Result<(), SteerError> {
        let _held = self.mounting.lock().unwrap_or_else(PoisonError::into_inner);
        let (map, link) = self.paths(slot);
        unlink(&link)?;
        unlink(&map)?;
        self.unmount_if_empty();
        Ok(())
    }

    /// The slots that have pins.
    pub(crate) fn slots(&self) -> Vec<SlotId> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut slots: Vec<SlotId> = entries
            .filter_map(|entry| {
                let name = entry.file_name();
                let name = name.to_str()?;
                name.strip_suffix("-map").or_else(|| name.strip_suffix("-link"))?.parse().ok()
            })
            .collect();
        slots.sort();
        slots.dedup();
        slots
    }

    fn paths(&self, slot: &SlotId) -> (PathBuf, PathBuf) {
        // No dots: bpffs refuses them.
        (self.dir.join(format!("{slot}-map")), self.dir.join(format!("{slot}-link")))
    }

    /// Makes sure that there is a bpffs. A private one: /sys/fs/bpf may not be mounted, and is not ours to fill.
    fn mount(&self) -> Result<(), SteerError> {
        let failed = |source| SteerError::Mount { path: self.dir.clone(), source };
        if is_bpffs(&self.dir) {
            return Ok(());
        }
        fs::create_dir_all(&self.dir).map_err(failed)?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        nix::mount::mount(Some("berth"), &self.dir, Some("bpf"), flags, Some("mode=0700"))
            .map_err(|e| failed(e.into()))
    }

    fn unmount_if_empty(&self) {
        // By our names: some kernels put files of their own (maps.debug) into every bpffs.
        if self.slots().is_empty() && is_bpffs(&self.dir) {
            // One that is busy stays for the next agent, which uses it or tries again.
            if let Err(error) = nix::mount::umount2(&self.dir, MntFlags::UMOUNT_NOFOLLOW) {
                tracing::debug!(path = %self.dir.display(), %error, "bpffs stays mounted");
            }
        }
    }
}

fn is_bpffs(dir: &Path) -> bool {
    statfs(dir).is_ok_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC)
}

fn c_path(path: &Path) -> Result<CString, Errno> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)
}

fn open_pin(path: &Path) -> Result<Option<OwnedFd>, SteerError> {
    match c_path(path).and_then(|p| sys::pinned(&p)) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::ENOENT) => Ok(None),
        Err(source) => Err(SteerError::Pinned { path: path.into(), source }),
    }
}

fn pin(object: &OwnedFd, path: &Path) -> Result<(), SteerError> {
    c_path(path)
        .and_then(|p| sys::pin(object, &p))
        .map_err(|source| SteerError::Pin { path: path.into(), source })
}

fn unlink(path: &Path) -> Result<(), SteerError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(SteerError::Unpin { path: path.into(), source: e })
        }
        _ => Ok(()),
    }
}

/// Whether the pinned link is attached to this very namespace: the slot's name may have come to name another one.
fn is_attached(link_pin: &Path, netns: &Netns) -> Result<bool, SteerError> {
    let Some(link) = open_pin(link_pin)? else { return Ok(false) };
    let on = sys::link_netns(&link).map_err(|source| SteerError::Pinned { path: link_pin.into(), source })?;
    Ok(on == Some(netns.id().ino))
}

fn load(map: &OwnedFd) -> Result<OwnedFd, SteerError> {
    match sys::sk_lookup_load(&program(map, Device::LoOnly)) {
        // 5.9 to 5.16 do not show the incoming device to the program: there the listener's bind to lo is what holds.
        Err(Errno::EINVAL | Errno::EACCES) => sys::sk_lookup_load(&program(map, Device::Any)),
        loaded => loaded,
    }
    .map_err(SteerError::Load)
}
