//! Which socket of a group gets a datagram: for transport data, the one its receiver index names.
//!
//! By classic BPF, which needs no privilege. It runs on the UDP payload; a load beyond its end ends the program
//! with 0. A datagram that lands elsewhere for a moment, while the group is being opened, is no harm.

use std::io;

use nix::sys::socket::{setsockopt, sockopt};

/// First byte of WireGuard transport data.
const TRANSPORT: u32 = 4;
/// The byte of the receiver index (bytes 4 to 7, little endian) that holds the slot's low byte, the worker.
const WORKER: u32 = 5;

/// Steers datagrams to `sockets`, bound in this order: transport data to socket (byte 5 mod their number), all
/// else to the first.
pub(super) fn attach(sockets: &[socket2::Socket]) -> io::Result<()> {
    let [first, _, ..] = sockets else { return Ok(()) };
    let mut program = program(u32::try_from(sockets.len()).map_err(io::Error::other)?);
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    setsockopt(first, sockopt::AttachReusePortCbpf, &program).map_err(io::Error::from)
}

fn program(sockets: u32) -> [libc::sock_filter; 6] {
    use libc::{BPF_ABS, BPF_ALU, BPF_B, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_MOD, BPF_RET};
    /// BPF_RET takes the accumulator; libc does not have it.
    const BPF_A: u32 = 0x10;
    [
        step(BPF_LD | BPF_B | BPF_ABS, 0),
        libc::sock_filter { jf: 3, ..step(BPF_JMP | BPF_JEQ | BPF_K, TRANSPORT) },
        step(BPF_LD | BPF_B | BPF_ABS, WORKER),
        step(BPF_ALU | BPF_MOD | BPF_K, sockets),
        step(BPF_RET | BPF_A, 0),
        step(BPF_RET | BPF_K, 0),
    ]
}

#[expect(clippy::cast_possible_truncation, reason = "operation codes have 16 bits; libc types its constants wider")]
const fn step(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
}
