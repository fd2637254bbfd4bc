//! As whom the daemon runs, and what that user and others may do.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::daemon::LINKSPAN;
use crate::harness::host::{Host, finish};
use crate::harness::wg::{socket_of, unique_name};
use crate::harness::*;

const USER: u32 = 61_184;
const NET_ADMIN_ONLY: &str = "0000000000001000";

/// A user `linkspan` for programs that start in `host`.
fn add_user(host: &Host) {
    for (file, line) in [("passwd", "linkspan:x:61184:61184::/:/bin/false"), ("group", "linkspan:x:61184:")] {
        let of_the_machine = fs::read_to_string(Path::new("/etc").join(file)).unwrap();
        let others = of_the_machine.lines().filter(|line| !line.starts_with("linkspan:"));
        host.etc_file(file, &others.chain([line, ""]).collect::<Vec<_>>().join("\n"));
    }
}

/// A daemon whose folders do not exist yet; killed on drop.
struct Run {
    child: Child,
    folder: PathBuf,
    name: String,
}

impl Run {
    fn start(net: &Net, file: &file::File) -> Self {
        let daemon = net.daemon(A, file);
        let folder = daemon.directory().to_owned();
        // They stand for /run and /var/lib, in which the daemon makes its own.
        for parent in ["run", "lib"] {
            net.directory(&format!("{}/{parent}", folder.file_name().unwrap().to_str().unwrap()));
        }
        let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        let (socket, state, config) =
            (path("run/linkspan/ls0.sock"), path("lib/linkspan"), path(&format!("{}.toml", file.name)));
        let arguments = ["run", "--config", &config, "--socket", &socket, "--state-dir", &state];
        let mut command = net.gateway(A).command(LINKSPAN, &arguments);
        let log = fs::File::create(folder.join("log")).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Self { child, folder, name: file.name.clone() }
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("run/linkspan/ls0.sock")
    }

    fn state(&self) -> PathBuf {
        self.folder.join(format!("lib/linkspan/{}.clock", self.name))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap()
    }

    /// `name` in the status of each of its threads, with the thread's name.
    fn threads(&self, name: &str) -> Vec<(String, String)> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let status = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("status")).ok());
        let field = |text: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
            line.unwrap_or_default().to_owned()
        };
        status.map(|text| (field(&text, "Name"), field(&text, name))).collect()
    }

    fn stop(mut self) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGTERM).unwrap();
        let status = eventually(seconds(15), "the daemon ends", || self.child.try_wait().unwrap());
        assert!(status.success(), "{status}");
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The file of an interface whose name nobody else has: `wg` finds all of them in one folder.
fn named(mut file: file::File) -> file::File {
    file.name = unique_name();
    file
}

/// The program where strangers can start it, too. Copied by a program: a file that was open for writing here could be
/// busy, in a process that another test forks meanwhile.
fn for_strangers(net: &Net) -> PathBuf {
    let copy = net.directory("bin").join("linkspan");
    let status = Command::new("install").args(["-m", "755", LINKSPAN]).arg(&copy).status().unwrap();
    assert!(status.success(), "{status}");
    copy
}

/// Exit code of `linkspan status` as a stranger who is in these groups.
fn ask(program: &Path, socket: &Path, groups: &[&str]) -> Option<i32> {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534"]).args(groups);
    command.arg(program).args(["status", "--socket"]).arg(socket);
    finish(command, seconds(10)).status.code()
}

#[test]
fn root_becomes_the_user_linkspan_whose_group_may_ask_for_the_status() {
    let Some(net) = Net::two_sites() else { return };
    add_user(net.gateway(A));
    let _b = net.start(B, &net.file(B, &[A]));
    let (before, program) = (net.gateway(A).footprint(), for_strangers(&net));
    for start in ["first", "second"] {
        let file = named(net.file(A, &[B]));
        let wg_socket = socket_of(&file.name);
        let run = Run::start(&net, &file);
        let may_ask = || ask(&program, &run.socket(), &["--groups", "61184"]) == Some(0);
        eventually(seconds(30), "it is up", || may_ask().then_some(()));
        assert_eq!(ask(&program, &run.socket(), &["--clear-groups"]), Some(2), "strangers may not");
        for (thread, uids) in run.threads("Uid") {
            assert_eq!(uids, [USER.to_string().as_str(); 4].join("\t"), "{thread}, {start} start");
        }
        assert!(run.threads("CapPrm").iter().all(|(_, capabilities)| capabilities == NET_ADMIN_ONLY));
        let (socket, state) = (run.socket(), run.state());
        assert!(!wg_socket.exists(), "the user could not remove it");
        assert!(run.log().contains("linkspan@.socket"), "{}", run.log());
        run.stop();
        assert!(!socket.exists(), "the status socket is left");
        assert_eq!(net.gateway(A).footprint(), before);
        let mark = fs::metadata(&state).expect("the clock mark is kept");
        assert_eq!((mark.uid(), mark.permissions().mode() & 0o777), (USER, 0o600));
    }
}

#[test]
fn what_root_wrote_before_there_was_a_user_is_taken_over() {
    let Some(net) = Net::two_sites() else { return };
    let file = named(net.file(A, &[B]));
    let as_root = Run::start(&net, &file);
    let state = as_root.state();
    eventually(seconds(30), "it writes its mark", || state.exists().then_some(()));
    assert!(socket_of(&file.name).exists(), "`wg` may ask");
    as_root.stop();
    assert!(!socket_of(&file.name).exists(), "the socket of `wg` is left");
    assert_eq!(fs::metadata(&state).unwrap().uid(), 0);
    add_user(net.gateway(A));
    let run = Run::start(&net, &file);
    eventually(seconds(30), "the user has it", || (fs::metadata(&state).unwrap().uid() == USER).then_some(()));
    run.stop();
}

/// The name server is silent, so the resolver's thread is still there when all else has started.
#[test]
fn the_thread_that_resolves_names_has_no_more_than_the_others() {
    let Some(net) = Net::two_sites() else { return };
    net.gateway(A).etc_file("resolv.conf", "nameserver 198.18.2.77\n");
    let run = Run::start(&net, &named(net.file(A, &[B])).endpoint(Some("vpn-b.example.com:51820")));
    let resolver = |run: &Run| run.threads("CapPrm").into_iter().find(|(thread, _)| thread == "resolve");
    let (_, capabilities) = eventually(seconds(20), "it resolves the name", || resolver(&run));
    assert_eq!(capabilities, NET_ADMIN_ONLY);
    run.stop();
}
