//! Receives many datagrams by one system call, runs of equal size in one piece.

use std::array;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::os::fd::AsRawFd as _;

use quinn_udp::{RecvMeta, UdpSockRef};

use super::room::Shape;
use super::{Local, Socket};

/// Bytes of one buffer: the largest run the kernel hands over.
const BUFFER: usize = 1 << 16;
/// Buffers for runs: what is received at once has to be carried before anything else.
const FEW: usize = 4;
/// Buffers where the kernel merges nothing: the most that quinn-udp takes at once.
const MANY: usize = 32;
/// Bytes of a whole packet that comes by itself: 32 of them are one long run. What is shorter are acknowledgements and
/// the like, which gain nothing by being gathered.
const SINGLE: RangeInclusive<usize> = 512..=BUFFER / MANY;
/// Bytes on average from which merged runs are long.
const LONG: usize = 8192;

/// The buffers to receive into, 64 KiB each. Allocated once, then used again and again.
pub struct Receive {
    memory: Box<[u8]>,
    meta: [RecvMeta; MANY],
    /// How many buffers the next call may fill.
    offered: usize,
    filled: usize,
    more: bool,
}

/// Datagrams of one sender that came together.
#[derive(Debug, Clone, Copy)]
pub struct Received<'b> {
    /// Back to back.
    pub bytes: &'b [u8],
    /// Size of each datagram in bytes, at least 1; the last one may be shorter.
    pub stride: usize,
    /// Who sent them. Nothing about it is authenticated.
    pub from: SocketAddr,
    /// The address and interface they came to.
    pub to: Option<Local>,
    /// ECN bits of the outer header, 0 to 3.
    pub ecn: u8,
}

impl Receive {
    /// The bytes that one [`Socket::receive`] brings, but for the first long runs after many single packets.
    pub const BYTES: usize = FEW * BUFFER;

    /// Empty. Of its memory, only what was once written takes room.
    #[must_use]
    pub fn new() -> Self {
        let memory = vec![0; MANY * BUFFER].into_boxed_slice();
        Self { memory, meta: array::from_fn(|_| RecvMeta::default()), offered: FEW, filled: 0, more: false }
    }

    /// Whether the last [`Socket::receive`] ended for want of buffers, full of single packets: more are waiting, most
    /// likely, and may be merged with them.
    #[must_use]
    pub const fn has_more(&self) -> bool {
        self.more
    }

    /// Notes what a call has brought, and tells its shape.
    fn adapt(&mut self) -> Shape {
        let runs = self.meta.iter().take(self.filled);
        let merged = runs.clone().any(|meta| meta.len > meta.stride);
        let average = runs.map(|meta| meta.len).sum::<usize>() / self.filled.max(1);
        let single = SINGLE.contains(&average);
        self.more = single && self.filled == self.offered;
        self.offered = if single && (self.more || self.filled > FEW) { MANY } else { FEW };
        if merged && average >= LONG {
            Shape::Runs
        } else if !merged && average >= *SINGLE.start() && self.filled >= FEW {
            Shape::Singles
        } else {
            Shape::Little
        }
    }

    /// What the last [`Socket::receive`] brought, in order.
    pub fn runs(&self) -> impl Iterator<Item = Received<'_>> {
        let filled = self.meta.iter().take(self.filled);
        filled.zip(self.memory.chunks_exact(BUFFER)).map(|(meta, buffer)| received(meta, buffer))
    }
}

impl Default for Receive {
    fn default() -> Self {
        Self::new()
    }
}

fn received<'b>(meta: &RecvMeta, buffer: &'b [u8]) -> Received<'b> {
    let len = meta.len.min(buffer.len());
    Received {
        bytes: buffer.split_at(len).0,
        stride: meta.stride.max(1),
        from: meta.addr,
        to: meta.dst_ip.map(|address| (address, meta.interface_index.unwrap_or(0))),
        ecn: meta.ecn.map_or(0, |ecn| ecn as u8),
    }
}

impl Socket {
    /// Receives what is there, as much as `into` holds; how many runs.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when there is nothing. `into` is empty after an error.
    pub fn receive(&self, into: &mut Receive) -> io::Result<usize> {
        (into.filled, into.more) = (0, false);
        let mut chunks = into.memory.chunks_exact_mut(BUFFER);
        let mut slices: [IoSliceMut<'_>; MANY] = array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        let slices = slices.split_at_mut(into.offered).0;
        into.filled = self.state.recv(UdpSockRef::from(&self.inner), slices, &mut into.meta)?;
        self.room.fit(&self.inner, into.adapt());
        Ok(into.filled)
    }

    /// What the kernel dropped because the receive buffer was full: datagrams, merged ones as one. A number that wraps.
    #[must_use]
    pub fn overflows(&self) -> u32 {
        memory_info(&self.inner).map_or(0, |info| info[MEMINFO_DROPS])
    }
}

/// Where SO_MEMINFO has the drops (SK_MEMINFO_DROPS in linux/sock_diag.h), the last of its numbers.
const MEMINFO_DROPS: usize = 8;

/// SO_MEMINFO: all zeros before Linux 4.12.
fn memory_info(socket: &socket2::Socket) -> io::Result<[u32; MEMINFO_DROPS + 1]> {
    let mut info = [0; MEMINFO_DROPS + 1];
    let mut size = u32::try_from(size_of_val(&info)).map_err(io::Error::other)?;
    let (pointer, fd) = (info.as_mut_ptr().cast(), socket.as_raw_fd());
    // SAFETY: `pointer` and `size` describe `info`, which lives through the call as `size` does; the descriptor is open.
    let answer = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_MEMINFO, pointer, &raw mut size) };
    if answer == 0 { Ok(info) } else { Err(io::Error::last_os_error()) }
}

