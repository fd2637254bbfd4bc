//! The rooms of `src/` and who may know whom: arrows run down only (see the picture in `src/lib.rs`).
//!
//! Reads the text of the sources, without comments, strings and tests, for paths that begin with `crate::`, and for
//! words that a room must not name. The last tests show that the reader catches what it is there for.

use std::fs;
use std::path::{Path, PathBuf};

/// What each room may name of `crate::`; a room or a path within one.
const ARROWS: &[(&str, &[&str])] = &[
    ("cli", &["control", "config", "tunnel::key", "sys", "packet::Mtu", "packet::reason", "packet::Reason"]),
    ("control", &["data", "config", "tunnel", "sys", "packet"]),
    ("config", &["tunnel::key", "tunnel::allowed_ips", "packet::Mtu"]),
    ("data", &["tunnel", "packet", "sys"]),
    ("tunnel", &["packet"]),
    ("packet", &[]),
    ("sys", &[]),
    // Not rooms: the map, and the program that hands over to the command line.
    ("lib.rs", &[]),
    ("main.rs", &["cli"]),
    ("bin", &["cli"]),
];

/// Words, and the only places (rooms or files) that may name them.
const WORDS: &[(&str, &[&str])] = &[
    ("unsafe", &["sys"]),
    ("boringtun", &["tunnel/lane/engine.rs"]),
    ("println!", &["cli"]),
    ("print!", &["cli"]),
    ("eprintln!", &["cli"]),
    ("eprint!", &["cli"]),
    ("tokio", &["control", "cli"]),
    ("std::os::fd", &["sys", "data", "control", "cli"]),
    ("std::thread", &["sys", "data", "control", "cli"]),
];

/// Every wrong name in one file, as messages. `path` is relative to `src`.
fn violations(path: &str, text: &str) -> Vec<String> {
    let code = without_tests(&bare(text));
    let room = path.split('/').next().unwrap_or_default();
    let mut found = Vec::new();
    match ARROWS.iter().find(|(name, _)| *name == room) {
        None => found.push(format!("{path}: no room is called {room}: add it to the picture")),
        Some((_, allowed)) => {
            let known = |target: &String| is_within(target, room) || allowed.iter().any(|a| is_within(target, a));
            let wrong = crate_paths(&code).into_iter().filter(|target| !known(target));
            found.extend(wrong.map(|target| format!("{path}: {room} may not know {target}")));
        }
    }
    for (word, places) in WORDS {
        let may = places.iter().any(|place| path == *place || path.starts_with(&format!("{place}/")));
        if !may && has_word(&code, word) {
            found.push(format!("{path}: may not name {word}"));
        }
    }
    found
}

fn is_within(target: &str, allowed: &str) -> bool {
    target == allowed || target.strip_prefix(allowed).is_some_and(|rest| rest.starts_with("::"))
}

/// The code without comments and without what strings and characters hold.
fn bare(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = skippable(rest);
        if skipped > 0 {
            // A line keeps its end.
            code.push(if rest[..skipped].ends_with('\n') { '\n' } else { ' ' });
            rest = &rest[skipped..];
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    code
}

/// How many bytes of comment or literal `text` begins with; 0 = none.
fn skippable(text: &str) -> usize {
    if text.starts_with("//") {
        return text.find('\n').map_or(text.len(), |end| end + 1);
    }
    if text.starts_with("/*") {
        return text.find("*/").map_or(text.len(), |end| end + 2);
    }
    if let Some(raw) = text.strip_prefix("r#\"") {
        return raw.find("\"#").map_or(text.len(), |end| end + 5);
    }
    if text.starts_with('"') {
        return quoted(text, '"');
    }
    // A character, not a lifetime.
    if text.starts_with("'\\") {
        return quoted(text, '\'');
    }
    let mut characters = text.chars();
    match (characters.next(), characters.next(), characters.next()) {
        (Some('\''), Some(one), Some('\'')) => 2 + one.len_utf8(),
        _ => 0,
    }
}

/// The length of a literal between two of `quote`, escapes minded.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return at + 1,
            _ => (),
        }
    }
    text.len()
}

/// Cuts out every item under `#[cfg(test)]`: tests may use what the room may not.
fn without_tests(code: &str) -> String {
    let mut kept = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(start) = rest.find("#[cfg(test)]") {
        kept.push_str(&rest[..start]);
        let item = &rest[start..];
        rest = &item[end_of_item(item)..];
    }
    kept + rest
}

/// Where an item ends: at its `;`, or at the brace that closes its first one.
fn end_of_item(item: &str) -> usize {
    let mut depth = 0_usize;
    for (at, character) in item.char_indices() {
        match character {
            ';' if depth == 0 => return at + 1,
            '{' => depth += 1,
            '}' if depth <= 1 => return at + 1,
            '}' => depth -= 1,
            _ => (),
        }
    }
    item.len()
}

/// All paths behind `crate::`, `use crate::{a, b::c}` taken apart.
fn crate_paths(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        // Not `$crate::` of a macro, not `other_crate::`; `pub(in crate::x)` names nobody.
        let before = &code[..at];
        if before.ends_with("(in ") || before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        expand("", &code[at + "crate::".len()..], &mut paths);
    }
    paths
}

