//! What an administrator, a provider or a NAT does to the network under a running tunnel. Nothing needs a restart.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::harness::daemon::Daemon;
use crate::harness::host::Host;
use crate::harness::net::{Links, PORT};
use crate::harness::paced::Paced;
use crate::harness::packets::noise;
use crate::harness::stock::{Peering, Program, installed};
use crate::harness::traffic::{learn_path_mtu, ping, pings_pass, reached, tcp_transfer};
use crate::harness::*;

/// Pings from a LAN host, 20 a second, while something happens.
struct Pinging {
    thread: std::thread::JoinHandle<host::Finished>,
    began: Instant,
    count: usize,
}

impl Pinging {
    fn start(from: &Host, to: std::net::IpAddr, for_seconds: usize) -> Self {
        let count = 20 * for_seconds;
        // ping hardly waits after the last one: those of a second more give the others time to be answered.
        let sent = (count + 20).to_string();
        let command = from.command("ping", &["-n", "-i", "0.05", "-W", "1", "-c", &sent, &to.to_string()]);
        let thread = std::thread::spawn(move || host::finish(command, seconds(60)));
        Self { thread, began: Instant::now(), count }
    }

    /// Sleeps until it has gone on for so long.
    fn at(&self, after: Duration) {
        std::thread::sleep(after.saturating_sub(self.began.elapsed()));
    }

    /// How many of its pings were lost.
    fn lost(self) -> usize {
        let said = self.thread.join().unwrap().stdout;
        let answers = said.lines().filter(|line| line.contains(" bytes from "));
        let number = |line: &str| line.split_once("icmp_seq=")?.1.split_whitespace().next()?.parse::<usize>().ok();
        let answered: BTreeSet<usize> = answers.filter_map(number).filter(|number| *number <= self.count).collect();
        self.count - answered.len()
    }
}

/// A's uplink has two addresses. The one on which the tunnel runs goes; the other takes over at once, and back.
fn another_source_is_picked(ipv4: bool) {
    let Some(net) = Net::two_sites() else { return };
    let gateway = net.gateway(A);
    gateway.sysctl("net/ipv4/conf/all/promote_secondaries", "1");
    let (first, second, far) = if ipv4 {
        ("198.18.1.1", "198.18.1.50", net.site(B).endpoint4())
    } else {
        ("2001:db8:1::1", "2001:db8:1::50", net.site(B).endpoint6())
    };
    let (length, nodad) = if ipv4 { (24, "") } else { (64, "nodad") };
    gateway.ip(&format!("address add {second}/{length} dev wan {nodad}\n"));
    let b = net.start(B, &net.file(B, &[A]).endpoint(None::<String>));
    // A knows by which address it is reached only once B has answered there.
    let a = net.start(A, &net.file(A, &[B]).endpoint(Some(far)));
    a.wait_up();
    b.wait_up();
    let runs_on = || b.state().endpoint(0).replace(['[', ']'], "");
    let lost = [(); 3].map(|()| {
        let (old, new) = if runs_on().starts_with(&format!("{second}:")) { (second, first) } else { (first, second) };
        let pinging = Pinging::start(net.lan(A), net.site(B).lan4(), 6);
        pinging.at(seconds(1));
        gateway.ip(&format!("address del {old}/{length} dev wan\n"));
        b.wait("B follows to the other address", |status| status.endpoint(0).contains(new));
        let lost = pinging.lost();
        gateway.ip(&format!("address add {old}/{length} dev wan {nodad}\n"));
        lost
    });
    // Gaps of 0.2 s and, on a machine that was busy, 4 s: nothing waited for a timer of 5 s.
    assert!(lost.iter().min() <= Some(&4) && lost.iter().max() < Some(&80), "{lost:?}");
    pings_pass(net.lan(B), net.site(A).lan4(), &["-c", "3", "-i", "0.1", "-W", "1"]);
    assert!(!a.log().contains("ERROR"), "{}", a.log());
}

#[test]
fn when_the_source_address_goes_another_is_picked_over_ipv4() {
    another_source_is_picked(true);
}

#[test]
fn when_the_source_address_goes_another_is_picked_over_ipv6() {
    another_source_is_picked(false);
}

