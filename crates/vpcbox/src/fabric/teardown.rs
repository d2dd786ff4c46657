//! Removing: by name alone, so that it works the same for a fabric that ends and for what a killed one left.

use super::{FabricError, links, names, setup::namespace_failed};
use berth_netns::ns::{self, Named, Netns};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use std::{
    fs, io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
    path::Path,
    time::Duration,
};

/// A process that was just killed still holds its claim until the kernel is through with it.
const CLAIM_WAIT: Duration = Duration::from_secs(2);
const CLAIM_POLL: Duration = Duration::from_millis(20);

/// The claim to a name. An abstract socket: the kernel lets go of it when its holder dies, and no file is left behind.
#[derive(Debug)]
pub(super) struct Claim {
    _socket: UnixListener,
}

impl Claim {
    /// Takes the claim, or finds that a living fabric has it. Blocks for up to two seconds.
    pub(super) fn take(name: &str) -> Result<Self, FabricError> {
        let failed = |source| FabricError::Claim { name: name.to_owned(), source };
        let address = address(name).map_err(failed)?;
        let polls = CLAIM_WAIT.as_millis() / CLAIM_POLL.as_millis();
        for _ in 0..polls {
            match UnixListener::bind_addr(&address) {
                Ok(socket) => return Ok(Self { _socket: socket }),
                Err(e) if e.kind() == io::ErrorKind::AddrInUse => std::thread::sleep(CLAIM_POLL),
                Err(e) => return Err(failed(e)),
            }
        }
        Err(FabricError::Running(name.to_owned()))
    }
}

/// The process that has the claim to a name. The kernel says so: a number from a file may be another process's by now.
pub(super) fn holder(name: &str) -> Option<i32> {
    let stream = UnixStream::connect_addr(&address(name).ok()?).ok()?;
    Some(getsockopt(&stream, PeerCredentials).ok()?.pid())
}

fn address(name: &str) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("vpcbox-fabric/{name}").as_bytes())
}

/// Removes the links, then the namespaces; the names of the latter. Goes on after an error, so that one thing that sticks does
/// not keep the rest, and reports the first.
pub(super) fn remove_all(name: &str) -> Result<Vec<String>, FabricError> {
    let mut errors = Vec::new();
    let vpc = names::vpc_netns(name);
    // First of all the links: their other ends may be in namespaces that are not ours, or that someone keeps alive.
    if let Err(e) = remove_links(&vpc) {
        errors.push(e);
    }
    let mut removed = Vec::new();
    for file in find(name)? {
        let path = Path::new(names::NETNS_DIR).join(&file);
        match ns::remove_named(&path) {
            Ok(()) => removed.push(file),
            Err(e) => errors.push(namespace_failed("remove namespace", file)(e)),
        }
    }
    errors.into_iter().next().map_or(Ok(removed), Err)
}

fn find(name: &str) -> Result<Vec<String>, FabricError> {
    let dir = Path::new(names::NETNS_DIR);
    let failed = |source| FabricError::List { dir: dir.to_owned(), source };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let file = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if names::belongs_to(name, &file) {
            found.push(file);
        }
    }
    found.sort();
    Ok(found)
}

/// A runtime of its own for one message: the callers are threads that have none, or whose own is busy with them.
fn remove_links(vpc: &Path) -> Result<(), FabricError> {
    if !matches!(ns::inspect(vpc), Ok(Named::Mounted(_))) {
        return Ok(());
    }
    let netns = Netns::open(vpc).map_err(namespace_failed("open namespace", vpc.display()))?;
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(FabricError::Thread)?;
        runtime.block_on(async {
            let netlink = netns.netlink().map_err(namespace_failed("open netlink in", vpc.display()))?;
            let result = links::remove_group(&netlink.handle).await;
            netlink.close().await;
            result
        })
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("fabric-teardown".into()).spawn_scoped(scope, work);
        // A panic in there was printed; there is nothing more to say than that the fabric is in an unknown state.
        thread.map_err(FabricError::Thread)?.join().unwrap_or(Err(FabricError::Down))
    })
}
