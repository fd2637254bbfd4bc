//! Key files: read only if nobody else can read them, written once and never over another.
//!
//! The checks are made on the open file, behind any symbolic link, so that nothing can be swapped in between.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::unistd::{Group, geteuid};
use zeroize::Zeroizing;

use super::Interface;
use crate::tunnel::key::{NotAKey, PresharedKey, PrivateKey};

/// The group under which the daemon may run, and whose members may therefore read a key of mode 0640.
pub const GROUP: &str = "linkspan";

/// Bits that let others read, or anybody but the owner write.
const TOO_OPEN: u32 = 0o137;
const GROUP_READ: u32 = 0o040;
/// More than any key and the blanks around it.
const LONGEST: usize = 256;

/// Why a key file was not read or not written; one line, with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// There is none.
    #[error("{path}: there is no such key file (make one with: {how})")]
    Missing {
        /// The file.
        path: PathBuf,
        /// The command that makes it.
        how: String,
    },
    /// This user may not read it.
    #[error("{0}: permission denied (run the command as root, or: chown root:linkspan {0} && chmod 640 {0})")]
    Denied(PathBuf),
    /// This user may not write there.
    #[error("{0}: permission denied (run the command as root)")]
    NotWritable(PathBuf),
    /// Others could have read or replaced it.
    #[error("{path}: others can read or change this key, its mode is {mode:04o} (do: chmod 600 {path})")]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A group other than the daemon's can read it.
    #[error("{path}: readable by the group {group}, not {GROUP} (do: chmod 600 {path}, or: chgrp {GROUP} {path})")]
    WrongGroup {
        /// The file.
        path: PathBuf,
        /// The group's number.
        group: u32,
    },
    /// It belongs to another user, who can change it.
    #[error("{path}: belongs to the user {owner} (do: chown root {path})")]
    WrongOwner {
        /// The file.
        path: PathBuf,
        /// The owner's number.
        owner: u32,
    },
    /// What is in it is no key.
    #[error("{path}: {NotAKey} (make one with: {how})")]
    NotAKey {
        /// The file.
        path: PathBuf,
        /// The command that makes one.
        how: String,
    },
    /// It was there before, and some peer may know its public key.
    #[error("{0}: exists, and a key is never overwritten (see its public key with: linkspan pubkey < {0})")]
    Exists(PathBuf),
    /// Anything else.
    #[error("{path}: {error} (name a regular file on a disk that works)")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// The private key of `interface`: the credential NAME.key of the service manager if there is one
/// (`$CREDENTIALS_DIRECTORY`, systemd.exec(5)), else its `private_key_file`.
///
/// # Errors
/// As [`read_private_key`]. A credential that is there and no key is an error; the file is then not looked at.
pub fn private_key_of(interface: &Interface) -> Result<PrivateKey, KeyFileError> {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY");
    private_key_from(credentials.as_deref(), interface)
}

fn private_key_from(credentials: Option<&OsStr>, interface: &Interface) -> Result<PrivateKey, KeyFileError> {
    let credential = credentials.map(|folder| Path::new(folder).join(format!("{}.key", interface.name)));
    match credential.filter(|path| path.exists()) {
        // Its folder is private to the service; modes and owners in it differ between systemd's versions.
        Some(path) => private_key(&path, None),
        None => read_private_key(&interface.private_key_file),
    }
}

/// The private key in the file at `path`, which belongs to root or this user and nobody else can read, except, at mode
/// 0640, the group [`GROUP`].
///
/// # Errors
/// When it is missing, unreadable, too open, or holds no key.
pub fn read_private_key(path: &Path) -> Result<PrivateKey, KeyFileError> {
    private_key(path, Some(&Trusted::here()))
}

fn private_key(path: &Path, trusted: Option<&Trusted>) -> Result<PrivateKey, KeyFileError> {
    let name = path.file_stem().map(OsStr::to_string_lossy).unwrap_or_default();
    read(path, trusted, &format!("linkspan genkey {name}"), PrivateKey::parse)
}

/// The preshared key in the file at `path`, under the same conditions.
///
/// # Errors
/// As [`read_private_key`].
pub fn read_preshared_key(path: &Path) -> Result<PresharedKey, KeyFileError> {
    let how = format!("(umask 077; linkspan genpsk > {}), and copy it to the far end", path.display());
    read(path, Some(&Trusted::here()), &how, PresharedKey::parse)
}

/// Writes a new key file, mode 0600, or root:linkspan 0640 where root writes and that group exists. Makes its folder if
/// only that is missing.
///
/// # Errors
/// When there is such a file already, whatever is in it, or it cannot be written; then nothing is left behind.
pub fn write_private_key(path: &Path, key: &PrivateKey) -> Result<(), KeyFileError> {
    write(path, &key.reveal(), Trusted::here().group_to_read())
}

