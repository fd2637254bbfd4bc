//! What a lane says: of a batch, of a handshake message, of its timers, of its state.

use std::time::Duration;

use super::Roam;

/// Why nothing was sealed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SealRefused {
    /// There is no session that the peer has confirmed: stage the packets.
    #[error("no session")]
    NoSession,
    /// `tick` has not run for 5 s.
    #[error("the timers stood still for over 5 s")]
    Stale,
    /// Another worker has yet to send what it sealed 256 datagrams ago: yield and try again.
    #[error("another worker has not sent its datagrams yet")]
    Ahead,
    /// The session has sealed 2^60 messages.
    #[error("the session has sealed all messages it may")]
    Exhausted,
}

/// What a handshake message led to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Size of the datagram in `out`, to be sent to where the message came from.
    pub reply: Option<usize>,
    /// Where the peer is, if that is authenticated.
    pub roam: Option<Roam>,
    /// Whether we may seal from now on.
    pub session_began: bool,
}

/// What boringtun's timers would send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Emitted {
    /// A handshake initiation of so many bytes. The peer's schedule decides whether it goes out.
    Initiation(usize),
    /// A keepalive of so many bytes.
    Keepalive(usize),
}

/// A lane's state at one moment; durations are ages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LaneView {
    /// Whether there is a session that the peer has confirmed.
    pub session: bool,
    /// Since that session was made.
    pub session_age: Option<Duration>,
    /// Since the newest confirmed session was made.
    pub last_handshake: Option<Duration>,
    /// How many sessions were confirmed so far.
    pub handshakes: u64,
    /// Since an initiation was last answered. It may have been a replay.
    pub last_answer: Option<Duration>,
    /// Since something from the peer was last authenticated.
    pub last_receive: Option<Duration>,
    /// Since transport data or a keepalive was last sealed.
    pub last_send: Option<Duration>,
    /// Since the first packet was sealed that nothing came back for; none = all quiet.
    pub unanswered: Option<Duration>,
    /// Whether the session has sealed so many messages that it should be renewed.
    pub worn: bool,
    /// Whether a replacement waits for its first session.
    pub replacing: bool,
}
