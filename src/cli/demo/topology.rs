//! The five machines, and the wires between them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use anyhow::Context as _;
use nix::net::if_::if_nametoindex;
use rtnetlink::packet_route::link::{InfoData, InfoVeth};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::place::Place;

/// What a newcomer sees first.
pub(super) const PICTURE: &str = "
    LAN host A          gateway A            internet            gateway B          LAN host B
    10.1.0.2 ---- 10.1.0.1  198.51.100.2 ---- ( o ) ---- 203.0.113.2  10.2.0.1 ---- 10.2.0.2
    fd00:1::2     fd00:1::1       \\\\====== the tunnel ======//      fd00:2::1     fd00:2::2
";

/// The addresses of one site.
#[derive(Debug, Clone, Copy)]
pub(super) struct Site {
    /// Name of its interface.
    pub(super) name: &'static str,
    /// The third byte of its LAN, and all that differs in its IPv6 prefix.
    number: u8,
    /// The gateway's address on the internet.
    pub(super) outside: Ipv4Addr,
    /// The internet's end of that wire.
    router: Ipv4Addr,
    /// Its end of the tunnel, in AWS's words.
    pub(super) inside: &'static str,
}

/// Site A.
pub(super) const A: Site = Site {
    name: "site-a",
    number: 1,
    outside: Ipv4Addr::new(198, 51, 100, 2),
    router: Ipv4Addr::new(198, 51, 100, 1),
    inside: "customer",
};

/// Site B.
pub(super) const B: Site = Site {
    name: "site-b",
    number: 2,
    outside: Ipv4Addr::new(203, 0, 113, 2),
    router: Ipv4Addr::new(203, 0, 113, 1),
    inside: "aws",
};

impl Site {
    /// The LAN host.
    pub(super) fn host(self) -> [IpAddr; 2] {
        self.lan(2)
    }

    /// The networks behind the gateway.
    pub(super) fn networks(self) -> [String; 2] {
        [format!("10.{}.0.0/24", self.number), format!("fd00:{}::/64", self.number)]
    }

    fn gateway(self) -> [IpAddr; 2] {
        self.lan(1)
    }

    fn lan(self, host: u8) -> [IpAddr; 2] {
        let v6 = Ipv6Addr::new(0xfd00, self.number.into(), 0, 0, 0, 0, 0, host.into());
        [Ipv4Addr::new(10, self.number, 0, host).into(), v6.into()]
    }
}

/// The five machines.
pub(super) struct Topology {
    /// LAN host, gateway: site A.
    pub(super) a: Machines,
    /// LAN host, gateway: site B.
    pub(super) b: Machines,
    internet: Place,
    /// Whether this kernel has IPv6.
    pub(super) ipv6: bool,
}

/// The two machines of a site.
pub(super) struct Machines {
    /// The LAN host.
    pub(super) host: Place,
    /// The gateway.
    pub(super) gateway: Place,
}

impl Topology {
    /// Builds it all.
    ///
    /// # Errors
    /// What the kernel refused.
    pub(super) fn build() -> anyhow::Result<Self> {
        let machines = |host, gateway| anyhow::Ok(Machines { host: Place::new(host)?, gateway: Place::new(gateway)? });
        let topology = Self {
            a: machines("LAN host A", "gateway A")?,
            b: machines("LAN host B", "gateway B")?,
            internet: Place::new("internet")?,
            ipv6: Path::new("/proc/sys/net/ipv6").exists(),
        };
        topology.prepare()?;
        topology.wire(A, &topology.a)?;
        topology.wire(B, &topology.b)?;
        Ok(topology)
    }

    /// Settings that hold for interfaces made later.
    fn prepare(&self) -> anyhow::Result<()> {
        let ipv6 = self.ipv6;
        for host in [&self.a.host, &self.b.host] {
            host.run(move || settings(ipv6, false))?;
        }
        for router in [&self.a.gateway, &self.b.gateway, &self.internet] {
            router.run(move || settings(ipv6, true))?;
        }
        Ok(())
    }

    fn wire(&self, site: Site, machines: &Machines) -> anyhow::Result<()> {
        let (host, internet) = (machines.host.namespace(), self.internet.namespace());
        machines.gateway.run(move || netlink(async |kernel| wire(&kernel, "lan0", "eth0", host).await))?;
        machines.gateway.run(move || netlink(async |kernel| wire(&kernel, "wan0", site.name, internet).await))?;
        self.connect(&machines.gateway, "lan0", &site.gateway(), &[])?;
        self.connect(&machines.host, "eth0", &site.host(), &site.gateway())?;
        self.connect(&self.internet, site.name, &[site.router.into()], &[])?;
        self.connect(&machines.gateway, "wan0", &[site.outside.into()], &[site.router.into()])
    }

    /// Gives `interface` its addresses, brings it up, and sets the default routes.
    fn connect(
        &self,
        place: &Place,
        interface: &'static str,
        addresses: &[IpAddr],
        routers: &[IpAddr],
    ) -> anyhow::Result<()> {
        let known = |address: &&IpAddr| self.ipv6 || address.is_ipv4();
        let addresses: Vec<_> = addresses.iter().filter(known).copied().collect();
        let routers: Vec<_> = routers.iter().filter(known).copied().collect();
        place.run(move || netlink(async |kernel| connect(&kernel, interface, &addresses, &routers).await))
    }
}

/// Writes the settings of the thread's own namespace.
fn settings(ipv6: bool, router: bool) -> anyhow::Result<()> {
    let set = |name: &str, value: &str| {
        std::fs::write(format!("/proc/sys/net/{name}"), value).with_context(|| format!("cannot set {name}"))
    };
    set("ipv4/ping_group_range", "0 0")?;
    if ipv6 {
        set("ipv6/conf/default/disable_ipv6", "0")?;
        set("ipv6/conf/default/accept_dad", "0")?;
    }
    if router {
        set("ipv4/ip_forward", "1")?;
    }
    if router && ipv6 {
        set("ipv6/conf/all/forwarding", "1")?;
    }
    netlink(async |kernel| Ok(kernel.link().set(LinkUnspec::new_with_index(1).up().build()).execute().await?))
}

/// Does `job` with a netlink socket of the thread's own namespace.
fn netlink(job: impl AsyncFnOnce(Handle) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        job(handle).await
    })
}

/// A veth pair: `near` here, `far` in the other namespace.
async fn wire(kernel: &Handle, near: &str, far: &str, namespace: i32) -> anyhow::Result<()> {
    let peer = LinkMessageBuilder::<LinkUnspec>::new().name(far.to_owned()).setns_by_fd(namespace).build();
    let pair = LinkVeth::new(near, far).set_info_data(InfoData::Veth(InfoVeth::Peer(peer))).build();
    kernel.link().add(pair).execute().await.with_context(|| format!("cannot make the veth pair {near} - {far}"))
}

async fn connect(kernel: &Handle, interface: &str, addresses: &[IpAddr], routers: &[IpAddr]) -> anyhow::Result<()> {
    let index = if_nametoindex(interface)?;
    for &address in addresses {
        let length = if address.is_ipv4() { 24 } else { 64 };
        kernel
            .address()
            .add(index, address, length)
            .execute()
            .await
            .with_context(|| format!("cannot add {address}"))?;
    }
    kernel.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await?;
    for &router in routers {
        let everywhere =
            if router.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
        let route = RouteMessageBuilder::<IpAddr>::new().destination_prefix(everywhere, 0)?.gateway(router)?.build();
        kernel.route().add(route).execute().await.with_context(|| format!("cannot add the route by {router}"))?;
    }
    Ok(())
}