/// A stock peer is told to reach us over the other family, and back, while pings pass: the same session goes on.
#[test]
fn a_peer_may_move_from_ipv4_to_ipv6_and_back() {
    if !installed(&Program::WireguardGo.path()) {
        return;
    }
    let Some(net) = Net::two_sites() else { return };
    let mut file = net.file(A, &[B]).endpoint(None::<String>);
    file.connections[0].inside = None;
    let a = net.start(A, &file);
    a.wait("it answers", |_| true);
    let peering = Peering { endpoint: Some(net.site(A).endpoint4()), keepalive: Some(1), ..Peering::default() };
    let b = net.stock(Program::WireguardGo, B, A, &peering);
    a.wait_up();
    let pinging = Pinging::start(net.lan(B), net.site(A).lan4(), 5);
    let moves = [net.site(A).endpoint6(), net.site(A).endpoint4(), net.site(A).endpoint6()];
    for (to, after) in moves.into_iter().zip(1..) {
        pinging.at(seconds(after));
        let key = net.site(A).public().to_string();
        let expected = if to.is_ipv4() { net.site(B).endpoint4() } else { net.site(B).endpoint6() };
        // Said again until A follows: an answer that is under way just then moves B back to where it comes from.
        a.wait("A follows", |status| {
            let follows = status.endpoint(0) == expected.to_string();
            let tell = || b.wg(&["set", &b.name, "peer", &key, "endpoint", &to.to_string()]).status.success();
            assert!(follows || tell());
            follows
        });
    }
    assert_eq!(pinging.lost(), 0);
}

/// A NAT that forgets a silent flow after 4 s and then gives another port. A says something each 6 s and is answered.
#[test]
fn a_nat_that_gives_another_port_after_each_silence_costs_no_packet() {
    let Some(net) = Net::two_sites() else { return };
    net.nat(A, 4);
    let masquerade =
        "chain post { type nat hook postrouting priority srcnat - 1\nip saddr 198.18.1.0/24 masquerade random\n}";
    net.internet.nft("moody", &[masquerade.to_owned()]);
    let mut file = net.file(A, &[B]);
    file.connections[0].tunnel.push("persistent_keepalive = \"off\"".into());
    let b = net.start(B, &net.file(B, &[A]).endpoint(None::<String>));
    let a = net.start(A, &file);
    a.wait_up();
    b.wait_up();
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        // What is tested is the passing of time without traffic.
        std::thread::sleep(seconds(6));
        pings_pass(net.lan(A), net.site(B).lan4(), &["-c", "2", "-i", "0.1", "-W", "1"]);
        pings_pass(net.lan(B), net.site(A).lan4(), &["-c", "2", "-i", "0.1", "-W", "1"]);
        seen.insert(b.state().endpoint(0));
    }
    assert!(seen.len() > 1, "the NAT always gave the same port: {seen:?}");
}

/// Everything through at this MTU, over uplinks of that one.
fn passes(mtu: u16, uplink_mtu: u16) {
    let links = Links { uplink_mtu, lan_mtu: mtu, ..Links::default() };
    let Some(net) = Net::new(2, links) else { return };
    let line = format!("mtu = {mtu}");
    let (_a, _b) = net.link(&net.file(A, &[B]).with(&line), &net.file(B, &[A]).with(&line));
    let (here, far) = (net.site(A), net.site(B));
    for (from, to) in [(here.lan4(), far.lan4()), (here.lan6(), far.lan6())] {
        learn_path_mtu(&here.lan, to, mtu);
        learn_path_mtu(&far.lan, from, mtu);
        let largest = (mtu - if to.is_ipv4() { 28 } else { 48 }).to_string();
        pings_pass(&here.lan, to, &["-c", "20", "-i", "0.02", "-M", "do", "-s", &largest]);
        tcp_transfer(&here.lan, &far.lan, to, &noise(5, 8 << 20), seconds(20));
        tcp_transfer(&far.lan, &here.lan, from, &noise(6, 8 << 20), seconds(20));
    }
}

#[test]
fn the_largest_mtu_passes_over_an_uplink_that_carries_it() {
    passes(65_000, 65_200);
}

#[test]
fn an_mtu_larger_than_the_uplink_s_passes_in_fragments() {
    passes(9000, 1500);
}

