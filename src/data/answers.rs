//! What a gateway tells the sender of a packet that can't go on: ICMP, written back into the interface.

use std::io::IoSlice;
use std::sync::Arc;
use std::time::Instant;

use super::counters::RateLimit;
use crate::packet::vnet::Vnet;
use crate::packet::{Mtu, icmp};
use crate::sys::tun::Queue;

/// ICMP answers a second and worker; senders retry, so a lost one does no harm.
const PER_SECOND: u32 = 1000;

/// Writes ICMP errors for packets that came out of `queue`.
pub(super) struct Answers {
    queue: Arc<Queue>,
    limit: RateLimit,
    buffer: [u8; icmp::MAX_LEN],
}

impl Answers {
    pub(super) fn new(queue: Arc<Queue>, now: Instant) -> Self {
        Self { queue, limit: RateLimit::new(PER_SECOND, now), buffer: [0; icmp::MAX_LEN] }
    }

    /// Nothing is behind the destination of `packet` (RFC 792, RFC 4443).
    pub(super) fn unreachable(&mut self, packet: &[u8], now: Instant) {
        let len = icmp::unreachable(packet, &mut self.buffer);
        self.write(len, now);
    }

    /// `packet` does not fit; at most `mtu` bytes do (RFC 1191, RFC 8201).
    pub(super) fn too_big(&mut self, packet: &[u8], mtu: Mtu, now: Instant) {
        let len = icmp::too_big(packet, mtu, &mut self.buffer);
        self.write(len, now);
    }

    fn write(&mut self, len: Option<usize>, now: Instant) {
        let Some(answer) = len.and_then(|len| self.buffer.get(..len)) else { return };
        if self.limit.allows(now) {
            // A full queue drops it, as any router may.
            let _ = self.queue.write(&[IoSlice::new(&Vnet::PLAIN.encode()), IoSlice::new(answer)]);
        }
    }
}
