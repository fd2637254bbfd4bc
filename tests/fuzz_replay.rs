//! The fuzz targets without a fuzzer: every file of the corpora, then seeded changes of them. `tests/fuzz/run` fuzzes.
#![cfg(not(feature = "sim"))]
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "fuzz/targets/mod.rs"]
mod targets;

use std::path::{Path, PathBuf};

/// Changed inputs a target; as many as take some seconds.
const CHANGED: u64 = 4000;

fn corpus(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

/// Every input that panics, or does not come back, fails the test by the panic's own message and the file named here.
fn replay(target: &str, run: fn(&[u8])) {
    let inputs: Vec<Vec<u8>> = corpus(target).iter().map(|file| std::fs::read(file).unwrap()).collect();
    for (file, input) in corpus(target).iter().zip(&inputs) {
        let _named = NamedOnPanic(file);
        run(input);
    }
    for seed in 1..=CHANGED {
        run(&changed(&inputs, seed));
    }
}

struct NamedOnPanic<'p>(&'p Path);

impl Drop for NamedOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("with {}", self.0.display());
        }
    }
}

/// One of the inputs with some bytes changed, cut, or joined to another one.
fn changed(inputs: &[Vec<u8>], seed: u64) -> Vec<u8> {
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut below = |limit: usize| {
        random ^= random >> 12;
        random ^= random << 25;
        random ^= random >> 27;
        usize::try_from(random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % limit.max(1)
    };
    let mut input = inputs[below(inputs.len())].clone();
    match below(4) {
        0 => input.truncate(below(input.len() + 1)),
        1 => input.extend_from_slice(&inputs[below(inputs.len())]),
        _ => {}
    }
    for _ in 0..below(8) {
        if let Some(byte) = {
            let at = below(input.len());
            input.get_mut(at)
        } {
            *byte = below(256).to_le_bytes()[0];
        }
    }
    input
}

#[test]
fn nothing_from_the_interface_breaks_segmentation() {
    replay("segment", targets::segment::run);
}

#[test]
fn nothing_opened_breaks_coalescing() {
    replay("coalesce", targets::coalesce::run);
}

#[test]
fn no_outer_datagram_breaks_the_tunnel() {
    replay("datagram", targets::datagram::run);
}

#[test]
fn no_text_breaks_the_configuration() {
    replay("config", targets::config::run);
}

#[test]
fn no_request_breaks_the_status_socket() {
    replay("status", targets::status::run);
}

#[test]
fn no_request_breaks_the_socket_of_wg() {
    replay("uapi", targets::uapi::run);
}
