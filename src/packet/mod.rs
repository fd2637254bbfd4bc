//! Pure bytes in, bytes out: IP headers, checksums, the virtio-net header, segmentation, coalescing.
//!
//! Knows no other room, no file descriptor, no clock. Everything in it runs per packet on the hot path:
//! no allocation, no log, no panic on any input.

#![deny(clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::cast_possible_truncation, reason = "tests make packets out of small numbers"))]

mod bytes;
pub mod checksum;
pub mod cleartext;
pub mod coalesce;
pub mod ecn;
pub mod flow;
pub mod fragment;
pub mod icmp;
pub mod ip;
pub mod mss;
pub mod reason;
pub mod segment;
pub mod vnet;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::fmt;

pub use cleartext::Cleartext;
pub use ip::Header;
pub use reason::Reason;
pub use vnet::Vnet;

/// The largest inner packet, in bytes, that a tunnel carries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Mtu(u16);

impl Mtu {
    /// 1,420: what fits an Ethernet path under IPv6 and WireGuard (1,500 - 40 - 8 - 32).
    pub const DEFAULT: Self = Self(1420);
    /// 1,280, the least that IPv6 allows (RFC 8200, section 5); below it Linux takes IPv6 off an interface.
    pub const MIN: Self = Self(1280);
    /// 65,000, as far as a tunnel over loopback or jumbo paths can go.
    pub const MAX: Self = Self(65_000);

    /// 256, below which we do not follow an interface: room for every header that we write.
    const FLOOR: u32 = 256;

    /// What an interface of `bytes` carries, as its admin sets it: brought within 256 and [`Mtu::MAX`].
    #[must_use]
    pub fn of_interface(bytes: u32) -> Self {
        let within = bytes.clamp(Self::FLOOR, Self::MAX.0.into());
        Self(u16::try_from(within).unwrap_or(Self::MAX.0))
    }

    /// An MTU of `bytes`, if between [`Mtu::MIN`] and [`Mtu::MAX`].
    #[must_use]
    pub const fn new(bytes: u16) -> Option<Self> {
        if bytes >= Self::MIN.0 && bytes <= Self::MAX.0 { Some(Self(bytes)) } else { None }
    }

    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for Mtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
