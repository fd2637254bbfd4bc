//! How much a thread took at a time: who sleeps when, and who serves the queue, follows from it.

use super::backlog::{Backlog, LARGEST};

/// How much a thread took at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Took {
    Nothing,
    /// Whether there is more, `poll` tells.
    Little,
    /// Enough to keep a thread at work.
    Much,
}

impl Took {
    /// Half a batch is much, or the bytes of one whole super-packet.
    pub(super) const fn of(packets: usize, bytes: usize) -> Self {
        match packets {
            0 => Self::Nothing,
            _ if packets >= Backlog::SMALLS / 2 || bytes >= LARGEST => Self::Much,
            _ => Self::Little,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn much_is_half_a_batch_or_the_bytes_of_a_super_packet() {
        assert_eq!(Took::of(0, 0), Took::Nothing);
        assert_eq!(Took::of(1, 100), Took::Little);
        assert_eq!(Took::of(31, 3100), Took::Little);
        assert_eq!(Took::of(32, 3200), Took::Much);
        assert_eq!(Took::of(1, LARGEST), Took::Much);
    }
}
