//! Who may do what: the daemon's rights, its sockets, its system calls, its key, and where no key may be.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::harness::{A, B, eventually, seconds};
use crate::machine::{Machine, root_of};
use crate::sites::{boot, enable, linked, networks, networks_reach_each_other, prepare};

/// A capability's bit.
const NET_ADMIN: u64 = 1 << 12;

#[test]
fn the_service_is_a_user_with_net_admin_alone_and_its_sockets_are_for_root_and_the_group() {
    let Some(net) = networks() else { return };
    let machines = linked(&net);
    let a = &machines[A];
    has_net_admin_alone(a);
    let exposure = a.output(&["systemd-analyze", "security", "--no-pager", "--threshold=20", "linkspan@wan0.service"]);
    assert!(exposure.status.success(), "{}", exposure.stdout);
    assert_eq!(a.run("stat --format='%U:%G %a' /etc/linkspan"), "root:linkspan 750\n");
    let status = ["linkspan", "status", "wan0"];
    let wg = ["wg", "show", "wan0"];
    assert!(a.output(&status).status.success() && a.output(&wg).status.success(), "root");
    assert!(a.output(&[&as_user("nobody", "linkspan")[..], &status].concat()).status.success(), "the group");
    for words in [&status, &wg] {
        let refused = a.output(&[&as_user("nobody", "nogroup")[..], words].concat());
        assert!(!refused.status.success());
        assert!(refused.stderr.to_lowercase().contains("permission denied"), "{words:?}: {refused:?}");
    }
}

fn as_user<'a>(user: &'a str, group: &'a str) -> [&'a str; 6] {
    ["setpriv", "--reuid", user, "--regid", group, "--clear-groups"]
}

fn has_net_admin_alone(machine: &Machine<'_>) {
    let status = fs::read_to_string(format!("/proc/{}/status", machine.daemon().unwrap())).unwrap();
    let value = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        line.unwrap_or_else(|| panic!("{name}: {status}")).to_owned()
    };
    let user = machine.run("id --user linkspan");
    assert!(value("Uid").split_whitespace().all(|id| id == user.trim()), "{}", value("Uid"));
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(u64::from_str_radix(&value(set), 16).unwrap() & !NET_ADMIN, 0, "{set}");
    }
    assert_eq!(u64::from_str_radix(&value("CapEff"), 16).unwrap(), NET_ADMIN);
    assert_eq!((value("NoNewPrivs").as_str(), value("Seccomp").as_str()), ("1", "2"));
}

/// A system call that the unit denies gives an error, and an error may be passed over. Here it kills.
#[test]
fn no_system_call_is_denied_in_a_whole_run() {
    let Some(net) = networks() else { return };
    let machines = boot(&net, &root_of("bookworm").unwrap());
    prepare(&machines);
    let a = &machines[A];
    let drop_in = "/etc/systemd/system/linkspan@wan0.service.d/kill.conf";
    // One that is needed, to see that a denied one is noticed.
    a.write(drop_in, "[Service]\nSystemCallErrorNumber=\nSystemCallFilter=~bind\nRestart=no\n");
    a.run("systemctl daemon-reload");
    assert!(!a.output(&["sh", "-c", &enable()]).status.success());
    assert_eq!(a.property("ExecMainStatus"), libc::SIGSYS.to_string());
    a.write(drop_in, "[Service]\nSystemCallErrorNumber=\nRestart=no\n");
    a.run("systemctl daemon-reload");
    for machine in &machines {
        machine.run(&enable());
    }
    a.wait_up(seconds(30));
    networks_reach_each_other(&net);
    let first = a.daemon();
    a.run("systemctl reload linkspan@wan0; linkspan status; wg show wan0");
    networks_reach_each_other(&net);
    assert_eq!(a.daemon(), first);
    a.run("systemctl restart linkspan@wan0");
    a.wait_up(seconds(30));
    a.run("systemctl stop linkspan@wan0");
    assert_eq!((a.property("Result").as_str(), a.property("ExecMainStatus").as_str()), ("success", "0"));
}

