//! Control groups of a machine's own, beside those of the test: two machines would share their names otherwise.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::harness::eventually;
use crate::harness::host::left_behind;

/// Removed on drop. Nothing may run in them any more then.
pub struct Groups(Vec<PathBuf>);

impl Groups {
    /// One in each hierarchy that systemd uses: the unified one, and its own where there are old ones.
    pub fn new(name: &str) -> Self {
        sweep();
        let groups: Vec<_> = of_test().iter().map(|group| group.join(name)).collect();
        for group in &groups {
            fs::create_dir(group).unwrap_or_else(|e| panic!("{}: {e}", group.display()));
        }
        Self(groups)
    }

    /// A line of shell that moves the shell into them.
    pub fn enter(&self) -> String {
        self.0.iter().map(|group| format!("echo $$ >{}/cgroup.procs; ", group.display())).collect()
    }
}

/// The groups of this process, as folders.
fn of_test() -> Vec<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap();
    let folder = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (hierarchy, path) = (parts.next()?, parts.next()?);
        Some(mount_of(hierarchy)?.join(path.trim_start_matches('/')))
    };
    groups.lines().filter_map(folder).collect()
}

/// Removes what test processes that were killed have left, once their machines are down.
fn sweep() {
    for group in of_test() {
        for entry in fs::read_dir(group).into_iter().flatten().flatten() {
            if left_behind(&entry.file_name().to_string_lossy()) {
                remove(&entry.path());
            }
        }
    }
}

/// Where a hierarchy of /proc/self/cgroup is mounted, if systemd uses it.
fn mount_of(hierarchy: &str) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mount = match hierarchy {
        "" => mounts.find(|mount| mount[2] == "cgroup2"),
        "name=systemd" => mounts.find(|mount| mount[2] == "cgroup" && mount[3].split(',').any(|o| o == hierarchy)),
        _ => None,
    };
    mount.map(|mount| PathBuf::from(mount[1]))
}

impl Drop for Groups {
    fn drop(&mut self) {
        let gone = |group: &PathBuf| {
            remove(group);
            !group.exists()
        };
        // A process that was killed leaves its group a little later.
        let attempt = || self.0.iter().all(gone).then_some(());
        let within = Duration::from_secs(10);
        if std::thread::panicking() {
            let _ = std::panic::catch_unwind(|| eventually(within, "the control groups are empty", attempt));
        } else {
            eventually(within, "the control groups are empty", attempt);
        }
    }
}

/// With all groups in it, the innermost first.
fn remove(group: &Path) {
    for inner in fs::read_dir(group).into_iter().flatten().flatten() {
        if inner.path().is_dir() {
            remove(&inner.path());
        }
    }
    let _ = fs::remove_dir(group);
}
