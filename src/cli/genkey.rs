//! `linkspan genkey`: a private key, to the standard output as `wg genkey`, or into its file.

use std::path::PathBuf;

use anyhow::Context as _;

use super::{Exit, names, out};
use crate::config::key_file;
use crate::tunnel::key::PrivateKey;

/// Make a private key
///
/// Without NAME, writes it to standard output, as `wg genkey`. With NAME, writes it to /etc/linkspan/NAME.key with
/// the right owner and mode, and prints the public key, which belongs into the far end's file. Never overwrites.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The interface whose key file is made
    #[arg(value_parser = names::interface)]
    name: Option<String>,
    /// The directory of the key file
    #[arg(long, value_name = "DIR", default_value = names::ETC, requires = "name")]
    dir: PathBuf,
}

pub(super) fn execute(args: &Args) -> anyhow::Result<Exit> {
    let key = PrivateKey::generate().context("the kernel gave no random bytes")?;
    let Some(name) = &args.name else {
        out::secret(&key.reveal())?;
        return Ok(Exit::Fine);
    };
    let file = args.dir.join(format!("{name}.key"));
    key_file::write_private_key(&file, &key)?;
    out::line(key.public())?;
    Ok(Exit::Fine)
}
