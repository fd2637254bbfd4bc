//! Keys as types: what is secret cannot be printed, copied or written by accident.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// A Curve25519 public key: who a peer is. 32 bytes, written as 44 characters of base64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

/// A Curve25519 private key. No Debug, Display, Clone or Serialize; wiped on drop.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct PrivateKey([u8; 32]);

/// A preshared key, mixed into the handshake (WireGuard paper, section 5.2). As secret as [`PrivateKey`].
#[derive(Zeroize, ZeroizeOnDrop, PartialEq, Eq)]
pub struct PresharedKey([u8; 32]);

/// The text is not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a key: a key is 44 characters of base64, ending in \"=\" (32 bytes)")]
pub struct NotAKey;

impl PublicKey {
    /// From its 32 bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// From its 64 hexadecimal digits.
    ///
    /// # Errors
    /// When the text is no key.
    pub fn parse_hex(text: &str) -> Result<Self, NotAKey> {
        decode_hex(text).map(|bytes| Self(*bytes))
    }

    /// Its 64 hexadecimal digits.
    #[must_use]
    pub fn to_hex(&self) -> String {
        std::mem::take(&mut *encode_hex(&self.0))
    }

    /// Its 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for PublicKey {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        decode(text).map(|bytes| Self(*bytes))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PrivateKey {
    /// A fresh one from the kernel's generator, clamped (RFC 7748, section 5).
    ///
    /// # Errors
    /// When the kernel gives no random bytes.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut key = Self([0; 32]);
        getrandom::fill(&mut key.0)?;
        key.0[0] &= 248;
        key.0[31] = (key.0[31] & 127) | 64;
        Ok(key)
    }

    /// From its base64 text.
    ///
    /// # Errors
    /// When the text is no key.
    pub fn parse(text: &str) -> Result<Self, NotAKey> {
        decode(text).map(|bytes| Self(*bytes))
    }

    /// From its 64 hexadecimal digits.
    ///
    /// # Errors
    /// When the text is no key.
    pub fn parse_hex(text: &str) -> Result<Self, NotAKey> {
        decode_hex(text).map(|bytes| Self(*bytes))
    }

    /// Its 64 hexadecimal digits, for the WireGuard tools. Wiped on drop.
    #[must_use]
    pub fn reveal_hex(&self) -> Zeroizing<String> {
        encode_hex(&self.0)
    }

    /// Whether all its bytes are zero, which stands for no key.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0 == [0; 32]
    }

    /// The public key that belongs to it.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(x25519_dalek::PublicKey::from(&self.secret()).to_bytes())
    }

    /// As the curve library takes it.
    pub(in crate::tunnel) fn secret(&self) -> x25519_dalek::StaticSecret {
        x25519_dalek::StaticSecret::from(self.0)
    }

    /// Its base64 text, for a key file or for the standard output of `genkey`. Wiped on drop.
    #[must_use]
    pub fn reveal(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.0))
    }
}

impl PresharedKey {
    /// A fresh one from the kernel's generator.
    ///
    /// # Errors
    /// When the kernel gives no random bytes.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut key = Self([0; 32]);
        getrandom::fill(&mut key.0)?;
        Ok(key)
    }

    /// From its base64 text.
    ///
    /// # Errors
    /// When the text is no key.
    pub fn parse(text: &str) -> Result<Self, NotAKey> {
        decode(text).map(|bytes| Self(*bytes))
    }

    /// From its 64 hexadecimal digits.
    ///
    /// # Errors
    /// When the text is no key.
    pub fn parse_hex(text: &str) -> Result<Self, NotAKey> {
        decode_hex(text).map(|bytes| Self(*bytes))
    }

    /// Its 64 hexadecimal digits, for the WireGuard tools. Wiped on drop.
    #[must_use]
    pub fn reveal_hex(&self) -> Zeroizing<String> {
        encode_hex(&self.0)
    }

    /// Whether all its bytes are zero, which is the same as none (WireGuard paper, section 5.2).
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0 == [0; 32]
    }

    pub(in crate::tunnel) const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Its base64 text, for a key file or for the standard output of `genpsk`. Wiped on drop.
    #[must_use]
    pub fn reveal(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.0))
    }
}

fn decode(text: &str) -> Result<Zeroizing<[u8; 32]>, NotAKey> {
    let bytes = Zeroizing::new(STANDARD.decode(text.trim()).map_err(|_| NotAKey)?);
    let array = <[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| NotAKey)?;
    Ok(Zeroizing::new(array))
}

fn decode_hex(text: &str) -> Result<Zeroizing<[u8; 32]>, NotAKey> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).ok_or(NotAKey);
    let mut bytes = Zeroizing::new([0; 32]);
    if text.len() != 2 * bytes.len() {
        return Err(NotAKey);
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        for half in pair {
            *byte = *byte << 4 | digit(*half)?;
        }
    }
    Ok(bytes)
}

fn encode_hex(bytes: &[u8; 32]) -> Zeroizing<String> {
    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or_default();
    // As large as it gets: growing would leave a copy behind.
    let mut text = Zeroizing::new(String::with_capacity(2 * bytes.len()));
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_text() {
        let key = PrivateKey::generate().unwrap();
        let again = PrivateKey::parse(&key.reveal()).unwrap();
        assert_eq!(key.public(), again.public());
        assert_eq!(key.public().to_string().parse(), Ok(key.public()));
    }

    #[test]
    fn a_key_survives_its_hexadecimal_text() {
        let key = PrivateKey::generate().unwrap();
        assert_eq!(PrivateKey::parse_hex(&key.reveal_hex()).unwrap().public(), key.public());
        assert_eq!(PublicKey::parse_hex(&key.public().to_hex()), Ok(key.public()));
        for text in ["", "00", &"g".repeat(64), &"0".repeat(63), &"0".repeat(66), &"\u{e9}".repeat(32)] {
            assert_eq!(PublicKey::parse_hex(text), Err(NotAKey), "{text}");
        }
    }

    #[test]
    fn the_public_key_is_the_one_of_rfc_7748() {
        // RFC 7748, section 6.1, Alice.
        let private = PrivateKey([
            0x77, 0x07, 0x6d, 0x0a, 0x73, 0x18, 0xa5, 0x7d, 0x3c, 0x16, 0xc1, 0x72, 0x51, 0xb2, 0x66, 0x45, 0xdf, 0x4c,
            0x2f, 0x87, 0xeb, 0xc0, 0x99, 0x2a, 0xb1, 0x77, 0xfb, 0xa5, 0x1d, 0xb9, 0x2c, 0x2a,
        ]);
        assert_eq!(private.public().as_bytes()[..4], [0x85, 0x20, 0xf0, 0x09]);
    }

    #[test]
    fn what_is_not_32_bytes_of_base64_is_not_a_key() {
        for text in ["", "abc", "AAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "?"] {
            assert_eq!(text.parse::<PublicKey>(), Err(NotAKey), "{text}");
        }
    }
}