impl fmt::Debug for Receive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receive").field("offered", &self.offered).field("filled", &self.filled).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::os::fd::AsFd as _;

    use nix::sys::socket::{setsockopt, sockopt};

    use super::*;
    use crate::sys::udp;

    #[test]
    fn an_empty_datagram_still_has_a_stride() {
        let run = received(&RecvMeta::default(), &[0; 8]);
        assert_eq!((run.bytes.len(), run.stride), (0, 1));
    }

    #[test]
    fn what_came_to_a_full_socket_is_known() {
        let group = udp::bind(0, 1, 0).unwrap();
        let socket = &group.v4[0];
        setsockopt(&socket.as_fd(), sockopt::RcvBuf, &8192).unwrap();
        assert_eq!(socket.overflows(), 0);
        for _ in 0..100 {
            socket.send(&[7; 1000], 1000, (Ipv4Addr::LOCALHOST, group.port).into(), None, 0).unwrap();
        }
        let (mut receive, mut taken) = (Receive::new(), 0);
        while let Ok(count) = socket.receive(&mut receive) {
            taken += u32::try_from(count).unwrap();
        }
        assert!(taken > 0 && taken < 100, "{taken}");
        assert_eq!(socket.overflows(), 100 - taken);
    }

    #[test]
    fn of_many_single_packets_the_second_call_takes_32_and_all_come_in_order() {
        let group = udp::bind(0, 1, 0).unwrap();
        let socket = &group.v4[0];
        for n in 0..40 {
            socket.send(&[n; 1000], 1000, (Ipv4Addr::LOCALHOST, group.port).into(), None, 0).unwrap();
        }
        let (mut receive, mut order) = (Receive::new(), Vec::new());
        let calls = [(); 3].map(|()| {
            let count = socket.receive(&mut receive).unwrap();
            order.extend(receive.runs().map(|run| run.bytes[0]));
            (count, receive.has_more())
        });
        assert_eq!(calls, [(4, true), (32, true), (4, false)]);
        assert_eq!(order, (0..40).collect::<Vec<u8>>());
    }

    #[test]
    fn new_buffers_hold_nothing() {
        assert_eq!(Receive::new().runs().count(), 0);
    }

    #[test]
    fn many_buffers_are_offered_for_as_long_as_many_packets_come_by_themselves() {
        let mut receive = Receive::new();
        let mut after = |runs: &[usize]| {
            receive.filled = runs.len();
            receive.meta.iter_mut().zip(runs).for_each(|(meta, len)| meta.len = *len);
            receive.adapt();
            (receive.offered, receive.has_more())
        };
        assert_eq!(after(&[1452; 3]), (4, false));
        assert_eq!(after(&[1452; 4]), (32, true));
        assert_eq!(after(&[1452; 32]), (32, true));
        assert_eq!(after(&[96; 32]), (4, false));
        assert_eq!(after(&[96; 4]), (4, false));
        assert_eq!(after(&[1452; 4]), (32, true));
        assert_eq!(after(&[1452; 20]), (32, false));
        assert_eq!(after(&[1452; 4]), (4, false));
        assert_eq!(after(&[60_000; 4]), (4, false));
        assert_eq!(after(&[1452; 4]), (32, true));
        assert_eq!(after(&[60_000; 32]), (4, false));
    }

    #[test]
    fn the_shape_tells_merged_runs_from_packets_of_whatever_size() {
        let shape = |count: usize, len: usize, stride: usize| {
            let mut receive = Receive { filled: count, ..Receive::new() };
            receive.meta.iter_mut().for_each(|meta| (meta.len, meta.stride) = (len, stride));
            receive.adapt()
        };
        assert_eq!(shape(1, 60_000, 1452), Shape::Runs);
        assert_eq!(shape(4, 60_000, 8952), Shape::Runs);
        for size in [1452, 4000, 8952, 65_000] {
            assert_eq!(shape(4, size, size), Shape::Singles, "{size}");
            assert_eq!(shape(1, size, size), Shape::Little, "{size}");
        }
        // Acknowledgements, alone and merged, and a call that brought nothing.
        assert_eq!([shape(32, 96, 96), shape(4, 960, 96), shape(0, 0, 0)], [Shape::Little; 3]);
    }
}
