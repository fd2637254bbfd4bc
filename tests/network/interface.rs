//! The interface of `linkspan-wg` from its start to its end: in the background, by `ip`, in another namespace.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use nix::sys::signal::Signal;

use super::uapi::{INSIDE_B, PORT_A, PORT_B, address, pair, reaches};
use crate::harness::host::{Host, finish};
use crate::harness::traffic::ping;
use crate::harness::wg::{LINKSPAN_WG, socket_of, unique_name, wg_ok};
use crate::harness::*;

#[test]
fn the_program_is_in_the_background_once_wg_can_reach_it_and_ends_with_its_socket() {
    let Some(net) = Net::two_sites() else { return };
    let (gateway, name) = (net.gateway(A), unique_name());
    let started = finish(net.wg_command(gateway, &[&name]), seconds(10));
    assert!(started.status.success() && started.stderr.is_empty() && started.stdout.is_empty(), "{started:?}");
    assert!(wg_ok(&["show", &name]).starts_with(&format!("interface: {name}")));
    let (socket, folder) = (socket_of(&name).metadata().unwrap(), std::fs::metadata("/var/run/wireguard").unwrap());
    assert_eq!((socket.permissions().mode() & 0o777, socket.uid(), socket.gid()), (0o660, 0, 0));
    assert_eq!((folder.mode() & 0o022, folder.uid()), (0, 0));
    let again = finish(net.wg_command(gateway, &[&name]), seconds(10));
    assert_eq!(again.status.code(), Some(1));
    assert!(again.stderr.contains("exists already") && again.stderr.lines().count() == 1, "{again:?}");
    std::fs::remove_file(socket_of(&name)).unwrap();
    eventually(seconds(10), "the interface goes", || (!gateway.footprint().contains(&name)).then_some(()));
}

/// As boringtun-cli's users start it.
#[test]
fn in_the_background_it_logs_to_the_file_that_it_was_given() {
    let Some(net) = Net::two_sites() else { return };
    let (gateway, name, folder) = (net.gateway(A), unique_name(), net.directory("log"));
    let mut command = net.wg_command(gateway, &["--disable-drop-privileges", "-v", "debug", "-l", "wg.log", &name]);
    command.current_dir(&folder);
    let started = finish(command, seconds(10));
    assert!(started.status.success() && started.stdout.is_empty(), "{started:?}");
    gateway.ip(&format!("link del {name}\n"));
    let log = || std::fs::read_to_string(folder.join("wg.log")).unwrap_or_default();
    eventually(seconds(10), "the end is in the log", || log().contains("the interface was deleted").then_some(()));
}

#[test]
fn a_signal_or_the_deletion_of_the_interface_ends_it_cleanly() {
    let Some(net) = Net::two_sites() else { return };
    let gateway = net.gateway(A);
    let before = gateway.footprint();
    let mut one = net.wg_interface(gateway);
    one.signal(Signal::SIGTERM);
    assert!(one.wait_exit(seconds(5)).success());
    let mut other = net.wg_interface(gateway);
    gateway.ip(&format!("link del {}\n", other.name));
    assert!(other.wait_exit(seconds(5)).success());
    assert!(!socket_of(&one.name).exists() && !socket_of(&other.name).exists());
    assert_eq!(gateway.footprint(), before);
}

#[test]
fn without_a_listening_port_it_brings_its_own_when_it_goes_up() {
    let Some(net) = Net::two_sites() else { return };
    let a = net.wg_interface(net.gateway(A));
    assert_eq!(a.show("listen-port"), "0");
    address(net.gateway(A), &a, 1);
    let port = eventually(seconds(10), "a port", || Some(a.show("listen-port")).filter(|port| port != "0"));
    let sockets = net.gateway(A).ask("cat", &["/proc/net/udp"]);
    assert!(sockets.contains(&format!(":{:04X}", port.parse::<u16>().unwrap())), "{port}: {sockets}");
}

#[test]
fn the_mtu_of_the_interface_is_followed() {
    let Some(net) = Net::two_sites() else { return };
    let (a, b) = pair(&net);
    reaches(&net, seconds(10));
    assert!(net.gateway(A).ask("ip", &["link", "show", &a.name]).contains("mtu 1420"));
    for mtu in [576, 1200, 1500, 8920, 65_000] {
        net.gateway(A).ip(&format!("link set {} mtu {mtu}\n", a.name));
        net.gateway(B).ip(&format!("link set {} mtu {mtu}\n", b.name));
        let size = (mtu - 28).to_string();
        eventually(seconds(5), &format!("a packet of {mtu} bytes passes"), || {
            let (pings, _) = ping(net.gateway(A), INSIDE_B, &["-c", "1", "-W", "1", "-M", "do", "-s", &size]);
            (pings.received == 1).then_some(())
        });
    }
}

