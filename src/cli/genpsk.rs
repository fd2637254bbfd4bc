//! `linkspan genpsk`: a preshared key to the standard output, as `wg genpsk`.

use anyhow::Context as _;

use super::{Exit, out};
use crate::tunnel::key::PresharedKey;

/// Make a preshared key, and write it to standard output, as `wg genpsk`
///
/// Both ends of a tunnel need the same one, in the file that `preshared_key_file` names.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn execute(_args: &Args) -> anyhow::Result<Exit> {
    let key = PresharedKey::generate().context("the kernel gave no random bytes")?;
    out::secret(&key.reveal())?;
    Ok(Exit::Fine)
}
