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
use crate::sys::udp::{Group, MAX_BYTES, MAX_SEGMENTS, SendError, SendOk, Unsent};
use crate::tunnel::{Address, Counters, Peer, SealBuffer};

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
            if self.send_run(&peer.counters, to, datagrams, &run, ecn, drops) {
                peer.forget_local(to);
            }
        }
    }

    /// Sends one run, and counts what left and what did not. Whether its source address is stale.
    fn send_run(
        &self,
        counters: &Counters,
        to: &Address,
        datagrams: &[u8],
        run: &Run,
        ecn: u8,
        drops: &DropCounters,
    ) -> bool {
        match self.send(to, datagrams, run.segment, ecn, BUSY_WAIT) {
            Ok(sent) => {
                counters.add_wire_sent(run.bytes as u64);
                sent.source_stale
            }
            Err(Dropped { sent, reason }) => {
                counters.add_wire_sent(sent as u64);
                drops.add(reason, (run.count - sent / run.segment) as u64);
                false
            }
        }
    }

    /// Sends one datagram, waiting up to `patience` for a full send buffer. Whether it was sent.
    pub(super) fn send_one(&self, to: &Address, datagram: &[u8], patience: Duration, drops: &DropCounters) -> bool {
        let sent = self.send(to, datagram, datagram.len(), ecn::NOT_ECT, patience);
        sent.inspect_err(|dropped| drops.add(dropped.reason, 1)).is_ok()
    }

    /// One run; waits once, briefly, for a full send buffer.
    fn send(&self, to: &Address, bytes: &[u8], segment: usize, ecn: u8, patience: Duration) -> Result<SendOk, Dropped> {
        let sockets = self.sockets.load();
        let family = if to.remote.is_ipv4() { &sockets.v4 } else { &sockets.v6 };
        let nowhere = Dropped { sent: 0, reason: Reason::OutSendFailed };
        let Some(socket) = family.get(self.worker) else { return Err(nowhere) };
        let local = to.local.map(|local| (local.addr, local.interface));
        let (mut before, mut result) = (0, socket.send(bytes, segment, to.remote, local, ecn));
        if let Err(Unsent { sent, why: SendError::Busy }) = result
            && !patience.is_zero()
            && poll::writable(socket.as_fd(), patience).unwrap_or(false)
        {
            before = sent;
            result = socket.send(bytes.get(sent..).unwrap_or_default(), segment, to.remote, local, ecn);
        }
        result.map_err(|unsent| Dropped { sent: before + unsent.sent, reason: self.reason(to, &unsent.why) })
    }

    fn reason(&self, to: &Address, why: &SendError) -> Reason {
        match why {
            SendError::Busy => Reason::OutSendBusy,
            SendError::TooBig | SendError::Refused(_) => {
                self.trouble.sending(to.remote, why);
                Reason::OutSendFailed
            }
        }
    }
}

/// What was left of a run, and why.
#[derive(Debug)]
struct Dropped {
    /// Bytes that went before, whole datagrams.
    sent: usize,
    reason: Reason,
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

    use std::net::IpAddr;

    use nix::sys::socket::{setsockopt, sockopt};

    use crate::sys::netns::tests::{in_own_network, ip};
    use crate::sys::udp;

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

    /// The neighbour never answers, so that what is sent to it stays in the small buffer; the device is too small
    /// for segments of this size, so that datagrams go one by one.
    #[test]
    fn of_a_run_that_is_sent_in_part_only_the_rest_is_dropped() {
        in_own_network(|| {
            ip("link add one mtu 1280 type veth peer name other");
            for command in ["link set one up", "link set other up", "address add 192.0.2.1/24 dev one"] {
                ip(command);
            }
            let sockets = udp::bind(0, 1, 0).unwrap();
            setsockopt(&sockets.v4[0].as_fd(), sockopt::SndBuf, &8192).unwrap();
            let egress =
                Egress { sockets: Arc::new(ArcSwap::from_pointee(sockets)), worker: 0, trouble: Arc::default() };
            let to = Address::new((IpAddr::from([192, 0, 2, 2]), 9).into());
            let run = Run { segment: 1400, count: 40, bytes: 40 * 1400 };
            let (counters, drops) = (Counters::default(), DropCounters::default());
            egress.send_run(&counters, &to, &vec![0; run.bytes], &run, 0, &drops);
            let (sent, dropped) = (counters.wire().0, drops.count(Reason::OutSendBusy));
            assert!(dropped > 0 && dropped < 40, "{dropped}");
            assert_eq!(sent, (40 - dropped) * 1400);
        });
    }
}
