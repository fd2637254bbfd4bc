//! Small networks for tests: real kernels, real daemons, nothing of the host touched.
//!
//! ```text
//!   lan ---- gateway ---- internet ---- gateway ---- lan        each a network namespace; n = number of the site
//!    |          |  \          |             |         |
//!    |          |   \         +-- "u1", "u2": loss, black holes, NAT, captures
//!    |          |    +-- "wan"  198.18.n.1/24 (router .254)   2001:db8:n::1/64 (router ::fe)
//!    |          +------- "lan"  10.n.0.1/24                   fd00:n::1/64
//!    +------------------ "lan"  10.n.0.2/24                   fd00:n::2/64    default route: its gateway
//! ```
//!
//! A [`Net`] builds it and removes it on drop, also after a panic. A [`Daemon`] is the real binary in a gateway;
//! a [`WgPeer`] is a stock WireGuard peer in a few lines. Whatever waits has a deadline.

// Each test binary that shares the harness uses a part of it.
#![allow(dead_code, unreachable_pub, unused_imports)]

pub mod capture;
pub mod daemon;
pub mod file;
pub mod flood;
pub mod host;
pub mod machine;
pub mod manager;
pub mod monitored;
pub mod net;
pub mod paced;
pub mod packets;
pub mod prometheus;
pub mod status;
pub mod stock;
pub mod stream;
pub mod traffic;
pub mod wg;
pub mod wireguard;

use std::io::Write as _;
use std::thread;
use std::time::{Duration, Instant};

pub use capture::{Capture, Port};
pub use net::{A, B, C, Net, Site};
pub use wireguard::WgPeer;

/// Whether this process may build networks; see [`skipped`] for when not.
pub fn root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        skipped("needs root");
    }
    is_root
}

/// Says loudly that a test does not run, and why; `LINKSPAN_REQUIRE_NETWORK=1` makes that a failure.
pub fn skipped(why: &str) {
    let test = thread::current().name().unwrap_or("a network test").to_owned();
    assert!(std::env::var_os("LINKSPAN_REQUIRE_NETWORK").is_none(), "{test} {why}");
    // Not eprintln: the test runner would swallow it.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}: {test}");
}

/// Whether the long tests run, too: `LINKSPAN_LONG=1`.
pub fn long() -> bool {
    std::env::var_os("LINKSPAN_LONG").is_some()
}

/// What `attempt` gives as soon as it gives something; a panic that names `what` after `within`.
pub fn eventually<T>(within: Duration, what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        // One more attempt begins after the deadline: the last before it may have begun long ago.
        let late = Instant::now() >= deadline;
        if let Some(value) = attempt() {
            return value;
        }
        assert!(!late, "not within {within:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Whole seconds, for deadlines.
pub const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}
