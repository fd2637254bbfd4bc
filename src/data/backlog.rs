//! What was read from a queue and not sent yet: small packets go before super-packets that wait.
//!
//! ```text
//! Queue::read -> small ----------------------------------> this turn's packets
//!             -> large, or of a flow with one that waits -> waiting, first come first served -> as many as a turn takes
//! ```
//!
//! Under load the queue of an interface is milliseconds long, and the kernel's is a line: a ping, a call or a key
//! press would wait behind all of it. So the line is read at once, and waits here. Within a queue no flow is reordered.

use std::collections::VecDeque;
use std::io;

use crate::packet::Reason;
use crate::packet::cleartext::SPARE;
use crate::packet::flow::Flow;
use crate::packet::reason::DropCounters;
use crate::packet::vnet::{self, Gso, Vnet};

/// A super-packet is at most this long, with its virtio-net header, in bytes.
pub(super) const LARGEST: usize = vnet::LEN + 65_535;
/// Room for one of them.
const LARGE: usize = (LARGEST + SPARE).next_multiple_of(SPARE);
/// How many are read ahead: 5 MB, 8 ms at 5 Gbit/s. Fewer leave more of the line to the kernel, and a ping waits longer.
const LARGES: usize = 80;
/// Bytes of them that are sent in a turn: so long a small packet that comes meanwhile has to wait.
const TURN: usize = 3 * LARGEST;
/// Room for a small packet: all that is no super-packet, at an ordinary MTU.
const SMALL: usize = 2048;

/// One packet as the kernel handed it over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item {
    pub(super) vnet: Vnet,
    pub(super) start: usize,
    pub(super) len: usize,
}

impl Item {
    const EMPTY: Self = Self { vnet: Vnet::PLAIN, start: 0, len: 0 };

    pub(super) fn packet<'a>(&self, arena: &'a [u8]) -> &'a [u8] {
        arena.get(self.start..self.start + self.len).unwrap_or_default()
    }

    /// The packet, and the spare bytes behind it.
    pub(super) fn buffer<'a>(&self, arena: &'a mut [u8]) -> &'a mut [u8] {
        arena.get_mut(self.start..self.start + self.len + SPARE).unwrap_or_default()
    }
}

/// A packet that waits for its turn.
struct Waiting {
    item: Item,
    flow: Option<Flow>,
}

/// Packets that were read, and those of this turn.
pub(super) struct Backlog {
    /// Places for [`Backlog::SMALLS`] small packets, then for [`LARGES`] large ones.
    arena: Box<[u8]>,
    /// This turn's: `smalls` small ones, then large ones, `count` together.
    items: [Item; Self::ITEMS],
    smalls: usize,
    count: usize,
    waiting: VecDeque<Waiting>,
    /// Where large places begin that are free; the one used last comes first, as it is in the cache.
    free: Vec<usize>,
}

impl Backlog {
    /// Small packets sent in one turn, at the most.
    pub(super) const SMALLS: usize = 64;
    /// All packets sent in one turn, at the most: however many small ones there are, eight others move on.
    pub(super) const ITEMS: usize = Self::SMALLS + 8;
    /// Where the large places begin.
    const LARGE_START: usize = Self::SMALLS * SMALL;

    pub(super) fn new() -> Self {
        Self {
            arena: vec![0; Self::LARGE_START + LARGES * LARGE].into_boxed_slice(),
            items: [Item::EMPTY; Self::ITEMS],
            smalls: 0,
            count: 0,
            waiting: VecDeque::with_capacity(LARGES),
            free: (0..LARGES).rev().map(|place| Self::LARGE_START + place * LARGE).collect(),
        }
    }

    /// Forgets the last turn's packets, reads by `read` until there is nothing more, no room, or `most` packets, and
    /// chooses this turn's. What is no packet is counted in `drops`.
    ///
    /// # Errors
    /// When the kernel refuses. An error comes alone: what was read before it is handed over first.
    pub(super) fn fill(
        &mut self,
        most: usize,
        read: impl FnMut(&mut [u8]) -> io::Result<usize>,
        drops: &DropCounters,
    ) -> io::Result<()> {
        self.release();
        self.take_in(most.min(Self::SMALLS + LARGES), read, drops)?;
        self.smalls = self.count;
        self.choose();
        Ok(())
    }

