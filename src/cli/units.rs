//! Numbers for people.

use std::time::Duration;

const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

/// `bytes` with a binary unit and three digits at the most after the first unit: "1.2 GiB".
#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
pub(super) fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 100.0);
    format!("{value:.digits$} {}", UNITS[unit])
}

/// `seconds` in its two largest units: "3 h 4 min".
pub(super) fn seconds(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// What `bytes` in `time` make, in bit/s: "3.21 Gbit/s".
#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
pub(super) fn rate(bytes: u64, time: Duration) -> String {
    let mbit = bytes as f64 * 8e-6 / time.as_secs_f64().max(1e-9);
    if mbit < 1000.0 { format!("{mbit:.0} Mbit/s") } else { format!("{:.2} Gbit/s", mbit / 1000.0) }
}

/// A rate in bit/s with a decimal unit: "12.3 Mbit/s".
#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
pub(super) fn bit_rate(bits_per_s: u64) -> String {
    const UNITS: [&str; 5] = ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"];
    let mut value = bits_per_s as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 99.95);
    format!("{value:.digits$} {}", UNITS[unit])
}

/// A short time: "0.31 ms".
pub(super) fn milliseconds(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1000.0;
    if ms < 10.0 { format!("{ms:.2} ms") } else { format!("{ms:.0} ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_short() {
        let expected = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 KiB"),
            (1 << 20, "1.0 MiB"),
            (3_650_722_202, "3.4 GiB"),
            (123 << 30, "123 GiB"),
            (u64::MAX, "16777216 TiB"),
        ];
        for (value, text) in expected {
            assert_eq!(bytes(value), text);
        }
    }

    #[test]
    fn times_are_in_two_units() {
        let expected = [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min 0 s"),
            (3599, "59 min 59 s"),
            (3600, "1 h 0 min"),
            (86_400, "1 d 0 h"),
            (446_400, "5 d 4 h"),
        ];
        for (value, text) in expected {
            assert_eq!(seconds(value), text);
        }
    }

    #[test]
    fn bit_rates_are_short() {
        let expected = [
            (0, "0 bit/s"),
            (999, "999 bit/s"),
            (1000, "1.0 kbit/s"),
            (12_340_000, "12.3 Mbit/s"),
            (99_960_000, "100 Mbit/s"),
            (999_900_000, "1.0 Gbit/s"),
            (u64::MAX, "18446744 Tbit/s"),
        ];
        for (value, text) in expected {
            assert_eq!(bit_rate(value), text);
        }
    }

    #[test]
    fn rates_are_in_bits() {
        assert_eq!(rate(125_000_000, Duration::from_secs(1)), "1.00 Gbit/s");
        assert_eq!(rate(1_250_000, Duration::from_millis(100)), "100 Mbit/s");
        assert_eq!(milliseconds(Duration::from_micros(310)), "0.31 ms");
        assert_eq!(milliseconds(Duration::from_millis(42)), "42 ms");
    }
}
