//! Values that are not addresses: texts, numbers, durations, names, paths, keys.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use super::problem::Wrong;
use super::schema::choice;
use crate::packet::Mtu;
use crate::tunnel::key::PublicKey;

/// 10 s: below the 15 s after which a silent WireGuard peer is suspected, and below any NAT's timeout.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(10);
/// WireGuard's own field has 16 bits of seconds.
const LONGEST_KEEPALIVE: Duration = Duration::from_secs(65_535);

/// What a value is, in an admin's words.
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}

/// A text as it may stand in a message: in quotes, on one line, not endless.
pub(super) fn quoted(text: &str) -> String {
    const MOST: usize = 60;
    let short: String = text.chars().take(MOST).collect();
    if short.len() < text.len() { format!("{:?}", short + "…") } else { format!("{short:?}") }
}

/// A key as it may stand in a message: as it is, if it is one word.
pub(super) fn bare(key: &str) -> String {
    let word = key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if word && !key.is_empty() && key.len() <= 40 { key.to_owned() } else { quoted(key) }
}

/// A text, as `read` takes it.
pub(super) fn text<T>(value: &DeValue<'_>, read: impl FnOnce(&str) -> Result<T, Wrong>) -> Result<T, Wrong> {
    let remedy = match value {
        DeValue::String(text) => return read(text),
        DeValue::Integer(number) => format!("write \"{number}\""),
        DeValue::Float(number) => format!("write {}", quoted(number.as_str())),
        // What it says of an empty text is what would be right.
        DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Table(_) => {
            read("").err().map_or_else(|| "write text in quotes".to_owned(), |wrong| wrong.remedy)
        }
        DeValue::Array(_) => "write one text in quotes, without brackets".to_owned(),
    };
    Err(Wrong::new(format!("{} where text belongs", kind(value)), remedy))
}

/// What is wrong with a value that should have been a list of texts.
pub(super) fn not_a_list(value: &DeValue<'_>) -> Wrong {
    let remedy = match value.as_str() {
        Some(text) => format!("write [{}]", quoted(text)),
        None => "write texts in brackets: [\"...\", \"...\"]".to_owned(),
    };
    Wrong::new(format!("{} where a list belongs", kind(value)), remedy)
}

pub(super) fn boolean(value: &DeValue<'_>) -> Result<bool, Wrong> {
    let remedy = match value.as_str() {
        Some(text @ ("true" | "false")) => format!("write {text}, without quotes"),
        _ => "write true or false".to_owned(),
    };
    value.as_bool().ok_or_else(|| Wrong::new(format!("{} where true or false belongs", kind(value)), remedy))
}

/// A whole number within `range`.
pub(super) fn integer(value: &DeValue<'_>, range: RangeInclusive<i64>) -> Result<i64, Wrong> {
    let whole = || format!("write a whole number from {} to {}", range.start(), range.end());
    if let Some(digits) = value.as_integer() {
        let number = i64::from_str_radix(digits.as_str(), digits.radix()).ok();
        return number
            .filter(|number| range.contains(number))
            .ok_or_else(|| Wrong::new(format!("{digits} is out of range"), whole()));
    }
    if let Some(digits) = value.as_float() {
        return Err(Wrong::new(format!("{} is not a whole number", digits.as_str()), whole()));
    }
    let meant = value.as_str().filter(|text| unquoted(text).is_some_and(|number| range.contains(&number)));
    let remedy = meant.map_or_else(whole, |text| format!("write {text}, without quotes"));
    Err(Wrong::new(format!("{} where a number belongs", kind(value)), remedy))
}

