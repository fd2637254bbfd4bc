//! The process itself: capabilities, the user it runs as, and what nobody may read from it.

use std::fs::File;
use std::io;
use std::mem::zeroed;
use std::os::unix::thread::JoinHandleExt as _;
use std::ptr;
use std::thread::JoinHandle;
use std::time::Duration;

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::time::ClockId;
use nix::unistd::{User, chdir, dup2_stderr, dup2_stdout, geteuid, setgroups, setresgid, setresuid, setsid};
use thiserror::Error;

const KEPT: Capability = Capability::CAP_NET_ADMIN;
/// UDP ports below 1024.
const LOW_PORTS: Capability = Capability::CAP_NET_BIND_SERVICE;

/// What [`drop_privileges`] did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Dropped {
    /// The process runs as this user now, with CAP_NET_ADMIN.
    ToUser(String),
    /// The user is the same as before (the named one does not exist, or the process was not root), all capabilities
    /// but CAP_NET_ADMIN are gone.
    CapabilitiesOnly,
}

/// Privileges could not be dropped or the process could not be hardened: it must not go on.
#[derive(Debug, Error)]
#[error(
    "could not give up privileges ({step}): {reason}; start it as root or by systemd, without a seccomp filter of your own"
)]
pub struct PrivilegeError {
    step: &'static str,
    reason: String,
}

/// Whether this thread may configure the network: CAP_NET_ADMIN is in its effective set.
#[must_use]
pub fn has_net_admin() -> bool {
    has(CapSet::Effective, KEPT)
}

/// Keeps the keys in this process: no core dump, no debugger or `/proc/PID/mem` of the same user, no more
/// privileges by running a program, and new files for the owner only (umask 077).
///
/// Call it first, before any other thread: the umask and the rest hold for threads started later.
///
/// # Errors
///
/// When the kernel refuses one of these.
pub fn harden() -> Result<(), PrivilegeError> {
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(at("no core dumps"))?;
    prctl::set_no_new_privs().map_err(at("no new privileges"))?;
    prctl::set_dumpable(false).map_err(at("not dumpable"))
}

/// Gives up everything but CAP_NET_ADMIN, for good: in the permitted, effective and bounding sets only that is left,
/// the inheritable and ambient sets are empty. As root, and if `user` exists, the process becomes that user, too.
///
/// Call it before any other thread is started: capabilities belong to threads, and those already running keep
/// theirs. Not dumpable afterwards (a change of user would undo [`harden`]).
///
/// # Errors
///
/// When the kernel refuses a step. Some privileges may be gone by then: stop.
pub fn drop_privileges(user: Option<&str>) -> Result<Dropped, PrivilegeError> {
    drop_all_but(&[KEPT], user)
}

/// The same, but the user stays, and may go on opening UDP ports below 1024.
///
/// # Errors
///
/// As [`drop_privileges`].
pub fn drop_privileges_but_low_ports() -> Result<Dropped, PrivilegeError> {
    drop_all_but(&[KEPT, LOW_PORTS], None)
}

fn drop_all_but(kept: &[Capability], user: Option<&str>) -> Result<Dropped, PrivilegeError> {
    limit_bounding_set(kept)?;
    let user = user.filter(|_| geteuid().is_root()).map(find).transpose()?.flatten();
    if let Some(user) = &user {
        become_user(user)?;
    }
    keep_capabilities(kept)?;
    prctl::set_no_new_privs().map_err(at("no new privileges"))?;
    prctl::set_dumpable(false).map_err(at("not dumpable"))?;
    Ok(user.map_or(Dropped::CapabilitiesOnly, |user| Dropped::ToUser(user.name)))
}

fn find(name: &str) -> Result<Option<User>, PrivilegeError> {
    User::from_name(name).map_err(at("look up the user"))
}

/// The bounding set outlives a change of user, and needs CAP_SETPCAP, which only root has: so it comes first.
fn limit_bounding_set(kept: &[Capability]) -> Result<(), PrivilegeError> {
    if !has(CapSet::Effective, Capability::CAP_SETPCAP) {
        return Ok(());
    }
    let present = |one: &Capability| !kept.contains(one) && has(CapSet::Bounding, *one);
    caps::all()
        .into_iter()
        .filter(present)
        .try_for_each(|one| caps::drop(None, CapSet::Bounding, one))
        .map_err(at("bounding set"))
}

