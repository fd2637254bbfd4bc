//! The interface as the kernel sees it, wherever somebody has moved it to: is it up, and what is its MTU?

use std::future::pending;
use std::io;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::sleep;

use crate::control::netlink::{Monitor, Netlink};
use crate::packet::Mtu;
use crate::sys::netns;
use crate::sys::tun::Handle;

/// How often an interface in another namespace is looked at if the kernel does not tell of changes there.
const POLL: Duration = Duration::from_secs(2);

/// What matters of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LinkState {
    /// Its index; 0 in another namespace than ours, where indices are others.
    pub(super) index: u32,
    pub(super) up: bool,
    pub(super) mtu: Mtu,
    /// The interface's own MTU is larger: the kernel takes packets for it that no tunnel carries.
    pub(super) cut: bool,
}

impl LinkState {
    pub(super) const DOWN: Self = Self { index: 0, up: false, mtu: Mtu::DEFAULT, cut: false };

    fn new(index: u32, up: bool, bytes: u32) -> Self {
        let mtu = Mtu::of_interface(bytes);
        Self { index, up, mtu, cut: usize::try_from(bytes).is_ok_and(|bytes| bytes > mtu.bytes()) }
    }
}

/// Tells when the interface may have changed, and how it is.
pub(super) struct LinkWatch {
    handle: Handle,
    netlink: Netlink,
    monitor: Monitor,
    /// Whether the kernel tells of links in other namespaces.
    everywhere: bool,
    moved: bool,
}

impl LinkWatch {
    pub(super) const fn new(handle: Handle, netlink: Netlink, monitor: Monitor, everywhere: bool) -> Self {
        Self { handle, netlink, monitor, everywhere, moved: false }
    }

    /// Returns when it is worth looking.
    pub(super) async fn changed(&mut self) -> io::Result<()> {
        let must_poll = self.moved && !self.everywhere;
        tokio::select! {
            news = self.monitor.changed() => news,
            () = async { if must_poll { sleep(POLL).await } else { pending().await } } => Ok(()),
        }
    }

    pub(super) fn is_deleted(&self) -> bool {
        self.handle.is_deleted()
    }

    /// How it is; none if it cannot be found just now.
    pub(super) async fn look(&mut self) -> anyhow::Result<Option<LinkState>> {
        let name = self.handle.name().context("its name")?;
        let namespace = self.handle.namespace().context("its network namespace")?;
        self.moved = !netns::is_here(&namespace)?;
        let link = if self.moved {
            self.netlink.link_in(&namespace, &name).await?
        } else {
            self.netlink.link_named(&name).await?
        };
        Ok(link.map(|link| {
            let index = if self.moved { 0 } else { link.device.index };
            LinkState::new(index, link.device.up, link.mtu)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_mtu_beyond_what_a_tunnel_carries_is_cut_and_that_is_known() {
        let of = |bytes| LinkState::new(1, true, bytes);
        assert_eq!([68, 1420, 65_000, 65_001, 65_535].map(|bytes| of(bytes).cut), [false, false, false, true, true]);
        assert_eq!([68, 1420, 65_535].map(|bytes| of(bytes).mtu.bytes()), [256, 1420, 65_000]);
    }
}