/// The number that a text in quotes would be without them.
fn unquoted(text: &str) -> Option<i64> {
    match text.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// The same where the range is that of 32 bits or within.
pub(super) fn number(value: &DeValue<'_>, range: RangeInclusive<u32>) -> Result<u32, Wrong> {
    let (low, high) = range.into_inner();
    let number = integer(value, i64::from(low)..=i64::from(high))?;
    Ok(u32::try_from(number).unwrap_or(high))
}

/// `mtu`: "auto", or bytes.
pub(super) fn mtu(value: &DeValue<'_>) -> Result<Option<Mtu>, Wrong> {
    if value.as_str() == Some("auto") {
        return Ok(None);
    }
    let (low, high) = (Mtu::MIN.bytes(), Mtu::MAX.bytes());
    let remedy = format!("write \"auto\", or a number from {low} to {high}; 1420 fits the usual path of 1500");
    let given = match integer(value, 0..=i64::from(u16::MAX)) {
        Ok(given) => given,
        // It says which number was meant.
        Err(wrong) if wrong.remedy.ends_with("without quotes") => return Err(wrong),
        Err(wrong) => return Err(Wrong::new(wrong.what, remedy)),
    };
    let bytes = u16::try_from(given).unwrap_or(u16::MAX);
    let what = if given < 1280 { "less than IPv6 can do with" } else { "more than a datagram holds" };
    Mtu::new(bytes).map(Some).ok_or_else(|| Wrong::new(format!("{given} is {what}"), remedy))
}

/// `table`: "main", or a number.
pub(super) fn table(value: &DeValue<'_>) -> Result<u32, Wrong> {
    const MAIN: u32 = 254;
    const LOCAL: u32 = 255;
    let remedy = "write \"main\", or a number from 1 to 4294967295 other than 255";
    match value.as_str() {
        Some("main") => return Ok(MAIN),
        Some(name) if name.parse::<u32>().is_err() => {
            return Err(Wrong::new(format!("{} is not a table that is known here", quoted(name)), remedy));
        }
        _ => {}
    }
    match number(value, 0..=u32::MAX)? {
        0 => Err(Wrong::new("0 is no table", remedy)),
        LOCAL => Err(Wrong::new("255 is the kernel's own table", remedy)),
        table => Ok(table),
    }
}

/// A number and its unit: "250ms", "10s", "2min", "1h".
pub(super) fn duration(text: &str) -> Result<Duration, Wrong> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let unit = unit.trim();
    let wrong = |remedy: String| Wrong::new(format!("{} is not a duration", quoted(text)), remedy);
    let Ok(count) = digits.parse::<u32>() else {
        return Err(wrong("write a whole number and its unit: \"250ms\", \"10s\", \"2min\", \"1h\"".to_owned()));
    };
    let meant = match unit {
        "ms" => return Ok(Duration::from_millis(count.into())),
        "s" => return Ok(Duration::from_secs(count.into())),
        "min" => return Ok(Duration::from_secs(60 * u64::from(count))),
        "h" => return Ok(Duration::from_secs(3_600 * u64::from(count))),
        "" | "sec" | "secs" | "second" | "seconds" | "S" => "s",
        "m" | "M" | "mins" | "minute" | "minutes" => "min",
        "hour" | "hours" | "H" => "h",
        _ => return Err(wrong("its unit is one of ms, s, min, h".to_owned())),
    };
    Err(wrong(format!("did you mean \"{count}{meant}\"?")))
}

/// `persistent_keepalive`: "auto", "off", seconds, or a duration; none = off.
pub(super) fn keepalive(value: &DeValue<'_>) -> Result<Option<Duration>, Wrong> {
    let remedy = "write \"auto\" for 10 s, \"off\", or whole seconds from \"1s\" to \"65535s\"";
    let asked = match value.as_str() {
        Some("auto") => return Ok(Some(KEEPALIVE)),
        Some("off") => return Ok(None),
        Some(text) => duration(text)?,
        None => match integer(value, 0..=i64::MAX) {
            Ok(seconds) => Duration::from_secs(seconds.unsigned_abs()),
            Err(wrong) => return Err(Wrong::new(wrong.what, remedy)),
        },
    };
    if asked.subsec_nanos() == 0 && (Duration::from_secs(1)..=LONGEST_KEEPALIVE).contains(&asked) {
        return Ok(Some(asked));
    }
    Err(Wrong::new(format!("{} s is no interval for keepalives", asked.as_secs_f64()), remedy))
}

