//! The metadata listener's socket: bound in the task's namespace to 169.254.170.2, on a port that tasks do not use, on lo.
//! [`crate::steer`] brings port 80 of that address to it and says why.

use crate::METADATA_IP;
use nix::{
    errno::Errno,
    sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, setsockopt, sockopt},
};
use std::{
    net::{SocketAddrV4, TcpListener},
    ops::RangeInclusive,
    os::fd::{AsRawFd, OwnedFd},
};

/// Ports to try, in order. Above `ip_local_port_range` (32768 to 60999), so that no outgoing connection of the task holds one. More than one,
/// because a task may have taken the first while the agent was dead, and because an old listener may still be open while the next is made.
/// Which one it is matters to nobody: only the program in the kernel needs to know the socket, and it does not go by port.
const PORTS: RangeInclusive<u16> = 61679..=61694;

/// Connections that may wait to be accepted. A task has at most ten containers with a handful of clients each; while the agent restarts
/// and the service manager holds the socket, their requests wait here.
const BACKLOG: i32 = 256;

/// Opens the listener in the namespace of the calling thread; 169.254.170.2 must be on lo already. Non-blocking.
pub(crate) fn open() -> Result<TcpListener, Errno> {
    let mut last = Errno::EADDRINUSE;
    for port in PORTS {
        match open_on(port) {
            Err(Errno::EADDRINUSE) => last = Errno::EADDRINUSE,
            done => return done,
        }
    }
    Err(last)
}

fn open_on(port: u16) -> Result<TcpListener, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd: OwnedFd = socket::socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
    // After a restart, connections of the old listener linger in TIME_WAIT on the same port.
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    // Not to be reached from the subnet, though Linux takes packets for lo's addresses from any device.
    setsockopt(&fd, sockopt::BindToDevice, &"lo".into())?;
    socket::bind(fd.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(METADATA_IP, port)))?;
    socket::listen(&fd, Backlog::new(BACKLOG)?)?;
    Ok(fd.into())
}
