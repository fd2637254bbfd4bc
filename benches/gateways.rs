//! For the benches: two ends of a tunnel in memory, with real sessions, and what a TUN hands over at once.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use linkspan::packet::checksum::Sum;
use linkspan::packet::cleartext::{Cleartext, SPARE};
use linkspan::packet::coalesce::{Coalescer, Written};
use linkspan::packet::reason::DropCounters;
use linkspan::packet::segment::{SegmentScratch, Segments};
use linkspan::packet::vnet::Gso;
use linkspan::packet::{Mtu, Vnet, ip};
use linkspan::tunnel::key::PrivateKey;
use linkspan::tunnel::lane::SMALL;
use linkspan::tunnel::{Address, Identity, InFlight, Lane, OpenBuffer, SealBuffer, Slot};

/// Segments of the super-packet: as many full ones as 58,000 bytes hold.
pub(crate) const SEGMENTS: usize = 42;
/// TCP payload of each, which fills a tunnel of [`Mtu::DEFAULT`].
const PAYLOAD: u16 = 1368;
const IP_HEADER: usize = 20;
const TCP_HEADER: usize = 32;
/// Room for the opened packets of a super-packet, in bytes.
const ARENA: usize = 1 << 17;

/// A TCP super-packet as the kernel cuts it off for a TUN with offloads, and the bytes that a buffer has behind it.
pub(crate) struct SuperPacket {
    vnet: Vnet,
    bytes: Vec<u8>,
}

impl SuperPacket {
    pub(crate) fn new() -> Self {
        let payload = usize::from(PAYLOAD) * SEGMENTS;
        let len = u16::try_from(IP_HEADER + TCP_HEADER + payload).expect("it fits an IPv4 packet");
        let mut bytes = vec![0x45, 0, 0, 0, 0, 7, 0x40, 0, 64, ip::TCP, 0, 0, 10, 1, 0, 2, 10, 2, 0, 2];
        bytes[2..4].copy_from_slice(&len.to_be_bytes());
        let sum = Sum::of(&bytes).checksum();
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        // Ports, sequence, acknowledgement; 8 words, ACK, window; a partial checksum; time stamps.
        bytes.extend([0xc0, 0, 0x14, 0x51, 0, 0, 0, 1, 0, 0, 0, 1, 0x80, 0x10, 0x10, 0, 0, 0, 0, 0]);
        bytes.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
        let addresses = [[10, 1, 0, 2], [10, 2, 0, 2]].map(IpAddr::from);
        let pseudo = Sum::pseudo(addresses[0], addresses[1], ip::TCP, len - 20).fold();
        bytes[36..38].copy_from_slice(&pseudo.to_be_bytes());
        bytes.extend((0..payload).map(|at| at.to_le_bytes()[0]));
        bytes.resize(bytes.len() + SPARE, 0);
        let vnet = Vnet {
            gso: Gso::Tcp4,
            gso_ecn: false,
            needs_checksum: true,
            header_len: 52,
            segment_size: PAYLOAD,
            checksum_start: 20,
            checksum_offset: 16,
        };
        Self { vnet, bytes }
    }

    /// The packet, and room for its padding. Segmentation writes over a copy of it.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// All segments of a copy of it, prepared.
    pub(crate) fn segments<'p>(&self, buffer: &'p mut [u8], scratch: &'p mut SegmentScratch) -> Segments<'p> {
        let len = buffer.len() - SPARE;
        let mut segments = Segments::new(&self.vnet, buffer, len, Mtu::DEFAULT, scratch).expect("it can be cut");
        assert_eq!(segments.prepare(SEGMENTS), SEGMENTS);
        segments
    }
}

/// A tunnel: what `near` seals, `far` opens.
pub(crate) struct Tunnel {
    near: Lane,
    far: Lane,
    drops: DropCounters,
}

impl Tunnel {
    /// With a session. `number` tells its indices from another tunnel's.
    pub(crate) fn new(number: u16) -> Self {
        let [a, b] = [(); 2].map(|()| Arc::new(Identity::new(PrivateKey::generate().expect("random bytes"))));
        let lane = |local: &Arc<Identity>, remote: &Identity, end: u16| {
            let slots = [0, 1].map(|slot| Slot::new(4 * number + 2 * end + slot, 0));
            Lane::new(local, *remote.public(), None, slots, Instant::now())
        };
        let tunnel = Self { near: lane(&a, &b, 0), far: lane(&b, &a, 1), drops: DropCounters::default() };
        tunnel.shake_hands();
        tunnel
    }

    fn shake_hands(&self) {
        let (now, mut out) = (Instant::now(), [0; SMALL]);
        let len = self.near.initiate(&mut out).expect("an initiation");
        let mut carry = |to: &Lane, len: usize| {
            let message = out;
            let answer = to.handshake(now, &message[..len], &address(), &mut out).expect("a sound message");
            answer.reply.expect("an answer")
        };
        let response = carry(&self.far, len);
        let keepalive = carry(&self.near, response);
        let mut opened = OpenBuffer::new(1, ARENA);
        let message = std::iter::once(&out[..keepalive]);
        assert!(self.far.open_batch(now, message, &address(), &mut opened, &self.drops).is_some());
    }

    /// Nothing is sealed a few seconds after the last tick.
    pub(crate) fn tick(&self) {
        for lane in [&self.near, &self.far] {
            let _ = lane.tick(Instant::now(), &mut [0; SMALL]);
        }
    }

    /// Seals all of `packets`; none = another worker, whose datagrams are still in flight, is too far behind.
    pub(crate) fn seal(
        &self,
        worker: usize,
        packets: &mut impl Cleartext,
        out: &mut SealBuffer,
    ) -> Option<InFlight<'_>> {
        out.clear();
        self.near.seal_batch(worker, Instant::now(), packets, out).ok()
    }

    /// Opens all that was sealed, whose order and number must be right.
    pub(crate) fn open(&self, sealed: &SealBuffer, out: &mut OpenBuffer) {
        out.clear();
        let roam = self.far.open_batch(Instant::now(), sealed.datagrams(), &address(), out, &self.drops);
        assert!(roam.is_some() && out.packets().len() == sealed.len());
    }
}

/// Where batches of a super-packet go.
pub(crate) fn buffers() -> (SealBuffer, OpenBuffer) {
    (SealBuffer::new(SEGMENTS, Mtu::DEFAULT), OpenBuffer::new(SEGMENTS, ARENA))
}

/// Merges what was opened, and says into how many packets.
pub(crate) fn merge(coalescer: &mut Coalescer, opened: &mut OpenBuffer) -> usize {
    for range in opened.packets() {
        coalescer.push(opened.arena(), range.clone());
    }
    let mut written = 0;
    coalescer.flush(opened.arena_mut(), |_, _, _| {
        written += 1;
        Written::Whole
    });
    written
}

fn address() -> Address {
    Address::new(([192, 0, 2, 2], 51820).into())
}
