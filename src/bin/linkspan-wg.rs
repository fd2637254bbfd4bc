//! `linkspan-wg`: in the place of `wireguard-go` and `boringtun-cli`. All of it is in the library's `cli` room.

use std::process::ExitCode;

fn main() -> ExitCode {
    linkspan::cli::wg()
}
