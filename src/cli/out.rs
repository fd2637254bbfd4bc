//! The terminal: a reader that has gone away (`linkspan status | head -1`) is no error.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::Context as _;

/// Writes `text` to the standard output as it is.
pub(super) fn bytes(text: &[u8]) -> anyhow::Result<()> {
    is_read(text).map(drop)
}

/// The same; false if its reader has gone.
pub(super) fn is_read(text: &[u8]) -> anyhow::Result<bool> {
    let mut output = io::stdout().lock();
    match output.write_all(text).and_then(|()| output.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("cannot write to standard output"),
    }
}

/// Writes one line to the standard output.
pub(super) fn line(text: impl Display) -> anyhow::Result<()> {
    bytes(format!("{text}\n").as_bytes())
}

/// Writes a key and a newline to the standard output, in two pieces so that no copy of the key is made; warns as
/// `wg` does when that is a file that everybody may read.
pub(super) fn secret(key: &str) -> anyhow::Result<()> {
    if is_readable_by_all() {
        error("warning: writing a key to a file that everybody may read; set `umask 077` and make a new one");
    }
    let mut output = File::from(io::stdout().as_fd().try_clone_to_owned().context("no standard output")?);
    output.write_all(key.as_bytes()).and_then(|()| output.write_all(b"\n")).context("cannot write the key")
}

/// Writes one line to the standard error.
pub(super) fn error(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

fn is_readable_by_all() -> bool {
    let Ok(output) = io::stdout().as_fd().try_clone_to_owned().map(File::from) else { return false };
    output.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o007 != 0)
}
