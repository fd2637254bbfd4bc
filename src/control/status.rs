//! What `linkspan status` shows: the JSON of `GET /status`, written by the daemon and read by the command.
//!
//! `conf/status.schema.json` is its published form. Fields are added, never given another meaning; whoever reads it has to
//! pass over those that it does not know.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The whole state of one daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the daemon that answers.
    pub version: String,
    /// The interface.
    pub interface: Interface,
    /// Seconds since the daemon started.
    pub uptime_s: u64,
    /// Up if all tunnels are, down if none is.
    pub state: State,
    /// In the order of the file.
    pub connections: Vec<Connection>,
    /// Why packets were dropped, and how many; only reasons that occurred.
    pub drops: Vec<Drop>,
    /// The data threads.
    pub threads: Vec<Thread>,
    /// By how much the clock was set back, as long as far ends refuse handshakes for it; 0 = it is right.
    pub clock_behind_s: u64,
    /// What the admin should know, one sentence each.
    pub warnings: Vec<String>,
}

/// The TUN and its sockets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Name of the configuration and of the interface.
    pub name: String,
    /// Interface index.
    pub index: u32,
    /// Bytes of the largest inner packet.
    pub mtu: u16,
    /// UDP port.
    pub port: u16,
    /// What the kernel takes as super-packets, in words: "tcp+udp", "tcp", "none".
    pub offloads: String,
    /// Our public key.
    pub public_key: String,
    /// Worker pairs.
    pub workers: u32,
}

/// Whether packets pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// All tunnels are up.
    Up,
    /// Some are.
    Degraded,
    /// None is.
    Down,
}

/// A remote site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Its name in the file.
    pub name: String,
    /// What is behind the far end.
    pub networks: Vec<String>,
    /// Of its tunnels together.
    pub state: State,
    /// In the order of the file.
    pub tunnels: Vec<Tunnel>,
}

/// A far machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// Its name in the file.
    pub name: String,
    /// The far machine's public key.
    pub public_key: String,
    /// Up or down.
    pub state: State,
    /// Since when, RFC 3339 in UTC.
    pub since: String,
    /// The same in seconds.
    pub since_s: u64,
    /// Where datagrams go now; none = not known yet.
    pub endpoint: Option<String>,
    /// What the file says.
    pub configured_endpoint: Option<String>,
    /// Seconds since the last completed handshake; none = never.
    pub last_handshake_s: Option<u64>,
    /// Seconds since the last authenticated datagram; none = never.
    pub last_receive_s: Option<u64>,
    /// Bytes of the largest inner packet.
    pub mtu: u16,
    /// Inner packets to the far end.
    pub sent: Traffic,
    /// Inner packets from the far end.
    pub received: Traffic,
    /// Datagrams to and from the far end.
    pub wire: Wire,
    /// How handshakes went.
    pub handshakes: Handshakes,
}

/// Packets of one direction, since the daemon started and of late.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// Of the last two seconds or so.
    pub packets_per_s: u64,
    /// The same in bit/s.
    pub bits_per_s: u64,
}

/// Bytes of UDP payload since the daemon started: transport data, keepalives and handshakes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wire {
    /// To the far end.
    pub sent_bytes: u64,
    /// From it.
    pub received_bytes: u64,
}

/// Counted since the daemon started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handshakes {
    /// By whichever end they were initiated.
    pub completed: u64,
    /// Initiations sent.
    pub initiations: u64,
    /// Initiations after which the far end was not heard until the next one.
    pub failed: u64,
}

/// A thread that carries packets, or shakes hands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thread {
    /// As in `ps -T`.
    pub name: String,
    /// CPU time since the daemon started.
    pub busy_ms: u64,
}

/// One reason for which packets were dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drop {
    /// The stable name, as in `out_no_session`.
    pub reason: String,
    /// How many.
    pub packets: u64,
    /// The reason in one sentence.
    pub sentence: String,
}

impl State {
    /// Of parts that are in these states. No parts at all are down.
    pub fn of(parts: impl IntoIterator<Item = Self>) -> Self {
        let together = |a, b| if a == b { a } else { Self::Degraded };
        parts.into_iter().reduce(together).unwrap_or(Self::Down)
    }

    /// In one word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Degraded => "degraded",
            Self::Down => "down",
        }
    }
}

/// `time` to the second in UTC, as RFC 3339 has it: `2026-03-01T12:00:00Z`. Before 1970 is 1970.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// Year, month and day of the day `days` after 1 January 1970.
const fn civil(days: u64) -> (u64, u64, u64) {
    // Counts from 1 March of year 0, so that a leap day ends a year; 400 years have 146,097 days.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

#[cfg(test)]
pub(in crate::control) mod tests {
    use super::*;

    pub(in crate::control) fn example() -> Status {
        let tunnel = Tunnel {
            name: "a".into(),
            public_key: "k".into(),
            state: State::Up,
            since: rfc3339(UNIX_EPOCH),
            since_s: 5,
            endpoint: Some("192.0.2.1:51820".into()),
            configured_endpoint: None,
            last_handshake_s: Some(3),
            last_receive_s: None,
            mtu: 1420,
            sent: Traffic { packets: 1, bytes: 84, packets_per_s: 1, bits_per_s: 672 },
            received: Traffic::default(),
            wire: Wire { sent_bytes: 276, received_bytes: 92 },
            handshakes: Handshakes { completed: 1, initiations: 1, failed: 0 },
        };
        let connection = Connection {
            name: "vpc".into(),
            networks: vec!["10.20.0.0/16".into()],
            state: State::Up,
            tunnels: vec![tunnel],
        };
        let interface = Interface {
            name: "ls0".into(),
            index: 7,
            mtu: 1420,
            port: 51820,
            offloads: "tcp+udp".into(),
            public_key: "p".into(),
            workers: 2,
        };
        Status {
            version: "0.1.0".into(),
            interface,
            uptime_s: 9,
            state: State::Up,
            connections: vec![connection],
            drops: vec![Drop { reason: "in_replay".into(), packets: 2, sentence: "seen before".into() }],
            threads: vec![Thread { name: "outbound-0".into(), busy_ms: 1500 }],
            clock_behind_s: 0,
            warnings: vec![],
        }
    }

    #[test]
    fn the_json_reads_back_and_names_states_in_lower_case() {
        let json = serde_json::to_string(&example()).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), example());
        assert!(json.contains(r#""state":"up""#), "{json}");
        assert!(json.contains(r#""last_receive_s":null"#), "{json}");
    }

    #[test]
    fn some_up_and_some_down_is_degraded() {
        assert_eq!(State::of([State::Up, State::Up]), State::Up);
        assert_eq!(State::of([State::Down, State::Up, State::Up]), State::Degraded);
        assert_eq!(State::of([State::Down, State::Down]), State::Down);
        assert_eq!(State::of([State::Degraded, State::Up]), State::Degraded);
        assert_eq!(State::of([]), State::Down);
    }

    #[test]
    fn times_are_written_as_date_writes_them() {
        // From `date -u -d @N +%FT%TZ`.
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (1_772_366_400, "2026-03-01T12:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ];
        for (seconds, text) in cases {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}
