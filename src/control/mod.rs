//! The control plane, on one tokio thread: addresses, routes and rules by netlink, names, status, log, state files.
//!
//! Nothing here runs per packet. Routing is desired state ([`routes`], pure) that [`reconcile`] makes true and
//! keeps true; everything that Linkspan puts into the kernel carries protocol number 76 and is found again by it.

mod clock;
pub mod daemon;
pub mod forget;
mod http;
mod in_force;
mod keys;
mod limits;
mod locked;
pub mod log;
pub mod metrics;
mod metrics_server;
pub mod netlink;
mod periodic;
mod places;
mod rates;
mod recall;
pub mod reconcile;
pub mod reload;
mod report;
pub mod resolve;
mod roster;
pub mod routes;
mod setup;
pub mod state;
pub mod status;
pub mod status_client;
pub mod status_server;
mod store;
mod tunnels;
mod uapi;
mod unix_socket;
mod watchdog;
mod ways;
pub mod wg;

#[cfg(test)]
mod testing;
