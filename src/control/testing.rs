//! A network namespace for one test, on a thread of its own: it goes when the thread ends.
//!
//! ```text
//!   tun (veth) ---- far        the thread's namespace; "tun" stands for the TUN
//! ```

use std::process::Command;

use nix::sched::{CloneFlags, unshare};

/// Runs `test` as root in a fresh namespace with loopback up. Without root says so; with
/// LINKSPAN_REQUIRE_NETWORK=1 that is a failure.
pub(super) fn in_namespace<T: Future<Output = ()>>(test: impl FnOnce() -> T + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
                let required = std::env::var("LINKSPAN_REQUIRE_NETWORK").is_ok_and(|value| value == "1");
                assert!(!required, "a network namespace is required: {error}");
                eprintln!("SKIPPED: needs root for a network namespace ({error})");
                return;
            }
            ip("link set lo up");
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Runs `ip ARGUMENTS` in this thread's namespace; gives its output.
pub(super) fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("iproute2 is installed");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// A veth pair, its first end named `name`, both ends up. Gives the index of the first.
pub(super) fn veth(name: &str) -> u32 {
    ip(&format!("link add {name} type veth peer name {name}-far"));
    ip(&format!("link set {name}-far up"));
    ip(&format!("link set {name} up"));
    nix::net::if_::if_nametoindex(name).unwrap()
}
