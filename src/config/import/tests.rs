use std::net::IpAddr;
use std::time::Duration;

use super::*;
use crate::config::{Config, Endpoint, Startup, parse};
use crate::tunnel::key::PublicKey;

const OWN: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
const FAR: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const OTHER: &str = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=";
const PSK: &str = "FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE=";

fn translated(text: &str) -> (Config, Imported) {
    let text = text.replace("OWN", OWN).replace("FAR", FAR).replace("OTHER", OTHER).replace("PSK", PSK);
    let imported = translate(&text, "wg0", Path::new("/etc/linkspan")).unwrap_or_else(|wrong| panic!("{wrong:?}"));
    let config = parse(&imported.toml, "wg0.toml", "wg0").unwrap_or_else(|wrong| panic!("{wrong}\n{}", imported.toml));
    for secret in [OWN, PSK] {
        assert!(!imported.toml.contains(secret));
        assert!(!imported.remarks.iter().any(|remark| remark.to_string().contains(secret)));
    }
    (config, imported)
}

fn refused(text: &str) -> String {
    let text = text.replace("OWN", OWN).replace("FAR", FAR);
    let wrong = translate(&text, "wg0", Path::new("/etc/linkspan")).err().expect("it is refused");
    wrong.iter().map(|remark| format!("{remark}\n")).collect()
}

fn remarks(imported: &Imported) -> Vec<String> {
    imported.remarks.iter().map(ToString::to_string).collect()
}

fn networks(config: &Config, connection: usize) -> Vec<String> {
    config.connections[connection].networks.iter().map(ToString::to_string).collect()
}

#[test]
fn a_road_warrior_s_file_becomes_one_connection() {
    let (config, imported) = translated(
        "[Interface]\nPrivateKey = OWN\nAddress = 10.66.66.2/32, fd42:42:42::2/128\nDNS = 1.1.1.1\n\n\
         [Peer]\nPublicKey = FAR\nPresharedKey = PSK\nEndpoint = 203.0.113.5:51820\nAllowedIPs = 0.0.0.0/0,::/0\n\
         PersistentKeepalive = 25\n",
    );
    assert_eq!(config.interface.addresses.len(), 2);
    assert_eq!(networks(&config, 0), ["0.0.0.0/0", "::/0"]);
    let tunnel = &config.connections[0].tunnels[0];
    assert_eq!(tunnel.keepalive, Some(Duration::from_secs(25)));
    assert_eq!(tunnel.endpoint, Some(Endpoint::Address("203.0.113.5:51820".parse().unwrap())));
    assert_eq!(tunnel.preshared_key_file.as_deref(), Some(Path::new("/etc/linkspan/wg0-1.psk")));
    assert_eq!(imported.preshared_keys.len(), 1);
    assert_eq!(imported.private_key.as_ref().unwrap().reveal().as_str(), OWN);
    let said = remarks(&imported);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("no ListenPort"));
    assert!(said[1].starts_with("4: DNS: ") && said[1].contains("resolvectl dns wg0"));
}

#[test]
fn a_hub_s_peers_become_connections_that_wait() {
    let mut text = "[Interface]\nAddress = 10.0.0.1/24\nListenPort = 51820\nPrivateKey = OWN\n".to_owned();
    for n in 2..202_u8 {
        // Not a random one: now and then it would hold one of the words that stand for keys here.
        let key = PublicKey::new([n; 32]);
        text +=
            &format!("\n### begin client{n} ###\n[Peer]\nPublicKey = {key}\nAllowedIPs = 10.0.0.{n}/32\n### end ###\n");
    }
    let (config, imported) = translated(&text);
    assert_eq!(config.connections.len(), 200);
    assert!(imported.remarks.is_empty(), "{:?}", imported.remarks);
    for (n, connection) in (2..).zip(&config.connections) {
        assert_eq!(connection.name, format!("client{n}"));
        assert_eq!(connection.startup, Startup::Add);
        assert_eq!(connection.tunnels[0].keepalive, None);
    }
}

#[test]
fn a_host_in_the_interface_s_own_subnet_and_that_subnet_itself_are_networks() {
    let (config, _) = translated(
        "[Interface]\nPrivateKey=OWN\nAddress=10.0.0.1/24\nListenPort=1024\n[Peer]\nPublicKey=FAR\nAllowedIPs=10.0.0.0/24\n\
         [Peer]\nPublicKey=OTHER\nAllowedIPs=10.0.0.7,10.7.1.9/16, fd00::5/64\n",
    );
    assert_eq!(networks(&config, 0), ["10.0.0.0/24"]);
    assert_eq!(networks(&config, 1), ["10.0.0.7/32", "10.7.0.0/16", "fd00::/64"]);
    assert_eq!(config.interface.listen_port, 1024);
}

