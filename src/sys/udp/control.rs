//! Control messages of `sendmsg`, encoded into a fixed buffer.
//!
//! By the kernel's layout (`struct cmsghdr`: a size_t, two ints, the data, each message padded to a size_t), which
//! is the same for every C library. The kernel copies the buffer, so that it needs no alignment.

use std::net::IpAddr;

use super::Local;

const HEADER: usize = size_of::<usize>() + 2 * size_of::<libc::c_int>();
/// Segment size, ECN, and the larger packet info with its 20 bytes.
const CAPACITY: usize = space(size_of::<u16>()) + space(size_of::<libc::c_int>()) + space(20);

/// What the kernel is told with one datagram or run.
pub(super) struct Control {
    bytes: [u8; CAPACITY],
    len: usize,
}

impl Control {
    /// ECN bits, for a run the size of its datagrams, and where it goes out.
    pub(super) fn new(ipv4: bool, ecn: u8, segment: Option<u16>, from: Option<Local>) -> Self {
        let mut control = Self { bytes: [0; CAPACITY], len: 0 };
        let (level, kind) =
            if ipv4 { (libc::IPPROTO_IP, libc::IP_TOS) } else { (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) };
        control.push(level, kind, &libc::c_int::from(ecn & 3).to_ne_bytes());
        if let Some(segment) = segment {
            control.push(libc::SOL_UDP, libc::UDP_SEGMENT, &segment.to_ne_bytes());
        }
        if let Some((address, interface)) = from {
            control.push_source(address, interface);
        }
        control
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.split_at(self.len).0
    }

    fn push_source(&mut self, address: IpAddr, interface: u32) {
        match address {
            IpAddr::V4(address) => {
                let mut info = [0; 12]; // in_pktinfo: interface, source, and one for receiving only
                info[..4].copy_from_slice(&interface.to_ne_bytes());
                info[4..8].copy_from_slice(&address.octets());
                self.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            IpAddr::V6(address) => {
                let mut info = [0; 20]; // in6_pktinfo: source, interface
                info[..16].copy_from_slice(&address.octets());
                info[16..].copy_from_slice(&interface.to_ne_bytes());
                self.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
        }
    }

    fn push(&mut self, level: libc::c_int, kind: libc::c_int, data: &[u8]) {
        let end = self.len + space(data.len());
        self.put(&(HEADER + data.len()).to_ne_bytes());
        self.put(&level.to_ne_bytes());
        self.put(&kind.to_ne_bytes());
        self.put(data);
        self.len = end;
    }

    fn put(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        self.bytes[self.len..end].copy_from_slice(bytes);
        self.len = end;
    }
}

const fn space(data: usize) -> usize {
    HEADER + data.next_multiple_of(size_of::<usize>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn sizes_are_those_of_the_c_library() {
        for data in [1, 2, 4, 8, 12, 20_u32] {
            // SAFETY: it computes, nothing more.
            let wanted = unsafe { libc::CMSG_SPACE(data) };
            assert_eq!(space(data as usize), wanted as usize);
        }
        assert_eq!(size_of::<libc::in_pktinfo>(), 12);
        assert_eq!(size_of::<libc::in6_pktinfo>(), 20);
    }

    #[test]
    fn everything_at_once_fills_the_buffer_exactly() {
        let local = (IpAddr::from(Ipv6Addr::LOCALHOST), 7);
        assert_eq!(Control::new(false, 3, Some(1452), Some(local)).bytes().len(), CAPACITY);
    }

    #[test]
    fn a_plain_send_names_only_the_ecn_bits() {
        let control = Control::new(true, 0xFF, None, None);
        assert_eq!(control.bytes().len(), space(4));
        assert_eq!(control.bytes()[HEADER], 3);
    }

    #[test]
    fn an_ipv4_source_stands_behind_its_interface() {
        let local = (IpAddr::from(Ipv4Addr::new(192, 0, 2, 1)), 0x0102_0304);
        let control = Control::new(true, 0, None, Some(local));
        let info = &control.bytes()[space(4) + HEADER..];
        assert_eq!(info[..4], 0x0102_0304_u32.to_ne_bytes());
        assert_eq!(info[4..8], [192, 0, 2, 1]);
    }
}