#[test]
fn the_key_may_be_sealed_for_this_machine() {
    let Some(net) = networks() else { return };
    let machines = linked(&net);
    let a = &machines[A];
    let before = a.run("wg show wan0 public-key");
    a.run(&crate::readme::block("The service", "sh"));
    assert!(!a.path("/etc/linkspan/wan0.key").exists());
    a.wait_up(seconds(30));
    assert_eq!(a.run("wg show wan0 public-key"), before);
    // Nor does anybody who looks at the file miss the key.
    a.run("linkspan check wan0");
    networks_reach_each_other(&net);
}

#[test]
fn no_key_is_in_the_journal_the_status_the_environment_or_the_arguments() {
    let Some(net) = networks() else { return };
    let machines = boot(&net, &root_of("bookworm").unwrap());
    prepare(&machines);
    let a = &machines[A];
    a.write(
        "/etc/systemd/system/linkspan@wan0.service.d/talk.conf",
        "[Service]\nEnvironment=LINKSPAN_LOG=trace,boringtun=trace\n",
    );
    let psk = with_preshared_key(&machines);
    a.run(&enable());
    let sent = "Sending handshake_initiation";
    eventually(seconds(10), "the first initiation", || a.journal().contains(sent).then_some(()));
    machines[B].run(&enable());
    a.wait_up(seconds(30));
    networks_reach_each_other(&net);
    a.run("systemctl reload linkspan@wan0");
    networks_reach_each_other(&net);
    // The log is at its most talkative.
    a.journal_tells("handshake message taken");
    let daemon = a.daemon().unwrap();
    let proc = |file: &str| fs::read(format!("/proc/{daemon}/{file}")).unwrap();
    let places = [
        ("the journal", a.journal().into_bytes()),
        ("status", a.run("linkspan status; linkspan status --json").into_bytes()),
        ("systemctl", a.run("systemctl status linkspan@wan0; systemctl show linkspan@wan0").into_bytes()),
        ("environ", proc("environ")),
        ("cmdline", proc("cmdline")),
    ];
    let secrets = [a.run("cat /etc/linkspan/wan0.key"), psk].map(|key| forms(key.trim())).concat();
    for (place, bytes) in &places {
        assert!(bytes.len() > 10, "{place} is empty");
        let found = secrets.iter().any(|secret| bytes.windows(secret.len()).any(|window| window == secret));
        assert!(!found, "a key is in {place}");
    }
}

/// A preshared key in both files, as the README says that its file has to be.
fn with_preshared_key(machines: &[Machine<'_>; 2]) -> String {
    let psk = machines[A].run("linkspan genpsk");
    for machine in machines {
        machine.write("/etc/linkspan/wan0.psk", &psk);
        machine.run(
            "chown root:linkspan /etc/linkspan/wan0.psk; chmod 640 /etc/linkspan/wan0.psk; systemctl daemon-reload
             echo 'preshared_key_file = \"/etc/linkspan/wan0.psk\"' >>/etc/linkspan/wan0.toml",
        );
    }
    psk
}

/// A secret in every form in which it may slip out.
fn forms(base64: &str) -> Vec<Vec<u8>> {
    let raw = STANDARD.decode(base64).unwrap();
    let hex: String = raw.iter().map(|byte| format!("{byte:02x}")).collect();
    // The journal shows text that is not text as numbers.
    let (debug, numbers) = (format!("{raw:?}"), raw.iter().map(u8::to_string).collect::<Vec<_>>().join(","));
    let (upper, unpadded) = (hex.to_uppercase(), base64.trim_end_matches('=').to_owned());
    [hex, upper, debug, numbers, unpadded].into_iter().map(String::into_bytes).chain([raw]).collect()
}
