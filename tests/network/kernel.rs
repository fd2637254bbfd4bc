//! With the Linux kernel's own WireGuard, in a machine of its own: see `tests/harness/machine.rs`.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use linkspan::tunnel::key::{PresharedKey, PrivateKey};
use nix::sys::signal::Signal;

use crate::harness::daemon::write_secret;
use crate::harness::file::File;
use crate::harness::host::{Host, at};
use crate::harness::machine::{Machine, NUMBER};
use crate::harness::packets::noise;
use crate::harness::traffic::{none_is_lost, ping};
use crate::harness::*;

const WHOLE: usize = 10 << 20;
/// An emulated machine beside other tests is slow.
const PATIENCE: Duration = seconds(60);

/// The machine as the far end of the only site.
struct Far<'n> {
    net: &'n Net,
    machine: Machine,
    key: PrivateKey,
}

impl<'n> Far<'n> {
    fn new(net: &'n Net) -> Option<Self> {
        Some(Self { net, machine: Machine::boot(net)?, key: PrivateKey::generate().unwrap() })
    }

    /// `wg0` anew. What follows the peer's key and networks in `wg set` is `peering`.
    fn configure(&mut self, peering: &str) {
        let a = self.net.site(A);
        let networks = a.networks().join(",");
        self.machine.run(&format!(
            "ip link del wg0 2>/dev/null; echo {private} >/tmp/private; ip link add wg0 type wireguard && wg set wg0 \
             private-key /tmp/private listen-port 51820 peer {public} allowed-ips {networks} {peering} && ip address add \
             10.{NUMBER}.0.2/32 dev wg0 && ip address add fd00:{NUMBER}::2/128 dev wg0 && ip link set wg0 up && ip route \
             add 10.1.0.0/16 dev wg0 && ip -6 route add fd00:1::/48 dev wg0",
            private = self.key.reveal().as_str(),
            public = a.public(),
        ));
    }

    fn file(&self, endpoint: Option<SocketAddr>, preshared_key: Option<&str>) -> File {
        let mut file = self.net.file(A, &[A]).endpoint(endpoint);
        let connection = &mut file.connections[0];
        connection.networks = vec![format!("10.{NUMBER}.0.0/16"), format!("fd00:{NUMBER}::/48")];
        connection.public_key = self.key.public().to_string();
        connection.inside = None;
        if let Some(key) = preshared_key {
            let path = self.net.directory("preshared").join("key");
            write_secret(&path, &format!("{key}\n"), 0o600);
            connection.tunnel.push(format!("preshared_key_file = {path:?}"));
        }
        file
    }

    /// Pings of both families both ways, and 10 MB each way with their checksums.
    fn everything_passes(&mut self) {
        let lan = &self.net.site(A).lan;
        let far6 = IpAddr::from([0xfd00, NUMBER.into(), 0, 0, 0, 0, 0, 2]);
        for far in [self.machine.inside(), far6] {
            answers(lan, far);
        }
        self.machine.run("ping -q -c 3 10.1.0.2 && ping -q -c 3 fd00:1::2");
        self.send();
        self.receive();
    }

