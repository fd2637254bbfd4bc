//! wg-quick's file in, a TOML file and its keys out. Pure: `linkspan import` reads and writes.
//!
//! Everything in the old file is either carried over or named in a [`Remark`] with its line and what to do instead.
//! Keys leave by their own types only: neither the TOML nor a remark ever repeats a value that may hold one.

mod interface;
mod peer;
mod scripts;
mod text;
mod wg_quick;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::tunnel::key::{PresharedKey, PrivateKey};

/// What a wg-quick file becomes.
pub struct Imported {
    /// The configuration; passes [`super::parse`].
    pub toml: String,
    /// What goes into NAME.key; none if the file had no key.
    pub private_key: Option<PrivateKey>,
    /// Preshared keys and their files.
    pub preshared_keys: Vec<(PathBuf, PresharedKey)>,
    /// What could not be carried over as it was, in the order of the file.
    pub remarks: Vec<Remark>,
}

/// Something that is otherwise with Linkspan.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remark {
    /// Line of the old file, from 1; none when it is about what is not there.
    pub line: Option<usize>,
    /// What it is about, and what became of it.
    pub what: String,
    /// What to do instead.
    pub instead: String,
}

impl Remark {
    fn at(line: usize, what: impl Into<String>, instead: impl Into<String>) -> Self {
        Self { line: Some(line), what: what.into(), instead: instead.into() }
    }

    fn on_the_whole(what: impl Into<String>, instead: impl Into<String>) -> Self {
        Self { line: None, what: what.into(), instead: instead.into() }
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "{line}: ")?;
        }
        write!(f, "{} ({})", self.what, self.instead)
    }
}

/// Translates `text`, the wg-quick file of the interface `name`, whose new files will lie in `folder`, a whole path.
///
/// # Errors
/// What makes it no WireGuard configuration. Nothing should be written then.
pub fn translate(text: &str, name: &str, folder: &Path) -> Result<Imported, Vec<Remark>> {
    let file = wg_quick::read(text)?;
    let mut remarks = Vec::new();
    let (interface, private_key) = interface::translate(&file.interface, name, &mut remarks)?;
    let peers = peer::translate_all(&file.peers, &interface, &mut remarks)?;
    let mut preshared_keys = Vec::new();
    let mut connections = Vec::new();
    for (number, peer) in (1..).zip(peers) {
        let (connection, preshared) = peer.split(folder, name, number);
        connections.push(connection);
        preshared_keys.extend(preshared);
    }
    let toml = text::file(&interface, &connections, name, folder);
    remarks.sort();
    Ok(Imported { toml, private_key, preshared_keys, remarks })
}

#[cfg(test)]
mod tests;
