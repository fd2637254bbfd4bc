//! `linkspan man`: man pages, generated from the definitions of the command line.

use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::Context as _;
use clap_mangen::Man;

use super::{Exit, out};

/// Write the man pages: linkspan(1) to standard output, or all pages into a directory
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The directory, made if it is not there
    dir: Option<PathBuf>,
}

pub(super) fn execute(args: &Args) -> anyhow::Result<Exit> {
    match &args.dir {
        None => out::bytes(&page(&Man::new(super::definition()))?)?,
        Some(dir) => write_all(dir).with_context(|| format!("cannot write the man pages to {}", dir.display()))?,
    }
    Ok(Exit::Fine)
}

fn write_all(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    for mut program in [super::definition(), super::wg::definition()] {
        program.build();
        for command in program.get_subcommands().filter(|command| !command.is_hide_set()).chain([&program]) {
            let man = Man::new(command.clone());
            fs::write(dir.join(man.get_filename()), page(&man)?)?;
        }
    }
    Ok(())
}

fn page(man: &Man) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    man.render(&mut page)?;
    // man(7) has a name for the section of exit codes.
    let (plain, named) = (".SH EXTRA\nExit codes", ".SH \"EXIT STATUS\"\nExit codes");
    Ok(String::from_utf8_lossy(&page).replace(plain, named).into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_the_subcommands() {
        let page = String::from_utf8(page(&Man::new(crate::cli::definition())).unwrap()).unwrap();
        for word in ["linkspan\\-run", "linkspan\\-status", "\n.SH \"EXIT STATUS\"\nExit codes"] {
            assert!(page.contains(word), "{word} is not in {page}");
        }
    }

    #[test]
    fn each_documented_subcommand_has_a_page() {
        let dir = tempfile::tempdir().unwrap();
        execute(&Args { dir: Some(dir.path().join("man1")) }).unwrap();
        for page in ["linkspan.1", "linkspan-run.1", "linkspan-status.1", "linkspan-genkey.1", "linkspan-wg.1"] {
            assert!(dir.path().join("man1").join(page).metadata().unwrap().len() > 0, "{page}");
        }
    }
}
