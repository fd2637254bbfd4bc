//! `linkspan pubkey`: private key in, public key out, as `wg pubkey`.

use std::io::{self, Read};

use anyhow::Context as _;
use zeroize::Zeroizing;

use super::{Exit, out};
use crate::tunnel::key::{PrivateKey, PublicKey};

/// Read a private key from standard input, and write its public key to standard output, as `wg pubkey`
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn execute(_args: &Args) -> anyhow::Result<Exit> {
    out::line(public(&mut io::stdin().lock())?)?;
    Ok(Exit::Fine)
}

/// The public key of the private key that `input` holds, and nothing else but white space around it.
fn public(input: &mut impl Read) -> anyhow::Result<PublicKey> {
    let mut bytes = Zeroizing::new([0; 128]);
    let length = fill(input, bytes.as_mut()).context("cannot read standard input")?;
    let text = bytes.get(..length).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default();
    let key = PrivateKey::parse(text).context("standard input")?;
    Ok(key.public())
}

/// Reads until the end, or until `buffer` is full: a buffer of fixed size leaves no copy of the key behind.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    loop {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => return Ok(filled),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7748, section 6.1.
    const ALICE: (&str, &str) =
        ("dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=", "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=");
    const BOB: (&str, &str) =
        ("XasIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Os=", "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=");

    #[test]
    fn the_public_keys_are_those_of_rfc_7748() {
        for (private, expected) in [ALICE, BOB] {
            let key = public(&mut format!("{private}\n").as_bytes()).unwrap();
            assert_eq!(key.to_string(), expected);
        }
    }

    #[test]
    fn what_is_not_one_key_is_refused() {
        let two = format!("{}\n{}\n", ALICE.0, BOB.0);
        for text in ["", "x", &two, &ALICE.0.repeat(3), &ALICE.0[..40]] {
            assert!(public(&mut text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_key_that_arrives_in_pieces_is_read_whole() {
        let mut pieces = ALICE.0.as_bytes()[..10].chain(&ALICE.0.as_bytes()[10..]);
        assert_eq!(public(&mut pieces).unwrap().to_string(), ALICE.1);
    }
}