#[test]
fn words_count_in_any_case_with_or_without_blanks_and_over_several_lines() {
    let (config, imported) = translated(
        "\u{feff}# mine\r\n[INTERFACE] # here\r\n  privatekey=OWN\r\naddress = 10.1.0.1\r\nADDRESS=fd00::1\r\nlistenport = 5182\r\n\
         mtu=1380\r\nfwmark = 0xca6c\r\n\r\n[peer]\r\npublickey = FAR\r\nallowedips = 10.2.0.0/16\r\nAllowedIPs = 10.3.0.0/16\r\n\
         endpoint = [2001:db8::1]:51820\r\npersistentkeepalive = off\r\n",
    );
    let interface = &config.interface;
    assert_eq!((interface.listen_port, interface.fwmark), (5182, 0xca6c));
    assert_eq!(interface.mtu.unwrap().bytes(), 1380);
    assert_eq!(interface.addresses, ["10.1.0.1/32".parse().unwrap(), "fd00::1/128".parse().unwrap()]);
    assert_eq!(networks(&config, 0), ["10.2.0.0/16", "10.3.0.0/16"]);
    assert_eq!(config.connections[0].tunnels[0].keepalive, None);
    assert!(imported.remarks.is_empty(), "{:?}", imported.remarks);
}

#[test]
fn a_keepalive_that_is_off_stays_off_and_one_that_is_not_named_is_ours_to_choose() {
    let file = |line: &str| {
        let peer = "[Peer]\nPublicKey = FAR\nEndpoint = 192.0.2.1:7\nAllowedIPs = 10.2.0.0/16\n";
        let (config, _) = translated(&format!("[Interface]\nPrivateKey = OWN\n{peer}{line}\n"));
        config.connections[0].tunnels[0].keepalive.map(|keepalive| keepalive.as_secs())
    };
    let keepalives = ["", "PersistentKeepalive = off", "PersistentKeepalive = 0", "PersistentKeepalive = 7"].map(file);
    assert_eq!(keepalives, [Some(10), None, None, Some(7)]);
}

#[test]
fn tables_are_carried_over_to_each_connection() {
    let file = |table: &str| {
        translated(&format!(
            "[Interface]\nPrivateKey = OWN\nListenPort = 51820\nTable = {table}\n[Peer]\nPublicKey = FAR\nAllowedIPs = 10.2.0.0/16\n"
        ))
    };
    assert!(file("auto").0.connections[0].routes);
    assert!(!file("off").0.connections[0].routes);
    assert_eq!(file("1234").0.connections[0].table, 1234);
    assert_eq!(file("0x4d2").0.connections[0].table, 1234);
    assert_eq!(file("main").0.connections[0].table, 254);
    let (config, imported) = file("isp2");
    assert_eq!(config.connections[0].table, 254);
    assert!(remarks(&imported)[0].starts_with("4: Table: not a number"));
}

#[test]
fn what_wg_quick_did_beside_wireguard_is_named_with_its_line_and_its_place() {
    let (_, imported) = translated(
        "[Interface]\nPrivateKey = OWN\nListenPort = 51820\nSaveConfig = true\n\
         PostUp = iptables -A FORWARD -i %i -j ACCEPT; iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE\n\
         PreUp = sysctl -w net.ipv4.ip_forward=1\nPostUp = ip route add 10.9.0.0/16 dev %i\n\
         PostDown = /usr/local/bin/tell-somebody --password hunter2\nJc = 4\n\
         [Peer]\nPublicKey = FAR\nAllowedIPs = 10.2.0.0/16\nColour = red\n",
    );
    let said = remarks(&imported);
    let expected = [
        ("4: SaveConfig", "linkspan status"),
        ("5: PostUp", "firewall"),
        ("6: PreUp", "/etc/sysctl.d"),
        ("7: PostUp", "`networks`"),
        ("8: PostDown", "ExecStopPost= with: systemctl edit linkspan@wg0"),
        ("9: Jc: unknown", ""),
        ("13: Colour: unknown", ""),
    ];
    assert_eq!(said.len(), expected.len(), "{said:#?}");
    for (line, (start, word)) in said.iter().zip(expected) {
        assert!(line.starts_with(start) && line.contains(word), "{line}");
        assert!(!line.contains("hunter2"), "{line}");
    }
}