/// The uplink goes down, as a cable that is pulled, and comes back without any route; then the routes come.
#[test]
fn an_uplink_that_was_down_carries_the_tunnel_again_at_once() {
    let Some(net) = Net::two_sites() else { return };
    let (a, _b) = net.link(&net.file(A, &[B]), &net.file(B, &[A]));
    for _ in 0..3 {
        net.gateway(A).ip("link set wan down\n");
        let (pings, _) = ping(net.lan(A), net.site(B).lan4(), &["-c", "3", "-i", "0.1", "-W", "1"]);
        assert_eq!(pings.received, 0);
        net.gateway(A).ip(
            "link set wan up\naddress replace 2001:db8:1::1/64 dev wan nodad\nroute add default via 198.18.1.254\n",
        );
        // Below the tunnel's 5 s.
        reached(net.lan(A), net.site(B).lan4(), Duration::from_millis(4500));
        pings_pass(net.lan(B), net.site(A).lan4(), &["-c", "2", "-i", "0.1", "-W", "1"]);
    }
    up_all_the_time(&a);
}

fn up_all_the_time(daemon: &Daemon<'_>) {
    assert!(daemon.state().is_up());
    assert_eq!(daemon.log().matches("tunnel is up").count(), 1, "{}", daemon.log());
}

/// The site moves to another provider: another subnet, another gateway, nothing left of the old one.
#[test]
fn a_site_that_changes_its_provider_goes_on() {
    let Some(net) = Net::two_sites() else { return };
    let (a, b) = net.link(&net.file(A, &[B]), &net.file(B, &[A]).endpoint(None::<String>));
    net.internet.ip("address add 198.19.1.254/24 dev u1\n");
    net.gateway(A).ip("address flush dev wan\naddress add 198.19.1.1/24 dev wan\nroute add default via 198.19.1.254\n");
    pings_pass(net.lan(A), net.site(B).lan4(), &["-c", "3", "-i", "0.1", "-W", "1"]);
    b.wait("B follows", |status| status.endpoint(0) == format!("198.19.1.1:{PORT}"));
    pings_pass(net.lan(B), net.site(A).lan4(), &["-c", "3", "-i", "0.1", "-W", "1"]);
    up_all_the_time(&a);
}

/// Gives A a second one, `wan2`, without a route.
fn second_uplink(net: &Net) {
    net.gateway(A).ip(&format!(
        "link add name wan2 type veth peer name u1b netns {}\n\
         link set wan2 up\n\
         address add 198.19.1.1/24 dev wan2\n\
         address add 2001:db8:91::1/64 dev wan2 nodad\n",
        net.internet.name()
    ));
    net.internet
        .ip("link set u1b up\naddress add 198.19.1.254/24 dev u1b\naddress add 2001:db8:91::fe/64 dev u1b nodad\n");
}

/// Links A, which knows B by `far`, and B, which knows no endpoint, and remembers none of the other family from before: each
/// has a name, and so a state, of its own.
fn link_over(net: &Net, far: SocketAddr) -> (Daemon<'_>, Daemon<'_>) {
    let name = if far.is_ipv4() { "ls4" } else { "ls6" };
    let [mut a, mut b] = [net.file(A, &[B]).endpoint(Some(far)), net.file(B, &[A]).endpoint(None::<String>)];
    (a.name, b.name) = (name.to_owned(), name.to_owned());
    net.link(&a, &b)
}

