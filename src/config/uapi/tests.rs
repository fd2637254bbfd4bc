use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const KEY: &str = "9997d5587a6d19716fc7c77f95e140a98cad0825ee133e845bd4d96b48b7536b";

fn zone(name: &str) -> Option<u32> {
    (name == "eth0").then_some(7)
}

fn set(lines: &str) -> Result<Change, Refusal> {
    match parse(&format!("set=1\n{lines}"), zone)? {
        Request::Set(change) => Ok(change),
        Request::Get => panic!("that is no get"),
    }
}

/// One peer with this line.
fn peer(line: &str) -> Result<PeerChange, Refusal> {
    set(&format!("public_key={KEY}\n{line}\n")).map(|mut change| change.peers.remove(0))
}

#[test]
fn every_key_is_read() {
    let change = set(&format!(
        "private_key={KEY}\nlisten_port=51820\nfwmark=4294967295\nreplace_peers=true\npublic_key={KEY}\n\
         update_only=true\npreshared_key={KEY}\nendpoint=[2001:db8::1]:5\npersistent_keepalive_interval=25\n\
         replace_allowed_ips=true\nallowed_ip=10.0.0.1/8\nallowed_ip=-fd00::/64\nprotocol_version=1\n\
         public_key={KEY}\nremove=true\n"
    ))
    .unwrap();
    assert!(matches!(&change.private_key, Setting::Set(key) if *key.reveal_hex() == KEY));
    assert_eq!((change.listen_port, change.fwmark, change.replace_peers), (Some(51820), Some(u32::MAX), true));
    let [first, second] = &change.peers[..] else { panic!("{change:?}") };
    assert_eq!(first.public_key.to_hex(), KEY);
    assert!(first.update_only && first.replace_allowed_ips && !first.remove && second.remove);
    assert!(matches!(first.preshared_key, Setting::Set(_)));
    assert_eq!(first.endpoint, Some("[2001:db8::1]:5".parse().unwrap()));
    assert_eq!(first.keepalive, Some(25));
    let networks = ["10.0.0.0/8".parse().unwrap(), "fd00::/64".parse().unwrap()];
    assert_eq!(first.allowed_ips, [AllowedIp::Give(networks[0]), AllowedIp::Take(networks[1])]);
}

#[test]
fn what_is_not_named_is_kept_and_zeros_clear() {
    let change = set("").unwrap();
    assert_eq!((change.private_key, change.listen_port, change.fwmark), (Setting::Keep, None, None));
    let zeros = "0".repeat(64);
    assert_eq!(set(&format!("private_key={zeros}")).unwrap().private_key, Setting::Clear);
    assert_eq!(peer(&format!("preshared_key={zeros}")).unwrap().preshared_key, Setting::Clear);
}

impl PartialEq for PrivateKey {
    fn eq(&self, other: &Self) -> bool {
        self.public() == other.public()
    }
}

#[test]
fn a_request_that_is_none_is_a_protocol_error() {
    for text in ["", "get=2", "get=1\nlisten_port=1", "set=2", "set=1\nlisten_port", "hello", "set=1\n\nfwmark=1"] {
        assert_eq!(parse(text, zone).unwrap_err(), Refusal::Protocol, "{text}");
    }
    assert!(matches!(parse("get=1\n", zone), Ok(Request::Get)));
}

#[test]
fn wrong_keys_and_values_are_invalid() {
    let device = [
        "private_key=00",
        "private_key=",
        "listen_port=65536",
        "listen_port=-1",
        "listen_port=+1",
        "listen_port=",
        "fwmark=0x1",
        "fwmark=4294967296",
        "replace_peers=false",
        "allowed_ip=10.0.0.0/8",
        "errno=0",
        "x=1",
    ];
    for line in device {
        assert_eq!(set(line).unwrap_err(), Refusal::Invalid, "{line}");
    }
    let peers = [
        "remove=1",
        "update_only=no",
        "preshared_key=zz",
        "endpoint=1.2.3.4",
        "endpoint=1.2.3.4:0",
        "endpoint=[::]:1",
        "endpoint=[fe80::1%eth9]:1",
        "endpoint=a.example.com:1",
        "persistent_keepalive_interval=off",
        "persistent_keepalive_interval=65536",
        "allowed_ip=10.0.0.0",
        "allowed_ip=10.0.0.0/33",
        "allowed_ip=--::/0",
        "protocol_version=2",
        "listen_port=1",
        "fwmark=0",
    ];
    for line in peers {
        assert_eq!(peer(line).unwrap_err(), Refusal::Invalid, "{line}");
    }
    assert_eq!(set("public_key=00").unwrap_err(), Refusal::Invalid);
}

