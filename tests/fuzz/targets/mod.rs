//! What is fuzzed: one function of bytes a target. libFuzzer calls them (`tests/fuzz/run`), and so does
//! `tests/fuzz_replay.rs`, which is an ordinary test.

// Each program that shares the targets uses a part of them.
#![allow(dead_code, unreachable_pub)]

pub mod coalesce;
pub mod config;
pub mod datagram;
pub mod segment;
pub mod status;
pub mod uapi;

/// Takes values off the front of the fuzzer's bytes; zeros when they are used up.
pub struct Input<'d>(pub &'d [u8]);

impl<'d> Input<'d> {
    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    pub fn short(&mut self) -> u16 {
        u16::from(self.byte()) << 8 | u16::from(self.byte())
    }

    /// Up to `len` bytes.
    pub fn take(&mut self, len: usize) -> &'d [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
