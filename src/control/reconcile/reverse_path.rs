//! Strict reverse path filtering (RFC 3704, rp_filter = 1) and marks do not go together: the kernel looks up the way
//! back to the far end without our mark, finds the tunnel, and drops the datagram as if its source were forged.

use std::fs;
use std::path::Path;

/// One folder for each interface, and "all" and "default".
pub(super) const SETTINGS: &str = "/proc/sys/net/ipv4/conf";

const STRICT: u8 = 1;

/// One line with the remedy if interfaces filter strictly.
pub(super) fn problem(settings: &Path) -> Option<String> {
    let strict = strict_interfaces(settings);
    let first = strict.first()?;
    Some(format!(
        "rp_filter = 1 on {} drops the far end's datagrams, because its address lies inside `networks`: loosen it with \
         sysctl -w net.ipv4.conf.{}.rp_filter=2",
        strict.join(", "),
        first.replace('.', "/")
    ))
}

/// The larger of an interface's and everybody's setting counts (ip-sysctl.rst).
fn strict_interfaces(settings: &Path) -> Vec<String> {
    let value = |name: &str| -> u8 {
        let text = fs::read_to_string(settings.join(name).join("rp_filter")).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    };
    let all = value("all");
    let entries = fs::read_dir(settings).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let real = names.filter(|name| !["all", "default", "lo"].contains(&name.as_str()));
    let mut strict: Vec<String> = real.filter(|name| all.max(value(name)) == STRICT).collect();
    strict.sort();
    strict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(values: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, value) in values {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("rp_filter"), format!("{value}\n")).unwrap();
        }
        folder
    }

    #[test]
    fn the_larger_setting_counts() {
        let strict = |values: &[(&str, &str)]| strict_interfaces(settings(values).path());
        assert_eq!(strict(&[("all", "0"), ("eth0", "1"), ("eth1", "2"), ("eth2", "0"), ("lo", "1")]), ["eth0"]);
        assert_eq!(strict(&[("all", "1"), ("eth0", "0"), ("eth1", "2"), ("default", "1")]), ["eth0"]);
        assert!(strict(&[("all", "2"), ("eth0", "1")]).is_empty());
    }

    #[test]
    fn the_remedy_names_the_interface_as_sysctl_takes_it() {
        let folder = settings(&[("all", "0"), ("eth0.5", "1")]);
        assert!(problem(folder.path()).unwrap().ends_with("sysctl -w net.ipv4.conf.eth0/5.rp_filter=2"));
        assert_eq!(problem(settings(&[("all", "0")]).path()), None);
    }
}
