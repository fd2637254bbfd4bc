//! The real binary in a gateway.

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::file::File;
use super::host::{Finished, Host, finish};
use super::net::Net;
use super::status::Status;
use super::wg::socket_of;
use super::{eventually, seconds};

/// The program under test.
pub const LINKSPAN: &str = env!("CARGO_BIN_EXE_linkspan");

/// A site's daemon: its files, and its process while it runs. Killed on drop.
pub struct Daemon<'n> {
    host: &'n Host,
    directory: PathBuf,
    file: PathBuf,
    /// `--log` of the next start.
    pub log_level: &'static str,
    /// Whether `wg` may ask. Its socket is in the one folder of the whole machine: only with a name of its own.
    pub wg: bool,
    child: Option<Child>,
}

impl Net {
    /// Starts site `here`'s daemon on `file`. Does not wait for anything.
    pub fn start(&self, here: usize, file: &File) -> Daemon<'_> {
        let mut daemon = self.daemon(here, file);
        daemon.start();
        daemon
    }

    /// Writes site `here`'s files, ready to start.
    pub fn daemon(&self, here: usize, file: &File) -> Daemon<'_> {
        let site = self.site(here);
        let directory = self.directory(&format!("gateway-{}-{}", site.number, file.name));
        let key = directory.join(format!("{}.key", file.name));
        write_secret(&key, &format!("{}\n", *site.key.reveal()), 0o600);
        let path = directory.join(format!("{}.toml", file.name));
        let daemon = Daemon { host: &site.gateway, directory, file: path, log_level: "info", wg: false, child: None };
        daemon.write(file);
        daemon
    }

    /// Starts both ends of two sites and waits until both are up.
    pub fn link(&self, a: &File, b: &File) -> (Daemon<'_>, Daemon<'_>) {
        let (a, b) = (self.start(super::A, a), self.start(super::B, b));
        a.wait_up();
        b.wait_up();
        (a, b)
    }
}

/// Writes a file with this mode, whatever the umask.
pub fn write_secret(path: &Path, text: &str, mode: u32) {
    use std::io::Write as _;
    let _ = fs::remove_file(path);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
}

impl Daemon<'_> {
    /// `linkspan run` on its files.
    pub fn run_arguments(&self) -> Vec<String> {
        let path = |path: PathBuf| path.to_str().unwrap().to_owned();
        let (file, socket, state) = (path(self.file.clone()), path(self.socket()), path(self.directory.join("state")));
        let log = self.log_level;
        let words = ["run", "--config", &file, "--socket", &socket, "--state-dir", &state, "--log", log];
        words.into_iter().chain((!self.wg).then_some("--no-wg")).map(str::to_owned).collect()
    }

    /// The command that starts it, through `wrapper` (a program and its arguments; empty = directly).
    pub fn command(&self, wrapper: &[&str]) -> Command {
        fs::create_dir_all(self.directory.join("state")).unwrap();
        let run = self.run_arguments();
        let mut words: Vec<&str> = wrapper.to_vec();
        words.push(LINKSPAN);
        words.extend(run.iter().map(String::as_str));
        let mut command = self.host.command(words[0], &words[1..]);
        command.current_dir(&self.directory).stdin(Stdio::null());
        command
    }

    /// Writes its file anew. It takes no notice until it reloads.
    pub fn write(&self, file: &File) {
        fs::write(&self.file, file.text(self.key_file().to_str().unwrap())).unwrap();
    }

    pub fn start(&mut self) {
        self.start_by(self.command(&[]));
    }

    /// Starts it by a command of the test's own.
    pub fn start_by(&mut self, mut command: Command) {
        assert!(self.child.is_none(), "it runs already");
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_file()).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// Runs it where it is expected to fail within 10 s.
    pub fn fails(&self, wrapper: &[&str]) -> Finished {
        finish(self.command(wrapper), seconds(10))
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.join("status.sock")
    }

    /// Of the interface.
    pub fn name(&self) -> &str {
        self.file.file_stem().unwrap().to_str().unwrap()
    }

    pub fn file(&self) -> &Path {
        &self.file
    }

    pub fn key_file(&self) -> PathBuf {
        self.file.with_extension("key")
    }

    /// The gateway that it runs in.
    pub fn host(&self) -> &Host {
        self.host
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Resident memory, in KiB.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it lives");
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// CPU time that it has used, all threads together.
    pub fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // After the name, which may hold anything: fields 14 and 15, in hundredths of a second.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        Duration::from_millis(fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap() * 10).sum())
    }

    fn log_file(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// All it has said, over all its starts.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// `linkspan status` with these further arguments.
    pub fn ask_status(&self, arguments: &[&str]) -> Finished {
        let mut command = Command::new(LINKSPAN);
        command.args(["status", "--socket"]).arg(self.socket()).args(arguments);
        finish(command, seconds(10))
    }

    /// `linkspan reload`.
    pub fn reload(&self) -> Finished {
        let mut command = Command::new(LINKSPAN);
        command.args(["reload", "--socket"]).arg(self.socket());
        finish(command, seconds(30))
    }

    /// `linkspan check --diff`.
    pub fn compare(&self) -> Finished {
        let mut command = Command::new(LINKSPAN);
        command.args(["check", "--diff", "--socket"]).arg(self.socket());
        finish(command, seconds(30))
    }

    /// Its state; none while it does not answer.
    pub fn status(&self) -> Option<Status> {
        Status::parse(&self.ask_status(&["--json"]).stdout)
    }

    /// Its state as soon as it answers: `linkspan status` gives up after 2 s.
    pub fn state(&self) -> Status {
        eventually(seconds(20), "its status", || self.status())
    }

    /// Waits until every tunnel of it is up.
    pub fn wait_up(&self) -> Status {
        self.wait_up_within(seconds(30))
    }

    pub fn wait_up_within(&self, within: Duration) -> Status {
        eventually(within, "the tunnel is up", || self.status().filter(Status::is_up))
    }

    /// Waits until its status shows something.
    pub fn wait(&self, what: &str, mut holds: impl FnMut(&Status) -> bool) -> Status {
        eventually(seconds(30), what, || self.status().filter(&mut holds))
    }

    /// SIGTERM; it must end. 15 s: before that it writes to a disk, which may be busy.
    pub fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        let status = self.wait_exit(seconds(15));
        assert!(status.success(), "a clean stop ends with 0: {status}");
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.wait_exit(seconds(15));
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    pub fn wait_exit(&mut self, within: Duration) -> ExitStatus {
        let child = self.child.as_mut().expect("it runs");
        let status = eventually(within, "the daemon ends", || child.try_wait().unwrap());
        self.child = None;
        status
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
            if self.wg {
                // Killed, it leaves it in the machine's folder.
                let _ = fs::remove_file(socket_of(self.name()));
            }
        }
        if std::thread::panicking() {
            eprintln!("--- log of {}\n{}---", self.host.name(), self.log());
        }
    }
}
