use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;
use crate::config;

/// A key file `office.key` of this mode, whose owner is this user.
fn key_file(mode: u32) -> (TempDir, PathBuf, PrivateKey) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("office.key");
    let key = PrivateKey::generate().unwrap();
    std::fs::write(&path, format!("{}\n", key.reveal().as_str())).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    (folder, path, key)
}

fn refusal(path: &Path) -> String {
    read_private_key(path).err().unwrap().to_string()
}

fn own_group(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().gid()
}

#[test]
fn a_key_that_only_its_owner_reads_is_read() {
    for mode in [0o600, 0o400] {
        let (_folder, path, key) = key_file(mode);
        assert_eq!(read_private_key(&path).ok().unwrap().public(), key.public());
    }
}

#[test]
fn a_key_that_others_read_or_change_is_refused() {
    for mode in [0o644, 0o604, 0o602, 0o620, 0o601, 0o660, 0o777] {
        let (_folder, path, _) = key_file(mode);
        let shown = path.display();
        let expected =
            format!("{shown}: others can read or change this key, its mode is {mode:04o} (do: chmod 600 {shown})");
        assert_eq!(refusal(&path), expected);
    }
}

#[test]
fn only_the_daemons_group_may_read_a_key() {
    let (_folder, path, _) = key_file(0o640);
    let group = own_group(&path);
    let user = geteuid().as_raw();
    let (file, other) = (File::open(&path).unwrap(), group + 1);
    assert!(Trusted { user, group: Some(group) }.check(&path, &file).is_ok());
    for stranger in [Some(other), None] {
        let refused = Trusted { user, group: stranger }.check(&path, &file);
        assert!(matches!(refused, Err(KeyFileError::WrongGroup { group: found, .. }) if found == group));
    }
}

#[test]
fn a_key_of_another_user_is_refused() {
    if !geteuid().is_root() {
        return; // only root can give a file away
    }
    let (_folder, path, _) = key_file(0o600);
    std::os::unix::fs::chown(&path, Some(12_345), None).unwrap();
    assert_eq!(refusal(&path), format!("{0}: belongs to the user 12345 (do: chown root {0})", path.display()));
    let file = File::open(&path).unwrap();
    assert!(Trusted { user: 12_345, group: None }.check(&path, &file).is_ok());
}

#[test]
fn behind_a_symbolic_link_the_file_itself_counts() {
    let (folder, path, key) = key_file(0o600);
    let link = folder.path().join("link.key");
    symlink(&path, &link).unwrap();
    assert_eq!(read_private_key(&link).ok().unwrap().public(), key.public());
    std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(read_private_key(&link), Err(KeyFileError::TooOpen { .. })));
}

#[test]
fn a_missing_key_comes_with_the_command_that_makes_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("office.key");
    let expected = format!("{}: there is no such key file (make one with: linkspan genkey office)", path.display());
    assert_eq!(refusal(&path), expected);
    let psk = read_preshared_key(&path).err().unwrap().to_string();
    assert!(psk.contains(&format!("(umask 077; linkspan genpsk > {})", path.display())), "{psk}");
}

#[test]
fn what_is_not_a_key_is_refused_and_not_repeated() {
    for text in ["", "secret-but-short", &"A".repeat(300), &format!("{}=\n{0}=", "A".repeat(43))] {
        let (_folder, path, _) = key_file(0o600);
        std::fs::write(&path, text).unwrap();
        let message = refusal(&path);
        assert!(message.contains("not a key") && message.contains("linkspan genkey office"), "{message}");
        assert!(text.is_empty() || !message.contains(text), "{message}");
    }
}

#[test]
fn neither_a_folder_nor_a_pipe_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe.key");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
    for (path, why) in [(folder.path(), "is a directory"), (&pipe, "not a regular file")] {
        assert!(refusal(path).contains(why), "{}", path.display());
    }
}

#[test]
fn a_credential_wins_over_the_file() {
    let (_folder, path, in_file) = key_file(0o600);
    let (credentials, credential, given) = key_file(0o444);
    let mut interface = config::parse(config::tests::SMALLEST, "office.toml", "office").unwrap().interface;
    interface.private_key_file = path;
    let read = |folder: Option<&Path>| private_key_from(folder.map(Path::as_os_str), &interface);
    assert_eq!(read(None).ok().unwrap().public(), in_file.public());
    assert_eq!(read(Some(credentials.path())).ok().unwrap().public(), given.public());
    std::fs::write(&credential, "no key").unwrap();
    assert!(matches!(read(Some(credentials.path())), Err(KeyFileError::NotAKey { .. })));
    std::fs::remove_file(&credential).unwrap();
    assert_eq!(read(Some(credentials.path())).ok().unwrap().public(), in_file.public());
}

#[test]
fn a_key_is_written_for_its_owner_only_and_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("linkspan/office.key");
    let key = PrivateKey::generate().unwrap();
    write(&path, &key.reveal(), None).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(read_private_key(&path).ok().unwrap().public(), key.public());
}

#[test]
fn the_daemons_group_may_read_what_root_writes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("office.key");
    let group = nix::unistd::getegid().as_raw();
    write(&path, &PrivateKey::generate().unwrap().reveal(), Some(group)).unwrap();
    let facts = std::fs::metadata(&path).unwrap();
    assert_eq!((facts.mode() & 0o7777, facts.gid()), (0o640, group));
}

#[test]
fn a_key_is_never_overwritten() {
    let (folder, path, key) = key_file(0o600);
    let link = folder.path().join("dangling.key");
    symlink(folder.path().join("nowhere"), &link).unwrap();
    for existing in [&path, &link] {
        let refused = write_private_key(existing, &PrivateKey::generate().unwrap());
        assert!(matches!(refused, Err(KeyFileError::Exists(_))));
    }
    assert_eq!(read_private_key(&path).ok().unwrap().public(), key.public());
}

#[test]
fn a_failed_write_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/office.key");
    assert!(write_private_key(&path, &PrivateKey::generate().unwrap()).is_err());
    assert!(!folder.path().join("a").exists());
}
