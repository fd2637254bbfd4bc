//! From a path to a text.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::problem::{Place, Problem, Wrong};
use super::{Config, Problems, SMALLEST, parse};

/// In bytes; a thousand connections fit.
const BIGGEST: u64 = 1 << 20;

/// Reads the configuration file at `path`, NAME.toml, for the network interface NAME.
///
/// # Errors
/// All that is wrong, each with its place; a file that cannot be read is one such problem.
pub fn load(path: &Path) -> Result<Config, Problems> {
    let shown = path.display().to_string();
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let Some(interface) = name.strip_suffix(".toml") else {
        let wrong = Wrong::new("its name does not end in .toml", "rename it to NAME.toml; NAME becomes the interface");
        return Err(Problems::whole_file(&shown, &wrong));
    };
    let bytes = read(path).map_err(|error| Problems::whole_file(&shown, &why(&error)))?;
    let text = str::from_utf8(&bytes).map_err(|error| not_utf8(&shown, &bytes[..error.valid_up_to()]))?;
    parse(text, &shown, interface)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let kind = std::fs::metadata(path)?.file_type();
    if kind.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !kind.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(BIGGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > BIGGEST {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

/// Why the file cannot be read, and what to do.
fn why(error: &io::Error) -> Wrong {
    let is = |kind| error.kind() == kind;
    if is(io::ErrorKind::NotFound) {
        Wrong::new("there is no such file", "write it; the smallest is below").with_example(SMALLEST)
    } else if is(io::ErrorKind::PermissionDenied) {
        Wrong::new("it may not be read", "run the command as root, or `chmod o+r` it: it holds no secret")
    } else if is(io::ErrorKind::IsADirectory) {
        Wrong::new("it is a directory", "name a file in it")
    } else if is(io::ErrorKind::FileTooLarge) {
        Wrong::new("it is bigger than 1 MiB", "is it the right file?")
    } else {
        Wrong::new(format!("it cannot be read: {error}"), "name a file that `cat` can show")
    }
}

/// At the first byte that is no text.
fn not_utf8(file: &str, good: &[u8]) -> Problems {
    let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
    let last = good.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    let column = String::from_utf8_lossy(last).chars().count() + 1;
    let message = "a character that is not UTF-8 (save the file as UTF-8 or plain ASCII)".to_owned();
    let place = Some(Place { line, column });
    Problems::single(Problem { file: file.to_owned(), place, message, excerpt: None, example: None })
}
