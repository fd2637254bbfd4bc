//! A booted machine in a gateway's network namespace: systemd-nspawn over a root that no machine writes to.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::Pid;

use crate::group::Groups;
use crate::harness::host::{Finished, Host, finish};
use crate::harness::status::Status;
use crate::harness::stock::installed;
use crate::harness::{Net, eventually, seconds};

/// Runs until dropped, and leaves nothing.
pub struct Machine<'n> {
    host: &'n Host,
    child: Child,
    /// Its process 1, as seen from outside.
    init: i32,
    _groups: Groups,
}

/// The root of a machine of this Debian; none, and loudly, if it was not made.
pub fn root_of(debian: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/booted").join(debian);
    installed(&root).then_some(root)
}

impl<'n> Machine<'n> {
    /// Boots `root` in a gateway of `net`.
    pub fn boot(net: &'n Net, host: &'n Host, root: &Path) -> Self {
        // What it writes is kept in memory. The TUN device is open to all, as udev makes it.
        let tun = net.directory(host.name()).join("tun");
        mknod(&tun, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(10, 200)).unwrap();
        fs::set_permissions(&tun, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
        let groups = Groups::new(host.name());
        let nspawn = format!(
            "{} exec systemd-nspawn --quiet --directory={} --machine={name} --volatile=overlay --register=no --keep-unit \
             --network-namespace-path=/run/netns/{name} --capability=CAP_NET_ADMIN --bind={}:/dev/net/tun \
             --console=read-only --boot",
            groups.enter(),
            root.display(),
            tun.display(),
            name = host.name(),
        );
        // It ends with the test, however that ends: told so, systemd-nspawn has the machine power off.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "SIGTERM", "sh", "-ec", &nspawn]).process_group(0);
        // Of /proc/sys, what belongs to its network is its own.
        command.env("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "network");
        let console = fs::File::create(net.directory(host.name()).join("console")).unwrap();
        command.stdin(Stdio::null()).stdout(console.try_clone().unwrap()).stderr(console);
        let child = command.spawn().expect("setpriv (util-linux) runs");
        let mut machine = Self { host, child, init: 0, _groups: groups };
        machine.wait_booted();
        machine
    }

    fn wait_booted(&mut self) {
        let nspawn = self.child.id();
        self.init = eventually(seconds(30), "systemd-nspawn starts process 1", || {
            let children = fs::read_to_string(format!("/proc/{nspawn}/task/{nspawn}/children")).unwrap();
            let mut children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
            children.find(|pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c == "systemd\n"))
        });
        eventually(seconds(60), "the machine is up", || {
            let state = self.output(&["systemctl", "is-system-running", "--wait"]).stdout;
            (state.trim() == "running").then_some(())
        });
    }

    /// A command that will run in it, as root.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.to_string(), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]);
        command.arg("--").args(words);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/root").env("SYSTEMD_PAGER", "");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    /// How a command in it ends, within a minute.
    pub fn output(&self, words: &[&str]) -> Finished {
        finish(self.command(words), seconds(60))
    }

    /// What lines of shell say, in root's home. Each must succeed.
    pub fn run(&self, script: &str) -> String {
        let finished = self.output(&["sh", "-ec", &format!("cd\n{script}")]);
        assert!(finished.status.success(), "{}: {script}: {finished:?}", self.host.name());
        finished.stdout
    }

    /// A file of it, as a path for the test.
    pub fn path(&self, absolute: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{absolute}", self.init))
    }

    pub fn write(&self, absolute: &str, text: &str) {
        let path = self.path(absolute);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap_or_else(|e| panic!("{absolute}: {e}"));
    }

    pub fn status(&self) -> Option<Status> {
        Status::parse(&self.output(&["linkspan", "status", "wan0", "--json"]).stdout)
    }

    pub fn wait_up(&self, within: Duration) {
        eventually(within, "the tunnel is up", || self.status().filter(Status::is_up));
    }

    /// A property of linkspan@wan0.service.
    pub fn property(&self, name: &str) -> String {
        self.run(&format!("systemctl show --property={name} --value linkspan@wan0")).trim().to_owned()
    }

    /// The daemon of wan0, as seen from outside; none while there is none.
    pub fn daemon(&self) -> Option<i32> {
        let inside = self.property("MainPID");
        let of = |pid: &str, what: &str| fs::read_link(format!("/proc/{pid}/ns/{what}")).ok();
        let own = of(&self.init.to_string(), "pid")?;
        let is_it = |pid: &i32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let ids = status.lines().find(|line| line.starts_with("NSpid:"));
            ids.is_some_and(|ids| ids.split_whitespace().last() == Some(&inside))
                && of(&pid.to_string(), "pid").as_ref() == Some(&own)
        };
        let all = fs::read_dir("/proc").unwrap().flatten();
        all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(is_it)
    }

    /// All that the journal holds of linkspan@wan0, with every field.
    pub fn journal(&self) -> String {
        self.run("journalctl --sync; journalctl --all --output=verbose --unit=linkspan@wan0")
    }

    /// Waits until these words are in it: what was said may still be under way to it.
    pub fn journal_tells(&self, words: &str) {
        eventually(seconds(5), &format!("{words:?} is in the journal"), || {
            self.journal().contains(words).then_some(())
        });
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        if self.init != 0 && std::thread::panicking() {
            let journal = finish_quietly(self.command(&["journalctl", "--no-pager", "--unit=linkspan@*"]));
            eprintln!("--- journal of {}\n{journal}---", self.host.name());
        }
        // With process 1 goes every other; systemd-nspawn then tidies up.
        if self.init != 0 {
            let _ = kill(Pid::from_raw(self.init), Signal::SIGKILL);
        } else {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

fn finish_quietly(mut command: Command) -> String {
    let output = command.stdin(Stdio::null()).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}
