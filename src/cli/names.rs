//! From the NAME of an interface to its files.

use std::path::{Path, PathBuf};

/// Where the configuration and key files are.
pub(super) const ETC: &str = "/etc/linkspan";
/// Where the sockets of running daemons are.
pub(super) const RUN: &str = "/run/linkspan";

/// Argument parser: the name of an interface as the kernel takes it, usable as a file name.
pub(super) fn interface(text: &str) -> Result<String, String> {
    if text.contains('/') || text.ends_with(".toml") {
        return Err("NAME is the interface, as in /etc/linkspan/NAME.toml; a file is given by its option".into());
    }
    let printable = text.bytes().all(|b| b.is_ascii_graphic() && b != b':');
    if text.is_empty() || text.len() > 15 || text == "." || text == ".." || !printable {
        return Err("the name of an interface has 1 to 15 characters, no space, \"/\" or \":\"".into());
    }
    Ok(text.to_owned())
}

/// `/etc/linkspan/NAME.toml`
pub(super) fn config_file(name: &str) -> PathBuf {
    Path::new(ETC).join(format!("{name}.toml"))
}

/// `/run/linkspan/NAME.sock`
pub(super) fn socket(name: &str) -> PathBuf {
    Path::new(RUN).join(format!("{name}.sock"))
}

/// The sockets that are meant: this one, that of the interface `name`, or all that there are.
pub(super) fn sockets(given: Option<&Path>, name: Option<&str>) -> Vec<PathBuf> {
    match (given, name) {
        (Some(given), _) => vec![given.to_owned()],
        (None, Some(name)) => vec![socket(name)],
        (None, None) => files(Path::new(RUN), "sock"),
    }
}

/// The interface whose socket this is; of a socket elsewhere, its path.
pub(super) fn of_socket(path: &Path) -> String {
    let named = path.parent() == Some(Path::new(RUN));
    let name = path.file_stem().filter(|_| named);
    name.map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// The files in `directory` with `extension`, sorted; none if there is no such directory or it may not be read.
pub(super) fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let wanted = |path: &PathBuf| path.extension().is_some_and(|e| e == extension);
    let mut found: Vec<_> = entries.map(|entry| entry.path()).filter(wanted).collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_the_kernel_takes_as_an_interface() {
        for good in ["wan0", "a", "site-b.1", "exactly15bytes_"] {
            assert_eq!(interface(good).as_deref(), Ok(good));
        }
        for bad in
            ["", ".", "..", "a b", "a/b", "a:1", "sixteen_bytes_xx", "\u{e9}", "wan0.toml", "/etc/linkspan/wan0.toml"]
        {
            assert!(interface(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_directory_that_is_not_there_has_no_files() {
        assert!(files(Path::new("/nowhere/at/all"), "sock").is_empty());
    }
}
