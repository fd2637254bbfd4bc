//! One thread of the daemon stands still, all others go on: the service manager must notice.

use std::fs;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::harness::{A, eventually, seconds};
use crate::sites::{linked, networks, networks_reach_each_other};

/// One thread of another process, stopped as a debugger stops it; goes on when dropped.
struct Frozen(i32);

impl Frozen {
    /// Only the thread of the test that froze it may let it go.
    fn new(thread: i32) -> Self {
        ptrace(libc::PTRACE_SEIZE, thread);
        ptrace(libc::PTRACE_INTERRUPT, thread);
        let frozen = Self(thread);
        eventually(seconds(5), "the thread stops", || frozen.news());
        frozen
    }

    /// Whether it stopped or ended. Its process ends only after a tracer was told that it did.
    fn news(&self) -> Option<()> {
        // SAFETY: no pointer is given but null, which is allowed: the status is not asked for.
        let pid = unsafe { libc::waitpid(self.0, std::ptr::null_mut(), libc::__WALL | libc::WNOHANG) };
        (pid == self.0).then_some(())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // SAFETY: as in `ptrace`. It may have ended, and then this fails.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, 0, 0) };
    }
}

fn ptrace(request: u32, thread: i32) {
    // SAFETY: neither request reads or writes memory of either process; both take two zeros.
    let result = unsafe { libc::ptrace(request, thread, 0, 0) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// The daemon's thread of this name.
fn thread(daemon: i32, name: &str) -> i32 {
    let threads = fs::read_dir(format!("/proc/{daemon}/task")).unwrap().map(|entry| entry.unwrap());
    let named = |path: std::path::PathBuf| fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name);
    let mut of_name = threads.filter(|thread| named(thread.path()));
    of_name.next().expect("the thread is there").file_name().to_str().unwrap().parse().unwrap()
}

/// The clock of the machine, and of all machines in it.
fn uptime() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap().into()
}

fn is_replaced_when_frozen(name: &str) {
    let Some(net) = networks() else { return };
    let machines = linked(&net);
    let a = &machines[A];
    let before = a.daemon().unwrap();
    let since = uptime();
    let frozen = Frozen::new(thread(before, name));
    eventually(seconds(25), "another daemon runs", || {
        frozen.news();
        (a.daemon().is_some_and(|now| now != before) && a.property("ActiveState") == "active").then_some(())
    });
    // By the manager's own clock: asking takes its time.
    let started = Duration::from_micros(a.property("ExecMainStartTimestampMonotonic").parse().unwrap());
    let within = started.checked_sub(since).expect("it was started after that");
    eprintln!("replaced after {within:?}");
    assert!(within <= seconds(15), "{within:?}");
    drop(frozen);
    a.journal_tells("Watchdog timeout");
    a.wait_up(seconds(10));
    networks_reach_each_other(&net);
}

#[test]
fn a_frozen_worker_is_replaced_within_15_s() {
    is_replaced_when_frozen("outbound-0");
}

#[test]
fn a_frozen_timer_is_replaced_within_15_s() {
    is_replaced_when_frozen("handshakes");
}
