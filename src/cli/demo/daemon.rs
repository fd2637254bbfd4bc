//! One of the demo's two real daemons: its files, its process, its log.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::place::Place;
use super::topology::Site;
use crate::cli::status;
use crate::config::key_file;
use crate::control::status::Status;
use crate::tunnel::key::{PrivateKey, PublicKey};

const PORT: u16 = 51820;
const GOODBYE: Duration = Duration::from_secs(5);

/// The files of one gateway.
pub(super) struct Files {
    name: &'static str,
    config: PathBuf,
    key: PathBuf,
    socket: PathBuf,
    state: PathBuf,
    log: PathBuf,
    public_key: PublicKey,
}

impl Files {
    /// Makes the key; the rest is only named.
    ///
    /// # Errors
    /// It cannot be made or written.
    pub(super) fn new(folder: &Path, site: Site) -> anyhow::Result<Self> {
        let path = |extension: &str| folder.join(format!("{}.{extension}", site.name));
        let private = PrivateKey::generate().context("the kernel gave no random bytes")?;
        let key = path("key");
        key_file::write_private_key(&key, &private)?;
        Ok(Self {
            name: site.name,
            config: path("toml"),
            key,
            socket: path("sock"),
            state: path("state"),
            log: path("log"),
            public_key: private.public(),
        })
    }

    /// Writes the configuration: `near` is this site, `far` with its files the other one.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn configure(&self, near: Site, far: Site, other: &Self, ipv6: bool) -> anyhow::Result<()> {
        let networks = |site: Site| {
            let networks = site.networks();
            let known = if ipv6 { &networks[..] } else { &networks[..1] };
            known.iter().map(|network| format!("\"{network}\"")).collect::<Vec<_>>().join(", ")
        };
        let text = format!(
            r#"[interface]
private_key_file = "{key}"
listen_port = {PORT}

[[connection]]
name = "{far}"
networks = [{networks}]
local_networks = [{local_networks}]

[[connection.tunnel]]
name = "tunnel"
public_key = "{public_key}"
endpoint = "{endpoint}:{PORT}"
inside_cidr = "169.254.77.0/30"
inside = "{inside}"
"#,
            key = self.key.display(),
            far = far.name,
            networks = networks(far),
            local_networks = networks(near),
            public_key = other.public_key,
            endpoint = far.outside,
            inside = near.inside,
        );
        fs::write(&self.config, text).with_context(|| format!("cannot write {}", self.config.display()))
    }

    fn command(&self) -> anyhow::Result<Command> {
        fs::create_dir_all(&self.state)?;
        let log = File::create(&self.log)?;
        let mut command = Command::new(std::env::current_exe().context("where is this program?")?);
        command.arg("run").arg("--config").arg(&self.config).arg("--socket").arg(&self.socket);
        command.arg("--state-dir").arg(&self.state).arg("--no-wg");
        command.arg("--stop-with-parent").arg(std::process::id().to_string());
        // A group of its own: Ctrl-C is for the demo, which stops its daemons in order.
        command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(command)
    }
}

/// A running daemon; stopped on drop.
pub(super) struct Daemon {
    /// Its files.
    files: Files,
    child: Child,
}

impl Daemon {
    /// Starts the daemon on `place`.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn start(place: &Place, files: Files) -> anyhow::Result<Self> {
        let mut command = files.command()?;
        let child = place.run(move || command.spawn().context("cannot start the daemon"))?;
        Ok(Self { files, child })
    }

    /// What it says of itself, if it answers.
    pub(super) fn status(&self) -> Option<Status> {
        status::ask(&self.files.socket).ok()
    }

    /// How it ended, if it did.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Which one it is.
    pub(super) fn name(&self) -> &'static str {
        self.files.name
    }

    /// The last lines of its log.
    pub(super) fn log_tail(&self) -> String {
        let log = fs::read_to_string(&self.files.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Asks it to stop.
    pub(super) fn ask_to_stop(&mut self) {
        if self.ended().is_none()
            && let Ok(pid) = i32::try_from(self.child.id())
        {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.ask_to_stop();
        let start = Instant::now();
        while self.ended().is_none() {
            if start.elapsed() > GOODBYE {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}
