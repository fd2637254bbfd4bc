//! Receives many datagrams by one system call, runs of equal size in one piece.

use std::array;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;

use quinn_udp::{RecvMeta, UdpSockRef};

use super::{Local, Socket};

/// Bytes of one buffer: the largest run the kernel hands over.
const BUFFER: usize = 1 << 16;
/// The most buffers: what quinn-udp takes at once.
const BUFFERS_MAX: usize = 32;

/// The buffers to receive into, 64 KiB each. Allocated once, then used again and again.
pub struct Receive {
    memory: Box<[u8]>,
    meta: [RecvMeta; BUFFERS_MAX],
    filled: usize,
}

/// Datagrams of one sender that came together.
#[derive(Debug)]
pub struct Received<'b> {
    /// Back to back.
    pub bytes: &'b mut [u8],
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
    /// With `buffers` buffers (1 to 32), so many runs at a time.
    #[must_use]
    pub fn new(buffers: usize) -> Self {
        let memory = vec![0; buffers.clamp(1, BUFFERS_MAX) * BUFFER].into_boxed_slice();
        Self { memory, meta: array::from_fn(|_| RecvMeta::default()), filled: 0 }
    }

    /// What the last [`Socket::receive`] brought, in order.
    pub fn runs(&mut self) -> impl Iterator<Item = Received<'_>> {
        let filled = self.meta.iter().take(self.filled);
        filled.zip(self.memory.chunks_exact_mut(BUFFER)).map(|(meta, buffer)| received(meta, buffer))
    }
}

fn received<'b>(meta: &RecvMeta, buffer: &'b mut [u8]) -> Received<'b> {
    let len = meta.len.min(buffer.len());
    Received {
        bytes: buffer.split_at_mut(len).0,
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
        into.filled = 0;
        let count = into.memory.len() / BUFFER;
        let mut chunks = into.memory.chunks_exact_mut(BUFFER);
        let mut slices: [IoSliceMut<'_>; BUFFERS_MAX] =
            array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        let slices = slices.split_at_mut(count).0;
        into.filled = self.state.recv(UdpSockRef::from(&self.inner), slices, &mut into.meta)?;
        Ok(into.filled)
    }
}

impl fmt::Debug for Receive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receive").field("buffers", &(self.memory.len() / BUFFER)).field("filled", &self.filled).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_datagram_still_has_a_stride() {
        let mut buffer = [0; 8];
        let run = received(&RecvMeta::default(), &mut buffer);
        assert_eq!((run.bytes.len(), run.stride), (0, 1));
    }

    #[test]
    fn new_buffers_hold_nothing() {
        assert_eq!(Receive::new(0).memory.len(), BUFFER);
        assert_eq!(Receive::new(1000).memory.len(), BUFFER * BUFFERS_MAX);
        assert_eq!(Receive::new(4).runs().count(), 0);
    }
}
