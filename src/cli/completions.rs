//! `linkspan completions`: generated from the definitions of the command line.

use clap_complete::Shell;

use super::{Exit, out};

/// Write the completion script of a shell to standard output
///
/// For bash: linkspan completions bash > /usr/share/bash-completion/completions/linkspan
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The shell
    shell: Shell,
}

pub(super) fn execute(args: &Args) -> anyhow::Result<Exit> {
    out::bytes(&script(args.shell))?;
    Ok(Exit::Fine)
}

fn script(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::definition(), "linkspan", &mut script);
    script
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_shell_gets_a_script_that_knows_the_subcommands() {
        for shell in Shell::value_variants() {
            let script = String::from_utf8(script(*shell)).unwrap();
            for word in ["status", "genkey", "demo"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }
}
