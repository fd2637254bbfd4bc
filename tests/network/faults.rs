//! System calls that fail: strace makes those of single threads of a running daemon.
//!
//! ```text
//!   lan A ---- A ====== B ---- lan B      A has one worker and is traced; nothing is wrong with B
//! ```
//!
//! There is so little to carry that the inbound thread does it all.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::daemon::Daemon;
use crate::harness::host::at;
use crate::harness::packets::noise;
use crate::harness::traffic::{Pings, ping, reached, udp_echo};
use crate::harness::*;

/// Calls a second of one thread that waits between its attempts, traffic included; one that spins makes 10,000s.
const CALMLY: f64 = 2000.0;

/// Both ends, up.
struct Linked<'n> {
    net: &'n Net,
    a: Daemon<'n>,
    b: Daemon<'n>,
    since: Instant,
}

impl<'n> Linked<'n> {
    fn new(net: &'n Net) -> Self {
        let (a, b) = net.link(&net.file(A, &[B]).with("workers = 1"), &net.file(B, &[A]));
        let linked = Self { net, a, b, since: Instant::now() };
        linked.is_well();
        linked
    }

    /// Makes `fault` (as strace's `inject` has it) happen to `thread` from now on.
    fn fail(&self, thread: &str, fault: &str) -> Fault {
        let task = self.task(thread);
        let trace = self.net.directory("traces").join(format!("{thread}-{}", fault.replace([':', '/'], "-")));
        let inject = format!("inject={fault}");
        let mut command = Command::new("strace");
        command.args(["-e", "quiet=exit,personality,path-resolution", "-s", "0", "-e", "signal=none", "-e", &inject]);
        command.args(["-p", &task.to_string(), "-o"]).arg(&trace);
        if fault.starts_with("read:") {
            // Not what one thread tells another.
            command.args(["-P", "/dev/net/tun"]);
        }
        let says = trace.with_extension("says");
        let tracer = command.stderr(fs::File::create(&says).unwrap()).spawn().expect("strace runs");
        // It says so once it has interrupted the thread: whatever that calls from then on is traced.
        let is_traced = || fs::read_to_string(&says).unwrap().contains(" attached");
        eventually(seconds(10), "strace is attached", || is_traced().then_some(()));
        Fault { tracer, trace, since: Instant::now() }
    }

    fn task(&self, thread: &str) -> i32 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.a.pid())).unwrap().map(|task| task.unwrap());
        let is_it = |task: &fs::DirEntry| fs::read_to_string(task.path().join("comm")).unwrap().trim() == thread;
        let found = tasks.into_iter().find(is_it).unwrap_or_else(|| panic!("no thread {thread}"));
        found.file_name().to_str().unwrap().parse().unwrap()
    }

    /// Some pings through the tunnel.
    fn ping(&self) -> Pings {
        ping(self.net.lan(A), self.net.site(B).lan4(), &["-c", "10", "-i", "0.03", "-W", "0.2"]).0
    }

    /// It carries so many packets there and back, without losing one.
    fn carries(&self, packets: usize) {
        udp_echo(self.net.lan(A), self.net.lan(B), self.net.site(B).lan4(), (1..=packets).map(|n| 100 * n));
    }

    /// Whether it carries packets as ever.
    fn is_well(&self) {
        self.carries(3);
    }

    fn dropped(&self, reason: &str) -> u64 {
        self.a.state().dropped(reason)
    }

    /// Waits until so many packets were dropped for this reason: all that the fault was meant for have met it.
    fn drops(&self, reason: &str, packets: u64) {
        eventually(seconds(20), reason, || (self.dropped(reason) >= packets).then_some(()));
    }

    /// It has complained of this and nothing else, and no more than once a minute.
    fn complained(&self, of: &str) {
        let (complaints, minutes) = (self.complaints(), self.since.elapsed().as_secs() / 60);
        assert!((1..=1 + minutes).contains(&(complaints.len() as u64)), "{complaints:#?}");
        assert!(complaints.iter().all(|each| each.contains(of)), "{complaints:#?}");
    }

    /// What it has complained of.
    fn complaints(&self) -> Vec<String> {
        let log = self.a.log();
        log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).map(str::to_owned).collect()
    }

    /// A connection from one LAN host to the other.
    fn connection(&self, from: usize, to: usize) -> (TcpStream, TcpStream) {
        let address = self.net.site(to).lan4();
        let listener = self.net.lan(to).listen(at(address, 0));
        let near = self.net.lan(from).connect(listener.local_addr().unwrap(), seconds(5));
        let (far, _) = listener.accept().unwrap();
        far.set_read_timeout(Some(seconds(10))).unwrap();
        (near, far)
    }
}

/// A fault that lasts until it is over or dropped.
struct Fault {
    tracer: Child,
    trace: PathBuf,
    since: Instant,
}

impl Fault {
    /// Waits until it has happened.
    fn happened(&self) {
        let injected = || fs::read_to_string(&self.trace).is_ok_and(|trace| trace.contains("(INJECTED)"));
        eventually(seconds(10), "the fault happens", || injected().then_some(()));
    }

