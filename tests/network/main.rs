//! Everything that needs real networks: see `tests/harness` for the topology. `tests/run` runs them as root.
#![cfg(not(feature = "sim"))]
// Helpers are tests, too: a failure is a panic.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

#[path = "../harness/mod.rs"]
mod harness;

mod admin;
mod clock;
mod faults;
mod flood;
mod hostile;
mod imported;
mod interface;
mod interop;
mod kernel;
mod life;
mod loss;
mod monitoring;
mod outer;
mod privileges;
mod reload;
mod restart;
mod roaming;
mod routing;
mod secrets;
mod self_test;
mod service;
mod sessions;
mod sizes;
mod startup;
mod traffic;
mod uapi;
mod uplinks;
mod wg_quick;
mod wire;
