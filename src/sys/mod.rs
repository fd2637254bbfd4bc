//! The only unsafe code: TUN queues, UDP sockets, poll, the process. Owned descriptors, no policy.

pub mod inherited;
pub mod memory;
pub mod minute;
pub mod netns;
pub mod poll;
pub mod process;
mod remedy;
pub mod tun;
pub mod udp;
