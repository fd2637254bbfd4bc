//! Sends a run of equal-sized datagrams by one system call, and knows what to do when the kernel refuses.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use socket2::{MsgHdr, SockAddr};
use thiserror::Error;
use tracing::warn;

use super::control::Control;
use super::{Local, Socket};

/// The most datagrams of one run: UDP_MAX_SEGMENTS, which newer kernels have raised.
pub const MAX_SEGMENTS: usize = 64;
/// The most bytes of one run that go to the device in one piece: with all headers, a packet of 65,536 bytes or more
/// is cut in software before.
pub const MAX_BYTES: usize = 65_400;
/// What a UDP packet over IPv4 carries at all, in bytes.
pub(super) const UDP_MAX: usize = 65_507;

/// The whole run was handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SendOk {
    /// The kernel took it only without the source address: forget the remembered one.
    pub source_stale: bool,
}

/// A run was not sent, or only in part.
#[derive(Debug, Error)]
#[error("{why}")]
pub struct Unsent {
    /// So many bytes from the start, whole datagrams, are sent already.
    pub sent: usize,
    /// What became of the next datagram.
    #[source]
    pub why: SendError,
}

/// Why a datagram was not sent.
#[derive(Debug, Error)]
pub enum SendError {
    /// Buffers are full (EAGAIN, ENOBUFS, ENOMEM): drop, or wait until the socket is writable.
    #[error("the device is busy")]
    Busy,
    /// A datagram is larger than the path allows (EMSGSIZE).
    #[error("the datagram is too big")]
    TooBig,
    /// There is no way to the destination, or a firewall here forbids it (ENETUNREACH, EHOSTUNREACH, EPERM, ..).
    #[error("cannot send: {0}")]
    Refused(#[source] io::Error),
}

/// What is to be done about an error of `sendmsg`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Remedy {
    /// A signal came first: the same again.
    Repeat,
    /// An ICMP error for an earlier datagram was waiting: the same again, once.
    RepeatOnce,
    /// Maybe the segmentation is what it refuses: one by one.
    Unsegmented,
    /// Maybe the address or interface is gone: let the kernel choose.
    WithoutSource,
    Busy,
    TooBig,
    Refused,
}

/// `segmented` and `sourced`: whether the send asked for that. EINVAL may mean either; the segmentation is looked at
/// first, because a wrong source is refused again without it.
const fn classify(errno: libc::c_int, segmented: bool, sourced: bool) -> Remedy {
    match errno {
        libc::EINTR => Remedy::Repeat,
        libc::ECONNREFUSED => Remedy::RepeatOnce,
        libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM => Remedy::Busy,
        libc::EINVAL | libc::EIO | libc::EMSGSIZE | libc::EOPNOTSUPP if segmented => Remedy::Unsegmented,
        libc::EMSGSIZE => Remedy::TooBig,
        libc::EINVAL | libc::ENETUNREACH | libc::EADDRNOTAVAIL | libc::ENODEV if sourced => Remedy::WithoutSource,
        _ => Remedy::Refused,
    }
}

/// A run on its way.
struct Run<'r> {
    bytes: &'r [u8],
    segment: usize,
    ip: IpAddr,
    to: &'r SockAddr,
    from: Option<Local>,
    ecn: u8,
}

/// An error, and how many bytes went before it.
struct Failure {
    error: io::Error,
    sent: usize,
}

impl Failure {
    fn remedy(&self, sourced: bool) -> Remedy {
        classify(self.error.raw_os_error().unwrap_or(0), false, sourced)
    }

    fn into_unsent(self, before: usize) -> Unsent {
        let why = match self.remedy(false) {
            Remedy::Busy => SendError::Busy,
            Remedy::TooBig => SendError::TooBig,
            Remedy::Repeat | Remedy::RepeatOnce | Remedy::Unsegmented | Remedy::WithoutSource | Remedy::Refused => {
                SendError::Refused(self.error)
            }
        };
        Unsent { sent: before + self.sent, why }
    }
}