/// The group first: the user could no longer change it. The permitted set survives by PR_SET_KEEPCAPS.
fn become_user(user: &User) -> Result<(), PrivilegeError> {
    prctl::set_keepcaps(true).map_err(at("keep capabilities"))?;
    setgroups(&[]).map_err(at("groups"))?;
    setresgid(user.gid, user.gid, user.gid).map_err(at("group"))?;
    setresuid(user.uid, user.uid, user.uid).map_err(at("user"))?;
    prctl::set_keepcaps(false).map_err(at("keep capabilities"))
}

/// Effective before permitted, because it must stay a part of it; ambient goes with inheritable.
fn keep_capabilities(kept: &[Capability]) -> Result<(), PrivilegeError> {
    let kept: CapsHashSet = kept.iter().copied().filter(|one| has(CapSet::Permitted, *one)).collect();
    caps::clear(None, CapSet::Ambient).map_err(at("ambient set"))?;
    caps::clear(None, CapSet::Inheritable).map_err(at("inheritable set"))?;
    caps::set(None, CapSet::Effective, &kept).map_err(at("effective set"))?;
    caps::set(None, CapSet::Permitted, &kept).map_err(at("permitted set"))
}

/// Leaves the terminal and the working directory of whoever started this process.
///
/// # Errors
///
/// When the kernel refuses one of these.
pub fn detach() -> Result<(), PrivilegeError> {
    // It fails only for a process that leads a session already.
    let _ = setsid();
    chdir("/").map_err(at("leave the working directory"))
}

/// Lets go of the standard output; standard error goes to `errors` from now on, or where it went before.
///
/// # Errors
///
/// When there is no /dev/null.
pub fn leave_output(errors: Option<&File>) -> io::Result<()> {
    dup2_stdout(File::options().write(true).open("/dev/null")?)?;
    errors.map_or(Ok(()), |errors| Ok(dup2_stderr(errors)?))
}

fn has(set: CapSet, capability: Capability) -> bool {
    caps::has_cap(None, set, capability).unwrap_or(false)
}

fn at<E: ToString>(step: &'static str) -> impl FnOnce(E) -> PrivilegeError {
    move |reason| PrivilegeError { step, reason: reason.to_string() }
}

/// The shortest time slice that Linux gives (sched(7), see [`has_slices`]): who asks for it is let run sooner where
/// others are busy on the same core, and has no more of the core for it.
const SLICE: Duration = Duration::from_micros(100);

/// How soon a thread gets a core that another one is busy on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Urgency {
    /// As soon as the scheduler can: SCHED_OTHER, with the shortest slice where there are slices.
    Prompt,
    /// Once the other one sleeps, or at the tick that finds its slice used up: SCHED_BATCH.
    Patient,
}

impl Urgency {
    const fn policy(self) -> libc::c_int {
        match self {
            Self::Prompt => libc::SCHED_OTHER,
            Self::Patient => libc::SCHED_BATCH,
        }
    }

    const fn slice(self) -> Duration {
        match self {
            Self::Prompt => SLICE,
            // The system's own.
            Self::Patient => Duration::ZERO,
        }
    }
}

/// Whether the kernel gives each thread the slice that it asks for: Linux 6.12 and later.
#[must_use]
pub fn has_slices() -> bool {
    attributes().is_ok_and(|attributes| attributes.sched_runtime != 0)
}

/// Tells the scheduler how urgent the calling thread is; `before` is what it was told last, if anything. The nice value
/// stays, and so does another policy, which somebody else has chosen: false then.
///
/// # Errors
///
/// When a filter of system calls or a security module forbids it; all is as before then.
pub fn set_urgency(before: Option<Urgency>, urgency: Urgency) -> io::Result<bool> {
    let mut wanted = attributes()?;
    let left_as_told = before.map_or(libc::SCHED_OTHER, Urgency::policy);
    if wanted.sched_policy != left_as_told.cast_unsigned() {
        return Ok(false);
    }
    wanted.sched_policy = urgency.policy().cast_unsigned();
    wanted.sched_runtime = u64::try_from(urgency.slice().as_nanos()).unwrap_or_default();
    // SAFETY: the calling thread (0), attributes that live through the call and name their size, no flags of the call.
    let answer = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, ptr::from_ref(&wanted), 0) };
    if answer == 0 { Ok(true) } else { Err(io::Error::last_os_error()) }
}

