//! A look at regular intervals, by a timer of the kernel: tokio's own wheel wakes up two or three times for each wait
//! of seconds, which is much of what an idle daemon would do.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::net::unix::pipe::Receiver;

/// Ticks at once and then at every interval; what is missed is one tick. The descriptor is no pipe, but read like one.
pub(super) struct Periodic(Receiver);

impl Periodic {
    /// Inside a tokio runtime.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub(super) fn new(interval: Duration) -> io::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        // Zero would mean never.
        let first = Duration::from_nanos(1);
        let expiration = Expiration::IntervalDelayed(first.into(), interval.into());
        timer.set(expiration, TimerSetTimeFlags::empty())?;
        Ok(Self(Receiver::from_owned_fd_unchecked(OwnedFd::from(timer))?))
    }

    /// The next tick. Cancelled, it loses none.
    ///
    /// # Errors
    /// What the kernel says; none is known.
    pub(super) async fn tick(&self) -> io::Result<()> {
        loop {
            self.0.readable().await?;
            match self.0.try_read(&mut [0; 8]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read.map(drop),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn it_ticks_at_once_and_then_regularly_and_missed_ticks_are_one() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let interval = Duration::from_millis(20);
            let (start, periodic) = (Instant::now(), Periodic::new(interval).unwrap());
            for _ in 0..4 {
                periodic.tick().await.unwrap();
            }
            assert!(start.elapsed() >= 3 * interval, "{:?}", start.elapsed());
            std::thread::sleep(5 * interval);
            let late = Instant::now();
            periodic.tick().await.unwrap();
            periodic.tick().await.unwrap();
            periodic.tick().await.unwrap();
            assert!(late.elapsed() >= interval, "{:?}", late.elapsed());
        });
    }
}
