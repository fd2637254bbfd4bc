//! What judges the measurements of `benches/` is tested, too: its own tests, in its own language.
#![cfg(not(feature = "sim"))]
// Helpers are tests, too: a failure is a panic.
#![allow(clippy::unwrap_used)]

use std::io::Write as _;
use std::process::Command;

#[test]
fn the_verdicts_of_compare_and_soak_are_right() {
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/compare/tests.py");
    match Command::new("python3").args(["-B", program]).output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => {
            assert!(std::env::var_os("LINKSPAN_REQUIRE_NETWORK").is_none(), "python3: {error}");
            let _ = writeln!(std::io::stderr(), "SKIPPED: needs python3");
        }
    }
}
