//! Who we are: the static key, shared by all lanes.

use zeroize::Zeroizing;

use super::key::{PrivateKey, PublicKey};
use super::lane::engine::{self, Limiter};

/// Our static key pair, and what boringtun wants to share among all sessions of one key.
pub struct Identity {
    private: PrivateKey,
    public: PublicKey,
    limiter: Limiter,
}

impl Identity {
    /// The identity of `private`.
    #[must_use]
    pub fn new(private: PrivateKey) -> Self {
        let public = private.public();
        // The real limit is the gate's. Were this one ever under load, each handshake would be counted twice.
        let limiter = Limiter::new(&public, u64::MAX);
        Self { private, public, limiter }
    }

    /// Our public key.
    #[must_use]
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Who claims to have sent `initiation`: proven only once its lane accepts it.
    /// Costs one curve operation (about 40 us): only the handshake thread may call it.
    #[must_use]
    pub fn peer_of(&self, initiation: &[u8]) -> Option<PublicKey> {
        engine::initiator(self, initiation)
    }

    /// Our private key in hexadecimal digits, for root's `wg`.
    #[must_use]
    pub fn reveal_hex(&self) -> Zeroizing<String> {
        self.private.reveal_hex()
    }

    pub(in crate::tunnel) const fn private(&self) -> &PrivateKey {
        &self.private
    }

    pub(in crate::tunnel) const fn limiter(&self) -> &Limiter {
        &self.limiter
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("public", &self.public).finish_non_exhaustive()
    }
}
