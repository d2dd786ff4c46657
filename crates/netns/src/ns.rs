//! Network namespaces as values: open, make, name, enter.
//!
//! The whole crate (and vpcbox, and the tests) goes through this file to get into a namespace, so one rule holds everywhere: **a thread that
//! enters a namespace never comes back**. [`Netns::run`] starts a fresh thread, enters, runs the closure, and the thread ends. There is no way
//! home that could fail, and no runtime worker ever stands in a foreign namespace. A fresh thread costs 0.14 ms more than a reused one; what
//! is done in a namespace costs 20 ms, because a link is moved into it.
//!
//! What comes back out of the closure are file descriptors: a socket stays in the namespace it was made in. [`Netns::netlink`] is made of that.
//!
//! An open [`Netns`], and every socket of a namespace, keeps the namespace alive. Drop them before [`remove_named`].

use berth_types::ids::NetnsId;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    mount::{MntFlags, MsFlags},
    sched::CloneFlags,
    sys::statfs::{NSFS_MAGIC, fstatfs},
};
use rtnetlink::{
    MulticastGroup, packet_core::NetlinkMessage, packet_route::RouteNetlinkMessage, sys::SocketAddr,
};
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    thread,
};

/// Where the calling thread's own namespace is to be found. `/proc/self` would name the main thread's.
const OWN: &str = "/proc/thread-self/ns/net";

