//! One boringtun `Tunn`, with everything it leaves to its user. The only file that names boringtun.
//!
//! Sizes: boringtun panics when a destination is too small, so each call here states what it needs and refuses
//! less. Time: boringtun reads its own clock, once a batch and once a tick.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use boringtun::x25519;

use super::sessions::{Session, Sessions};
use crate::packet::Reason;
use crate::tunnel::id::{SessionIndex, Slot};
use crate::tunnel::identity::Identity;
use crate::tunnel::key::{PresharedKey, PublicKey};
use crate::tunnel::wire;

/// Room for whatever a handshake or a tick makes: 148 bytes at the most, and boringtun wants that much always.
pub const SMALL: usize = 256;

/// The least destination that `encapsulate` takes, however small the packet.
const LEAST_DESTINATION: usize = wire::INITIATION;

/// One `Tunn` and our account of it.
pub(in crate::tunnel) struct Engine {
    tunn: Tunn,
    slot: Slot,
    sessions: Sessions,
}

/// What opening a transport datagram gave. All but `Refused` mean that the peer was authenticated.
pub(super) enum Opened {
    /// A packet that claims to be IP, at the start of the destination.
    Packet(usize),
    /// Nothing inside.
    Keepalive,
    /// Authenticated, but not IP.
    Garbage,
    /// Not authenticated.
    Refused(Reason),
}

/// What boringtun's timers made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ticked {
    Nothing,
    Initiation(usize),
    Keepalive(usize),
}

impl Engine {
    pub(super) fn new(identity: &Identity, remote: &PublicKey, psk: Option<&PresharedKey>, slot: Slot) -> Self {
        let tunn = Tunn::new(
            identity.private().secret(),
            x25519::PublicKey::from(*remote.as_bytes()),
            psk.map(|key| *key.bytes()),
            None, // its own keepalive would not stop where ours does
            slot.value(),
            Some(Arc::clone(&identity.limiter().0)),
        );
        Self { tunn, slot, sessions: Sessions::new(slot.value() << 8) }
    }

    pub(super) const fn slot(&self) -> Slot {
        self.slot
    }

    pub(super) const fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// The session to seal with. boringtun is asked, too: sealing without one would queue the packet inside it.
    pub(super) fn current(&self) -> Option<&Session> {
        self.sessions.current().filter(|_| self.alive())
    }

    fn alive(&self) -> bool {
        self.tunn.time_since_last_handshake().is_some()
    }

    /// Seals `packet` into `out`; call only after [`Engine::current`] gave a session, under the same lock.
    /// None = `out` is too small.
    pub(super) fn seal(&mut self, packet: &[u8], out: &mut [u8]) -> Option<usize> {
        if out.len() < packet.len().checked_add(wire::TRANSPORT)?.max(LEAST_DESTINATION) {
            return None;
        }
        let TunnResult::WriteToNetwork(datagram) = self.tunn.encapsulate(packet, out) else { return None };
        (wire::kind(datagram) == Some(wire::Kind::Transport)).then_some(datagram.len())
    }

    /// Counts `messages` that [`Engine::seal`] made.
    pub(super) fn count(&mut self, messages: u64) {
        self.sessions.sealed(messages);
    }

    /// Opens a transport datagram into `out`.
    pub(super) fn open(&mut self, datagram: &[u8], out: &mut [u8]) -> Opened {
        let Some(index) = transport_index(datagram) else { return Opened::Refused(Reason::InMalformed) };
        if out.len() < datagram.len() {
            return Opened::Refused(Reason::InMalformed);
        }
        let opened = match self.tunn.decapsulate(None, datagram, out) {
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                Opened::Packet(packet.len())
            }
            TunnResult::Done => Opened::Keepalive,
            // The message itself is sound (see above): what is left is an opened packet that is not IP.
            TunnResult::Err(WireGuardError::InvalidPacket) => Opened::Garbage,
            TunnResult::Err(error) => return Opened::Refused(refusal(&error)),
            TunnResult::WriteToNetwork(_) => return Opened::Refused(Reason::InMalformed),
        };
        self.sessions.heard(index.value());
        opened
    }

    /// Answers an initiation: the size of the response in `out`. It may be a replay, so it moves nothing.
    pub(super) fn respond(&mut self, now: Instant, initiation: &[u8], out: &mut [u8; SMALL]) -> Option<usize> {
        if self.sessions.would_overwrite() {
            // boringtun would put the unproven session in the place of the one in use: skip that index.
            self.initiate(&mut [0; SMALL]);
        }
        let TunnResult::WriteToNetwork(reply) = self.tunn.decapsulate(None, initiation, out) else { return None };
        if wire::kind(reply) != Some(wire::Kind::Response) {
            return None;
        }
        self.sessions.answered(wire::sender_index(reply)?, now);
        Some(reply.len())
    }

    /// Takes the response to our initiation: the size of the keepalive in `out` that confirms the session.
    pub(super) fn complete(&mut self, now: Instant, response: &[u8], out: &mut [u8; SMALL]) -> Option<usize> {
        let index = wire::receiver_index(response)?;
        let TunnResult::WriteToNetwork(reply) = self.tunn.decapsulate(None, response, out) else { return None };
        if wire::kind(reply) != Some(wire::Kind::Transport) {
            return None;
        }
        let len = reply.len();
        self.sessions.established(index.value(), now);
        self.drain();
        Some(len)
    }

    /// Takes a cookie reply. It proves nothing about the sender.
    pub(super) fn take_cookie(&mut self, reply: &[u8]) -> bool {
        matches!(self.tunn.decapsulate(None, reply, &mut [0; SMALL]), TunnResult::Done)
    }

    /// A new initiation, whatever boringtun thinks of it: it gives up after 90 s, we do not.
    pub(super) fn initiate(&mut self, out: &mut [u8; SMALL]) -> Option<usize> {
        let TunnResult::WriteToNetwork(message) = self.tunn.format_handshake_initiation(out, true) else {
            return None;
        };
        self.sessions.used(wire::sender_index(message)?);
        Some(message.len())
    }

    /// Runs boringtun's timers, its only way to let sessions expire.
    pub(super) fn tick(&mut self, now: Instant, out: &mut [u8; SMALL]) -> Ticked {
        let made = match self.tunn.update_timers(out) {
            TunnResult::WriteToNetwork(message) => {
                Some((wire::kind(message), wire::sender_index(message), message.len()))
            }
            TunnResult::Err(WireGuardError::ConnectionExpired) => {
                self.sessions.clear();
                None
            }
            TunnResult::Done | TunnResult::Err(_) => None,
            TunnResult::WriteToTunnelV4(..) | TunnResult::WriteToTunnelV6(..) => None,
        };
        self.sessions.tick(now, self.tunn.time_since_last_handshake().is_some());
        match made {
            Some((Some(wire::Kind::Initiation), Some(index), len)) => {
                self.sessions.used(index);
                Ticked::Initiation(len)
            }
            Some((Some(wire::Kind::Transport), _, len)) => {
                self.sessions.sealed(1);
                Ticked::Keepalive(len)
            }
            _ => Ticked::Nothing,
        }
    }

    /// Empties boringtun's queue. We never put a packet in, but its timers queue a keepalive when a session has
    /// just expired, and it would go out at some later call.
    fn drain(&mut self) {
        while let TunnResult::WriteToNetwork(_) = self.tunn.decapsulate(None, &[], &mut [0; SMALL]) {
            self.sessions.sealed(1);
        }
    }

    #[cfg(test)]
    pub(super) fn pretend_sealed(&mut self, messages: u64) {
        self.sessions.sealed(messages);
    }
}

