//! The way out to the network, shared by the outbound workers and the handshake thread: sealed datagrams
//! leave in runs of equal size, one `sendmsg` with UDP_SEGMENT each.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::trouble::Trouble;
use crate::packet::reason::DropCounters;
use crate::packet::{Reason, ecn};
use crate::sys::poll;
use crate::sys::udp::{Group, MAX_BYTES, MAX_SEGMENTS, SendError, SendOk};
use crate::tunnel::{Address, Peer, SealBuffer};

/// How long a full send buffer may hold a worker up before its datagrams are dropped.
pub(super) const BUSY_WAIT: Duration = Duration::from_millis(10);

/// One worker's sockets, all on the daemon's one port, whichever that is just now.
#[derive(Debug, Clone)]
pub(super) struct Egress {
    pub(super) sockets: Arc<ArcSwap<Group>>,
    pub(super) worker: usize,
    pub(super) trouble: Arc<Trouble>,
}

impl Egress {
    /// Sends datagrams that lie back to back in `sealed` to where `peer` is. What the
    /// kernel refuses is counted in `drops`.
    pub(super) fn send_batch(&self, peer: &Peer, to: &Address, sealed: &SealBuffer, ecn: u8, drops: &DropCounters) {
        let mut rest = sealed.bytes();
        for run in (Runs { lengths: sealed.lengths() }) {
            let Some((datagrams, after)) = rest.split_at_checked(run.bytes) else { return };
            rest = after;
            match self.send(to, datagrams, run.segment, ecn, BUSY_WAIT) {
                Ok(sent) => {
                    peer.counters.add_wire_sent(run.bytes as u64);
                    if sent.source_stale {
                        peer.forget_local(to);
                    }
                }
                Err(reason) => drops.add(reason, run.count as u64),
            }
        }
    }

    /// Sends one datagram, waiting up to `patience` for a full send buffer. Whether it was sent.
    pub(super) fn send_one(&self, to: &Address, datagram: &[u8], patience: Duration, drops: &DropCounters) -> bool {
        let sent = self.send(to, datagram, datagram.len(), ecn::NOT_ECT, patience);
        sent.inspect_err(|reason| drops.add(*reason, 1)).is_ok()
    }

    /// One run; waits once, briefly, for a full send buffer.
    fn send(&self, to: &Address, bytes: &[u8], segment: usize, ecn: u8, patience: Duration) -> Result<SendOk, Reason> {
        let sockets = self.sockets.load();
        let family = if to.remote.is_ipv4() { &sockets.v4 } else { &sockets.v6 };
        let Some(socket) = family.get(self.worker) else { return Err(Reason::OutSendFailed) };
        let local = to.local.map(|local| (local.addr, local.interface));
        let mut result = socket.send(bytes, segment, to.remote, local, ecn);
        if let Err(SendError::Busy { sent }) = result
            && !patience.is_zero()
            && poll::writable(socket.as_fd(), patience).unwrap_or(false)
        {
            result = socket.send(bytes.get(sent..).unwrap_or_default(), segment, to.remote, local, ecn);
        }
        result.map_err(|error| match error {
            SendError::Busy { .. } => Reason::OutSendBusy,
            SendError::TooBig | SendError::Refused(_) => {
                self.trouble.sending(to.remote, &error);
                Reason::OutSendFailed
            }
        })
    }
}

/// Datagrams that go out in one send: equal in size, but for a last one that may be shorter.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    segment: usize,
    count: usize,
    bytes: usize,
}

struct Runs<'l> {
    lengths: &'l [usize],
}

impl Iterator for Runs<'_> {
    type Item = Run;

    fn next(&mut self) -> Option<Run> {
        let (&segment, rest) = self.lengths.split_first()?;
        let mut run = Run { segment, count: 1, bytes: segment };
        for &length in rest {
            if run.count == MAX_SEGMENTS || length > segment || run.bytes + length > MAX_BYTES {
                break;
            }
            run.count += 1;
            run.bytes += length;
            if length < segment {
                break;
            }
        }
        self.lengths = self.lengths.get(run.count..)?;
        Some(run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(lengths: &[usize]) -> Vec<(usize, usize)> {
        Runs { lengths }.map(|run| (run.segment, run.count)).collect()
    }

    #[test]
    fn equal_datagrams_and_one_shorter_leave_in_one_send() {
        assert_eq!(runs(&[100, 100, 60]), [(100, 3)]);
        assert_eq!(runs(&[100, 60, 60]), [(100, 2), (60, 1)]);
        assert_eq!(runs(&[60, 100]), [(60, 1), (100, 1)]);
        assert_eq!(runs(&[]), []);
    }

    #[test]
    fn a_send_is_never_longer_than_the_kernel_takes() {
        assert_eq!(runs(&[96; 130]), [(96, 64), (96, 64), (96, 2)]);
        assert_eq!(runs(&[1452; 100]), [(1452, 45), (1452, 45), (1452, 10)]);
    }
}
