//! The way into the interface: only what was admitted gets there, merged where the kernel takes super-packets.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;

use super::trouble::Trouble;
use crate::packet::Reason;
use crate::packet::coalesce::{Coalescer, MAX_MERGED};
use crate::packet::reason::DropCounters;
use crate::packet::vnet;
use crate::sys::tun::{Offloads, Queue};
use crate::tunnel::Admitted;

/// Pieces of one gather write: the virtio-net header, and one piece a merged packet.
const PIECES: usize = MAX_MERGED + 1;

/// Writes admitted packets to one queue.
pub(super) struct TunWriter {
    queue: Arc<Queue>,
    coalescer: Coalescer,
    trouble: Arc<Trouble>,
}

impl TunWriter {
    pub(super) fn new(queue: Arc<Queue>, offloads: Offloads, trouble: Arc<Trouble>) -> Self {
        Self { queue, coalescer: Coalescer::new(offloads.tcp, offloads.udp), trouble }
    }

    /// Takes a packet that lies in `arena`.
    pub(super) fn push(&mut self, arena: &[u8], packet: &Admitted) {
        self.coalescer.push(arena, packet.range());
    }

    /// Writes all that was taken.
    pub(super) fn flush(&mut self, arena: &mut [u8], drops: &DropCounters) {
        let (queue, trouble) = (&self.queue, &self.trouble);
        self.coalescer.flush(arena, |header, arena, pieces| {
            if let Err(error) = write(queue, header, arena, pieces) {
                trouble.writing(&error);
                drops.add(Reason::InTunFailed, pieces.len() as u64);
            }
        });
    }
}

/// One gather write.
fn write(queue: &Queue, header: &[u8; vnet::LEN], arena: &[u8], pieces: &[Range<usize>]) -> io::Result<()> {
    let mut slices = [IoSlice::new(&[]); PIECES];
    let mut count = 0;
    let parts = std::iter::once(&header[..]).chain(pieces.iter().filter_map(|range| arena.get(range.clone())));
    for (slice, part) in slices.iter_mut().zip(parts) {
        *slice = IoSlice::new(part);
        count += 1;
    }
    loop {
        match queue.write(slices.get(..count).unwrap_or_default()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map(drop),
        }
    }
}
