//! How much a socket's receive buffer holds.
//!
//! It has to hold what comes while its worker is scheduled out: 3 MB, 5 ms at 5 Gbit/s. Less loses more, first where many
//! TCP streams share a tunnel; more is a longer queue, in which a ping waits. But the kernel counts memory, not bytes: on
//! veth hardly more than the bytes of a run, and 1.6 times those of a packet that comes by itself. (Of what a card's driver
//! receives it may count 1.4 times the bytes of a run, or more: not measured.) So the size follows what comes.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use nix::sys::socket::{setsockopt, sockopt};

/// Bytes, where the kernel merges nothing, and at the start; it counts twice as many.
pub(super) const FOR_SINGLES: usize = 5 << 19;
/// Bytes, where it merges.
const FOR_RUNS: usize = 3 << 19;
/// So many calls that bring long runs, and none between that brings many single packets, show that the kernel merges.
const STEADY: u8 = 64;

/// What a receive call has brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    /// Many packets by themselves.
    Singles,
    /// Long runs, merged.
    Runs,
    /// Neither: it says nothing.
    Little,
}

/// Gives a new socket its first size.
pub(super) fn start(socket: &socket2::Socket) {
    set(socket, FOR_SINGLES);
}

/// Which size the buffer of one socket has. One thread receives by it; atomic because others send by the same socket.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// Calls that brought long runs since the last that brought many single packets, up to [`STEADY`].
    runs: AtomicU8,
}

impl Room {
    /// Makes the buffer of `socket` larger or smaller where what comes has changed.
    pub(super) fn fit(&self, socket: &socket2::Socket, shape: Shape) {
        if let Some(bytes) = self.note(shape) {
            set(socket, bytes);
        }
    }

    /// The size that the buffer is to get, if another one than before.
    fn note(&self, shape: Shape) -> Option<usize> {
        let runs = self.runs.load(Relaxed);
        match shape {
            Shape::Singles if runs > 0 => {
                self.runs.store(0, Relaxed);
                (runs == STEADY).then_some(FOR_SINGLES)
            }
            Shape::Runs if runs < STEADY => {
                self.runs.store(runs + 1, Relaxed);
                (runs + 1 == STEADY).then_some(FOR_RUNS)
            }
            Shape::Singles | Shape::Runs | Shape::Little => None,
        }
    }
}

/// Beyond the system's limit where permitted, else up to it. A smaller buffer still works, so no failure counts.
fn set(socket: &socket2::Socket, bytes: usize) {
    if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_err() {
        let _ = socket.set_recv_buffer_size(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::os::fd::AsFd as _;
    use std::time::Duration;

    use super::*;
    use crate::sys::poll::poll;
    use crate::sys::udp::{self, Receive};

    #[test]
    fn it_shrinks_after_many_runs_and_grows_at_the_first_flood_of_single_packets() {
        let room = Room::default();
        let note = |shape, times: u8| (0..times).filter_map(|_| room.note(shape)).collect::<Vec<_>>();
        assert_eq!(note(Shape::Singles, 3), [0; 0]);
        assert_eq!(note(Shape::Runs, STEADY - 1), [0; 0]);
        assert_eq!(note(Shape::Little, 3), [0; 0]);
        assert_eq!(note(Shape::Singles, 1), [0; 0]);
        assert_eq!(note(Shape::Runs, STEADY - 1), [0; 0]);
        assert_eq!(note(Shape::Runs, 100), [FOR_RUNS]);
        assert_eq!(note(Shape::Little, 100), [0; 0]);
        assert_eq!(note(Shape::Singles, 100), [FOR_SINGLES]);
    }

    #[test]
    fn the_kernel_s_buffer_follows_what_comes() {
        crate::sys::netns::tests::in_own_network(|| {
            let group = udp::bind(0, 1, 0).unwrap();
            let socket = &group.v4[0];
            let mut receive = Receive::new();
            let mut after = |datagrams: usize, times| {
                for _ in 0..times {
                    let bytes = vec![7; datagrams * 1000];
                    socket.send(&bytes, 1000, (Ipv4Addr::LOCALHOST, group.port).into(), None, 0).unwrap();
                }
                poll(&[socket.as_fd()], Duration::from_secs(10)).unwrap();
                while socket.receive(&mut receive).is_ok() {}
                socket.inner.recv_buffer_size().unwrap() / 2
            };
            assert_eq!(after(1, 1), FOR_SINGLES);
            assert!((0..3 * STEADY).any(|_| after(40, 1) == FOR_RUNS));
            assert_eq!(after(1, 1), FOR_RUNS);
            assert!((0..3).any(|_| after(1, 40) == FOR_SINGLES));
        });
    }
}
