//! Files of wg-quick, imported, run.

use std::fs;
use std::path::Path;

use super::uapi::{INSIDE_B, PORT_B, QUICK, reaches};
use super::wg_quick::Quick;
use crate::harness::daemon::{Daemon, LINKSPAN};
use crate::harness::host::finish;
use crate::harness::traffic::pings_pass;
use crate::harness::*;

/// A site's daemon on what `linkspan import` makes of `text`, in which KEY is the site's private key.
fn import<'n>(net: &'n Net, site: usize, text: &str) -> Daemon<'n> {
    let conf = net.directory(&format!("wg-quick-{site}")).join("ls0.conf");
    let key = net.site(site).key.reveal();
    fs::write(&conf, text.replace("KEY", key.as_str())).unwrap();
    import_file(net, site, &conf, key.as_str())
}

/// The same of a file, in which `key` stands.
fn import_file<'n>(net: &'n Net, site: usize, conf: &Path, key: &str) -> Daemon<'n> {
    let mut daemon = net.daemon(site, &net.file(site, &[if site == A { B } else { A }]));
    fs::remove_file(daemon.file()).unwrap();
    fs::remove_file(daemon.key_file()).unwrap();
    let mut command = std::process::Command::new(LINKSPAN);
    command.arg("import").arg(conf).arg("--out-dir").arg(daemon.directory());
    let finished = finish(command, seconds(5));
    assert!(finished.status.success(), "{finished:?}");
    assert!(!format!("{finished:?}").contains(key));
    daemon.start();
    daemon
}

/// One file, byte for byte: up and down by wg-quick with `linkspan-wg`, and then by `linkspan run`.
#[test]
fn a_file_of_wg_quick_works_as_it_is_and_imported() {
    let Some(net) = Net::two_sites() else { return };
    let quick = Quick::new(&net);
    let b = quick.far_end();
    quick.write(
        &format!(
            "[Interface]\n# headquarters\nPrivateKey = KEY\nAddress = 10.9.0.1/24, fd09::1/64\nListenPort = 51820\n\
             MTU = 1400\n\n[Peer]\nPublicKey = FAR\nEndpoint = 198.18.2.1:{PORT_B}\n\
             AllowedIPs = 10.9.0.2/32, fd09::2/128, 10.2.0.0/16\nPersistentKeepalive = 25\n"
        ),
        &b,
    );
    let passes = || {
        reaches(&net, seconds(8));
        for to in [INSIDE_B, "fd09::2".parse().unwrap(), net.site(B).lan4()] {
            pings_pass(net.gateway(A), to, &QUICK);
        }
    };
    quick.run("up");
    passes();
    quick.run("down");
    quick.is_gone();
    // The harness has its own name for the interface.
    let conf = net.directory("wg-quick").join("ls0.conf");
    fs::copy(&quick.file, &conf).unwrap();
    let a = import_file(&net, A, &conf, quick.key.reveal().as_str());
    a.wait_up();
    passes();
}

/// ```text
///   A, a road warrior: 10.77.0.2/24, everything into the tunnel ---- B, the hub: 10.77.0.1/24, knows no endpoint
/// ```
#[test]
fn a_road_warrior_and_its_hub_work_after_import() {
    let Some(net) = Net::two_sites() else { return };
    let before = net.gateway(A).footprint();
    let hub = format!(
        "[Interface]\nPrivateKey = KEY\nAddress = 10.77.0.1/24, fd77::1/64\nListenPort = 51820\nPostUp = true\n\n\
         # warrior\n[Peer]\nPublicKey = {}\nAllowedIPs = 10.77.0.2/32, fd77::2/128, 10.1.0.0/16\n",
        net.site(A).public()
    );
    let warrior = format!(
        "[Interface]\nPrivateKey = KEY\nAddress = 10.77.0.2/24, fd77::2/64\n\n\
         [Peer]\nPublicKey = {}\nEndpoint = {}\nAllowedIPs = 0.0.0.0/0, ::/0\n",
        net.site(B).public(),
        net.site(B).endpoint4()
    );
    let b = import(&net, B, &hub);
    let mut a = import(&net, A, &warrior);
    a.wait_up();
    b.wait_up();
    pings_pass(net.gateway(A), "10.77.0.1".parse().unwrap(), &["-c", "2", "-i", "0.2", "-W", "2"]);
    pings_pass(net.gateway(B), "10.77.0.2".parse().unwrap(), &["-c", "2", "-i", "0.2", "-W", "2"]);
    pings_pass(net.gateway(B), "fd77::2".parse().unwrap(), &["-c", "2", "-i", "0.2", "-W", "2"]);
    pings_pass(net.lan(A), net.site(B).lan4(), &["-c", "2", "-i", "0.2", "-W", "2"]);
    let uplink = Capture::start(net.gateway(A), "wan");
    pings_pass(net.lan(B), net.site(A).lan4(), &["-c", "2", "-i", "0.2", "-W", "2"]);
    assert!(
        uplink
            .stop()
            .iter()
            .filter_map(capture::Frame::addresses)
            .all(|(from, _)| !from.to_string().starts_with("10."))
    );
    a.stop();
    assert_eq!(net.gateway(A).footprint(), before);
}