/// The dear uplink is left as soon as the cheap one has its route again, although all would still pass there.
#[test]
fn a_better_route_is_followed_while_the_old_way_still_works() {
    let Some(net) = Net::two_sites() else { return };
    let gateway = net.gateway(A);
    second_uplink(&net);
    for (far, dear, cheap) in [
        (net.site(B).endpoint4(), "198.18.1.254 dev wan", "198.19.1.254 dev wan2"),
        (net.site(B).endpoint6(), "2001:db8:1::fe dev wan", "2001:db8:91::fe dev wan2"),
    ] {
        let route =
            |what: &str, way: &str, metric| gateway.ip(&format!("route {what} default via {way} metric {metric}\n"));
        route("del", dear, if far.is_ipv4() { 0 } else { 1024 });
        route("add", dear, 200);
        let (a, b) = link_over(&net, far);
        pings_pass(net.lan(A), net.site(B).lan4(), &["-c", "2", "-i", "0.1", "-W", "1"]);
        let is_new = |endpoint: &str| ["198.19.1.1:", "[2001:db8:91::1]:"].iter().any(|new| endpoint.starts_with(new));
        let pinging = Pinging::start(net.lan(A), net.site(B).lan4(), 8);
        // So that there is always something under way on the old one.
        let streams =
            [(A, B), (B, A)].map(|(from, to)| Paced::start(net.lan(from), net.lan(to), net.site(to).lan4(), 3, 200));
        // Time for a look at what the kernel's choice has been.
        pinging.at(seconds(3));
        assert!(!is_new(&b.state().endpoint(0)));
        route("add", cheap, 100);
        b.wait("B follows", |status| is_new(&status.endpoint(0)));
        pinging.at(seconds(8));
        assert!(is_new(&b.state().endpoint(0)), "it stays there");
        drop(streams);
        let lost = pinging.lost();
        assert!(lost <= 4, "{lost}");
        let pinging = Pinging::start(net.lan(A), net.site(B).lan4(), 8);
        pinging.at(seconds(1));
        // No route by it is left, and nobody says so.
        route("del", cheap, 100);
        b.wait("B follows back", |status| !is_new(&status.endpoint(0)));
        let lost = pinging.lost();
        assert!(lost < 60, "{lost}");
        assert!(a.state().is_up() && !a.log().contains("tunnel is down"), "{}", a.log());
        drop((a, b));
        route("del", dear, 200);
        route("add", dear, if far.is_ipv4() { 0 } else { 1024 });
    }
}

/// ```text
///   A ==== internet ---- B    A has two uplinks, both up; its default route moves from the first to the second
/// ```
#[test]
fn when_the_default_route_moves_to_another_uplink_the_tunnel_follows() {
    let Some(net) = Net::two_sites() else { return };
    let gateway = net.gateway(A);
    second_uplink(&net);
    for far in [net.site(B).endpoint4(), net.site(B).endpoint6()] {
        gateway
            .ip("route replace default via 198.18.1.254 dev wan\nroute replace default via 2001:db8:1::fe dev wan\n");
        let (a, b) = link_over(&net, far);
        pings_pass(net.lan(A), net.site(B).lan4(), &["-c", "2", "-i", "0.1", "-W", "1"]);
        gateway.ip("route del default via 2001:db8:1::fe dev wan\nroute replace default via 198.19.1.254 dev wan2\n\
             route add default via 2001:db8:91::fe dev wan2\n");
        // Whoever answers on the old way has lost it.
        net.internet
            .nft("old", &["chain old { type filter hook forward priority filter\noifname \"u1\" drop\n}".into()]);
        eventually(seconds(10), "pings pass on the new way", || {
            let (pings, _) = ping(net.lan(A), net.site(B).lan4(), &["-c", "2", "-i", "0.2", "-W", "1"]);
            (pings.received > 0).then_some(())
        });
        b.wait("B follows", |status| {
            let endpoint = status.endpoint(0);
            endpoint.starts_with("198.19.1.1:") || endpoint.starts_with("[2001:db8:91::1]:")
        });
        assert!(a.state().is_up() && !a.log().contains("tunnel is down"), "{}", a.log());
        net.internet.nft("old", &[]);
        drop((a, b));
        gateway.ip("route del default via 2001:db8:91::fe dev wan2\n");
    }
}

/// B went to another address and died there. It comes back at its endpoint, where it only waits.
#[test]
fn a_far_end_that_died_elsewhere_is_found_again_at_its_endpoint() {
    let Some(net) = Net::two_sites() else { return };
    let (a, mut b) = net.link(&net.file(A, &[B]), &net.file(B, &[A]).endpoint(None::<String>));
    let moves = |from: &str, to: &str| {
        net.gateway(B).ip(&format!(
            "address del {from}/24 dev wan\naddress add {to}/24 dev wan\nroute add default via 198.18.2.254\n"
        ));
    };
    moves("198.18.2.1", "198.18.2.99");
    pings_pass(net.lan(B), net.site(A).lan4(), &["-c", "3", "-i", "0.1", "-W", "1"]);
    a.wait("A follows", |status| status.endpoint(0) == format!("198.18.2.99:{PORT}"));
    b.kill();
    moves("198.18.2.99", "198.18.2.1");
    b.start();
    // 25 s of silence, and then its turn.
    b.wait_up_within(seconds(60));
    assert_eq!(a.wait_up().endpoint(0), net.site(B).endpoint4().to_string());
}