/// Takes the path (or group of paths) at the start of `text`; what follows it is returned.
fn expand<'t>(prefix: &str, text: &'t str, paths: &mut Vec<String>) -> &'t str {
    let text = text.trim_start();
    if let Some(mut inside) = text.strip_prefix('{') {
        while !inside.trim_start().is_empty() && !inside.trim_start().starts_with('}') {
            inside = expand(prefix, inside, paths);
            inside = inside.trim_start().trim_start_matches(',');
        }
        return inside.trim_start().strip_prefix('}').unwrap_or_default();
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}::{name}") };
    if let Some(deeper) = rest.strip_prefix("::") {
        return expand(&path, deeper, paths);
    }
    // Past what this does not read: `as other`, `*`.
    let end = rest.find([',', '}', ';', '\n', '(', ')']).unwrap_or(rest.len());
    paths.push(if name == "self" || name.is_empty() { prefix.to_owned() } else { path });
    &rest[end..]
}

fn has_word(code: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let (before, after) = (&code[..at], &code[at + word.len()..]);
        !before.ends_with(part) && (word.ends_with('!') || !after.starts_with(part))
    })
}

/// `tests.rs`, `testing.rs`, `traps.rs`, or a folder of that name: only tests see them.
fn is_test(path: &Path) -> bool {
    path.file_stem().is_some_and(|name| ["tests", "testing", "traps"].iter().any(|test| name == *test))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder is there").flatten() {
        let path = entry.path();
        if path.is_dir() {
            if !is_test(&path) {
                sources(&path, found);
            }
        } else if path.extension().is_some_and(|e| e == "rs") && !is_test(&path) {
            found.push(path);
        }
    }
}

#[test]
fn arrows_run_down_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 10, "the sources were found");
    let found: Vec<String> = files
        .iter()
        .flat_map(|file| {
            let path = file.strip_prefix(&root).expect("it is inside").to_string_lossy().into_owned();
            violations(&path, &fs::read_to_string(file).expect("a source is text"))
        })
        .collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn an_arrow_that_runs_up_is_caught() {
    for (path, text) in [
        ("packet/ip.rs", "use crate::tunnel::Lane;"),
        ("packet/ip.rs", "fn f() { crate::sys::poll::poll() }"),
        ("sys/udp.rs", "use crate::packet::Mtu;"),
        ("tunnel/lane.rs", "use crate::{packet::Mtu, data::Plane};"),
        ("tunnel/lane.rs", "use crate::sys::{self, udp};"),
        ("config/read.rs", "use crate::tunnel::{key::PublicKey, lane::Lane};"),
        ("config/read.rs", "use crate::packet::{Mtu, ip};"),
        ("data/outbound.rs", "use crate::control::status;"),
        ("cli/run.rs", "pub use crate::data as plane;"),
        ("attic/x.rs", "fn f() {}"),
    ] {
        assert!(!violations(path, text).is_empty(), "{path}: {text}");
    }
}

#[test]
fn a_word_in_the_wrong_place_is_caught() {
    for (path, text) in [
        ("tunnel/lane.rs", "let x = unsafe { f() };"),
        ("tunnel/lane.rs", "use boringtun::noise::Tunn;"),
        ("data/inbound.rs", "println!(\"{x}\");"),
        ("data/inbound.rs", "tokio::spawn(f);"),
        ("packet/ip.rs", "use std::os::fd::OwnedFd;"),
        ("tunnel/peer.rs", "std::thread::sleep(x);"),
    ] {
        assert_eq!(violations(path, text).len(), 1, "{path}: {text}");
    }
}

#[test]
fn what_is_allowed_is_not_caught() {
    for (path, text) in [
        ("tunnel/lane.rs", "use crate::packet::{Mtu, Reason};\nuse crate::tunnel::wire;"),
        ("tunnel/lane/engine.rs", "use boringtun::noise::Tunn;"),
        ("config/read.rs", "use crate::tunnel::key::{self, PublicKey};\nuse crate::packet::Mtu;"),
        ("sys/poll.rs", "// SAFETY: fine\nunsafe { libc::poll() };"),
        ("packet/ip.rs", "// crate::tunnel, tokio, unsafe\nconst X: &str = \"unsafe \\\" crate::sys\";"),
        ("packet/ip.rs", "fn f<'a>(x: &'a u8) {} const C: char = '\"'; // tokio"),
        ("packet/ip.rs", "fn f() {}\n#[cfg(test)]\nmod tests {\n use std::thread; fn g() { unsafe {} }\n}"),
        ("tunnel/key.rs", "pub(in crate::tunnel) fn secret() {}"),
        ("tunnel/key.rs", "#![deny(unsafe_code)]"),
    ] {
        assert_eq!(violations(path, text), Vec::<String>::new(), "{path}: {text}");
    }
}

#[test]
fn code_behind_a_test_module_is_read_again() {
    let text = "#[cfg(test)]\nmod tests;\nuse crate::sys::udp;\n#[cfg(test)]\nmod more { fn f() { {} } }\nuse crate::data::Plane;";
    assert_eq!(violations("packet/ip.rs", text).len(), 2);
}