    /// Ends it. The thread made far fewer calls than one that spins.
    fn over(self) {
        let lasted = self.since.elapsed().max(Duration::from_millis(200));
        let calls = self.calls();
        let a_second = calls.len() as f64 / lasted.as_secs_f64();
        assert!(a_second < CALMLY, "{a_second} calls a second: {:#?}", &calls[..calls.len().min(40)]);
    }

    /// Ends it. The calls of the thread meanwhile, one or more of which were made to fail.
    fn calls(mut self) -> Vec<String> {
        self.end();
        let calls: Vec<String> = fs::read_to_string(&self.trace).unwrap().lines().map(str::to_owned).collect();
        assert!(calls.iter().any(|call| call.contains("(INJECTED)")), "the fault did not happen: {calls:#?}");
        calls
    }

    fn end(&mut self) {
        let _ = kill(Pid::from_raw(i32::try_from(self.tracer.id()).unwrap()), Signal::SIGINT);
        self.tracer.wait().unwrap();
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        if let Ok(None) = self.tracer.try_wait() {
            self.end();
        }
    }
}

/// `content` goes from one end to the other, whole and unchanged.
fn transfer((near, far): &mut (TcpStream, TcpStream), content: &[u8]) {
    near.write_all(content).unwrap();
    let mut arrived = vec![0; content.len()];
    far.read_exact(&mut arrived).unwrap();
    assert!(arrived == content);
}

/// Of how many pieces the packet is that `call` writes; beside them there is the header.
fn pieces_written(call: &str) -> Option<usize> {
    // The trace may end within a call, and so `writev(9, [...], 2 <detached ...>`.
    let (_, count) = call.strip_prefix("writev(")?.rsplit_once("], ")?;
    let digits = count.find(|character: char| !character.is_ascii_digit()).unwrap_or(count.len());
    Some(count[..digits].parse::<usize>().unwrap() - 1)
}

#[test]
fn full_buffers_cost_packets_and_nothing_is_said() {
    let Some(net) = Net::two_sites() else { return };
    let linked = Linked::new(&net);
    let mut dropped = 0;
    for errno in ["EAGAIN", "ENOBUFS", "ENOMEM"] {
        let fault = linked.fail("inbound-0", &format!("sendmsg:error={errno}"));
        let pings = linked.ping();
        dropped += u64::from(pings.sent);
        linked.drops("out_send_busy", dropped);
        fault.over();
        assert_eq!(pings.received, 0, "{errno}");
        linked.is_well();
        assert_eq!(linked.dropped("out_send_busy"), dropped, "{errno}");
    }
    assert_eq!(linked.complaints(), [""; 0]);
}

#[test]
fn signals_and_old_icmp_errors_cost_no_packet_and_nothing_is_said() {
    let Some(net) = Net::two_sites() else { return };
    let linked = Linked::new(&net);
    for fault in [
        "sendmsg:error=EINTR:when=1..3",
        "sendmsg:error=ECONNREFUSED:when=1+2",
        "read:error=EINTR:when=1..3",
        "recvmmsg:error=EINTR:when=1..3",
        "recvmmsg:error=EAGAIN:when=1..3",
        "recvmmsg:error=ECONNREFUSED:when=1+2",
        "writev:error=EINTR:when=1..3",
        "epoll_wait:error=EINTR:when=1..3",
    ] {
        let injected = linked.fail("inbound-0", fault);
        linked.carries(10);
        injected.over();
    }
    assert_eq!(linked.complaints(), [""; 0]);
}

#[test]
fn a_send_that_is_refused_costs_its_packet_and_is_told_once_a_minute() {
    let Some(net) = Net::two_sites() else { return };
    let linked = Linked::new(&net);
    let mut dropped = 0;
    for errno in ["EPERM", "ENETUNREACH", "EMSGSIZE", "EIO", "EINVAL", "ECONNREFUSED"] {
        let fault = linked.fail("inbound-0", &format!("sendmsg:error={errno}"));
        let pings = linked.ping();
        dropped += u64::from(pings.sent);
        linked.drops("out_send_failed", dropped);
        fault.over();
        assert_eq!(pings.received, 0, "{errno}");
        linked.is_well();
        assert_eq!(linked.dropped("out_send_failed"), dropped, "{errno}");
    }
    linked.complained("firewall");
}