/// An operation on a namespace that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NsError {
    /// The file could not be opened or read.
    #[error("open namespace {path}")]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is a file, but no namespace is mounted on it.
    #[error("{path} is not a namespace: nothing is mounted on the file")]
    NotANamespace {
        /// Which.
        path: PathBuf,
    },
    /// The kernel made no new namespace.
    #[error("make a namespace")]
    Unshare(#[source] Errno),
    /// The thread could not enter the namespace.
    #[error("enter namespace {ino}")]
    Enter {
        /// Inode of the namespace.
        ino: u64,
        /// Why.
        #[source]
        source: Errno,
    },
    /// The thread could not be started.
    #[error("start a namespace thread")]
    Spawn(#[source] io::Error),
    /// The closure panicked.
    #[error("the namespace thread panicked")]
    Panicked,
    /// The directory of named namespaces could not be made a shared mount.
    #[error("make {path} a shared mount")]
    Share {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The namespace could not be mounted on its name.
    #[error("mount a namespace on {path}")]
    Mount {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The name could not be unmounted or unlinked.
    #[error("remove the name {path}")]
    Remove {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No netlink socket in the namespace.
    #[error("open a netlink socket in namespace {ino}")]
    Netlink {
        /// Inode of the namespace.
        ino: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not called from within a tokio runtime.
    #[error("a netlink connection needs a tokio runtime to run on")]
    NoRuntime,
}

/// An open network namespace. Keeps it alive.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
    id: NetnsId,
}

/// What a path under /run/netns is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// Nothing is there.
    Absent,
    /// A file on which nothing is mounted: its maker died between the two steps, or the machine booted since.
    PlainFile,
    /// A namespace.
    Mounted(NetnsId),
}

impl Netns {
    /// Opens a namespace by path, `/run/netns/NAME` or `/proc/PID/ns/net`.
    ///
    /// The file system is checked: a name without its mount is an ordinary file, which opens just as well and then fails in strange places.
    pub fn open(path: &Path) -> Result<Self, NsError> {
        let failed = |source| NsError::Open { path: path.into(), source };
        let file =
            OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path).map_err(failed)?;
        if fstatfs(&file).map_err(|e| failed(e.into()))?.filesystem_type() != NSFS_MAGIC {
            return Err(NsError::NotANamespace { path: path.into() });
        }
        let meta = file.metadata().map_err(failed)?;
        Ok(Self { fd: file.into(), id: NetnsId { dev: meta.dev(), ino: meta.ino() } })
    }

    /// The namespace that the calling thread is in.
    pub fn current() -> Result<Self, NsError> {
        Self::open(Path::new(OWN))
    }

    /// A new namespace without a name: it lives as long as this value, its sockets and its processes.
    pub fn create() -> Result<Self, NsError> {
        on_fresh_thread(|| {
            leave_for_new()?;
            Self::current()
        })?
    }

    /// Identity: a path can come to name another namespace, this cannot.
    pub fn id(&self) -> NetnsId {
        self.id
    }

    /// Another handle on the same namespace.
    pub fn try_clone(&self) -> Result<Self, NsError> {
        let fd = self.fd.try_clone().map_err(|source| NsError::Open { path: OWN.into(), source })?;
        Ok(Self { fd, id: self.id })
    }

    /// Runs a closure in this namespace, on a fresh thread that ends with it, and waits for its result.
    ///
    /// The closure may borrow. It blocks the caller: from async code, call it through `spawn_blocking` unless it is a matter of microseconds.
    /// Processes that the closure starts are born in the namespace. `/proc/sys/net` follows the thread, `/sys/class/net` does not.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NsError> {
        on_fresh_thread(|| {
            self.enter()?;
            Ok(work())
        })?
    }

    /// Takes the calling thread into this namespace, for good. Only for threads that end afterwards.
    #[allow(clippy::disallowed_methods, reason = "this is the one place that the ban points to")]
    pub(crate) fn enter(&self) -> Result<(), NsError> {
        nix::sched::setns(&self.fd, CloneFlags::CLONE_NEWNET)
            .map_err(|source| NsError::Enter { ino: self.id.ino, source })
    }

    /// An rtnetlink connection that lives in this namespace, driven by the calling tokio runtime. It costs some microseconds; close (drop)
    /// it when the work is done, because it keeps the namespace alive and holds 12 KB.
    ///
    /// On a runtime with several threads each awaited message pays a wake-up across threads: for more than a few messages, use a
    /// `current_thread` runtime.
    pub fn netlink(&self) -> Result<Netlink, NsError> {
        self.netlink_with(&[])
    }

    /// As [`Netns::netlink`], subscribed to multicast groups: notifications come through [`Netlink::events`].
    pub fn netlink_with(&self, groups: &[MulticastGroup]) -> Result<Netlink, NsError> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| NsError::NoRuntime)?;
        let made = self.run(|| {
            // The socket registers with the reactor of the runtime that is current when it is made.
            let _entered = runtime.enter();
            rtnetlink::new_multicast_connection(groups)
        })?;
        let (connection, handle, events) =
            made.map_err(|source| NsError::Netlink { ino: self.id.ino, source })?;
        Ok(Netlink { handle, events, driver: runtime.spawn(connection) })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Notifications of a subscribed connection. Its queue is netlink-proto's own and has no bound: read it until it is empty.
pub type Events =
    futures::channel::mpsc::UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>;

/// An rtnetlink connection in some namespace. Closed when dropped.
#[derive(Debug)]
pub struct Netlink {
    /// Requests go through here. Clones outlive this value only in name: they fail once it is dropped.
    pub handle: rtnetlink::Handle,
    /// Notifications, if any group was subscribed to.
    pub events: Events,
    driver: tokio::task::JoinHandle<()>,
}

impl Netlink {
    /// A connection in the namespace of the calling thread, on the calling runtime.
    pub(crate) fn here() -> io::Result<Self> {
        let (connection, handle, events) = rtnetlink::new_connection()?;
        Ok(Self { handle, events, driver: tokio::spawn(connection) })
    }

    /// Closes the connection and waits until its socket is gone, so that it no longer keeps its namespace alive.
    pub async fn close(mut self) {
        self.driver.abort();
        // The only outcome is "cancelled" or "ended before": both mean closed.
        drop((&mut self.driver).await);
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Looks at what a path under /run/netns is, without opening more than the file itself.
pub fn inspect(path: &Path) -> Result<Named, NsError> {
    match Netns::open(path) {
        Ok(ns) => Ok(Named::Mounted(ns.id())),
        Err(NsError::NotANamespace { .. }) => Ok(Named::PlainFile),
        Err(NsError::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(Named::Absent),
        Err(other) => Err(other),
    }
}

/// Makes a namespace with a name, or opens the one that has it. A plain file in its place is removed first.
///
/// The directory is made a shared mount if it is not one, as `ip netns add` does, so that mounts made by one program are seen by others
/// that run in mount namespaces of their own (containerd).
pub fn create_named(path: &Path) -> Result<Netns, NsError> {
    on_fresh_thread(|| create_named_here(path))?
}

/// [`create_named`] on a thread that is to stay in the namespace (and end there).
pub(crate) fn create_named_here(path: &Path) -> Result<Netns, NsError> {
    match inspect(path)? {
        Named::Mounted(_) => {
            let ns = Netns::open(path)?;
            ns.enter()?;
            return Ok(ns);
        }
        Named::PlainFile => remove_named(path)?,
        Named::Absent => {}
    }
    if let Some(dir) = path.parent() {
        share_dir(dir)?;
    }
    leave_for_new()?;
    let failed = |source: io::Error| NsError::Mount { path: path.into(), source };
    // O_EXCL and mode 0 as iproute2 does: who loses a race for the name learns of it here.
    OpenOptions::new().write(true).create_new(true).mode(0o000).open(path).map_err(failed)?;
    nix::mount::mount(Some(OWN), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(|e| failed(e.into()))?;
    Netns::open(path)
}

/// Takes a name away: unmounts and unlinks. What is not there is removed. The namespace itself goes when its last process, socket and
/// descriptor are gone, some ten milliseconds later.
pub fn remove_named(path: &Path) -> Result<(), NsError> {
    let failed = |source: io::Error| NsError::Remove { path: path.into(), source };
    // Mounts can be stacked when two makers raced; a bound because nothing here may loop for ever.
    const MOUNTS: usize = 16;
    for _ in 0..MOUNTS {
        match nix::mount::umount2(path, MntFlags::MNT_DETACH) {
            Ok(()) => {}
            // Not a mount, or not there.
            Err(Errno::EINVAL | Errno::ENOENT) => break,
            Err(e) => return Err(failed(e.into())),
        }
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed(e)),
        _ => Ok(()),
    }
}

/// Makes sure that the directory exists and is a shared mount.
pub fn share_dir(dir: &Path) -> Result<(), NsError> {
    let failed = |source: io::Error| NsError::Share { path: dir.into(), source };
    DirBuilder::new().recursive(true).mode(0o755).create(dir).map_err(failed)?;
    // Two programs that both find no mount would stack one on the other and hide the names below: iproute2 takes the same lock.
    let file = File::open(dir).map_err(failed)?;
    let _lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| failed(e.into()))?;
    let share = || {
        nix::mount::mount(None::<&str>, dir, None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>)
    };
    match share() {
        Ok(()) => Ok(()),
        // Not a mount yet: bind it onto itself, then it can be shared.
        Err(Errno::EINVAL) => {
            nix::mount::mount(Some(dir), dir, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
                .and_then(|()| share())
                .map_err(|e| failed(e.into()))
        }
        Err(e) => Err(failed(e.into())),
    }
}

/// Takes the calling thread into a new namespace, for good.
#[allow(clippy::disallowed_methods, reason = "this is the one place that the ban points to")]
fn leave_for_new() -> Result<(), NsError> {
    nix::sched::unshare(CloneFlags::CLONE_NEWNET).map_err(NsError::Unshare)
}

/// Runs a closure on a thread of its own and waits for it.
fn on_fresh_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, NsError> {
    thread::scope(|scope| {
        let spawned = thread::Builder::new().name("netns".into()).spawn_scoped(scope, work);
        spawned.map_err(NsError::Spawn)?.join().map_err(|_| NsError::Panicked)
    })
}
