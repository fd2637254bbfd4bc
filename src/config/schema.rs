//! Which keys there are, which are for later versions, and what somebody may have meant by another.

use super::problem::Wrong;
use super::value::quoted;

/// The keys of one kind of section.
pub(super) struct Keys {
    /// How the section begins, in the file.
    pub(super) title: &'static str,
    /// Where its keys stand, in a sentence.
    place: &'static str,
    /// What this version knows.
    known: &'static [&'static str],
    /// What a later version will know.
    later: &'static [&'static str],
}

pub(super) const ROOT: Keys = Keys {
    title: "",
    place: "this file, outside its sections",
    known: &["interface", "connection"],
    later: &["uplink"],
};

pub(super) const INTERFACE: Keys = Keys {
    title: "[interface]",
    place: "[interface]",
    known: &["private_key_file", "listen_port", "addresses", "mtu", "fwmark", "offload", "workers", "metrics"],
    later: &["lanes"],
};

pub(super) const CONNECTION: Keys = Keys {
    title: "[[connection]]",
    place: "[[connection]]",
    known: &[
        "name",
        "networks",
        "local_networks",
        "routes",
        "table",
        "metric",
        "route_source",
        "when_down",
        "startup_action",
        "tunnel",
    ],
    later: &[
        "mode",
        "selector",
        "preempt_after",
        "health_check",
        "health_check_local",
        "dpd_timeout",
        "dpd_action",
        "asymmetric_ok",
    ],
};

pub(super) const TUNNEL: Keys = Keys {
    title: "[[connection.tunnel]]",
    place: "[[connection.tunnel]]",
    known: &["name", "public_key", "endpoint", "preshared_key_file", "inside_cidr", "inside", "persistent_keepalive"],
    later: &["uplinks", "priority", "relay"],
};

/// Sections in which a key may be at home when it stands in the wrong one.
const SECTIONS: [&Keys; 3] = [&INTERFACE, &CONNECTION, &TUNNEL];

/// Other programs' words for ours, as [`plain`] spells them.
const ELSEWHERE: [(&str, &str); 12] = [
    ("address", "addresses"),
    ("port", "listen_port"),
    ("allowedips", "networks"),
    ("subnets", "networks"),
    ("remotenetworks", "networks"),
    ("peer", "tunnel"),
    ("publickey", "public_key"),
    ("keepalive", "persistent_keepalive"),
    ("tunnelinsidecidr", "inside_cidr"),
    ("connections", "connection"),
    ("tunnels", "tunnel"),
    ("startup", "startup_action"),
];

/// Whether `key` belongs into such a section; if not, why, and which key of the section was probably meant.
pub(super) fn check(keys: &Keys, key: &str) -> Result<(), (Wrong, Option<&'static str>)> {
    if keys.known.contains(&key) {
        return Ok(());
    }
    if keys.later.contains(&key) {
        let part = if key == "uplink" { "section" } else { "line" };
        return Err((Wrong::new("not there yet in this version", format!("remove the {part}")), None));
    }
    let meant = nearest(key, keys.known);
    Err((secret(key).unwrap_or_else(|| unknown(keys, key, meant)), meant))
}

/// Key material in the file, where everybody may read it and every backup holds it.
fn secret(key: &str) -> Option<Wrong> {
    let what = "no key belongs in this file";
    match plain(key).as_str() {
        "privatekey" => Some(Wrong::new(
            what,
            "remove the line, make a new key with `linkspan genkey NAME`, and name its file with private_key_file if \
             it is not /etc/linkspan/NAME.key",
        )),
        "presharedkey" => Some(Wrong::new(
            what,
            "remove the line, write a new one with `linkspan genpsk > FILE`, and name the file with preshared_key_file",
        )),
        _ => None,
    }
}

fn unknown(keys: &Keys, key: &str, meant: Option<&str>) -> Wrong {
    let elsewhere = || SECTIONS.iter().find_map(|section| Some((nearest(key, section.known)?, section.title)));
    let remedy = if let Some(meant) = meant {
        format!("did you mean {meant}?")
    } else if matches!(plain(key).as_str(), "tunnel" | "tunnels" | "peer" | "peers") {
        format!("a tunnel begins with {}, under its [[connection]]", TUNNEL.title)
    } else if let Some((meant, title)) = elsewhere() {
        if meant == key { format!("it belongs in {title}") } else { format!("did you mean {meant} of {title}?") }
    } else {
        format!("known here: {}", keys.known.join(", "))
    };
    Wrong::new(format!("unknown key in {}", keys.place), remedy)
}

/// The candidate that `text` was meant to be, if there is one near enough.
pub(super) fn nearest<'c>(text: &str, candidates: &[&'c str]) -> Option<&'c str> {
    let text = plain(text);
    let elsewhere = ELSEWHERE.iter().find(|(word, _)| *word == text).map(|(_, ours)| *ours);
    let near = candidates.iter().map(|candidate| (distance(&text, &plain(candidate)), *candidate));
    let by_letters = near.filter(|(far, candidate)| *far <= 2.min(candidate.len() / 3)).min().map(|(_, best)| best);
    by_letters.or_else(|| candidates.iter().find(|candidate| Some(**candidate) == elsewhere).copied())
}

/// In small letters and digits only: `ListenPort`, `listen-port` and `listen_port` are the same.
fn plain(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).take(40).collect()
}

/// Levenshtein's: how many letters to insert, delete or change.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.bytes().enumerate() {
            let change = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// One of a few words.
pub(super) fn choice<T: Copy>(text: &str, words: &[(&'static str, T)]) -> Result<T, Wrong> {
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    let all: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
    Err(Wrong::new(format!("{} is not one of its values", quoted(text)), format!("write {}", all.join(" or "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_counts_letters() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("netwroks", "networks"), 2);
        assert_eq!(distance("networks", "networks"), 0);
    }

    #[test]
    fn the_nearest_key_is_what_was_meant() {
        for (typed, meant) in [
            ("netwroks", Some("networks")),
            ("ListenPort", None),
            ("AllowedIPs", Some("networks")),
            ("start-up-action", Some("startup_action")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, CONNECTION.known), meant, "{typed}");
        }
    }
}
