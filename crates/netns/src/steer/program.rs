//! The socket lookup program, assembled by hand: some thirty instructions need neither clang at build time nor a loader library at run time.

use crate::METADATA_IP;
use std::os::fd::{AsRawFd, OwnedFd};

/// The port of the address in every SDK: ECS fixes it.
const METADATA_PORT: i32 = 80;

/// Registers: arguments and scratch 0 to 5, kept over calls 6 to 9, frame pointer 10.
type Reg = u8;

/// One instruction as linux/bpf.h lays it out: opcode, registers, offset, immediate.
const fn insn(op: u8, dst: Reg, src: Reg, off: i16, imm: i32) -> u64 {
    let (o, i) = (off.to_ne_bytes(), imm.to_ne_bytes());
    // The two registers share a byte, and which half is which follows the machine's byte order.
    let regs = if cfg!(target_endian = "little") { src << 4 | dst } else { dst << 4 | src };
    u64::from_ne_bytes([op, regs, o[0], o[1], i[0], i[1], i[2], i[3]])
}

/// `dst = *(u32 *)(src + off)`
const fn load32(dst: Reg, src: Reg, off: i16) -> u64 {
    insn(0x61, dst, src, off, 0)
}

/// `dst = src`
const fn mov(dst: Reg, src: Reg) -> u64 {
    insn(0xbf, dst, src, 0, 0)
}

/// `dst = imm`
const fn mov_imm(dst: Reg, imm: i32) -> u64 {
    insn(0xb7, dst, 0, 0, imm)
}

/// Compares the lower 32 bits: a 64-bit comparison would extend the sign of an address that starts with 128 or more.
const fn jump_ne32(dst: Reg, imm: i32) -> u64 {
    insn(0x56, dst, 0, 0, imm)
}

const fn jump_eq(dst: Reg, imm: i32) -> u64 {
    insn(0x15, dst, 0, 0, imm)
}

const fn jump_ne(dst: Reg, imm: i32) -> u64 {
    insn(0x55, dst, 0, 0, imm)
}

const fn call(helper: i32) -> u64 {
    insn(0x85, 0, 0, 0, helper)
}

const EXIT: u64 = insn(0x95, 0, 0, 0, 0);

/// `insn` whose jump goes `off` instructions further than the next.
const fn with_offset(insn: u64, off: i16) -> u64 {
    let (mut bytes, o) = (insn.to_ne_bytes(), off.to_ne_bytes());
    (bytes[2], bytes[3]) = (o[0], o[1]);
    u64::from_ne_bytes(bytes)
}

// Offsets in `struct bpf_sk_lookup`.
const FAMILY: i16 = 8;
const PROTOCOL: i16 = 12;
const LOCAL_IP4: i16 = 40;
const LOCAL_PORT: i16 = 60;
const INGRESS_IFINDEX: i16 = 64;

const HELPER_MAP_LOOKUP: i32 = 1;
const HELPER_SK_RELEASE: i32 = 86;
const HELPER_SK_ASSIGN: i32 = 124;

const SK_DROP: i32 = 0;
const SK_PASS: i32 = 1;

/// lo is the first device of every namespace.
const LO: i32 = 1;

/// Through which devices connections may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Device {
    /// Only lo.
    LoOnly,
    /// Any: what kernels before 5.17 can express.
    Any,
}

/// Where a jump goes.
#[derive(Clone, Copy, PartialEq)]
enum To {
    Next,
    Pass,
    Drop,
}

/// The lookup program over a map.
///
/// ```text
///  not TCP over IPv4 to 169.254.170.2:80           -> pass: the task's own listeners
///  came in through another device than lo          -> drop
///  no socket in the map (agent dead or restarting) -> drop: the client sees "connection refused"
///  otherwise                                       -> that socket
/// ```
pub(super) fn program(map: &OwnedFd, device: Device) -> Vec<u64> {
    let plain = |insn| (insn, To::Next);
    let mut code = vec![
        plain(load32(2, 1, FAMILY)),
        (jump_ne32(2, libc::AF_INET), To::Pass),
        plain(load32(2, 1, PROTOCOL)),
        (jump_ne32(2, libc::IPPROTO_TCP), To::Pass),
        plain(load32(2, 1, LOCAL_IP4)),
        (jump_ne32(2, i32::from_ne_bytes(METADATA_IP.octets())), To::Pass),
        plain(load32(2, 1, LOCAL_PORT)),
        (jump_ne32(2, METADATA_PORT), To::Pass),
    ];
    if device == Device::LoOnly {
        code.extend([plain(load32(2, 1, INGRESS_IFINDEX)), (jump_ne32(2, LO), To::Drop)]);
    }
    code.extend([
        plain(mov(6, 1)),
        // Key 0 on the stack, the map's descriptor as a 64-bit immediate that takes two instructions, the key's address.
        plain(insn(0x62, 10, 0, -4, 0)),
        plain(insn(0x18, 1, 1, 0, map.as_raw_fd())),
        plain(0),
        plain(mov(2, 10)),
        plain(insn(0x07, 2, 0, 0, -4)),
        plain(call(HELPER_MAP_LOOKUP)),
        (jump_eq(0, 0), To::Drop),
        plain(mov(7, 0)),
        plain(mov(1, 6)),
        plain(mov(2, 7)),
        plain(mov_imm(3, 0)),
        plain(call(HELPER_SK_ASSIGN)),
        plain(mov(8, 0)),
        // The verifier wants the reference given back on every way out.
        plain(mov(1, 7)),
        plain(call(HELPER_SK_RELEASE)),
        (jump_ne(8, 0), To::Drop),
    ]);
    resolve(&code)
}

/// Appends the two ways out and turns jump targets into offsets.
fn resolve(code: &[(u64, To)]) -> Vec<u64> {
    let pass = code.len();
    let drop = pass + 2;
    let offset = |from: usize, to: usize| i16::try_from(to - from - 1).unwrap_or(i16::MAX);
    let mut out: Vec<u64> = code
        .iter()
        .enumerate()
        .map(|(at, &(insn, to))| match to {
            To::Next => insn,
            To::Pass => with_offset(insn, offset(at, pass)),
            To::Drop => with_offset(insn, offset(at, drop)),
        })
        .collect();
    out.extend([mov_imm(0, SK_PASS), EXIT, mov_imm(0, SK_DROP), EXIT]);
    out
}