impl Socket {
    /// Sends `bytes` to `to` as datagrams of `segment` bytes, the last one maybe shorter: at most [`MAX_SEGMENTS`]
    /// and 65,507 bytes, better [`MAX_BYTES`]. `to` is of this socket's family. `from` is the address and interface to send from, or the
    /// kernel chooses. `ecn` (0 to 3) goes into the outer headers.
    ///
    /// Where the kernel refuses to segment, the datagrams go one by one, for a minute. Where it refuses `from`, the
    /// kernel chooses, and the answer says so.
    ///
    /// # Errors
    ///
    /// [`Unsent`]. UDP promises nothing, so a caller may count it and go on.
    pub fn send(
        &self,
        bytes: &[u8],
        segment: usize,
        to: SocketAddr,
        from: Option<Local>,
        ecn: u8,
    ) -> Result<SendOk, Unsent> {
        debug_assert!(bytes.len() <= UDP_MAX && bytes.len().div_ceil(segment.max(1)) <= MAX_SEGMENTS);
        debug_assert!(to.is_ipv4() == self.ipv4, "{to} on a socket of the other family");
        let from = from.filter(|(address, _)| address.is_ipv4() == self.ipv4);
        let run = Run { bytes, segment: segment.max(1), ip: to.ip(), to: &to.into(), from, ecn };
        match self.deliver(&run) {
            Ok(()) => Ok(SendOk::default()),
            Err(failure) if failure.remedy(from.is_some()) == Remedy::WithoutSource => {
                let rest = bytes.get(failure.sent..).unwrap_or_default();
                let again = self.deliver(&Run { bytes: rest, from: None, ..run });
                again.map(|()| SendOk { source_stale: true }).map_err(|last| last.into_unsent(failure.sent))
            }
            Err(failure) => Err(failure.into_unsent(0)),
        }
    }

    fn deliver(&self, run: &Run<'_>) -> Result<(), Failure> {
        let segment = u16::try_from(run.segment).ok().filter(|_| run.bytes.len() > run.segment);
        let Some(segment) = segment.filter(|_| !self.is_refused(run)) else { return self.one_by_one(run) };
        let Err(error) = self.transmit(run.bytes, Some(segment), run) else { return Ok(()) };
        if classify(error.raw_os_error().unwrap_or(0), true, run.from.is_some()) != Remedy::Unsegmented {
            return Err(Failure { error, sent: 0 });
        }
        let result = self.one_by_one(run);
        if result.as_ref().err().is_none_or(|failure| failure.sent > 0) {
            self.note_refusal(run, &error);
        }
        result
    }

    fn one_by_one(&self, run: &Run<'_>) -> Result<(), Failure> {
        if run.bytes.is_empty() {
            return self.transmit(&[], None, run).map_err(|error| Failure { error, sent: 0 });
        }
        for (i, datagram) in run.bytes.chunks(run.segment).enumerate() {
            self.transmit(datagram, None, run).map_err(|error| Failure { error, sent: i * run.segment })?;
        }
        Ok(())
    }

    /// One `sendmsg`, again after a signal, and once after an ICMP error that was left by an earlier datagram.
    fn transmit(&self, bytes: &[u8], segment: Option<u16>, run: &Run<'_>) -> io::Result<()> {
        let control = Control::new(self.ipv4, run.ecn, segment, run.from);
        let slices = [IoSlice::new(bytes)];
        let message = MsgHdr::new().with_addr(run.to).with_buffers(&slices).with_control(control.bytes());
        let mut repeated = false;
        loop {
            let Err(error) = self.inner.sendmsg(&message, 0) else { return Ok(()) };
            match classify(error.raw_os_error().unwrap_or(0), false, false) {
                Remedy::Repeat => {}
                Remedy::RepeatOnce if !repeated => repeated = true,
                Remedy::RepeatOnce | Remedy::Unsegmented | Remedy::WithoutSource => return Err(error),
                Remedy::Busy | Remedy::TooBig | Remedy::Refused => return Err(error),
            }
        }
    }

