//! Configuration files: bad ones with what is said about them, the examples of `conf/`, and mutations of good ones.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use linkspan::config::{self, Place};
use linkspan::tunnel::key::PublicKey;
use proptest::prelude::*;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files of a folder with this extension, sorted.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.extension() == Some(OsStr::new(extension))).collect();
    files.sort();
    files
}

/// Each NAME.toml of `tests/bad-configs` is read as office.toml and must give exactly the text of NAME.expected.
/// After a change of the messages: `LINKSPAN_BLESS=1 cargo test --test config`, then read the difference.
#[test]
fn every_bad_file_gets_its_exact_messages_and_places() {
    let bless = std::env::var_os("LINKSPAN_BLESS").is_some();
    let bad = files("tests/bad-configs", "toml");
    assert!(bad.len() >= 100, "only {} files", bad.len());
    for path in bad {
        let text = fs::read_to_string(&path).unwrap();
        let problems = config::parse(&text, "office.toml", "office").expect_err(&path.display().to_string());
        let (said, expected) = (format!("{problems}\n"), path.with_extension("expected"));
        if bless {
            fs::write(expected, said).unwrap();
        } else {
            let expected = fs::read_to_string(expected).unwrap_or_default();
            assert_eq!(said, expected, "{}", path.display());
        }
    }
}

/// The same by the program: on standard error, and the exit code is 2.
#[test]
fn the_command_says_the_same_of_every_bad_file_and_ends_with_2() {
    let folder = tempfile::tempdir().unwrap();
    for path in files("tests/bad-configs", "toml") {
        fs::copy(&path, folder.path().join("office.toml")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_linkspan"));
        let output = command.args(["check", "--config", "office.toml"]).current_dir(&folder).output().unwrap();
        let expected = fs::read_to_string(path.with_extension("expected")).unwrap();
        assert_eq!(String::from_utf8(output.stderr).unwrap(), expected, "{}", path.display());
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{}", path.display());
    }
}

#[test]
fn every_expectation_has_its_file() {
    for path in files("tests/bad-configs", "expected") {
        assert!(path.with_extension("toml").exists(), "{}", path.display());
    }
}

/// A place within the file, a message that says what would be right, and never a secret.
#[test]
fn every_message_has_a_place_and_a_remedy_and_no_secret() {
    for path in files("tests/bad-configs", "toml") {
        let text = fs::read_to_string(&path).unwrap();
        let problems = config::parse(&text, "office.toml", "office").unwrap_err();
        for problem in &problems {
            let Place { line, column } = problem.place.unwrap_or_else(|| panic!("{}", path.display()));
            assert!(line <= text.lines().count() + 1 && column >= 1, "{}", path.display());
            assert!(problem.message.ends_with(')'), "{}", path.display());
            // The secret in these files is 32 times the number 7.
            assert!(!problem.to_string().contains("BwcHBwcH"), "{}", path.display());
        }
    }
}

#[test]
fn five_errors_are_told_at_once() {
    let text = fs::read_to_string(root().join("tests/bad-configs/five-at-once.toml")).unwrap();
    let problems = config::parse(&text, "office.toml", "office").unwrap_err();
    let lines: Vec<usize> = problems.iter().filter_map(|problem| problem.place.map(|place| place.line)).collect();
    assert_eq!(lines, [2, 3, 6, 7, 10]);
}

#[test]
fn the_examples_are_right() {
    let examples = files("conf", "toml");
    assert_eq!(examples.len(), 4);
    for path in examples {
        config::load(&path).unwrap_or_else(|problems| panic!("{problems}"));
    }
}

#[test]
fn the_examples_fit_together() {
    for (one, other) in [("on-premises", "vpc"), ("lab-a", "lab-b")] {
        let read = |name: &str| config::load(&root().join(format!("conf/{name}.toml"))).unwrap().connections.remove(0);
        let (here, there) = (read(one), read(other));
        assert_eq!(here.networks, there.local_networks);
        assert_eq!(here.local_networks, there.networks);
        let (inside, outside) = (here.tunnels[0].inside.unwrap(), there.tunnels[0].inside.unwrap());
        assert_eq!((inside.local.addr(), inside.remote), (outside.remote, outside.local.addr()));
    }
}

/// What `load` says of a file of this name and content.
fn refusal(name: &str, content: Option<&[u8]>) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    if let Some(content) = content {
        fs::write(&path, content).unwrap();
    }
    let said = config::load(&path).unwrap_err().to_string();
    said.replace(&format!("{}/", folder.path().display()), "")
}

const GOOD: &str = include_str!("../conf/on-premises.toml");

#[test]
fn a_missing_file_comes_with_the_smallest_one() {
    let said = refusal("office.toml", None);
    let expected = "office.toml: there is no such file (write it; the smallest is below)\n        [[connection]]\n";
    assert!(said.starts_with(expected), "{said}");
}