    fn connect(&self, port: u16) -> TcpStream {
        let remote = at(self.machine.inside(), port);
        let attempt = || self.net.lan(A).run(|| TcpStream::connect_timeout(&remote, seconds(5))).ok();
        let stream = eventually(seconds(20), "it listens", attempt);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn send(&mut self) {
        let content = noise(8, WHOLE);
        self.machine.begin("nc -l -p 7000 | sha256sum");
        let mut stream = self.connect(7000);
        stream.write_all(&content).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let said = self.machine.end(PATIENCE);
        assert_eq!(said.split_whitespace().next(), Some(self.sha256(&content).as_str()));
    }

    fn receive(&mut self) {
        let said =
            self.machine.run("dd if=/dev/urandom of=/tmp/whole bs=1M count=10 2>/dev/null; sha256sum /tmp/whole");
        self.machine.begin("nc -l -p 7001 </tmp/whole");
        let mut stream = self.connect(7001);
        let mut content = Vec::with_capacity(WHOLE);
        stream.read_to_end(&mut content).unwrap();
        drop(stream);
        self.machine.end(PATIENCE);
        assert_eq!((content.len(), said.split_whitespace().next()), (WHOLE, Some(self.sha256(&content).as_str())));
    }

    fn sha256(&self, content: &[u8]) -> String {
        let path = self.net.directory("content").join("whole");
        fs::write(&path, content).unwrap();
        let output = Command::new("sha256sum").arg(path).output().unwrap();
        String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().to_owned()
    }
}

#[test]
fn the_kernel_s_wireguard_answers_initiates_and_moves() {
    let Some(net) = Net::new(1, net::Links::default()) else { return };
    let Some(mut far) = Far::new(&net) else { return };
    we_initiate(&net, &mut far);
    it_initiates(&net, &mut far);
    linkspan_wg_initiates(&net, &mut far);
    if long() {
        a_rekey_loses_nothing(&net, &mut far);
    }
}

/// Five pings are answered, however late: without -w, `ping` itself waits for no more than two round trips.
fn answers(from: &Host, to: IpAddr) {
    let (pings, finished) = ping(from, to, &["-c", "5", "-w", "20", "-i", "0.1", "-s", "1300"]);
    assert_eq!(pings.received, 5, "{finished:?}");
}

/// Over IPv4, with a preshared key; then both ends move.
fn we_initiate(net: &Net, far: &mut Far<'_>) {
    let preshared = PresharedKey::generate().unwrap().reveal();
    far.machine.run(&format!("echo {} >/tmp/preshared", preshared.as_str()));
    far.configure("preshared-key /tmp/preshared");
    let mut a = net.start(A, &far.file(Some(far.machine.endpoint4()), Some(&preshared)));
    a.wait_up_within(PATIENCE);
    far.everything_passes();

    net.gateway(A).ip(
        "address del 198.18.1.1/24 dev wan\naddress add 198.18.1.99/24 dev wan\nroute add default via 198.18.1.254\n",
    );
    answers(net.lan(A), far.machine.inside());
    assert!(far.machine.run("wg show wg0 endpoints").ends_with("198.18.1.99:51820"));
    far.machine.run(
        "ip address del 198.18.9.1/24 dev eth0; ip address add 198.18.9.77/24 dev eth0; ip route add default via \
         198.18.9.254; ping -q -c 5 -W 5 10.1.0.2",
    );
    a.wait("A follows", |status| status.endpoint(0) == "198.18.9.77:51820");
    answers(net.lan(A), far.machine.inside());
    a.stop();
}

/// Over IPv6, without a preshared key.
fn it_initiates(net: &Net, far: &mut Far<'_>) {
    let mut a = net.start(A, &far.file(None, None));
    a.wait("it answers", |_| true);
    far.configure("endpoint [2001:db8:1::1]:51820 persistent-keepalive 5");
    a.wait_up_within(PATIENCE);
    assert_eq!(a.state().endpoint(0), far.machine.endpoint6().to_string());
    far.everything_passes();
    a.stop();
}

/// With A's key and `wg` instead of a file, over IPv6: the IPv4 addresses are others by now.
fn linkspan_wg_initiates(net: &Net, far: &mut Far<'_>) {
    far.configure("");
    let mut a = net.wg_interface(net.gateway(A));
    let (name, key) = (a.name.clone(), a.secret("site", &net.site(A).key.reveal()));
    let (key, public, endpoint) = (key.display(), far.key.public(), far.machine.endpoint6());
    a.set(&format!(
        "private-key {key} listen-port 51820 peer {public} allowed-ips 10.{NUMBER}.0.0/16,fd00:{NUMBER}::/48 endpoint \
         {endpoint}"
    ));
    net.gateway(A).ip(&format!(
        "link set {name} up\nroute add 10.{NUMBER}.0.0/16 dev {name}\nroute add fd00:{NUMBER}::/48 dev {name}\n"
    ));
    far.everything_passes();
    a.signal(Signal::SIGTERM);
    assert!(a.wait_exit(seconds(15)).success());
}

/// 140 s of pings with transfers between them: the rekey at 120 s is in it.
fn a_rekey_loses_nothing(net: &Net, far: &mut Far<'_>) {
    far.configure("");
    let a = net.start(A, &far.file(Some(far.machine.endpoint6()), None));
    a.wait_up_within(PATIENCE);
    let to = far.machine.inside().to_string();
    let pinging = net.lan(A).command("ping", &["-n", "-i", "0.02", "-c", "7000", "-w", "200", &to]);
    let pings = std::thread::spawn(move || host::finish(pinging, seconds(300)));
    while !pings.is_finished() {
        far.send();
        far.receive();
        std::thread::sleep(seconds(5));
    }
    none_is_lost(&pings.join().unwrap(), 7000, "140 s");
}
