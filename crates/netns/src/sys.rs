//! The system calls that nix does not wrap: bpf(2), as far as [`crate::steer`] needs it, and a socket's cookie.
//!
//! The only file of the workspace with `unsafe` in it. Every function here takes and gives safe types, and does one system call.
#![allow(unsafe_code, reason = "bpf(2) and getsockopt(SO_COOKIE) have no safe wrapper in nix or std")]

use nix::errno::Errno;
use std::{
    ffi::{CStr, c_long},
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
};

// Commands and types of linux/bpf.h; libc does not carry them.
const MAP_CREATE: c_long = 0;
const MAP_LOOKUP_ELEM: c_long = 1;
const MAP_UPDATE_ELEM: c_long = 2;
const PROG_LOAD: c_long = 5;
const OBJ_PIN: c_long = 6;
const OBJ_GET: c_long = 7;
const OBJ_GET_INFO_BY_FD: c_long = 15;
const LINK_CREATE: c_long = 28;
const MAP_TYPE_SOCKMAP: u32 = 15;
const PROG_TYPE_SK_LOOKUP: u32 = 30;
const ATTACH_SK_LOOKUP: u32 = 36;
const LINK_TYPE_NETNS: u32 = 5;

/// Shown by `bpftool`, so that an operator knows whose they are. NUL-padded as the kernel wants it.
const NAME: [u8; 16] = *b"berth_metadata\0\0";

/// Calls bpf(2) with an attribute block of its own layout; the kernel takes what the block does not cover as zero.
///
/// # Safety
/// `T` must be a `repr(C)` prefix of `union bpf_attr` for the command without padding, and every pointer in it must be valid for what
/// the command reads and writes through it.
unsafe fn bpf<T>(command: c_long, attr: &mut T) -> Result<RawFd, Errno> {
    // SAFETY: `attr` is a live, exclusive reference to `size_of::<T>()` initialised bytes; the rest is the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    Errno::result(result).map(|fd| RawFd::try_from(fd).unwrap_or(-1))
}

/// Takes ownership of a descriptor that the kernel has just made.
fn owned(fd: RawFd) -> Result<OwnedFd, Errno> {
    if fd < 0 {
        return Err(Errno::EBADF);
    }
    // SAFETY: the caller got `fd` from a system call that makes a new descriptor; nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn raw(fd: &impl AsFd) -> u32 {
    // Descriptors of live objects are never negative.
    fd.as_fd().as_raw_fd().unsigned_abs()
}

fn address<T: ?Sized>(of: *const T) -> u64 {
    of.cast::<u8>() as u64
}

#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; 16],
}

/// A SOCKMAP of one entry. Values are 8 bytes: written as descriptors, read as cookies.
pub(crate) fn sockmap_create() -> Result<OwnedFd, Errno> {
    let mut attr = MapCreate {
        map_type: MAP_TYPE_SOCKMAP,
        key_size: 4,
        value_size: 8,
        max_entries: 1,
        map_flags: 0,
        inner_map_fd: 0,
        numa_node: 0,
        map_name: NAME,
    };
    // SAFETY: the layout is BPF_MAP_CREATE's, 44 bytes without padding, no pointers.
    owned(unsafe { bpf(MAP_CREATE, &mut attr) }?)
}

