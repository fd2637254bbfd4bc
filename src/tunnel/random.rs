//! Jitter, so that the two ends of a tunnel do not stay in phase.

use std::time::Duration;

/// splitmix64: enough for jitter, and the same for the same seed.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Begins with `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A duration below `limit`, in whole microseconds.
    pub fn below(&mut self, limit: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let micros = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX).max(1);
        Duration::from_micros((z ^ (z >> 31)) % micros)
    }
}