#[test]
fn a_kernel_that_does_not_segment_gets_single_datagrams_and_that_is_told_once() {
    for errno in ["EINVAL", "EMSGSIZE", "EIO"] {
        let Some(net) = Net::two_sites() else { return };
        let linked = Linked::new(&net);
        let mut connection = linked.connection(A, B);
        let fault = linked.fail("inbound-0", &format!("sendmsg:error={errno}:when=1"));
        // Not so much that the outbound thread is called.
        transfer(&mut connection, &noise(1, 20_000));
        transfer(&mut connection, &noise(2, 50_000));
        let calls = fault.calls();
        let sends: Vec<&String> = calls.iter().filter(|call| call.starts_with("sendmsg(")).collect();
        let segmented = sends.iter().filter(|send| send.contains("SOL_UDP")).count();
        assert!(sends[0].contains("SOL_UDP"), "the first send was a segmented one: {}", sends[0]);
        assert_eq!(segmented, 1, "and the last for a minute");
        assert_eq!(linked.dropped("out_send_failed"), 0);
        let complaints = linked.complaints();
        assert_eq!(complaints.len(), 1, "{complaints:#?}");
        assert!(complaints[0].contains("refuses to segment"), "{complaints:#?}");
    }
}

#[test]
fn an_interface_that_refuses_merged_packets_gets_single_ones_and_that_is_told_once() {
    let Some(net) = Net::two_sites() else { return };
    let linked = Linked::new(&net);
    let mut connection = linked.connection(B, A);
    let fault = linked.fail("inbound-0", "writev:error=EINVAL:when=1");
    // One super-packet, and many.
    transfer(&mut connection, &noise(1, 5_000));
    transfer(&mut connection, &noise(2, 100_000));
    let calls = fault.calls();
    let is_merged = |call: &&String| pieces_written(call).is_some_and(|pieces| pieces > 1);
    let merged: Vec<&String> = calls.iter().filter(is_merged).collect();
    assert!(merged.len() == 1 && merged[0].contains("(INJECTED)"), "the first, and no other: {merged:#?}");
    assert_eq!(linked.dropped("in_tun_failed"), 0);
    let complaints = linked.complaints();
    assert_eq!(complaints.len(), 1, "{complaints:#?}");
    assert!(complaints[0].contains("refuses merged packets"), "{complaints:#?}");
}

#[test]
fn an_interface_that_refuses_packets_costs_them_and_is_told_once_a_minute() {
    let Some(net) = Net::two_sites() else { return };
    let linked = Linked::new(&net);
    for errno in ["EIO", "ENOMEM", "EINVAL", "EAGAIN", "ENOBUFS"] {
        let before = linked.dropped("in_tun_failed");
        let fault = linked.fail("inbound-0", &format!("writev:error={errno}"));
        let pings = linked.ping();
        linked.drops("in_tun_failed", before + u64::from(pings.sent));
        fault.over();
        assert_eq!(pings.received, 0, "{errno}");
        linked.is_well();
        assert_eq!(linked.dropped("in_tun_failed") - before, u64::from(pings.sent), "{errno}");
    }
    linked.complained("the interface refuses packets");
}

/// Threads that can't do their work try again and again, but not at full speed.
fn waits<const N: usize>(threads: [&str; N], faults: &[&str], complaint: &str) {
    let Some(net) = Net::two_sites() else { return };
    let linked = Linked::new(&net);
    for fault in faults {
        let injected = threads.map(|thread| linked.fail(thread, fault));
        linked.ping();
        injected.into_iter().for_each(|each| {
            each.happened();
            each.over();
        });
        linked.is_well();
    }
    linked.complained(complaint);
}

#[test]
fn an_interface_that_cannot_be_read_is_told_once_a_minute_and_tried_on() {
    let faults = ["read:error=EIO", "read:error=ENOMEM", "read:retval=4", "read:retval=0", "read:error=EINVAL"];
    // The inbound thread leaves it to the outbound thread, which may wait.
    waits(["inbound-0", "outbound-0"], &faults, "reading the interface fails");
}

#[test]
fn a_socket_that_cannot_be_read_is_told_once_a_minute_and_tried_on() {
    let errors = ["EIO", "ENOMEM", "ENOBUFS", "EPERM", "ECONNREFUSED"];
    let faults = errors.map(|errno| format!("recvmmsg:error={errno}"));
    waits(["inbound-0"], &faults.each_ref().map(String::as_str), "receiving fails");
}

#[test]
fn a_wait_that_fails_is_told_once_a_minute_and_no_reason_to_spin() {
    waits(["outbound-0"], &["poll:error=ENOMEM", "poll:error=EINVAL"], "reading the interface fails");
    waits(["inbound-0"], &["epoll_wait:error=ENOMEM", "epoll_wait:error=EINVAL"], "receiving fails");
}

#[test]
fn a_handshake_that_cannot_be_sent_is_told_once_a_minute_and_tried_again() {
    let Some(net) = Net::two_sites() else { return };
    let mut linked = Linked::new(&net);
    linked.b.kill();
    let fault = linked.fail("handshakes", "sendmsg:error=ENETUNREACH");
    linked.b.start();
    // It writes to a disk, which may be busy, before it calls.
    linked.b.state();
    fault.happened();
    fault.over();
    linked.b.wait_up();
    // A sends in the session of before until it hears B in the new one.
    reached(net.lan(A), net.site(B).lan4(), seconds(20));
    linked.is_well();
    linked.complained("look at the uplink");
}