#[repr(C)]
struct MapElem {
    map_fd: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Puts a socket into the map's only entry, over whatever was there.
pub(crate) fn sockmap_set(map: &impl AsFd, socket: &impl AsFd) -> Result<(), Errno> {
    let (key, value) = (0_u32, u64::from(raw(socket)));
    let mut attr = MapElem {
        map_fd: raw(map),
        _pad: 0,
        key: address(std::ptr::from_ref(&key)),
        value: address(std::ptr::from_ref(&value)),
        flags: 0,
    };
    // SAFETY: the layout is BPF_MAP_UPDATE_ELEM's; key and value live over the call and have the map's 4 and 8 bytes.
    unsafe { bpf(MAP_UPDATE_ELEM, &mut attr) }.map(drop)
}

/// The cookie of the socket in the map's only entry; `None` when the entry is empty.
pub(crate) fn sockmap_cookie(map: &impl AsFd) -> Result<Option<u64>, Errno> {
    let (key, mut value) = (0_u32, 0_u64);
    let mut attr = MapElem {
        map_fd: raw(map),
        _pad: 0,
        key: address(std::ptr::from_ref(&key)),
        value: address(std::ptr::from_mut(&mut value)),
        flags: 0,
    };
    // SAFETY: the layout is BPF_MAP_LOOKUP_ELEM's; the kernel writes 8 bytes, the map's value size, into `value`.
    match unsafe { bpf(MAP_LOOKUP_ELEM, &mut attr) } {
        Ok(_) => Ok(Some(value)),
        Err(Errno::ENOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// Loads a socket lookup program.
pub(crate) fn sk_lookup_load(program: &[u64]) -> Result<OwnedFd, Errno> {
    let license = c"Apache-2.0";
    let mut attr = ProgLoad {
        prog_type: PROG_TYPE_SK_LOOKUP,
        insn_cnt: u32::try_from(program.len()).map_err(|_| Errno::E2BIG)?,
        insns: address(program.as_ptr()),
        license: address(license.as_ptr()),
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name: NAME,
        prog_ifindex: 0,
        expected_attach_type: ATTACH_SK_LOOKUP,
    };
    // SAFETY: the layout is BPF_PROG_LOAD's, 72 bytes without padding; the kernel reads `insn_cnt` 8-byte instructions and a C string.
    owned(unsafe { bpf(PROG_LOAD, &mut attr) }?)
}

#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

/// Attaches a socket lookup program to a namespace. It is attached as long as the link (or a pin of it) exists, or the namespace.
pub(crate) fn sk_lookup_attach(program: &impl AsFd, netns: &impl AsFd) -> Result<OwnedFd, Errno> {
    let mut attr =
        LinkCreate { prog_fd: raw(program), target_fd: raw(netns), attach_type: ATTACH_SK_LOOKUP, flags: 0 };
    // SAFETY: the layout is BPF_LINK_CREATE's, no pointers.
    owned(unsafe { bpf(LINK_CREATE, &mut attr) }?)
}

#[repr(C)]
struct Obj {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Gives an object a name in a bpffs, which keeps it alive.
pub(crate) fn pin(object: &impl AsFd, path: &CStr) -> Result<(), Errno> {
    let mut attr = Obj { pathname: address(path.as_ptr()), bpf_fd: raw(object), file_flags: 0 };
    // SAFETY: the layout is BPF_OBJ_PIN's; `path` is a C string that lives over the call.
    unsafe { bpf(OBJ_PIN, &mut attr) }.map(drop)
}

/// Opens a pinned object.
pub(crate) fn pinned(path: &CStr) -> Result<OwnedFd, Errno> {
    let mut attr = Obj { pathname: address(path.as_ptr()), bpf_fd: 0, file_flags: 0 };
    // SAFETY: the layout is BPF_OBJ_GET's; `path` is a C string that lives over the call.
    owned(unsafe { bpf(OBJ_GET, &mut attr) }?)
}

#[repr(C)]
struct InfoByFd {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The front of `struct bpf_link_info` for a link on a namespace.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    link_type: u32,
    id: u32,
    prog_id: u32,
    _pad: u32,
    netns_ino: u32,
    attach_type: u32,
}

/// Inode of the namespace that a lookup link is attached to; `None` when the namespace is gone, or the object is no such link.
pub(crate) fn link_netns(link: &impl AsFd) -> Result<Option<u64>, Errno> {
    let mut info = LinkInfo::default();
    let info_len = u32::try_from(size_of::<LinkInfo>()).map_err(|_| Errno::E2BIG)?;
    let mut attr = InfoByFd { bpf_fd: raw(link), info_len, info: address(std::ptr::from_mut(&mut info)) };
    // SAFETY: the layout is BPF_OBJ_GET_INFO_BY_FD's; the kernel writes at most `info_len` bytes into `info`, any bytes are valid there.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr) }?;
    let ours = info.link_type == LINK_TYPE_NETNS && info.attach_type == ATTACH_SK_LOOKUP;
    Ok((ours && info.netns_ino != 0).then_some(u64::from(info.netns_ino)))
}

/// The kernel's number for a socket, unique for the life of the machine.
pub(crate) fn socket_cookie(socket: &impl AsFd) -> Result<u64, Errno> {
    let mut cookie = 0_u64;
    let mut len: libc::socklen_t = 8;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the option is 8 bytes long, and `len` says that `cookie` has room for 8.
    let result = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_COOKIE,
            std::ptr::from_mut(&mut cookie).cast(),
            &raw mut len,
        )
    };
    Errno::result(result).map(|_| cookie)
}
