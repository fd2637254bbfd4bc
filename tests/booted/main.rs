//! The package on booted machines: Debian with a real systemd, one at each site, and nothing done to them but what the
//! README says. `tests/booted/install` makes the machines.
//!
//! ```text
//!   lan ---- machine ---- internet ---- machine ---- lan     the sites of tests/harness, a machine booted in each gateway
//!    |          |                          |          |
//!    |          +- lan 192.168.0.1         |          +-- 10.20.0.2     (the README's networks, and name for B)
//!    +-- 192.168.0.2                       +- lan 10.20.0.1, vpn.example.com
//! ```
#![cfg(not(feature = "sim"))]
// Helpers are tests, too: a failure is a panic.
#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub)]

#[path = "../harness/mod.rs"]
mod harness;

mod credentials;
mod daily;
mod first_day;
mod frozen;
mod group;
mod machine;
mod package;
mod readme;
mod sites;
mod upgrade;
