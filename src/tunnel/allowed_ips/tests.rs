//! The trie against a plain list.
#![allow(clippy::cast_possible_truncation)]

use super::*;
use std::net::{Ipv4Addr, Ipv6Addr};

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn wide(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }
}

/// One family as a list: (address bits, mask, owner), longest prefix first.
struct List(Vec<(u128, u128, u32)>);

impl List {
    fn lookup(&self, address: u128) -> Option<u32> {
        self.0.iter().find(|(network, mask, _)| address & mask == *network).map(|(_, _, owner)| *owner)
    }
}

/// A random network within few distinct beginnings, so that networks nest and meet.
fn network(random: &mut Random, bits: u8) -> (u128, u8) {
    let len = (random.next() % u64::from(bits + 1)) as u8;
    let crowded = random.wide() & !(u128::MAX << bits.min(127)) & !(0xfc_u128 << (bits - 8));
    let mask = if len == 0 { 0 } else { (u128::MAX << (bits - len)) & (u128::MAX >> (128 - bits)) };
    (crowded & mask, len)
}

fn address(bits: u128, is_v4: bool) -> IpAddr {
    if is_v4 { Ipv4Addr::from(bits as u32).into() } else { Ipv6Addr::from(bits).into() }
}

fn build(random: &mut Random, is_v4: bool, peers: u32, map: &mut AllowedIps<u32>) -> List {
    let bits = if is_v4 { 32 } else { 128 };
    let mut list = std::collections::BTreeMap::new();
    for owner in 0..peers {
        let (network, len) = network(random, bits);
        map.insert(IpNet::new(address(network, is_v4), len).unwrap(), owner);
        list.insert((bits - len, network), owner);
    }
    let mask = |host: u8| if host == 128 { 0 } else { u128::MAX << host };
    List(list.into_iter().map(|((host, network), owner)| (network, mask(host), owner)).collect())
}

/// An address of which some bits behind those of a listed network are random.
fn query(random: &mut Random, list: &List, is_v4: bool) -> u128 {
    let all = if is_v4 { u128::from(u32::MAX) } else { u128::MAX };
    let (network, mask, _) = list.0[(random.next() % list.0.len() as u64) as usize];
    match random.next() % 4 {
        0 => random.wide() & all,
        1 => (network ^ (1 << (random.next() % 128))) & all,
        _ => (network | random.wide() & !mask) & all,
    }
}

#[test]
fn it_finds_what_a_plain_list_finds() {
    std::thread::scope(|scope| {
        for (seed, is_v4) in [(1, true), (2, true), (3, false), (4, false)] {
            scope.spawn(move || {
                let (mut random, mut map) = (Random(seed), AllowedIps::new());
                let list = build(&mut random, is_v4, 2000, &mut map);
                let found = (0..300_000).filter(|_| {
                    let asked = query(&mut random, &list, is_v4);
                    let found = map.lookup(address(asked, is_v4)).copied();
                    assert_eq!(found, list.lookup(asked), "{asked:x}");
                    found.is_some()
                });
                assert!(found.count() > 150_000);
            });
        }
    });
}

#[test]
fn a_default_route_holds_everything_of_its_family_only() {
    let map: AllowedIps<u8> =
        [("0.0.0.0/0".parse().unwrap(), 4), ("10.1.2.99/24".parse().unwrap(), 1)].into_iter().collect();
    assert_eq!(map.lookup("8.8.8.8".parse().unwrap()), Some(&4));
    assert_eq!(map.lookup("10.1.2.3".parse().unwrap()), Some(&1));
    assert_eq!(map.lookup("::1".parse().unwrap()), None);
}
