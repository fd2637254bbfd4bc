//! The package under test, of the programs under test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use crate::harness::daemon::LINKSPAN;
use crate::harness::host::finish;
use crate::harness::seconds;

/// Two versions of the same programs. Made once for all tests, and removed by the system's own sweep of old files if the
/// test process does not live to do so.
pub struct Packages {
    pub first: PathBuf,
    pub next: PathBuf,
}

pub static PACKAGES: LazyLock<Packages> = LazyLock::new(|| Packages { first: pack("0.1.0"), next: pack("0.1.1") });

/// The .deb of this version, in target/package/tests.
fn pack(version: &str) -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = manifest.join("target/package/tests").join(version);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let mut command = Command::new(manifest.join("systemd/package"));
    command.arg("--deb").arg(Path::new(LINKSPAN).parent().unwrap()).arg(&folder).arg(version);
    let finished = finish(command, seconds(120));
    assert!(finished.status.success(), "{finished:?}");
    let mut files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let deb = files.find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    deb.unwrap_or_else(|| panic!("no .deb in {}", folder.display()))
}
