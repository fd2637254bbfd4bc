//! The state directory: what must outlive the daemon. The clock mark, and where far ends were last heard.

use std::cell::Cell;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use tracing::{debug, warn};

/// Where systemd (`StateDirectory=linkspan`) puts it, too.
pub const DEFAULT: &str = "/var/lib/linkspan";

/// More than any of them: the places of 10,000 far ends.
const MAX_BYTES: u64 = 1 << 20;

/// One interface's files in the state directory. A directory that cannot be written is told once and then done
/// without.
#[derive(Debug)]
pub struct State {
    clock: PathBuf,
    peers: PathBuf,
    warned: Cell<bool>,
}

impl State {
    /// For the interface `name`; see [`directory`](directory()).
    #[must_use]
    pub fn new(directory: Option<&Path>, name: &str) -> Self {
        let [clock, peers] = files(&self::directory(directory), name);
        Self { clock, peers, warned: Cell::new(false) }
    }

    /// The clock mark as last written; none if there is none.
    #[must_use]
    pub fn clock(&self) -> Option<String> {
        match read(&self.clock) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                warn!("cannot read {}: {error}; without it, a clock that was set back is not noticed", self.path());
                None
            }
        }
    }

    /// Where far ends were last heard, as last written; none if that cannot be read.
    #[must_use]
    pub fn peers(&self) -> Option<String> {
        read(&self.peers).ok()
    }

    /// Writes where far ends were last heard; nothing depends on it but how soon they are found again.
    pub fn set_peers(&self, peers: &str) {
        if let Err(error) = write(&self.peers, peers) {
            debug!("cannot write {}: {error}", self.peers.display());
        }
    }

    /// Writes the clock mark: after a power cut the file is the old one or the new one.
    pub fn set_clock(&self, mark: &str) {
        let Err(error) = write(&self.clock, mark) else { return };
        if !self.warned.replace(true) {
            warn!("cannot write {}: {error}; a clock that is set back over a restart will not be noticed", self.path());
        }
    }

    fn path(&self) -> std::path::Display<'_> {
        self.clock.display()
    }
}

/// `given`, else $STATE_DIRECTORY, else [`DEFAULT`].
#[must_use]
pub fn directory(given: Option<&Path>) -> PathBuf {
    // systemd joins several directories by colons; the first is ours.
    let all = std::env::var("STATE_DIRECTORY").unwrap_or_default();
    let first = all.split(':').next().filter(|first| !first.is_empty());
    given.or_else(|| first.map(Path::new)).unwrap_or_else(|| Path::new(DEFAULT)).to_owned()
}

/// Where the clock mark, and the places of far ends, of the interface `name` are kept.
#[must_use]
pub fn files(directory: &Path, name: &str) -> [PathBuf; 2] {
    ["clock", "peers"].map(|what| directory.join(format!("{name}.{what}")))
}

fn read(path: &Path) -> io::Result<String> {
    use std::io::Read as _;

    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_survives_and_is_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let made = folder.path().join("made");
        let state = State::new(Some(&made), "ls0");
        assert_eq!(state.clock(), None);
        state.set_clock("a long mark");
        state.set_clock("short");
        assert_eq!(State::new(Some(&made), "ls0").clock().as_deref(), Some("short"));
        assert_eq!(State::new(Some(&made), "ls1").clock(), None);
        let files: Vec<_> = std::fs::read_dir(&made).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(files, ["ls0.clock"]);
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_no_failure() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let state = State::new(Some(&file), "ls0");
        state.set_clock("x");
        assert!(state.warned.get());
        assert_eq!(state.clock(), None);
    }
}
