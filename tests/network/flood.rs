//! Handshakes never delay transport data.
//!
//! ```text
//!   B ====== A       an existing tunnel, with a paced stream and pings
//!            | \
//!            C  D    a newcomer; and who floods A with initiations
//! ```

use std::time::{Duration, Instant};

use crate::harness::daemon::Daemon;
use crate::harness::flood::Flood;
use crate::harness::host::Finished;
use crate::harness::net::Links;
use crate::harness::paced::Paced;
use crate::harness::traffic::{Pings, ping};
use crate::harness::*;

const D: usize = 3;
/// 300 Mbit/s are 29 of these a millisecond.
const SIZE: usize = 1300;

/// How hard, and how long.
struct Plan {
    /// Initiations a millisecond, by whether their mac1 is right.
    wrong: usize,
    sound: usize,
    /// Datagrams a millisecond.
    stream: u32,
    /// Seconds, at least.
    time: u64,
    /// On a machine that has room for it all: the figures must hold as they are, not only beside those of a quiet run.
    absolute: bool,
}

/// In so long a newcomer is in.
const NEWCOMER: Duration = seconds(15);

impl Plan {
    /// Of what was to be sent, so much must have been: less would prove little.
    const fn least(&self) -> f64 {
        if self.absolute { 0.95 } else { 0.5 }
    }
}

fn under_flood(plan: &Plan) {
    let Some(net) = Net::new(4, Links::default()) else { return };
    let mut file = net.file(A, &[B, C]);
    file.connections[1].endpoint = None;
    let (a, b) = (net.start(A, &file), net.start(B, &net.file(B, &[A])));
    b.wait_up();
    let mut newcomer = net.daemon(C, &net.file(C, &[A]));
    // A quiet run and a flooded one do not compare if the machine does something else during one of them.
    let pairs = if plan.absolute { 1 } else { 3 };
    let holds = (0..pairs).any(|_| a_pair_holds(&net, plan, &a, &mut newcomer));
    assert!(holds, "transport data suffered in each of {pairs} floods: see above");
}

fn a_pair_holds(net: &Net, plan: &Plan, a: &Daemon<'_>, newcomer: &mut Daemon<'_>) -> bool {
    let quiet = measure(net, plan, || {});
    let refused = a.state().dropped("in_bad_mac1");
    let (memory, cpu, start) = (a.memory(), a.cpu(), Instant::now());
    let flood = Flood::start(net.gateway(D), (net.site(A).endpoint4(), net.site(A).public()), plan.wrong, plan.sound);
    let mut came = Duration::ZERO;
    let loaded = measure(net, plan, || {
        newcomer.start();
        let began = Instant::now();
        newcomer.wait_up_within(NEWCOMER);
        came = began.elapsed();
    });
    let (sent, generator) = flood.finish();
    let (grown, used, lasted) = (a.memory().saturating_sub(memory), a.cpu() - cpu, start.elapsed());
    newcomer.stop();
    let (state, flooded) = (a.state(), sent as f64 / (lasted.as_millis() as f64 * (plan.wrong + plan.sound) as f64));
    eprintln!(
        "without: {quiet}\nflooded: {loaded}\nnewcomer in after {came:?}, memory + {grown} KiB\n\
         {sent} initiations in {lasted:?}, {flooded:.2} of the plan; CPU: generator {generator:?}, daemon {used:?}\n{}",
        state.drops()
    );
    assert!(grown < 16 << 10, "{grown} KiB");
    assert!(state.dropped("in_bad_mac1") - refused > sent / 10, "{}", state.drops());
    let enough = [flooded, loaded.offered, quiet.offered].iter().all(|of_the_plan| *of_the_plan >= plan.least());
    // A machine that is busy with other things loses some without a flood, too.
    let (kept, answered) = if plan.absolute { (1.0, 1.0) } else { (quiet.kept(), quiet.answered()) };
    enough && loaded.kept() >= kept - 0.05 && loaded.answered() >= answered - 0.01
}

/// What the tunnel carried meanwhile.
struct Carried {
    /// Of what the plan wants.
    offered: f64,
    sent: u64,
    received: u64,
    mbit_s: f64,
    pings: Pings,
    rtt: String,
}

impl Carried {
    fn kept(&self) -> f64 {
        self.received as f64 / self.sent as f64
    }

    fn answered(&self) -> f64 {
        f64::from(self.pings.received) / f64::from(self.pings.sent)
    }
}

impl std::fmt::Display for Carried {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { offered, sent, received, mbit_s, pings, rtt } = self;
        write!(f, "{mbit_s:.0} Mbit/s, {received} of {sent} ({offered:.2} of the plan); {pings:?} {rtt}")
    }
}

fn measure(net: &Net, plan: &Plan, meanwhile: impl FnOnce()) -> Carried {
    let (here, far) = (net.site(A), net.site(B));
    let stream = Paced::start(&far.lan, &here.lan, here.lan4(), plan.stream, SIZE);
    let start = Instant::now();
    let count = (plan.time * 50).to_string();
    let (pings, finished) = std::thread::scope(|scope| {
        let pings = scope.spawn(|| ping(&here.lan, far.lan4(), &["-i", "0.02", "-c", &count, "-W", "1"]));
        meanwhile();
        pings.join().unwrap()
    });
    let lasted = start.elapsed();
    let outcome = stream.finish();
    let offered = outcome.sent as f64 / (lasted.as_millis() as f64 * f64::from(plan.stream));
    let mbit_s = outcome.received as f64 * SIZE as f64 * 8.0 / lasted.as_secs_f64() / 1e6;
    Carried { offered, sent: outcome.sent, received: outcome.received, mbit_s, pings, rtt: rtt(&finished) }
}

fn rtt(finished: &Finished) -> String {
    finished.stdout.lines().find(|line| line.starts_with("rtt")).unwrap_or_default().to_owned()
}

#[test]
fn a_flood_of_handshakes_delays_no_transport_data() {
    under_flood(&Plan { wrong: 10, sound: 5, stream: 5, time: 8, absolute: false });
}

#[test]
#[ignore = "long: LINKSPAN_LONG=1 tests/run"]
fn the_full_flood_delays_no_transport_data() {
    under_flood(&Plan { wrong: 50, sound: 10, stream: 29, time: 30, absolute: true });
}
