//! What somebody else changes of a peer while it lives: its keys, and what is wanted of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::{Initiates, Peer};
use crate::tunnel::identity::Identity;
use crate::tunnel::key::PresharedKey;

impl Peer {
    /// Takes another preshared key into use; the sessions of the old one serve until the first new one.
    pub fn set_psk(&self, psk: Option<PresharedKey>, now: Instant) {
        let mut secrets = self.secrets.lock();
        secrets.psk = psk;
        self.lane.replace(&secrets.identity, secrets.psk.as_ref(), now);
        self.schedule.lock().hurry();
    }

    /// Whether its preshared key is this one.
    #[must_use]
    pub fn has_psk(&self, psk: Option<&PresharedKey>) -> bool {
        self.secrets.lock().psk.as_ref() == psk
    }

    /// Its preshared key in hexadecimal digits, for root's `wg`.
    #[must_use]
    pub fn reveal_psk_hex(&self) -> Option<Zeroizing<String>> {
        self.secrets.lock().psk.as_ref().map(PresharedKey::reveal_hex)
    }

    /// Forgets all sessions and starts over as `identity`, the one it has or another.
    pub fn restart(&self, identity: &Arc<Identity>) {
        let mut secrets = self.secrets.lock();
        secrets.identity = Arc::clone(identity);
        self.lane.restart(identity, secrets.psk.as_ref());
        self.schedule.lock().hurry();
    }

    /// What kept it from being reached is gone: the next attempt need not wait.
    pub fn hurry(&self) {
        self.schedule.lock().hurry();
    }

    /// How often to be heard at least; none = off.
    #[must_use]
    pub fn keepalive(&self) -> Option<Duration> {
        self.schedule.lock().keepalive()
    }

    /// Sets [`Peer::keepalive`].
    pub fn set_keepalive(&self, keepalive: Option<Duration>) {
        self.schedule.lock().set_keepalive(keepalive);
    }

    /// What the configuration says of it now. Its sessions go on.
    pub fn follow(&self, name: String, initiates: Initiates, configured_endpoint: bool, keepalive: Option<Duration>) {
        self.name.store(Arc::new(name));
        self.schedule.lock().follow(initiates, configured_endpoint, keepalive);
    }

    /// Our key is another from now on; the sessions of the old one serve until the first new one.
    pub fn take_identity(&self, identity: &Arc<Identity>, now: Instant) {
        let mut secrets = self.secrets.lock();
        secrets.identity = Arc::clone(identity);
        self.lane.replace(identity, secrets.psk.as_ref(), now);
        let mut schedule = self.schedule.lock();
        schedule.set_smaller(*identity.public() < self.key);
        schedule.hurry();
    }

    /// We send from somewhere else now: the next tick tells a peer with whom there is a session, and tries the others.
    pub fn announce(&self) {
        self.schedule.lock().announce();
    }

    /// Starts over with the wall clock of now (see [`super::clock`]); the old sessions serve until the first new one.
    pub fn recreate(&self, now: Instant) {
        let secrets = self.secrets.lock();
        self.lane.replace(&secrets.identity, secrets.psk.as_ref(), now);
        self.schedule.lock().hurry();
    }
}
