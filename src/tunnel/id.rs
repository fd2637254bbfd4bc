//! Numbers with a meaning: peers, session indices, and the slots they are made from.

use std::collections::HashSet;

/// Names a peer within the process, across changes of the table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PeerId(pub u32);

/// The receiver index of a datagram (WireGuard paper, section 5.4): names one of our sessions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SessionIndex(u32);

/// The upper 24 bits of the session indices of one engine: 16 random bits over 8 that name the worker.
///
/// So byte 5 of a transport datagram is the worker's number, and the sockets can be steered by it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Slot(u32);

/// The slots in use. Sequential ones would tell how many peers there are, and collide after a restart.
#[derive(Debug, Default)]
pub struct Slots(HashSet<Slot>);

/// No slot could be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoSlot {
    /// Every tried slot of the worker was taken.
    #[error("all session numbers of a worker are in use: too many peers")]
    Full,
    /// The kernel gave no random bytes.
    #[error("the kernel gives no random bytes")]
    NoRandom,
}

impl From<u32> for SessionIndex {
    fn from(index: u32) -> Self {
        Self(index)
    }
}

impl SessionIndex {
    /// As it stands in the datagram (little endian there).
    #[must_use]
    pub const fn value(self) -> u32 {
        self.0
    }

    /// The slot it was made from.
    #[must_use]
    pub const fn slot(self) -> Slot {
        Slot(self.0 >> 8)
    }
}

impl Slot {
    /// The slot of `random` and `worker`.
    #[must_use]
    pub const fn new(random: u16, worker: u8) -> Self {
        Self((random as u32) << 8 | worker as u32)
    }

    /// Its 24 bits.
    #[must_use]
    pub const fn value(self) -> u32 {
        self.0
    }

    /// The worker it names.
    #[must_use]
    pub const fn worker(self) -> u8 {
        self.0.to_le_bytes()[0]
    }
}

impl Slots {
    /// Two unused slots of `worker`, as a lane needs them.
    ///
    /// # Errors
    /// When the worker has no free ones, or the kernel no random bytes.
    pub fn pair(&mut self, worker: u8) -> Result<[Slot; 2], NoSlot> {
        let first = self.take(worker)?;
        match self.take(worker) {
            Ok(second) => Ok([first, second]),
            Err(error) => {
                self.release(first);
                Err(error)
            }
        }
    }

    /// Gives a slot back.
    pub fn release(&mut self, slot: Slot) {
        self.0.remove(&slot);
    }

    fn take(&mut self, worker: u8) -> Result<Slot, NoSlot> {
        // Half full, 64 random tries all fail once in 2^64.
        for _ in 0..64 {
            let mut random = [0; 2];
            getrandom::fill(&mut random).map_err(|_| NoSlot::NoRandom)?;
            let slot = Slot::new(u16::from_le_bytes(random), worker);
            if self.0.insert(slot) {
                return Ok(slot);
            }
        }
        Err(NoSlot::Full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_unique_random_and_name_their_worker() {
        let mut slots = Slots::default();
        let taken: Vec<Slot> = (0..=3).cycle().take(2000).flat_map(|worker| slots.pair(worker).unwrap()).collect();
        assert_eq!(taken.iter().collect::<HashSet<_>>().len(), 4000);
        assert!(taken.chunks(8).all(|slots| slots.iter().map(|s| s.worker()).eq([0, 0, 1, 1, 2, 2, 3, 3])));
        let in_sequence = taken.windows(2).filter(|w| w[1].value() == w[0].value() + 256).count();
        assert!(in_sequence < 10);
    }

    #[test]
    fn a_released_slot_can_be_had_again() {
        let mut slots = Slots::default();
        let all: Vec<Slot> = std::iter::from_fn(|| slots.take(3).ok()).collect();
        assert!(all.len() > 30_000);
        for slot in &all {
            slots.release(*slot);
        }
        assert!(slots.pair(3).is_ok());
    }

    #[test]
    fn byte_5_of_a_datagram_is_the_worker() {
        let index = SessionIndex::from(Slot::new(0xabcd, 7).value() << 8 | 0x11);
        assert_eq!(index.value().to_le_bytes(), [0x11, 7, 0xcd, 0xab]);
        assert_eq!(index.slot(), Slot::new(0xabcd, 7));
    }
}