/// The name of a connection or a tunnel. No slash: "connection/tunnel" names a tunnel everywhere else.
pub(super) fn name(text: &str) -> Result<String, Wrong> {
    const MOST: usize = 63;
    let remedy = "use letters, digits, spaces and signs other than '/', at most 63 characters";
    let bad = text.chars().find(|c| !c.is_alphanumeric() && *c != ' ' && (!c.is_ascii_punctuation() || *c == '/'));
    if text.is_empty() {
        Err(Wrong::new("an empty name", remedy))
    } else if let Some(bad) = bad {
        Err(Wrong::new(format!("{bad:?} in a name"), remedy))
    } else if text.trim() != text {
        Err(Wrong::new("a name with blanks around it", format!("write {}", quoted(text.trim()))))
    } else if text.chars().count() > MOST {
        Err(Wrong::new(format!("a name of {} characters", text.chars().count()), remedy))
    } else {
        Ok(text.to_owned())
    }
}

/// The path of a key file.
pub(super) fn path(text: &str) -> Result<PathBuf, Wrong> {
    let remedy = "write the whole path of a file, as \"/etc/linkspan/office.key\"";
    if text.parse::<PublicKey>().is_ok() {
        let put = "put it in a file of its own, mode 0600, and write its path here";
        Err(Wrong::new("a key where the path of its file belongs", put))
    } else if text.chars().any(char::is_control) {
        Err(Wrong::new("a path with control characters", remedy))
    } else if !text.starts_with('/') || text.ends_with('/') {
        Err(Wrong::new(format!("{} is not the whole path of a file", quoted(text)), remedy))
    } else {
        Ok(PathBuf::from(text))
    }
}

/// `preshared_key_file`: a path, or empty for none.
pub(super) fn optional_path(text: &str) -> Result<Option<PathBuf>, Wrong> {
    if text.is_empty() { Ok(None) } else { path(text).map(Some) }
}

/// `public_key`. The text is never repeated: it may be a private key by mistake.
pub(super) fn public_key(text: &str) -> Result<PublicKey, Wrong> {
    const LENGTH: usize = 44;
    let remedy = "write 44 characters of base64, as `linkspan pubkey` prints";
    let length = text.trim().chars().count();
    match text.parse::<PublicKey>() {
        Ok(key) if *key.as_bytes() == [0; 32] => Err(Wrong::new("all zeros is nobody's key", remedy)),
        Ok(key) => Ok(key),
        Err(_) if length != LENGTH => {
            Err(Wrong::new(format!("not a key: {length} characters where a key has {LENGTH}"), remedy))
        }
        Err(_) => Err(Wrong::new("not a key: not base64 of 32 bytes", remedy)),
    }
}

/// `startup_action` and the like.
pub(super) fn one_of<T: Copy>(words: &[(&'static str, T)]) -> impl Fn(&str) -> Result<T, Wrong> {
    move |text| choice(text, words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_number_and_a_unit() {
        for (text, milliseconds) in
            [("250ms", 250), ("10s", 10_000), ("2min", 120_000), ("1h", 3_600_000), ("0s", 0), ("10 s", 10_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn a_duration_without_its_unit_is_asked_about() {
        for (text, remedy) in [("10", "did you mean \"10s\"?"), ("2m", "did you mean \"2min\"?")] {
            assert_eq!(duration(text).unwrap_err().remedy, remedy);
        }
        for text in ["", "s", "-1s", "1.5s", "1d", "99999999999s", "١s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_quoted_stays_on_one_line_and_short() {
        assert_eq!(quoted("a\nb"), r#""a\nb""#);
        assert_eq!(quoted(&"x".repeat(100)).chars().count(), 63);
    }
}