#[test]
fn a_file_of_another_kind_is_not_read() {
    let said = refusal("office.conf", Some(GOOD.as_bytes()));
    let expected = "its name does not end in .toml (rename it to NAME.toml; NAME becomes the interface)";
    assert_eq!(said, format!("office.conf: {expected}"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("office.toml");
    fs::create_dir(&path).unwrap();
    let said = config::load(&path).unwrap_err().to_string();
    assert!(said.ends_with("it is a directory (name a file in it)"), "{said}");
}

#[test]
fn a_huge_file_is_not_read() {
    let said = refusal("office.toml", Some(&vec![b'#'; (1 << 20) + 1]));
    assert_eq!(said, "office.toml: it is bigger than 1 MiB (is it the right file?)");
}

#[test]
fn a_file_that_is_not_utf8_is_refused_at_its_first_bad_byte() {
    let said = refusal("office.toml", Some(b"[interface]\n# b\xc3\xbc\xfcro\n"));
    assert_eq!(said, "office.toml:2:5: a character that is not UTF-8 (save the file as UTF-8 or plain ASCII)");
}

#[test]
fn the_name_of_the_file_must_do_for_an_interface() {
    for (name, why) in [
        ("sixteen-bytes-xx", "16 bytes long"),
        ("a b", "' ' in it"),
        ("a:b", "':' in it"),
        ("", "no name"),
        ("..", "a name that the kernel keeps for itself"),
    ] {
        let said = refusal(&format!("{name}.toml"), Some(GOOD.as_bytes()));
        let remedy = "rename the file to NAME.toml, NAME being 1 to 15 letters, digits, '-' or '_'";
        assert_eq!(said, format!("{name}.toml: {name:?} cannot be the name of the interface: {why} ({remedy})"));
    }
}

#[test]
fn a_thousand_connections_are_read() {
    let connection = |n: u16| {
        let [high, low] = n.to_be_bytes();
        let key = PublicKey::new([high.wrapping_add(1), low].repeat(16).try_into().unwrap());
        format!(
            "[[connection]]\nname = \"{n}\"\nnetworks = [\"10.{high}.{low}.0/24\"]\n[[connection.tunnel]]\n\
             public_key = \"{key}\"\n"
        )
    };
    let text: String = (0..1_000).map(connection).collect();
    assert_eq!(config::parse(&text, "office.toml", "office").unwrap().connections.len(), 1_000);
}

#[test]
fn of_ten_thousand_errors_a_thousand_are_told() {
    let text: String = (0..10_000).map(|n| format!("k{n} = 1\n")).collect();
    assert_eq!(config::parse(&text, "office.toml", "office").unwrap_err().len(), 1_000);
}

/// One change to a text.
#[derive(Debug, Clone)]
enum Mutation {
    Delete(prop::sample::Index, usize),
    Insert(prop::sample::Index, String),
    Copy(prop::sample::Index, prop::sample::Index, usize),
}

impl Mutation {
    fn apply(&self, text: &mut Vec<char>) {
        let end = |from: usize, length: usize| (from + length).min(text.len());
        match self {
            _ if text.is_empty() => {}
            Self::Delete(at, length) => {
                let from = at.index(text.len());
                text.drain(from..end(from, *length));
            }
            Self::Insert(at, what) => {
                let at = at.index(text.len());
                text.splice(at..at, what.chars());
            }
            Self::Copy(at, from, length) => {
                let (at, from) = (at.index(text.len()), from.index(text.len()));
                let piece = text[from..end(from, *length)].to_vec();
                text.splice(at..at, piece);
            }
        }
    }
}

fn mutation() -> impl Strategy<Value = Mutation> {
    const WORDS: &[&str] = &[
        "[",
        "]",
        "[[",
        "]]",
        "\"",
        "'",
        "\"\"\"",
        "=",
        ",",
        ".",
        "{",
        "}",
        "#",
        "\n",
        "\r\n",
        "\t",
        "\\",
        "\\u0000",
        "-1",
        "0x",
        "1e999",
        "99999999999999999999",
        "inf",
        "1979-05-27",
        "true",
        "ü",
        "\u{1f600}",
        "\u{0}",
        "/",
        "::",
        "fe80::1",
        "0.0.0.0/0",
        "/33",
        "connection",
        "interface",
        "tunnel",
        "[[connection]]",
        "[connection.tunnel]",
        "private_key = ",
        "networks = ",
    ];
    prop_oneof![
        (any::<prop::sample::Index>(), 1..40_usize).prop_map(|(at, length)| Mutation::Delete(at, length)),
        (any::<prop::sample::Index>(), prop::sample::select(WORDS))
            .prop_map(|(at, what)| Mutation::Insert(at, what.to_owned())),
        (any::<prop::sample::Index>(), any::<String>()).prop_map(|(at, what)| Mutation::Insert(at, what)),
        (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1..80_usize)
            .prop_map(|(at, from, length)| Mutation::Copy(at, from, length)),
    ]
}

/// Whatever is wrong with the text is somewhere in it.
fn check(text: &str) {
    let Err(problems) = config::parse(text, "office.toml", "office") else { return };
    for problem in &problems {
        let place = problem.place.unwrap();
        assert!(place.line >= 1 && place.line <= text.split('\n').count(), "{problem}");
        assert!(!problem.to_string().contains('\0'), "{problem}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_mutation_of_a_good_file_panics(
        which in 0..4_usize,
        mutations in prop::collection::vec(mutation(), 1..8),
    ) {
        let good = fs::read_to_string(&files("conf", "toml")[which]).unwrap();
        let mut text: Vec<char> = good.chars().collect();
        mutations.iter().for_each(|mutation| mutation.apply(&mut text));
        check(&text.iter().collect::<String>());
    }

    #[test]
    fn no_text_at_all_panics(text in any::<String>()) {
        check(&text);
    }
}