    fn is_refused(&self, run: &Run<'_>) -> bool {
        if !self.refused.load(Relaxed) {
            return false;
        }
        let now = Instant::now();
        let mut refusals = self.refusals.lock();
        if !refusals.expire(now) {
            self.refused.store(false, Relaxed);
        }
        refusals.holds(run.ip, run.segment, now)
    }

    fn note_refusal(&self, run: &Run<'_>, error: &io::Error) {
        let now = Instant::now();
        let mut refusals = self.refusals.lock();
        refusals.note(run.ip, run.segment, now);
        self.refused.store(true, Relaxed);
        drop(refusals);
        if self.refusal_logged.is_due(now) {
            warn!(to = %run.ip, segment = run.segment, %error, "the kernel refuses to segment: slower sending for 60 s");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_buffers_are_busy_in_every_case() {
        for errno in [libc::EAGAIN, libc::ENOBUFS, libc::ENOMEM] {
            for (segmented, sourced) in [(false, false), (true, false), (false, true), (true, true)] {
                assert_eq!(classify(errno, segmented, sourced), Remedy::Busy);
            }
        }
    }

    #[test]
    fn einval_blames_segmentation_then_the_source_then_nobody() {
        assert_eq!(classify(libc::EINVAL, true, true), Remedy::Unsegmented);
        assert_eq!(classify(libc::EINVAL, true, false), Remedy::Unsegmented);
        assert_eq!(classify(libc::EINVAL, false, true), Remedy::WithoutSource);
        assert_eq!(classify(libc::EINVAL, false, false), Remedy::Refused);
    }

    #[test]
    fn a_datagram_above_the_mtu_is_too_big_only_when_unsegmented() {
        assert_eq!(classify(libc::EMSGSIZE, true, false), Remedy::Unsegmented);
        assert_eq!(classify(libc::EMSGSIZE, false, true), Remedy::TooBig);
    }

    #[test]
    fn a_device_that_cannot_segment_is_no_matter_of_the_source() {
        assert_eq!(classify(libc::EIO, true, true), Remedy::Unsegmented);
        assert_eq!(classify(libc::EIO, false, true), Remedy::Refused);
    }

    #[test]
    fn a_vanished_source_is_left_out() {
        for errno in [libc::ENETUNREACH, libc::EADDRNOTAVAIL, libc::ENODEV] {
            assert_eq!(classify(errno, true, true), Remedy::WithoutSource);
            assert_eq!(classify(errno, true, false), Remedy::Refused);
        }
    }

    #[test]
    fn what_no_other_send_would_cure_is_refused() {
        for errno in [libc::EHOSTUNREACH, libc::EPERM, libc::EACCES, libc::EBADF, 0] {
            assert_eq!(classify(errno, true, true), Remedy::Refused);
        }
    }

    #[test]
    fn signals_and_old_icmp_errors_are_tried_again() {
        assert_eq!(classify(libc::EINTR, true, true), Remedy::Repeat);
        assert_eq!(classify(libc::ECONNREFUSED, true, true), Remedy::RepeatOnce);
    }

    #[test]
    fn a_failure_counts_what_went_before_it() {
        let failure = |errno| Failure { error: io::Error::from_raw_os_error(errno), sent: 300 };
        assert!(matches!(failure(libc::EAGAIN).into_unsent(200), Unsent { sent: 500, why: SendError::Busy }));
        assert!(matches!(failure(libc::EMSGSIZE).into_unsent(0), Unsent { sent: 300, why: SendError::TooBig }));
        assert!(matches!(failure(libc::EPERM).into_unsent(0), Unsent { sent: 300, why: SendError::Refused(_) }));
    }
}