    /// Whether packets are left for the next turn.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// How many packets this turn has, and how many bytes.
    pub(super) fn size(&self) -> (usize, usize) {
        let items = self.items.get(..self.count).unwrap_or_default();
        (items.len(), items.iter().map(|item| item.len).sum())
    }

    /// This turn's packets, the small ones and then the others, and the arena that they lie in.
    pub(super) fn parts(&mut self) -> ([&[Item]; 2], &mut [u8]) {
        let small = self.items.get(..self.smalls).unwrap_or_default();
        let large = self.items.get(self.smalls..self.count).unwrap_or_default();
        ([small, large], &mut self.arena)
    }

    fn release(&mut self) {
        let large = |item: &&Item| item.start >= Self::LARGE_START;
        let places = self.items.iter().take(self.count).filter(large).map(|item| item.start - vnet::LEN);
        self.free.extend(places);
        (self.smalls, self.count) = (0, 0);
    }

    fn take_in(
        &mut self,
        most: usize,
        mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
        drops: &DropCounters,
    ) -> io::Result<()> {
        for _ in 0..most {
            let Some(room) = self.free.last().and_then(|&at| self.arena.get_mut(at..at + LARGEST)) else { break };
            match read(room) {
                Ok(length) if length >= vnet::LEN => self.take(length, drops),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ if self.count > 0 || self.has_waiting() => break,
                Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) => return Err(error),
            }
            if self.count == Self::SMALLS {
                break;
            }
        }
        Ok(())
    }

    /// Takes what was read into the first free place: `length` bytes.
    fn take(&mut self, length: usize, drops: &DropCounters) {
        let Some(&at) = self.free.last() else { return };
        let Some(vnet) = self.arena.get(at..at + length).and_then(Vnet::parse) else {
            return drops.add(Reason::OutMalformed, 1);
        };
        let item = Item { vnet, start: at + vnet::LEN, len: length - vnet::LEN };
        let is_small = vnet.gso == Gso::None && length + SPARE <= SMALL;
        // Where nothing waits, nobody asks.
        let flow = if is_small && !self.has_waiting() { None } else { Flow::of(item.packet(&self.arena)) };
        let follows = |one: &Waiting| one.flow.zip(flow).is_some_and(|(one, flow)| one.may_be(&flow));
        if is_small && !self.waiting.iter().any(follows) {
            let start = self.count * SMALL;
            self.arena.copy_within(item.start..item.start + item.len, start);
            self.push(Item { start, ..item });
        } else {
            self.free.pop();
            self.waiting.push_back(Waiting { item, flow });
        }
    }

    /// Those that waited longest, as many as a turn takes.
    fn choose(&mut self) {
        let mut bytes = 0;
        while let Some(next) = self.waiting.front()
            && self.count < Self::ITEMS
            && bytes + next.item.len <= TURN
        {
            bytes += next.item.len;
            let item = next.item;
            self.push(item);
            self.waiting.pop_front();
        }
    }

    fn push(&mut self, item: Item) {
        if let Some(place) = self.items.get_mut(self.count) {
            *place = item;
            self.count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: u8 = 6;
    const ICMP: u8 = 1;

    /// An IPv4 packet of `len` bytes, `number` at its end; a super-packet if it is large.
    fn packet(protocol: u8, port: u8, len: usize, number: u8) -> Vec<u8> {
        let total = u16::try_from(len).unwrap().to_be_bytes();
        let mut packet = vec![0; vnet::LEN];
        if len > 1420 {
            (packet[1], packet[4]) = (1, 100);
        }
        packet.extend([0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, port]);
        packet.resize(vnet::LEN + len - 1, 0);
        packet.push(number);
        packet
    }

    fn bulk(number: u8) -> Vec<u8> {
        packet(TCP, 1, 60_000, number)
    }

    /// The numbers of the packets of one turn.
    fn turn(backlog: &mut Backlog, queue: &mut VecDeque<Vec<u8>>) -> Vec<u8> {
        let read = |room: &mut [u8]| {
            let next = queue.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
            room[..next.len()].copy_from_slice(&next);
            Ok(next.len())
        };
        backlog.fill(usize::MAX, read, &DropCounters::default()).unwrap();
        let (items, arena) = backlog.parts();
        items.into_iter().flatten().map(|item| *item.packet(arena).last().unwrap()).collect()
    }

    #[test]
    fn a_small_packet_goes_before_large_ones_of_other_flows_and_never_before_one_of_its_own() {
        let mut queue: VecDeque<_> = (1..=5).map(bulk).collect();
        queue.extend([packet(ICMP, 0, 84, 100), packet(TCP, 1, 52, 6), packet(TCP, 2, 52, 101)]);
        let mut backlog = Backlog::new();
        assert_eq!(turn(&mut backlog, &mut queue), [100, 101, 1, 2, 3]);
        queue.extend([packet(TCP, 1, 52, 7), packet(ICMP, 0, 84, 102), bulk(8)]);
        assert_eq!(turn(&mut backlog, &mut queue), [102, 4, 5, 6, 7, 8]);
        assert!(!backlog.has_waiting());
        assert_eq!(turn(&mut backlog, &mut queue), [0; 0]);
    }

    #[test]
    fn a_flood_of_small_packets_does_not_stop_the_large_ones() {
        let mut queue: VecDeque<_> = (1..=4).map(bulk).collect();
        let small: Vec<_> = (0..200).map(|_| packet(ICMP, 0, 84, 100)).collect();
        queue.extend(small);
        let mut backlog = Backlog::new();
        let first = turn(&mut backlog, &mut queue);
        assert_eq!((first.len(), &first[64..]), (67, &[1, 2, 3][..]));
        assert_eq!(turn(&mut backlog, &mut queue).last(), Some(&4));
    }

    #[test]
    fn a_long_line_waits_in_the_kernel_and_every_packet_comes_once_and_in_order() {
        let mut queue: VecDeque<_> = (0..200).map(bulk).collect();
        let mut backlog = Backlog::new();
        let mut all = turn(&mut backlog, &mut queue);
        assert_eq!(queue.len(), 200 - LARGES);
        while backlog.has_waiting() {
            all.extend(turn(&mut backlog, &mut queue));
        }
        assert_eq!(all, (0..200).collect::<Vec<u8>>());
        turn(&mut backlog, &mut queue);
        assert_eq!(backlog.free.len(), LARGES);
    }

    #[test]
    fn an_error_comes_alone() {
        let mut backlog = Backlog::new();
        let mut calls = 0;
        let mut read = |room: &mut [u8]| {
            calls += 1;
            let small = packet(ICMP, 0, 84, 1);
            room[..small.len()].copy_from_slice(&small);
            if calls == 1 { Ok(small.len()) } else { Err(io::Error::from_raw_os_error(5)) }
        };
        let drops = DropCounters::default();
        assert!(backlog.fill(9, &mut read, &drops).is_ok());
        assert_eq!(backlog.size(), (1, 84));
        assert!(backlog.fill(9, &mut read, &drops).is_err());
        assert_eq!(backlog.size(), (0, 0));
    }

    /// Some flows, each with packets of every kind: every byte comes out once, each flow in its order, whatever is
    /// written behind a packet.
    #[test]
    fn whatever_comes_is_carried_whole_and_in_the_order_of_its_flow() {
        let mut seed = 1_u32;
        let mut random = |below: u8| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            seed.to_be_bytes()[1] % below
        };
        let mut backlog = Backlog::new();
        let (mut queue, mut expected, mut carried) = (VecDeque::new(), vec![VecDeque::new(); 5], 0);
        for round in 0..2000 {
            for _ in 0..random(if round % 50 == 0 { 150 } else { 4 }) {
                let flow = random(5);
                let len = [60, 60, 600, 1420, 9000, 40_000, 65_535][usize::from(random(7))];
                let packet = packet([TCP, TCP, 17, ICMP, 50][usize::from(flow)], flow, len, random(255));
                expected[usize::from(flow)].push_back(packet[vnet::LEN..].to_vec());
                queue.push_back(packet);
            }
            turn(&mut backlog, &mut queue);
            let (items, arena) = backlog.parts();
            let items = items.concat();
            for item in &items {
                let expected = expected[usize::from(item.packet(arena)[20])].pop_front().unwrap();
                assert!(item.packet(arena) == expected);
                item.buffer(arena)[item.len..].fill(0xee);
                carried += 1;
            }
        }
        while backlog.has_waiting() || !queue.is_empty() {
            carried += turn(&mut backlog, &mut queue).len();
        }
        turn(&mut backlog, &mut queue);
        assert!(carried > 3000 && backlog.free.len() == LARGES);
    }
}
