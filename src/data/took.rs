//! How much a thread took at a time: who sleeps when, and who serves the queue, follows from it.

use super::backlog::{Backlog, LARGEST};

/// How much a thread took at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Took {
    Nothing,
    /// Whether there is more, the next wait tells.
    Little,
    /// Enough to keep a thread at work.
    Much,
}

impl Took {
    /// 32 packets are much, or the bytes of more than one super-packet.
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
    fn much_is_32_packets_or_the_bytes_of_more_than_one_super_packet() {
        assert_eq!(Took::of(0, 0), Took::Nothing);
        assert_eq!(Took::of(1, 100), Took::Little);
        assert_eq!(Took::of(31, 3100), Took::Little);
        assert_eq!(Took::of(32, 3200), Took::Much);
        assert_eq!(Took::of(1, LARGEST), Took::Much);
    }
}
