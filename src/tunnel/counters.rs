//! Packets and bytes of one peer, counted by ourselves: boringtun's counters are `usize` and partial.

use std::sync::atomic::{AtomicU64, Ordering};

/// Inner packets and their bytes, both ways. Written by the workers, read by anybody.
#[derive(Debug, Default)]
pub struct Counters {
    sent: Pair,
    received: Pair,
    /// Initiations sent, and those that nothing was heard after.
    initiations: [AtomicU64; 2],
}

#[derive(Debug, Default)]
#[repr(align(64))] // the outbound and the inbound worker must not share a cache line
struct Pair {
    packets: AtomicU64,
    bytes: AtomicU64,
    wire: AtomicU64,
}

/// A count of packets and of their bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes of those packets.
    pub bytes: u64,
}

impl Counters {
    /// Counts `packets` of `bytes` in all towards the peer.
    pub fn add_sent(&self, packets: u64, bytes: u64) {
        self.sent.add(packets, bytes);
    }

    /// Counts `packets` of `bytes` in all from the peer.
    pub fn add_received(&self, packets: u64, bytes: u64) {
        self.received.add(packets, bytes);
    }

    /// Counts `bytes` of datagrams that left for the peer, whatever was in them.
    pub fn add_wire_sent(&self, bytes: u64) {
        self.sent.wire.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts `bytes` of datagrams that came from the peer and were taken.
    pub fn add_wire_received(&self, bytes: u64) {
        self.received.wire.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes of datagrams sent and received, as the kernel's WireGuard counts: UDP payloads of transport data,
    /// keepalives and handshakes; no cookie replies.
    #[must_use]
    pub fn wire(&self) -> (u64, u64) {
        (self.sent.wire.load(Ordering::Relaxed), self.received.wire.load(Ordering::Relaxed))
    }

    /// Counts an initiation of ours; `in_vain`: nothing was heard since the one before.
    pub fn add_initiation(&self, in_vain: bool) {
        let [sent, failed] = &self.initiations;
        sent.fetch_add(1, Ordering::Relaxed);
        failed.fetch_add(in_vain.into(), Ordering::Relaxed);
    }

    /// Initiations sent so far, and how many of them were in vain: the next one was sent without anything heard in
    /// between.
    #[must_use]
    pub fn initiations(&self) -> (u64, u64) {
        let [sent, failed] = &self.initiations;
        (sent.load(Ordering::Relaxed), failed.load(Ordering::Relaxed))
    }

    /// Sent so far.
    #[must_use]
    pub fn sent(&self) -> Count {
        self.sent.load()
    }

    /// Received so far.
    #[must_use]
    pub fn received(&self) -> Count {
        self.received.load()
    }
}

impl Pair {
    fn add(&self, packets: u64, bytes: u64) {
        self.packets.fetch_add(packets, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn load(&self) -> Count {
        Count { packets: self.packets.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_are_counted_apart() {
        let counters = Counters::default();
        counters.add_sent(2, 3000);
        counters.add_sent(1, 100);
        counters.add_received(1, 40);
        assert_eq!(counters.sent(), Count { packets: 3, bytes: 3100 });
        assert_eq!(counters.received(), Count { packets: 1, bytes: 40 });
        counters.add_wire_sent(148);
        counters.add_wire_received(92);
        assert_eq!(counters.wire(), (148, 92));
    }

    #[test]
    fn an_initiation_in_vain_is_counted_with_the_next_one() {
        let counters = Counters::default();
        for in_vain in [false, true, true] {
            counters.add_initiation(in_vain);
        }
        assert_eq!(counters.initiations(), (3, 2));
    }
}
