//! Linkspan joins two sites over an untrusted network with userspace WireGuard.
//!
//! ```text
//!            cli            one file per subcommand: prints, asks, exits
//!             |
//!          control          tokio: timers, netlink, DNS, status, service manager
//!          /  |  \
//!     config data \         config: text in, valid Config out.  data: the hot path, OS threads
//!        |   / |   |
//!       tunnel |   |        WireGuard as we use it: keys, lanes, allowed IPs, table
//!          \   |   |
//!         packet  sys       packet: bytes -> bytes.  sys: the only unsafe
//! ```
//!
//! Arrows run down only; `tests/layering.rs` reads the imports and fails when one runs up.
//! `packet` and `tunnel` never name a file descriptor, tokio or a thread; time is an argument to them.

pub mod cli;
pub mod config;
pub mod control;
pub mod data;
pub mod packet;
pub mod sys;
pub mod tunnel;