fn transport_index(datagram: &[u8]) -> Option<SessionIndex> {
    wire::receiver_index(datagram).filter(|_| wire::kind(datagram) == Some(wire::Kind::Transport))
}

const fn refusal(error: &WireGuardError) -> Reason {
    match error {
        WireGuardError::InvalidCounter | WireGuardError::DuplicateCounter => Reason::InReplay,
        WireGuardError::InvalidAeadTag => Reason::InForged,
        WireGuardError::NoCurrentSession | WireGuardError::WrongIndex => Reason::InNoSession,
        WireGuardError::DestinationBufferTooSmall
        | WireGuardError::IncorrectPacketLength
        | WireGuardError::UnexpectedPacket
        | WireGuardError::WrongPacketType
        | WireGuardError::WrongKey
        | WireGuardError::InvalidTai64nTimestamp
        | WireGuardError::WrongTai64nTimestamp
        | WireGuardError::InvalidMac
        | WireGuardError::InvalidPacket
        | WireGuardError::LockFailed
        | WireGuardError::ConnectionExpired
        | WireGuardError::UnderLoad => Reason::InMalformed,
    }
}

/// mac1, cookies, and a count of handshake messages a second, for one public key.
pub(in crate::tunnel) struct Limiter(Arc<RateLimiter>);

/// What a [`Limiter`] says of a handshake message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::tunnel) enum Checked {
    /// mac1 is right (and mac2, if a source was given and the limit is passed).
    Sound,
    /// Past the limit, and no source was given.
    UnderLoad,
    /// Past the limit and without a right mac2: a cookie reply was written.
    Cookie,
    /// mac1 is wrong.
    BadMac1,
    /// Not a WireGuard message.
    Malformed,
}

impl Limiter {
    /// Of `public`; under load after `limit` messages a second.
    pub(in crate::tunnel) fn new(public: &PublicKey, limit: u64) -> Self {
        Self(Arc::new(RateLimiter::new(&x25519::PublicKey::from(*public.as_bytes()), limit)))
    }

    /// Checks a handshake message and counts it.
    pub(in crate::tunnel) fn check(
        &self,
        source: Option<IpAddr>,
        message: &[u8],
        cookie: &mut [u8; wire::COOKIE],
    ) -> Checked {
        match self.0.verify_packet(source, message, cookie) {
            Ok(_) => Checked::Sound,
            Err(TunnResult::WriteToNetwork(_)) => Checked::Cookie,
            Err(TunnResult::Err(WireGuardError::UnderLoad)) => Checked::UnderLoad,
            Err(TunnResult::Err(WireGuardError::InvalidMac)) => Checked::BadMac1,
            Err(_) => Checked::Malformed,
        }
    }

    /// Starts counting anew, if a second has passed since it last did.
    pub(in crate::tunnel) fn each_second(&self) {
        self.0.reset_count();
    }
}

/// Who `initiation` claims to be from, decrypted with our key.
pub(in crate::tunnel) fn initiator(identity: &Identity, initiation: &[u8]) -> Option<PublicKey> {
    let Ok(Packet::HandshakeInit(message)) = Tunn::parse_incoming_packet(initiation) else { return None };
    let public = x25519::PublicKey::from(*identity.public().as_bytes());
    let half = parse_handshake_anon(&identity.private().secret(), &public, &message).ok()?;
    Some(PublicKey::new(half.peer_static_public))
}
