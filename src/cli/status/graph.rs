//! What went through each tunnel between two looks, and its course as a line of blocks.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use super::table::Graphs;
use crate::control::status::{Status, Traffic, Tunnel};

/// So many looks are shown.
const WIDTH: usize = 16;
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Every tunnel's course, by the names of interface, connection and tunnel.
#[derive(Default)]
pub(super) struct History(HashMap<[String; 3], Course>);

struct Course {
    at: Instant,
    /// Out and in, when last looked at.
    counted: [Traffic; 2],
    rates: [VecDeque<u64>; 2],
}

impl History {
    /// Takes note of a status, and puts into it the rates since the last one.
    pub(super) fn note(&mut self, now: Instant, status: &mut Status) {
        for connection in &mut status.connections {
            for tunnel in &mut connection.tunnels {
                let key = [&status.interface.name, &connection.name, &tunnel.name].map(Clone::clone);
                match self.0.get_mut(&key) {
                    Some(course) => course.note(now, tunnel),
                    None => drop(self.0.insert(key, Course::new(now, tunnel))),
                }
            }
        }
    }

    /// The course of one tunnel; out and in have one scale.
    pub(super) fn graphs(&self, interface: &str, connection: &str, tunnel: &str) -> Graphs {
        let key = [interface, connection, tunnel].map(str::to_owned);
        let Some(Course { rates, .. }) = self.0.get(&key) else { return Graphs::default() };
        let most = rates.iter().flatten().copied().max().unwrap_or_default();
        [0, 1].map(|way| rates[way].iter().map(|rate| block(*rate, most)).collect())
    }
}

impl Course {
    fn new(at: Instant, tunnel: &Tunnel) -> Self {
        let counted = [tunnel.sent, tunnel.received];
        Self { at, counted, rates: counted.map(|traffic| [traffic.bits_per_s].into()) }
    }

    fn note(&mut self, now: Instant, tunnel: &mut Tunnel) {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        let ways = [&mut tunnel.sent, &mut tunnel.received];
        for ((before, rates), traffic) in self.counted.iter_mut().zip(&mut self.rates).zip(ways) {
            // A daemon that began anew counts from 0: what it says itself is nearer then.
            if let Some(bytes) = traffic.bytes.checked_sub(before.bytes) {
                traffic.bits_per_s = rate(bytes, seconds);
            }
            *before = *traffic;
            rates.push_back(traffic.bits_per_s);
            while rates.len() > WIDTH {
                rates.pop_front();
            }
        }
        self.at = now;
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "shown with three digits"
)]
fn rate(bytes: u64, seconds: f64) -> u64 {
    (bytes as f64 * 8.0 / seconds.max(1e-3)) as u64
}

/// The lowest block is next to nothing, the highest all of `most`.
fn block(rate: u64, most: u64) -> char {
    let step = u128::from(rate) * (BLOCKS.len() as u128 - 1) / u128::from(most.max(1));
    BLOCKS[usize::try_from(step).unwrap_or_default().min(BLOCKS.len() - 1)]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::table::tests::status;
    use super::*;

    #[test]
    fn a_block_is_as_high_as_its_share() {
        let drawn: String = [0, 1, 70, 500, 1000].map(|rate| block(rate, 1000)).iter().collect();
        assert_eq!(drawn, "▁▁▁▄█");
        assert_eq!(block(0, 0), '▁');
        assert_eq!(block(u64::MAX, u64::MAX), '█');
    }

    #[test]
    fn rates_are_those_between_two_looks_and_the_graph_keeps_the_last_ones() {
        let (mut history, start) = (History::default(), Instant::now());
        let mut looked = status();
        history.note(start, &mut looked);
        for second in 1..=20_u64 {
            looked = status();
            looked.connections[0].tunnels[0].sent.bytes += second.min(19) * 1000;
            history.note(start + Duration::from_secs(second), &mut looked);
        }
        let tunnel = &looked.connections[0].tunnels[0];
        assert_eq!(tunnel.sent.bits_per_s, 0, "nothing between the last two");
        let [out, into] = history.graphs("wan0", "production", "az-a");
        assert_eq!(out, "███████████████▁");
        assert_eq!(into, "▁".repeat(WIDTH));
        assert_eq!(history.graphs("wan0", "production", "none"), Graphs::default());
    }

    #[test]
    fn a_daemon_that_began_anew_is_believed() {
        let (mut history, start) = (History::default(), Instant::now());
        history.note(start, &mut status());
        let mut looked = status();
        looked.connections[0].tunnels[0].sent.bytes = 5;
        looked.connections[0].tunnels[0].sent.bits_per_s = 40;
        history.note(start + Duration::from_secs(1), &mut looked);
        assert_eq!(looked.connections[0].tunnels[0].sent.bits_per_s, 40);
    }
}