/// The kernel takes packets for such an interface that no datagram holds, and says nothing itself.
#[test]
fn with_an_mtu_beyond_what_a_tunnel_carries_the_sender_is_told_what_fits() {
    let Some(net) = Net::two_sites() else { return };
    let (a, b) = pair(&net);
    reaches(&net, seconds(10));
    for (site, interface) in [(A, &a), (B, &b)] {
        net.gateway(site).ip(&format!("link set {} mtu 65535\n", interface.name));
    }
    for far in [INSIDE_B, "fd09::2".parse().unwrap()] {
        eventually(seconds(5), "the sender is told", || {
            let (_, finished) = ping(net.gateway(A), far, &["-c", "1", "-W", "1", "-M", "do", "-s", "65200"]);
            finished.stdout.contains("65000").then_some(())
        });
        // B has to be told, too.
        eventually(seconds(5), "both send what fits", || {
            let (pings, _) = ping(net.gateway(A), far, &["-c", "1", "-W", "1", "-s", "65200"]);
            (pings.received == 1).then_some(())
        });
    }
}

#[test]
fn a_port_that_is_taken_when_it_goes_up_is_waited_for_and_told_of_once() {
    let Some(net) = Net::two_sites() else { return };
    let (a, gateway) = (net.wg_interface(net.gateway(A)), net.gateway(A));
    a.set_key();
    a.set(&format!("listen-port {PORT_A}"));
    let taken = gateway.udp(&format!("0.0.0.0:{PORT_A}"));
    address(gateway, &a, 1);
    let complaints = || a.log().matches("is in use by another program").count();
    eventually(seconds(5), "it says so", || (complaints() > 0).then_some(()));
    // Each change makes it look again.
    for mtu in 1401..=1410 {
        gateway.ip(&format!("link set {} mtu {mtu}\n", a.name));
        eventually(seconds(5), "it looks", || a.log().contains(&format!("mtu={mtu}")).then_some(()));
    }
    assert_eq!(complaints(), 1, "{}", a.log());
    drop(taken);
    gateway.ip(&format!("link set {} mtu 1420\n", a.name));
    let listens = || gateway.ask("cat", &["/proc/net/udp"]).contains(&format!(":{PORT_A:04X}"));
    eventually(seconds(5), "the port is open", || listens().then_some(()));
}

/// Its user may have no inotify instance: who waits for it must hear of that, not of a start.
#[test]
fn without_a_watch_on_its_socket_it_does_not_start_and_names_the_limit() {
    if !root() {
        return;
    }
    let name = unique_name();
    let script = "echo 0 >/proc/sys/user/max_inotify_instances && exec \"$0\" \"$@\"";
    let mut command = std::process::Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "sh", "-c", script, LINKSPAN_WG, &name]);
    let finished = finish(command, seconds(10));
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    assert!(finished.stderr.contains("fs.inotify.max_user_instances"), "{finished:?}");
    assert!(!socket_of(&name).exists());
}

#[test]
fn down_it_has_no_port_and_no_session_and_up_again_it_has_both() {
    let Some(net) = Net::two_sites() else { return };
    let (a, b) = pair(&net);
    reaches(&net, seconds(10));
    let gateway = net.gateway(A);
    gateway.ip(&format!("link set {} down\n", a.name));
    let listens = || gateway.ask("cat", &["/proc/net/udp"]).contains(&format!(":{PORT_A:04X}"));
    eventually(seconds(10), "the port is closed", || (!listens()).then_some(()));
    gateway.ip(&format!("link set {} up\n", a.name));
    eventually(seconds(10), "the port is open", || listens().then_some(()));
    reaches(&net, seconds(8));
    assert_eq!((a.show("listen-port"), b.show("listen-port")), (PORT_A.to_string(), PORT_B.to_string()));
}

/// A's interface moves into a namespace that has nothing else; its sockets stay where they are.
#[test]
fn it_works_in_another_network_namespace_and_notices_everything_there() {
    let Some(net) = Net::two_sites() else { return };
    let (mut a, b) = pair(&net);
    reaches(&net, seconds(10));
    let cell = Host::new("cell");
    net.gateway(A).ip(&format!("link set {} netns {}\n", a.name, cell.name()));
    address(&cell, &a, 1);
    eventually(seconds(8), "B answers the cell", || {
        (ping(&cell, INSIDE_B, &["-c", "1", "-W", "1"]).0.received == 1).then_some(())
    });
    cell.ip(&format!("link set {} mtu 8920\n", a.name));
    net.gateway(B).ip(&format!("link set {} mtu 8920\n", b.name));
    eventually(seconds(8), "large packets pass", || {
        (ping(&cell, INSIDE_B, &["-c", "1", "-W", "1", "-M", "do", "-s", "8892"]).0.received == 1).then_some(())
    });
    cell.ip(&format!("link set {} down\n", a.name));
    eventually(seconds(5), "the port is closed", || {
        (!net.gateway(A).ask("cat", &["/proc/net/udp"]).contains(&format!(":{PORT_A:04X}"))).then_some(())
    });
    cell.ip(&format!("link set {} name moved\nlink set moved up\n", a.name));
    eventually(seconds(8), "B answers under another name", || {
        (ping(&cell, INSIDE_B, &["-c", "1", "-W", "1"]).0.received == 1).then_some(())
    });
    cell.ip("link del moved\n");
    assert!(a.wait_exit(seconds(5)).success());
}
