//! `linkspan`: arguments in, exit code out. All of it is in the library's `cli` room.

use std::process::ExitCode;

fn main() -> ExitCode {
    linkspan::cli::main()
}