/// How the calling thread is scheduled.
fn attributes() -> io::Result<libc::sched_attr> {
    // SAFETY: plain integers, for all of which zero is a value.
    let mut found: libc::sched_attr = unsafe { zeroed() };
    let size = size_of_val(&found);
    // SAFETY: the calling thread (0), and room of the size that is named.
    let answer = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, ptr::from_mut(&mut found), size, 0) };
    if answer == 0 { Ok(found) } else { Err(io::Error::last_os_error()) }
}

/// For how long `thread` has had a CPU so far; none if it has ended.
#[must_use]
pub fn cpu_time<T>(thread: &JoinHandle<T>) -> Option<Duration> {
    let mut clock = 0;
    // SAFETY: the handle has not been joined, so the thread's name is valid; `clock` outlives the call.
    let answer = unsafe { libc::pthread_getcpuclockid(thread.as_pthread_t(), &raw mut clock) };
    let time = (answer == 0).then(|| ClockId::from_raw(clock).now().ok()).flatten();
    time.map(Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    const TASK: &str = "LINKSPAN_TEST_PROCESS_TASK";
    const NET_ADMIN_ONLY: &str = "0000000000001000";

    /// Runs this test program again, only `task` in it, and gives what the kernel says of the thread afterwards.
    fn in_a_process_of_its_own(task: &str) -> Option<String> {
        if !geteuid().is_root() {
            assert!(std::env::var_os("LINKSPAN_REQUIRE_NETWORK").is_none(), "this test needs root");
            eprintln!("SKIPPED: needs root");
            return None;
        }
        let mut child = Command::new(std::env::current_exe().unwrap());
        let done =
            child.args(["--exact", "sys::process::tests::task", "--nocapture"]).env(TASK, task).output().unwrap();
        let text = String::from_utf8(done.stdout).unwrap();
        assert!(done.status.success(), "{text}{}", String::from_utf8_lossy(&done.stderr));
        Some(text)
    }

    /// Does nothing by itself: the body of the processes that the other tests start.
    #[test]
    fn task() {
        match std::env::var(TASK).as_deref() {
            Ok("user") => println!("{:?}", drop_privileges(Some("nobody")).unwrap()),
            Ok("no-user") => println!("{:?}", drop_privileges(Some("no-such-user-here")).unwrap()),
            Ok("twice") => {
                drop_privileges(Some("nobody")).unwrap();
                println!("{:?}", drop_privileges(None).unwrap());
            }
            Ok("harden") => {
                harden().unwrap();
                println!("Dumpable:\t{}", prctl::get_dumpable().unwrap());
                println!("Core:\t{:?}", nix::sys::resource::getrlimit(Resource::RLIMIT_CORE).unwrap());
            }
            _ => return,
        }
        println!("Admin:\t{}", has_net_admin());
        println!("Dumpable:\t{}", prctl::get_dumpable().unwrap());
        println!("{}", std::fs::read_to_string("/proc/thread-self/status").unwrap());
    }

    fn field<'t>(text: &'t str, name: &str) -> &'t str {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        line.unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    fn assert_only_net_admin(text: &str) {
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(field(text, set), NET_ADMIN_ONLY, "{set}");
        }
        for set in ["CapInh", "CapAmb"] {
            assert_eq!(field(text, set), "0000000000000000", "{set}");
        }
        assert_eq!(field(text, "NoNewPrivs"), "1");
        assert_eq!(field(text, "Admin"), "true");
        assert_eq!(field(text, "Dumpable"), "false");
    }

    #[test]
    fn root_becomes_the_user_and_keeps_net_admin_only() {
        let Some(text) = in_a_process_of_its_own("user") else { return };
        let nobody = User::from_name("nobody").unwrap().unwrap();
        assert!(text.contains("ToUser(\"nobody\")"), "{text}");
        assert_only_net_admin(&text);
        assert_eq!(field(&text, "Uid"), [nobody.uid.to_string().as_str(); 4].join("\t"));
        assert_eq!(field(&text, "Gid"), [nobody.gid.to_string().as_str(); 4].join("\t"));
        assert_eq!(field(&text, "Groups").trim(), "");
    }

    #[test]
    fn without_the_user_root_stays_root_with_net_admin_only() {
        let Some(text) = in_a_process_of_its_own("no-user") else { return };
        assert!(text.contains("CapabilitiesOnly"), "{text}");
        assert_only_net_admin(&text);
        assert_eq!(field(&text, "Uid"), "0\t0\t0\t0");
    }

    #[test]
    fn a_second_drop_changes_nothing() {
        let Some(text) = in_a_process_of_its_own("twice") else { return };
        assert!(text.contains("CapabilitiesOnly"), "{text}");
        assert_only_net_admin(&text);
    }

    #[test]
    fn a_hardened_process_leaves_no_core_and_gains_nothing() {
        let Some(text) = in_a_process_of_its_own("harden") else { return };
        assert_eq!(field(&text, "Dumpable"), "false");
        assert_eq!(field(&text, "Core"), "(0, 0)");
        assert_eq!(field(&text, "NoNewPrivs"), "1");
        assert_eq!(field(&text, "Umask"), "0077");
    }

    fn scheduling() -> (libc::c_int, i32, u64) {
        let found = attributes().unwrap();
        (found.sched_policy.cast_signed(), found.sched_nice, found.sched_runtime)
    }

    #[test]
    fn a_prompt_thread_has_a_short_slice_a_patient_one_another_policy_and_the_nice_value_stays() {
        let (_, nice, usual) = scheduling();
        let mut before = None;
        for _ in 0..2 {
            assert!(set_urgency(before, Urgency::Prompt).unwrap());
            let slice = if has_slices() { 100_000 } else { 0 };
            assert_eq!(scheduling(), (libc::SCHED_OTHER, nice, slice));
            assert!(set_urgency(Some(Urgency::Prompt), Urgency::Patient).unwrap());
            assert_eq!(scheduling(), (libc::SCHED_BATCH, nice, usual));
            before = Some(Urgency::Patient);
        }
    }

    #[test]
    fn another_policy_which_somebody_chose_stays() {
        let choose = |policy| {
            let none = libc::sched_param { sched_priority: 0 };
            // SAFETY: a priority that lives through the call, for the calling thread (0).
            let answer = unsafe { libc::sched_setscheduler(0, policy, &raw const none) };
            assert_eq!(answer, 0);
        };
        choose(libc::SCHED_BATCH);
        assert!(!set_urgency(None, Urgency::Prompt).unwrap());
        assert!(!set_urgency(Some(Urgency::Prompt), Urgency::Patient).unwrap());
        assert_eq!(scheduling().0, libc::SCHED_BATCH);
        // Last, as nobody may leave it without more rights.
        choose(libc::SCHED_IDLE);
        for before in [None, Some(Urgency::Patient), Some(Urgency::Prompt)] {
            assert!(!set_urgency(before, Urgency::Prompt).unwrap());
        }
        assert_eq!(scheduling().0, libc::SCHED_IDLE);
    }

    #[test]
    fn a_busy_threads_cpu_time_moves_and_an_idle_ones_does_not() {
        use std::sync::mpsc::channel;
        let ((stop, stopped), (end, ended)) = (channel::<()>(), channel::<()>());
        let busy = std::thread::spawn(move || while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {});
        let idle = std::thread::spawn(move || ended.recv());
        let wanted = Duration::from_millis(50);
        let started = std::time::Instant::now();
        while cpu_time(&busy).unwrap() < wanted {
            assert!(started.elapsed() < Duration::from_secs(20), "a busy thread gets some CPU");
        }
        assert!(cpu_time(&idle).unwrap() < wanted);
        drop((stop, end));
        busy.join().unwrap();
        idle.join().unwrap().unwrap_err();
    }

    #[test]
    fn an_error_is_one_line_with_the_step() {
        let text = at("user")(nix::errno::Errno::EPERM).to_string();
        assert!(text.starts_with("could not give up privileges (user): EPERM") && !text.contains('\n'), "{text}");
    }
}