#[test]
fn endpoints_may_name_an_interface_and_are_never_ipv4_in_disguise() {
    let endpoint = |text: &str| peer(&format!("endpoint={text}")).unwrap().endpoint.unwrap();
    assert_eq!(endpoint("[fe80::1%eth0]:5").to_string(), "[fe80::1%7]:5");
    assert_eq!(endpoint("[fe80::1%3]:5").to_string(), "[fe80::1%3]:5");
    assert_eq!(endpoint("[::ffff:192.0.2.1]:5"), "192.0.2.1:5".parse::<SocketAddr>().unwrap());
}

#[test]
fn a_peer_may_have_all_networks_that_wg_can_name() {
    let mut text = format!("public_key={KEY}\nreplace_allowed_ips=true\n");
    for (a, b) in (1..=255).flat_map(|a| (0..=255).map(move |b| (a, b))) {
        text += &format!("allowed_ip={a}.{b}.0.0/16\nallowed_ip={a:x}::{b:x}/128\n");
    }
    assert_eq!(set(&text).unwrap().peers[0].allowed_ips.len(), 255 * 256 * 2);
}

#[test]
fn an_answer_has_every_key() {
    let peer = PeerAnswer {
        public_key: PublicKey::parse_hex(KEY).unwrap(),
        preshared_key: Some(KEY.to_owned().into()),
        endpoint: Some("192.0.2.1:9".parse().unwrap()),
        last_handshake: Some(Duration::new(5, 7)),
        sent: 148,
        received: 92,
        keepalive: 25,
        allowed_ips: vec!["10.0.0.0/8".parse().unwrap(), "::/0".parse().unwrap()],
    };
    let private_key = Some(KEY.to_owned().into());
    let answer = DeviceAnswer { private_key, listen_port: 51820, fwmark: 3, peers: vec![peer] };
    let expected = format!(
        "private_key={KEY}\nlisten_port=51820\nfwmark=3\npublic_key={KEY}\npreshared_key={KEY}\nprotocol_version=1\n\
         endpoint=192.0.2.1:9\nlast_handshake_time_sec=5\nlast_handshake_time_nsec=7\ntx_bytes=148\nrx_bytes=92\n\
         persistent_keepalive_interval=25\nallowed_ip=10.0.0.0/8\nallowed_ip=::/0\n"
    );
    assert_eq!(*answer.text(true), expected);
    assert_eq!(*DeviceAnswer::default().text(true), "");
    assert!(!answer.text(false).contains(&format!("key={KEY}\nlisten")) && !answer.text(false).contains("preshared"));
    assert_eq!(outcome(Ok(())), "errno=0\n\n");
    assert_eq!(outcome(Err(Refusal::NotPermitted)), "errno=-1\n\n");
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in any::<String>(), key in "[a-z_]{1,30}", value in any::<String>()) {
        let _ = parse(&text, zone);
        let _ = set(&text);
        let _ = set(&format!("{key}={value}"));
        let _ = peer(&format!("{key}={value}"));
    }

    #[test]
    fn values_that_are_almost_right_do_not_either(
        key in prop_oneof![
            Just("private_key"), Just("listen_port"), Just("fwmark"), Just("endpoint"), Just("allowed_ip"),
            Just("preshared_key"), Just("persistent_keepalive_interval"), Just("public_key"),
        ],
        value in "[-+0-9a-f:./%\\[\\]]{0,70}",
    ) {
        let _ = set(&format!("{key}={value}"));
        let _ = peer(&format!("{key}={value}"));
    }
}
