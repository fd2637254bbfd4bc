//! Which packets must keep their order: those of one flow.

use std::net::IpAddr;

use super::Header;
use super::ip::{Fragment, TCP, UDP};

/// What packets of one flow have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flow {
    hosts: (IpAddr, IpAddr),
    /// None for a fragment, whatever it has: not every fragment of a packet knows.
    protocol: Option<u8>,
    /// None where there are none.
    ports: Option<[u8; 4]>,
}

impl Flow {
    /// That of `packet`; none if it is malformed, or not IP.
    #[must_use]
    pub fn of(packet: &[u8]) -> Option<Self> {
        let header = Header::parse(packet)?;
        let whole = header.fragment == Fragment::No;
        let has_ports = whole && matches!(header.protocol, TCP | UDP);
        let ports = packet.get(header.header_len..header.total_len)?.first_chunk().filter(|_| has_ports);
        Some(Self {
            hosts: (header.src, header.dst),
            protocol: whole.then_some(header.protocol),
            ports: ports.copied(),
        })
    }

    /// Whether the two may be one. What one of them does not know may be the same.
    #[must_use]
    pub fn may_be(&self, other: &Self) -> bool {
        fn differ<T: PartialEq>(one: Option<T>, other: Option<T>) -> bool {
            one.zip(other).is_some_and(|(one, other)| one != other)
        }
        self.hosts == other.hosts && !differ(self.protocol, other.protocol) && !differ(self.ports, other.ports)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Recipe;
    use super::*;

    fn flow(recipe: &Recipe) -> Flow {
        Flow::of(&recipe.packet()).unwrap()
    }

    #[test]
    fn flows_differ_by_host_protocol_or_port() {
        let (one, other) = (Recipe::tcp(), Recipe { ports: [40_001, 443], ..Recipe::tcp() });
        assert!(flow(&one).may_be(&flow(&one)));
        assert!(!flow(&one).may_be(&flow(&other)));
        assert!(!flow(&one).may_be(&flow(&Recipe::udp())));
        let far = Recipe { dst: [192, 168, 77, 2].into(), ..Recipe::tcp() };
        assert!(!flow(&one).may_be(&flow(&far)));
    }

    #[test]
    fn what_has_no_ports_is_told_apart_by_host_and_protocol() {
        let without = |protocol| {
            let mut packet = Recipe::udp().packet();
            packet[9] = protocol;
            Flow::of(&packet).unwrap()
        };
        let (esp, icmp) = (50, 1);
        assert!(without(esp).may_be(&without(esp)));
        assert!(!without(esp).may_be(&without(icmp)));
        assert!(!without(icmp).may_be(&flow(&Recipe::tcp())));
    }

    #[test]
    fn a_fragment_may_be_of_any_flow_between_its_hosts() {
        let mut fragment = Recipe { dont_fragment: false, ..Recipe::udp() }.packet();
        fragment[6] |= 0x20;
        let fragment = Flow::of(&fragment).unwrap();
        assert!(fragment.may_be(&flow(&Recipe::tcp())) && flow(&Recipe::udp()).may_be(&fragment));
        let far = Recipe { dst: [192, 168, 77, 2].into(), ..Recipe::tcp() };
        assert!(!fragment.may_be(&flow(&far)));
    }
}
