//! The way into the interface: only what was admitted gets there, merged where the kernel takes super-packets.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;

use super::trouble::Trouble;
use crate::packet::Reason;
use crate::packet::coalesce::{Coalescer, MAX_MERGED, Written};
use crate::packet::reason::DropCounters;
use crate::packet::vnet;
use crate::sys::tun::{Offloads, Queue};
use crate::tunnel::Admitted;

/// Pieces of one gather write: the virtio-net header, and one piece a merged packet.
const PIECES: usize = MAX_MERGED + 1;

/// What takes gather writes: a TUN queue.
pub(super) trait Sink {
    /// One header and packet, taken whole or not at all.
    fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize>;
}

impl Sink for Queue {
    fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        Self::write(self, pieces)
    }
}

/// Writes admitted packets to one queue.
pub(super) struct TunWriter<S = Queue> {
    queue: Arc<S>,
    coalescer: Coalescer,
    trouble: Arc<Trouble>,
}

impl<S: Sink> TunWriter<S> {
    pub(super) fn new(queue: Arc<S>, offloads: Offloads, trouble: Arc<Trouble>) -> Self {
        Self { queue, coalescer: Coalescer::new(offloads.tcp, offloads.udp), trouble }
    }

    /// Takes a packet that lies in `arena`.
    pub(super) fn push(&mut self, arena: &[u8], packet: &Admitted) {
        self.coalescer.push(arena, packet.range());
    }

    /// Writes all that was taken. Where the kernel refuses merged packets, they go singly from then on.
    pub(super) fn flush(&mut self, arena: &mut [u8], drops: &DropCounters) {
        let (queue, trouble) = (&*self.queue, &self.trouble);
        let stopped = self.coalescer.flush(arena, |header, arena, pieces| match write(queue, header, arena, pieces) {
            Ok(()) => Written::Whole,
            Err(error) if pieces.len() > 1 && error.raw_os_error() == Some(libc::EINVAL) => Written::NotMerged,
            Err(error) => {
                trouble.writing(&error);
                drops.add(Reason::InTunFailed, pieces.len() as u64);
                Written::Not
            }
        });
        if stopped {
            trouble.merging();
        }
    }
}

/// One gather write.
fn write(queue: &impl Sink, header: &[u8; vnet::LEN], arena: &[u8], pieces: &[Range<usize>]) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::packet::checksum::Sum;

    /// A kernel that answers super-packets and single packets by these errors, if any.
    #[derive(Default)]
    struct Kernel {
        merged: Option<i32>,
        single: Option<i32>,
        /// The packets it took, without their headers.
        taken: Mutex<Vec<Vec<u8>>>,
        asked: Mutex<usize>,
    }

    impl Sink for Kernel {
        fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
            *self.asked.lock().unwrap() += 1;
            let refusal = if pieces.len() > 2 { self.merged } else { self.single };
            if let Some(errno) = refusal {
                return Err(io::Error::from_raw_os_error(errno));
            }
            self.taken.lock().unwrap().push(pieces[1..].iter().flat_map(|piece| piece.to_vec()).collect());
            Ok(0)
        }
    }

    /// Four UDP packets of one flow, 100 bytes of payload each, with right checksums.
    fn packets() -> Vec<Vec<u8>> {
        let packet = |id: u8| {
            let mut packet = [0x45, 0, 0, 128, 0, id, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2].to_vec();
            packet.extend([1, 1, 2, 2, 0, 108, 0, 0]);
            packet.extend([id; 100]);
            let network = Sum::of(&packet[..20]).checksum();
            packet[10..12].copy_from_slice(&network.to_be_bytes());
            let transport = Sum::of(&packet[12..]).word(17).word(108).udp_checksum();
            packet[26..28].copy_from_slice(&transport.to_be_bytes());
            packet
        };
        (1..5).map(packet).collect()
    }

    /// Writes the packets twice by a writer on such a kernel; what was dropped.
    fn write_twice(kernel: &Arc<Kernel>) -> u64 {
        let mut writer = TunWriter::new(kernel.clone(), Offloads { tcp: true, udp: true }, Arc::<Trouble>::default());
        let drops = DropCounters::default();
        for _ in 0..2 {
            let mut arena = packets().concat();
            for at in 0..4 {
                writer.coalescer.push(&arena, at * 128..at * 128 + 128);
            }
            writer.flush(&mut arena, &drops);
        }
        drops.count(Reason::InTunFailed)
    }

    #[test]
    fn what_the_kernel_does_not_take_merged_is_written_singly_and_no_more_is_merged() {
        let kernel = Arc::new(Kernel { merged: Some(libc::EINVAL), ..Kernel::default() });
        assert_eq!(write_twice(&kernel), 0);
        assert_eq!(*kernel.taken.lock().unwrap(), [packets(), packets()].concat());
        assert_eq!(*kernel.asked.lock().unwrap(), 1 + 4 + 4);
    }

    #[test]
    fn an_interface_that_is_down_is_no_reason_to_write_singly() {
        let kernel = Arc::new(Kernel { merged: Some(libc::EIO), single: Some(libc::EIO), ..Kernel::default() });
        assert_eq!(write_twice(&kernel), 8);
        assert_eq!(*kernel.asked.lock().unwrap(), 2);
    }

    #[test]
    fn what_is_refused_singly_too_is_counted_once_and_does_not_end_the_merging() {
        let kernel = Arc::new(Kernel { merged: Some(libc::EINVAL), single: Some(libc::EINVAL), ..Kernel::default() });
        assert_eq!(write_twice(&kernel), 8);
        assert_eq!(*kernel.asked.lock().unwrap(), 2 * (1 + 4));
    }
}
