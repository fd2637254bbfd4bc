//! The package under test, of the programs under test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use crate::harness::daemon::LINKSPAN;
use crate::harness::host::finish;
use crate::harness::seconds;
use crate::harness::stock::installed;

#[test]
fn the_package_has_no_error_that_lintian_knows() {
    if !crate::harness::root() || !installed(Path::new("/usr/bin/lintian")) {
        return;
    }
    let mut lintian = Command::new("lintian");
    // It would rather not be root; here it reads one file.
    lintian.args(["--allow-root", "--fail-on=error"]).arg(&PACKAGES.first);
    let finished = finish(lintian, seconds(120));
    assert!(finished.status.success(), "{finished:?}");
}

/// Two versions of the same programs, in target/package/tests. Made once for all tests.
pub struct Packages {
    pub first: PathBuf,
    pub next: PathBuf,
}

pub static PACKAGES: LazyLock<Packages> = LazyLock::new(|| Packages { first: pack(VERSION), next: pack(NEXT) });

const VERSION: &str = env!("CARGO_PKG_VERSION");
pub const NEXT: &str = concat!(env!("CARGO_PKG_VERSION"), "+next");

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
