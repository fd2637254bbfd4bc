//! Debian's wg-quick with `linkspan-wg` as its userspace implementation: its files as they are, up, down, nothing left.
//!
//! ```text
//!   A's gateway: wg-quick, 10.9.0.1, fd09::1 ---- internet ---- B's gateway: 10.9.0.2, fd09::2 ---- B's LAN
//! ```

use std::fs;
use std::path::PathBuf;

use linkspan::tunnel::key::PrivateKey;

use super::uapi::{INSIDE_B, PORT_B, QUICK, address, reaches};
use crate::harness::host::finish;
use crate::harness::packets::MARKER;
use crate::harness::traffic::{Echo, caller, pings_pass};
use crate::harness::wg::{LINKSPAN_WG, WgInterface, socket_of, unique_name, wg_ok};
use crate::harness::*;

/// A file for A's gateway, and what there was before it was used.
pub(super) struct Quick<'n> {
    net: &'n Net,
    /// Of the interface.
    name: String,
    pub(super) file: PathBuf,
    pub(super) key: PrivateKey,
    before: String,
}

impl<'n> Quick<'n> {
    pub(super) fn new(net: &'n Net) -> Self {
        let name = unique_name();
        let file = net.directory("quick").join(format!("{name}.conf"));
        let before = state(net);
        Self { net, name, file, key: PrivateKey::generate().unwrap(), before }
    }

    /// B's interface, which knows A.
    pub(super) fn far_end(&self) -> WgInterface<'n> {
        let b = self.net.wg_interface(self.net.gateway(B));
        b.set_key();
        b.set(&format!("listen-port {PORT_B}"));
        b.set(&format!("peer {} allowed-ips 10.9.0.1/32,fd09::1/128", self.key.public()));
        address(self.net.gateway(B), &b, 2);
        b
    }

    /// `text` with KEY and FAR for the keys.
    pub(super) fn write(&self, text: &str, far: &WgInterface<'_>) {
        let text = text.replace("KEY", self.key.reveal().as_str()).replace("FAR", &far.public().to_string());
        daemon::write_secret(&self.file, &text, 0o600);
    }

    pub(super) fn run(&self, word: &str) {
        let mut command = self.net.gateway(A).command("wg-quick", &[word, self.file.to_str().unwrap()]);
        command.env("WG_QUICK_USERSPACE_IMPLEMENTATION", LINKSPAN_WG);
        command.env("STATE_DIRECTORY", self.net.directory("wg"));
        let done = finish(command, seconds(20));
        assert!(done.status.success(), "{done:?}");
    }

    /// All is as it was before.
    pub(super) fn is_gone(&self) {
        eventually(seconds(10), "all is gone", || {
            (state(self.net) == self.before && !socket_of(&self.name).exists()).then_some(())
        });
    }
}

/// What A's gateway has of links, addresses, routes, rules and firewall.
fn state(net: &Net) -> String {
    format!("{}\n{}", net.gateway(A).footprint(), net.gateway(A).ask("nft", &["list", "ruleset"]))
}

#[test]
fn wg_quick_takes_it_as_its_userspace_implementation() {
    let Some(net) = Net::two_sites() else { return };
    let quick = Quick::new(&net);
    let b = quick.far_end();
    quick.write(
        &format!(
            "[Interface]\nPrivateKey = KEY\nAddress = 10.9.0.1/32, fd09::1/128\n[Peer]\nPublicKey = FAR\n\
             Endpoint = 198.18.2.1:{PORT_B}\nAllowedIPs = 10.9.0.0/24, fd09::/64\nPersistentKeepalive = 25\n"
        ),
        &b,
    );
    quick.run("up");
    reaches(&net, seconds(8));
    pings_pass(net.gateway(A), "fd09::2".parse().unwrap(), &QUICK);
    quick.run("down");
    quick.is_gone();
}

/// The file that most people have: everything goes into the tunnel, by wg-quick's mark, rules and firewall.
#[test]
fn wg_quick_sends_everything_through_it_and_nothing_leaves_in_clear() {
    let Some(net) = Net::two_sites() else { return };
    let quick = Quick::new(&net);
    let b = quick.far_end();
    let witness = net.directory("quick").join("hooks");
    let hooks = witness.display();
    quick.write(
        &format!(
            "[Interface]\nPrivateKey = KEY\nAddress = 10.9.0.1/24\nAddress = fd09::1/64\nMTU = 1380\nTable = auto\n\
             PreUp = echo before >>{hooks}\nPostUp = echo up %i >>{hooks}; ip link show %i\nPostDown = echo down %i \
             >>{hooks}\n\n[Peer]\nPublicKey = FAR\nEndpoint = 198.18.2.1:{PORT_B}\nAllowedIPs = 0.0.0.0/0, ::/0\n\
             PersistentKeepalive = 25\n"
        ),
        &b,
    );
    let uplink = Capture::start(net.gateway(A), "wan");
    quick.run("up");
    assert!(net.gateway(A).ask("ip", &["link", "show", &quick.name]).contains("mtu 1380"));
    assert_eq!(wg_ok(&["show", &quick.name, "fwmark"]).trim(), "0xca6c");
    reaches(&net, seconds(8));
    let far = net.site(B);
    for to in [INSIDE_B, far.lan4(), far.lan6()] {
        pings_pass(net.gateway(A), to, &QUICK);
    }
    for to in [far.lan4(), far.lan6()] {
        let echo = Echo::start(&far.lan, to);
        let socket = caller(net.gateway(A), &echo);
        for _ in 0..20 {
            socket.send(MARKER).unwrap();
            socket.recv(&mut [0; 64]).unwrap();
        }
    }
    quick.run("down");
    let frames = uplink.stop();
    assert!(frames.iter().filter_map(capture::Frame::udp).count() > 80);
    let outside = ["198.18.1.1", "198.18.2.1"].map(|address| address.parse().unwrap());
    for frame in &frames {
        assert!(!frame.contains(MARKER));
        // Neighbour discovery is the gateway's own.
        let (from, to) = frame.addresses().unwrap_or((outside[0], outside[1]));
        let own = |address: &std::net::IpAddr| outside.contains(address) || is_link_s(*address);
        assert!(own(&from) && own(&to), "{from} to {to}");
    }
    quick.is_gone();
    let name = &quick.name;
    assert_eq!(fs::read_to_string(&witness).unwrap(), format!("before\nup {name}\ndown {name}\n"));
}

/// Whether an address is of the link itself, as neighbour discovery uses them.
fn is_link_s(address: std::net::IpAddr) -> bool {
    matches!(address, std::net::IpAddr::V6(v6) if v6.is_multicast() || v6.is_unicast_link_local() || v6.is_unspecified())
}
