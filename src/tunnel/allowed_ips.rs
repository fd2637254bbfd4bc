//! Longest prefix match: which owner an address belongs to.

use std::net::IpAddr;

use ipnet::IpNet;
use prefix_trie::PrefixMap;

/// A map from networks to owners, both families in one.
#[derive(Debug, Clone)]
pub struct AllowedIps<T> {
    v4: PrefixMap<(u32, u8), T>,
    v6: PrefixMap<(u128, u8), T>,
}

impl<T> Default for AllowedIps<T> {
    fn default() -> Self {
        Self { v4: PrefixMap::new(), v6: PrefixMap::new() }
    }
}

impl<T> AllowedIps<T> {
    /// Without any network.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives `network` (its host bits do not matter) to `owner`; the owner it had before.
    pub fn insert(&mut self, network: IpNet, owner: T) -> Option<T> {
        match network.trunc() {
            IpNet::V4(net) => self.v4.insert((net.network().into(), net.prefix_len()), owner),
            IpNet::V6(net) => self.v6.insert((net.network().into(), net.prefix_len()), owner),
        }
    }

    /// The owner of the longest network that holds `address`. At most 1 us with thousands of networks.
    #[must_use]
    pub fn lookup(&self, address: IpAddr) -> Option<&T> {
        match address {
            IpAddr::V4(a) => self.v4.get_lpm(&(a.into(), 32)).map(|(_, owner)| owner),
            IpAddr::V6(a) => self.v6.get_lpm(&(a.into(), 128)).map(|(_, owner)| owner),
        }
    }
}

impl<T> FromIterator<(IpNet, T)> for AllowedIps<T> {
    fn from_iter<I: IntoIterator<Item = (IpNet, T)>>(networks: I) -> Self {
        let mut map = Self::new();
        for (network, owner) in networks {
            map.insert(network, owner);
        }
        map
    }
}

#[cfg(test)]
mod tests;
