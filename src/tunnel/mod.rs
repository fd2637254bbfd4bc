//! WireGuard as Linkspan uses it: keys, lanes (session sets), allowed IPs, the table, the handshake gate.
//!
//! Never names a file descriptor, tokio or a thread; time is an argument (boringtun's own clock is the one
//! exception). Only `lane/engine.rs` names boringtun.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod address;
pub mod allowed_ips;
pub mod clock;
pub mod counters;
pub mod gate;
pub mod id;
pub mod identity;
mod inner;
pub mod key;
pub mod lane;
pub mod peer;
pub mod random;
pub mod table;
#[cfg(test)]
mod traps;
pub mod wire;

pub use address::{Address, Local};
pub use allowed_ips::AllowedIps;
pub use clock::{Clock, Mark};
pub use counters::Counters;
pub use gate::Gate;
pub use id::{PeerId, SessionIndex, Slot, Slots};
pub use identity::Identity;
pub use lane::{Answer, InFlight, Lane, LaneView, OpenBuffer, Roam, SealBuffer, SealRefused};
pub use peer::{Initiates, Peer, PeerConfig, State, TickBuffer};
pub use table::{Admitted, Owner, Table};