/// Writes a new file for a preshared key, under the same conditions.
///
/// # Errors
/// As [`write_private_key`].
pub fn write_preshared_key(path: &Path, key: &PresharedKey) -> Result<(), KeyFileError> {
    write(path, &key.reveal(), Trusted::here().group_to_read())
}

/// Who may own a key file, and who may read it beside its owner.
struct Trusted {
    user: u32,
    group: Option<u32>,
}

impl Trusted {
    fn here() -> Self {
        let group = Group::from_name(GROUP).ok().flatten().map(|group| group.gid.as_raw());
        Self { user: geteuid().as_raw(), group }
    }

    /// The daemon's group, where this user may give files to it.
    fn group_to_read(&self) -> Option<u32> {
        self.group.filter(|_| self.user == 0)
    }

    fn check(&self, path: &Path, file: &File) -> Result<(), KeyFileError> {
        let facts = file.metadata().map_err(|error| failed(path, error))?;
        let (path, mode) = (path.to_owned(), facts.mode() & 0o7777);
        if facts.uid() != 0 && facts.uid() != self.user {
            Err(KeyFileError::WrongOwner { path, owner: facts.uid() })
        } else if mode & TOO_OPEN != 0 {
            Err(KeyFileError::TooOpen { path, mode })
        } else if mode & GROUP_READ != 0 && Some(facts.gid()) != self.group {
            Err(KeyFileError::WrongGroup { path, group: facts.gid() })
        } else {
            Ok(())
        }
    }
}

fn read<K>(
    path: &Path,
    trusted: Option<&Trusted>,
    how: &str,
    parse: impl Fn(&str) -> Result<K, NotAKey>,
) -> Result<K, KeyFileError> {
    let mut file = open(path).map_err(|error| {
        let missing = error.kind() == io::ErrorKind::NotFound;
        if missing { KeyFileError::Missing { path: path.to_owned(), how: how.to_owned() } } else { failed(path, error) }
    })?;
    if let Some(trusted) = trusted {
        trusted.check(path, &file)?;
    }
    let mut buffer = Zeroizing::new([0; LONGEST]);
    let length = fill(&mut file, buffer.as_mut()).map_err(|error| failed(path, error))?;
    let text = buffer.get(..length).and_then(|bytes| str::from_utf8(bytes).ok());
    let key = text.filter(|_| length < LONGEST).and_then(|text| parse(text).ok());
    key.ok_or_else(|| KeyFileError::NotAKey { path: path.to_owned(), how: how.to_owned() })
}

/// A regular file; without O_NONBLOCK a named pipe would hold up the start for ever.
fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let kind = file.metadata()?.file_type();
    match (kind.is_file(), kind.is_dir()) {
        (true, _) => Ok(file),
        (_, true) => Err(io::ErrorKind::IsADirectory.into()),
        _ => Err(io::Error::other("not a regular file")),
    }
}

fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

fn write(path: &Path, key: &str, group: Option<u32>) -> Result<(), KeyFileError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists());
    if let Some(folder) = folder {
        DirBuilder::new().mode(0o755).create(folder).map_err(|error| not_written(folder, error))?;
    }
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = created.map_err(|error| {
        let exists = error.kind() == io::ErrorKind::AlreadyExists;
        if exists { KeyFileError::Exists(path.to_owned()) } else { not_written(path, error) }
    })?;
    complete(&mut file, key, group).map_err(|error| {
        // Half a key file would stand in the way of the next attempt; the first error is the one to tell.
        let _ = std::fs::remove_file(path);
        not_written(path, error)
    })
}

fn complete(file: &mut File, key: &str, group: Option<u32>) -> io::Result<()> {
    file.write_all(key.as_bytes())?;
    file.write_all(b"\n")?;
    if let Some(group) = group {
        fchown(&*file, None, Some(group))?;
        file.set_permissions(Permissions::from_mode(0o640))?;
    }
    file.sync_all()
}

fn failed(path: &Path, error: io::Error) -> KeyFileError {
    let path = path.to_owned();
    if error.kind() == io::ErrorKind::PermissionDenied {
        KeyFileError::Denied(path)
    } else {
        KeyFileError::Io { path, error }
    }
}

fn not_written(path: &Path, error: io::Error) -> KeyFileError {
    let path = path.to_owned();
    if error.kind() == io::ErrorKind::PermissionDenied {
        KeyFileError::NotWritable(path)
    } else {
        KeyFileError::Io { path, error }
    }
}

#[cfg(test)]
mod tests;
