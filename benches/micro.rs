//! The stages of the hot path one by one, without a network: `cargo bench --bench micro`.
//!
//! A batch is one super-packet of 42 segments of 1,420 bytes.

mod gateways;

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use ipnet::{IpNet, Ipv4Net};
use linkspan::packet::checksum::Sum;
use linkspan::packet::cleartext::{Cleartext, Packets};
use linkspan::packet::coalesce::Coalescer;
use linkspan::packet::segment::SegmentScratch;
use linkspan::tunnel::AllowedIps;

use gateways::{SEGMENTS, SuperPacket, Tunnel, buffers, merge};

fn main() {
    divan::main();
}

/// The segments, each on its own.
fn packets() -> Vec<Vec<u8>> {
    let (whole, mut scratch) = (SuperPacket::new(), SegmentScratch::new());
    let mut buffer = whole.bytes().to_vec();
    let mut segments = whole.segments(&mut buffer, &mut scratch);
    std::iter::from_fn(|| segments.next().map(<[u8]>::to_vec)).collect()
}

#[divan::bench(args = [20, 1368, 57_456])]
fn checksum(bencher: Bencher<'_, '_>, len: usize) {
    let bytes: Vec<u8> = (0..len).map(|at| at.to_le_bytes()[0]).collect();
    bencher.counter(BytesCount::new(len)).bench_local(|| Sum::of(black_box(&bytes)).checksum());
}

#[divan::bench]
fn segment(bencher: Bencher<'_, '_>) {
    let (whole, mut scratch) = (SuperPacket::new(), SegmentScratch::new());
    bencher.counter(ItemsCount::new(SEGMENTS)).with_inputs(|| whole.bytes().to_vec()).bench_local_refs(|buffer| {
        let mut segments = whole.segments(buffer, &mut scratch);
        while let Some(segment) = segments.next() {
            black_box(segment);
        }
    });
}

#[divan::bench]
fn seal(bencher: Bencher<'_, '_>) {
    let (packets, tunnel) = (packets(), Tunnel::new(0));
    let (mut sealed, _) = buffers();
    bencher.counter(ItemsCount::new(SEGMENTS)).with_inputs(|| tunnel.tick()).bench_local_values(|()| {
        drop(tunnel.seal(0, &mut Packets::new(&packets), &mut sealed));
        assert_eq!(sealed.len(), SEGMENTS);
    });
}

/// As an outbound worker does it: each header is written just before its payload is sealed.
#[divan::bench]
fn segment_and_seal(bencher: Bencher<'_, '_>) {
    let (whole, mut scratch, tunnel) = (SuperPacket::new(), SegmentScratch::new(), Tunnel::new(0));
    let (mut sealed, _) = buffers();
    let input = || {
        tunnel.tick();
        whole.bytes().to_vec()
    };
    bencher.counter(ItemsCount::new(SEGMENTS)).with_inputs(input).bench_local_refs(|buffer| {
        let mut segments = whole.segments(buffer, &mut scratch);
        drop(tunnel.seal(0, &mut segments, &mut sealed));
        assert_eq!(sealed.len(), SEGMENTS);
    });
}

#[divan::bench]
fn open(bencher: Bencher<'_, '_>) {
    let (packets, tunnel) = (packets(), Tunnel::new(0));
    let (_, mut opened) = buffers();
    // A datagram is opened once only.
    let input = || {
        tunnel.tick();
        let (mut sealed, _) = buffers();
        drop(tunnel.seal(0, &mut Packets::new(&packets), &mut sealed));
        sealed
    };
    bencher
        .counter(ItemsCount::new(SEGMENTS))
        .with_inputs(input)
        .bench_local_refs(|sealed| tunnel.open(sealed, &mut opened));
}

#[divan::bench]
fn coalesce(bencher: Bencher<'_, '_>) {
    let (packets, tunnel, mut coalescer) = (packets(), Tunnel::new(0), Coalescer::new(true, true));
    let input = || {
        tunnel.tick();
        let (mut sealed, mut opened) = buffers();
        drop(tunnel.seal(0, &mut Packets::new(&packets), &mut sealed));
        tunnel.open(&sealed, &mut opened);
        opened
    };
    bencher
        .counter(ItemsCount::new(SEGMENTS))
        .with_inputs(input)
        .bench_local_refs(|opened| assert_eq!(merge(&mut coalescer, opened), 1));
}

/// The owner of an address among so many networks, none of which is found twice in a row.
#[divan::bench(args = [1, 100, 2000])]
fn allowed_ips(bencher: Bencher<'_, '_>, networks: u32) {
    let mut allowed = AllowedIps::new();
    for number in 0..networks {
        let network = Ipv4Net::new_assert(Ipv4Addr::from(0x0a00_0000 | (number << 8)), 24);
        allowed.insert(IpNet::V4(network), number);
    }
    let mut number = 0;
    bencher.bench_local(|| {
        number = (number + 7919) % networks;
        let owner = allowed.lookup(IpAddr::V4(Ipv4Addr::from(0x0a00_0005 | (number << 8))));
        assert_eq!(owner, Some(&number));
    });
}