#[test]
fn a_port_below_1024_is_redirected_by_the_firewall() {
    let (config, imported) = translated(
        "[Interface]\nPrivateKey = OWN\nListenPort = 443\n[Peer]\nPublicKey = FAR\nAllowedIPs = 10.2.0.0/16\n",
    );
    assert_eq!(config.interface.listen_port, 51820);
    assert!(remarks(&imported)[0].contains("udp dport 443 redirect to :51820"));
}

#[test]
fn values_that_linkspan_does_not_take_are_left_out_and_named() {
    let (config, imported) = translated(
        "[Interface]\nPrivateKey = OWN\nListenPort = 51820\nMTU = 900\nFwMark = blue\nAddress = 10.0.0.0/24, fe80::1/64, nonsense\n\
         [Peer]\nPublicKey = FAR\nAllowedIPs = 10.2.0.0/16, 224.0.0.0/4, fe80::/64, nonsense\nEndpoint = fe80::1:51820\n\
         PersistentKeepalive = often\nPresharedKey = AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n",
    );
    assert!(config.interface.addresses.is_empty() && config.interface.mtu.is_none());
    assert_eq!(networks(&config, 0), ["10.2.0.0/16"]);
    assert_eq!(config.connections[0].tunnels[0].endpoint, None);
    assert!(imported.preshared_keys.is_empty());
    let lines: Vec<_> = imported.remarks.iter().filter_map(|remark| remark.line).collect();
    assert_eq!(lines, [4, 5, 6, 6, 6, 9, 9, 9, 10, 11]);
}

#[test]
fn endpoints_are_names_addresses_and_bare_ipv6() {
    for (text, expected) in [
        ("vpn.example.com:51820", "vpn.example.com:51820"),
        ("192.0.2.1:7", "192.0.2.1:7"),
        ("[2001:db8::1]:7", "[2001:db8::1]:7"),
        ("2001:db8::1:51820", "[2001:db8::1]:51820"),
    ] {
        let file = "[Interface]\nPrivateKey = OWN\n[Peer]\nPublicKey = FAR\nAllowedIPs = 10.2.0.0/16\nEndpoint = ";
        let (config, _) = translated(&format!("{file}{text}\n"));
        assert_eq!(config.connections[0].tunnels[0].endpoint.as_ref().unwrap().to_string(), expected);
        assert_eq!(config.connections[0].startup, Startup::Start);
    }
}

#[test]
fn a_default_route_to_an_endpoint_with_a_name_is_warned_of() {
    let (_, imported) = translated(
        "[Interface]\nPrivateKey = OWN\nListenPort = 51820\n[Peer]\nPublicKey = FAR\nEndpoint = vpn.example.com:1\nAllowedIPs = 0.0.0.0/0\n",
    );
    assert!(remarks(&imported)[0].contains("resolved outside"), "{:?}", imported.remarks);
}

#[test]
fn a_network_or_a_key_that_comes_twice_is_the_later_peer_s() {
    let (config, imported) = translated(
        "[Interface]\nPrivateKey = OWN\nListenPort = 51820\n[Peer]\nPublicKey = FAR\nAllowedIPs = 10.2.0.0/16, 10.3.0.0/16\n\
         [Peer]\nPublicKey = OTHER\nAllowedIPs = 10.3.0.0/16\n",
    );
    assert_eq!((networks(&config, 0), networks(&config, 1)), (vec!["10.2.0.0/16".into()], vec!["10.3.0.0/16".into()]));
    assert!(remarks(&imported)[0].starts_with("7: AllowedIPs: 10.3.0.0/16"));
    let (config, imported) = translated(
        "[Interface]\nPrivateKey = OWN\nListenPort = 51820\n[Peer]\nPublicKey = FAR\nAllowedIPs = 10.2.0.0/16\n\
         [Peer]\nPublicKey = FAR\nAllowedIPs = 10.3.0.0/16\n[Peer]\nPublicKey = OTHER\n",
    );
    assert_eq!(config.connections.len(), 1);
    assert_eq!(networks(&config, 0), ["10.3.0.0/16"]);
    assert_eq!(imported.remarks.iter().filter_map(|remark| remark.line).collect::<Vec<_>>(), [7, 10]);
}

