//! `linkspan import`: wg-quick's file to ours, with its keys in files of their own.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use zeroize::Zeroizing;

use super::{Exit, names, out};
use crate::config::import::{Imported, translate};
use crate::config::{self, key_file};

/// Translate a file of wg-quick, and say what could not be carried over
///
/// Writes NAME.toml and NAME.key, NAME being that of the file, and a file for each preshared key. The old file stays
/// as it is, nothing is overwritten, and nothing is started.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 written (do read what it says), 1 nothing could be written, 2 FILE is no WireGuard \
                        configuration."
)]
pub(super) struct Args {
    /// The file, as /etc/wireguard/wg0.conf
    #[arg(value_name = "FILE.conf")]
    file: PathBuf,
    /// The directory of the new files
    #[arg(long, value_name = "DIR", default_value = names::ETC)]
    out_dir: PathBuf,
}

pub(super) fn execute(args: &Args) -> anyhow::Result<Exit> {
    let shown = args.file.display();
    let name = args.file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    if let Err(why) = names::interface(&name) {
        bail!("{shown}: {why}; rename the file");
    }
    let text = Zeroizing::new(fs::read_to_string(&args.file).with_context(|| format!("cannot read {shown}"))?);
    let folder = std::path::absolute(&args.out_dir).context("no such directory")?;
    let imported = match translate(&text, &name, &folder) {
        Ok(imported) => imported,
        Err(wrong) => {
            wrong.iter().for_each(|remark| out::error(format_args!("{shown}:{remark}")));
            return Ok(Exit::Wrong);
        }
    };
    let toml = folder.join(format!("{name}.toml"));
    if let Err(problems) = config::parse(&imported.toml, &toml.display().to_string(), &name) {
        problems.iter().for_each(|problem| out::error(format_args!("{shown}: {}", problem.of_a_draft())));
        bail!("{shown} cannot be translated: change there, or in the command, what the lines above name");
    }
    let mut written = Written::default();
    written.all(&imported, &toml)?;
    tell(&imported, &args.file, &written, &name)?;
    Ok(Exit::Fine)
}

/// The files that are there by now; they go again unless all could be written.
#[derive(Default)]
struct Written {
    files: Vec<PathBuf>,
    complete: bool,
}

impl Written {
    fn all(&mut self, imported: &Imported, toml: &Path) -> anyhow::Result<()> {
        if let Some(key) = &imported.private_key {
            self.one(toml.with_extension("key"), |path| Ok(key_file::write_private_key(path, key)?))?;
        }
        for (path, key) in &imported.preshared_keys {
            self.one(path.clone(), |path| Ok(key_file::write_preshared_key(path, key)?))?;
        }
        self.one(toml.to_owned(), |path| write_toml(path, &imported.toml))?;
        self.complete = true;
        Ok(())
    }

    fn one(&mut self, path: PathBuf, write: impl Fn(&Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
        write(&path)?;
        self.files.push(path);
        Ok(())
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        for file in self.files.iter().filter(|_| !self.complete) {
            let _ = fs::remove_file(file);
        }
    }
}

fn write_toml(path: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let mut file = match OpenOptions::new().write(true).create_new(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            bail!("{}: exists, and is not overwritten (move it away first)", path.display())
        }
        other => other.with_context(|| format!("cannot write {}", path.display()))?,
    };
    // No secret, whatever the umask: a service that is not root reads it.
    let open = file.set_permissions(Permissions::from_mode(0o644));
    let done = open.and_then(|()| file.write_all(text.as_bytes())).and_then(|()| file.sync_all());
    if done.is_err() {
        let _ = fs::remove_file(path);
    }
    done.with_context(|| format!("cannot write {}", path.display()))
}

fn tell(imported: &Imported, file: &Path, written: &Written, name: &str) -> anyhow::Result<()> {
    for remark in &imported.remarks {
        out::line(format_args!("{}:{remark}", file.display()))?;
    }
    for path in &written.files {
        out::line(format_args!("written: {}", path.display()))?;
    }
    out::line(format_args!("next: systemctl disable --now wg-quick@{name} && systemctl enable --now linkspan@{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnel::key::PrivateKey;

    fn wg_quick_file(folder: &Path) -> (PathBuf, PrivateKey) {
        let (own, far) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
        let path = folder.join("wg0.conf");
        let text = format!(
            "[Interface]\nPrivateKey = {}\nAddress = 10.0.0.1/24\nListenPort = 51820\n[Peer]\nPublicKey = {}\n\
             PresharedKey = {}\nAllowedIPs = 10.0.0.2/32\n",
            own.reveal().as_str(),
            far.public(),
            PrivateKey::generate().unwrap().reveal().as_str()
        );
        fs::write(&path, text).unwrap();
        (path, own)
    }

    #[test]
    fn the_new_files_pass_check_and_hold_the_keys() {
        let folder = tempfile::tempdir().unwrap();
        let (file, key) = wg_quick_file(folder.path());
        let out_dir = folder.path().join("new");
        let exit = execute(&Args { file, out_dir: out_dir.clone() }).unwrap();
        assert_eq!(exit, Exit::Fine);
        let config = config::load(&out_dir.join("wg0.toml")).unwrap();
        assert_eq!(config.interface.private_key_file, out_dir.join("wg0.key"));
        assert_eq!(key_file::read_private_key(&out_dir.join("wg0.key")).ok().unwrap().public(), key.public());
        let (_, tunnel) = config.tunnels().next().unwrap();
        assert!(key_file::read_preshared_key(tunnel.preshared_key_file.as_deref().unwrap()).is_ok());
    }

    #[test]
    fn a_translation_that_would_not_pass_check_is_not_written_and_cites_no_line_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let (file, _) = wg_quick_file(folder.path());
        let out_dir = folder.path().join("two\nlines");
        let error = execute(&Args { file, out_dir: out_dir.clone() }).unwrap_err();
        assert!(error.to_string().contains("wg0.conf cannot be translated"), "{error}");
        assert!(!out_dir.exists());
        let draft = "[interface]\nlisten_port = 1\n";
        let problems = config::parse(draft, "wg0.toml", "wg0").unwrap_err();
        let port = problems.iter().find(|problem| problem.message.starts_with("listen_port: "));
        let said = port.unwrap().of_a_draft();
        assert!(said.ends_with("; it would become the line: listen_port = 1"), "{said}");
        assert!(!said.contains("wg0.toml") && !said.contains('\n'), "{said}");
    }

    #[test]
    fn nothing_is_overwritten_and_nothing_is_left_half_written() {
        for existing in ["wg0.toml", "wg0.key", "wg0-1.psk"] {
            let folder = tempfile::tempdir().unwrap();
            let (file, _) = wg_quick_file(folder.path());
            let out_dir = folder.path().join("new");
            fs::create_dir(&out_dir).unwrap();
            fs::write(out_dir.join(existing), "mine").unwrap();
            let error = execute(&Args { file, out_dir: out_dir.clone() }).unwrap_err();
            assert!(error.to_string().contains(existing), "{error}");
            let left: Vec<_> = fs::read_dir(&out_dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(left, [existing]);
            assert_eq!(fs::read_to_string(out_dir.join(existing)).unwrap(), "mine");
        }
    }
}
