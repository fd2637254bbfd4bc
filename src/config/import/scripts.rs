//! Commands that wg-quick ran. Linkspan runs none; most of them were for what has a better place.

use super::Remark;
use super::wg_quick::Entry;

pub(super) fn is_script(entry: &Entry<'_>) -> bool {
    ["PreUp", "PostUp", "PreDown", "PostDown"].iter().any(|key| entry.is(key))
}

/// What to do instead of the command, which is not repeated: it may hold a secret.
pub(super) fn remark(entry: &Entry<'_>, name: &str) -> Remark {
    let what = format!("{}: Linkspan runs no commands, so it is left out", entry.key);
    let holds = |words: &[&str]| words.iter().any(|word| entry.value.contains(word));
    let instead = if holds(&["iptables", "ip6tables", "nft", "ufw", "firewall-cmd"]) {
        format!("put its rule into the firewall's own configuration; the interface is called {name}")
    } else if holds(&["sysctl", "ip_forward", "/proc/sys"]) {
        "put the setting into a file of /etc/sysctl.d; conf/sysctl.d/60-linkspan.conf has the usual ones".to_owned()
    } else if holds(&["resolvectl", "resolvconf", "systemd-resolve"]) {
        "configure the name service of this machine".to_owned()
    } else if holds(&["ip route", "ip -4 route", "ip -6 route", "ip rule", "ip -4 rule", "ip -6 rule"]) {
        "`networks`, `table` and `metric` of a connection make routes; others belong to the network's configuration"
            .to_owned()
    } else {
        let when = if entry.key.to_ascii_lowercase().ends_with("up") { "ExecStartPost" } else { "ExecStopPost" };
        format!("add it as {when}= with: systemctl edit linkspan@{name}")
    };
    Remark::at(entry.line, what, instead)
}