#[test]
fn comments_give_names_but_never_a_key() {
    for (comment, expected) in [
        ("# office", "office"),
        ("# Name = Berlin 2", "Berlin 2"),
        ("# Client: laptop (0f3e)", "laptop"),
        ("### begin carol ###", "carol"),
        ("# PrivateKey = OWN", "peer-1"),
        ("# PSK", "peer-1"),
        ("# a longer explanation of what this peer is about, and why", "peer-1"),
        ("# AllowedIPs = 1.1.1.1/32", "peer-1"),
        ("", "peer-1"),
    ] {
        let text =
            format!("[Interface]\nPrivateKey = OWN\n\n{comment}\n[Peer]\nPublicKey = FAR\nAllowedIPs = 10.2.0.0/16\n");
        assert_eq!(translated(&text).0.connections[0].name, expected, "{comment}");
        let text =
            format!("[Interface]\nPrivateKey = OWN\n[Peer]\n{comment}\nPublicKey = FAR\nAllowedIPs = 10.2.0.0/16\n");
        assert_eq!(translated(&text).0.connections[0].name, expected, "{comment}");
    }
}

#[test]
fn equal_names_are_told_apart() {
    let mut text = "[Interface]\nPrivateKey = OWN\n".to_owned();
    for n in 1..4 {
        // Not a random one: now and then it would hold one of the words that stand for keys here.
        let key = PublicKey::new([n; 32]);
        text += &format!("# laptop\n[Peer]\nPublicKey = {key}\nAllowedIPs = 10.0.0.{n}/32\n");
    }
    let names: Vec<_> = translated(&text).0.connections.into_iter().map(|connection| connection.name).collect();
    assert_eq!(names, ["laptop", "laptop-2", "laptop-3"]);
}

#[test]
fn a_file_without_a_private_key_says_where_it_belongs() {
    let (_, imported) =
        translated("[Interface]\nListenPort = 51820\n[Peer]\nPublicKey = FAR\nAllowedIPs = 10.2.0.0/16\n");
    assert!(imported.private_key.is_none());
    assert!(remarks(&imported)[0].contains("wg0.key is not written"));
}

#[test]
fn what_is_no_wireguard_file_is_refused_with_its_lines() {
    for (text, expected) in [
        ("", "there is no [Interface]"),
        ("[Interface]\nPrivateKey = OWN\n", "there is no [Peer]"),
        ("PrivateKey = OWN\n[Interface]\n", "1: stands before any section"),
        (
            "[Interface]\nPrivateKey = OWNx\n[Peer]\nPublicKey = FAR\nAllowedIPs = 10.2.0.0/16\n",
            "2: PrivateKey: not a key",
        ),
        ("[Interface]\nPrivateKey = OWN\n[Peer]\nAllowedIPs = 10.2.0.0/16\n", "3: this [Peer] has no PublicKey"),
        ("[Interface]\nPrivateKey = OWN\n[Peer]\nPublicKey = FARx\n", "4: PublicKey: not a key"),
        ("[Interface]\nPrivateKey = OWN\n[Peer]\nPublicKey = FAR\nPresharedKey = x\n", "5: PresharedKey: not a key"),
        ("[Interface]\nPrivateKey = OWN\n[Peer]\nPublicKey = FAR\n", "no peer has AllowedIPs"),
        ("[Interface]\nhello\n", "2: neither a section nor KEY = VALUE"),
        ("[Interface]\nPrivateKey = OWN\n[Wireguard]\n", "3: neither"),
    ] {
        let said = refused(text);
        assert!(said.contains(expected), "{text:?}: {said}");
        assert!(!said.contains(OWN), "{said}");
    }
}

#[test]
fn key_files_lie_where_the_new_file_lies() {
    let text = format!("[Interface]\nPrivateKey = {OWN}\n[Peer]\nPublicKey = {FAR}\nAllowedIPs = 10.2.0.0/16\n");
    let imported = translate(&text, "wg0", Path::new("/tmp/a \"b\"")).ok().unwrap();
    let config = parse(&imported.toml, "wg0.toml", "wg0").unwrap();
    assert_eq!(config.interface.private_key_file, Path::new("/tmp/a \"b\"/wg0.key"));
    assert!(config.interface.addresses.iter().all(|net| net.addr() != IpAddr::from([0, 0, 0, 0])));
}
