//! What `wg` says over its socket: a change, or a refusal. The changes are applied to a model of a device, and what the
//! device would say of itself, said back to it, makes the same device.

use linkspan::config::uapi::{
    AllowedIp, Change, DeviceAnswer, PeerAnswer, PeerChange, Refusal, Request, Setting, outcome, parse,
};

/// What a device says of itself and nobody can tell it.
const TOLD_ONLY: [&str; 4] = ["last_handshake_time_sec=", "last_handshake_time_nsec=", "tx_bytes=", "rx_bytes="];

/// Requests, with an empty line between them.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut device = DeviceAnswer::default();
    for request in text.split("\n\n") {
        match ask(request) {
            Ok(Request::Set(change)) => {
                let named = change.peers.len() + change.peers.iter().map(|peer| peer.allowed_ips.len()).sum::<usize>();
                assert!(named < request.lines().count());
                apply(&mut device, change);
            }
            Ok(Request::Get) => assert_eq!(outcome(Ok(())), "errno=0\n\n"),
            Err(refusal) => assert!(outcome(Err(refusal)).starts_with("errno=-")),
        }
    }
    say_back(&device);
    let public = device.text(false);
    assert!(!public.contains("private_key=") && !public.contains("preshared_key="));
}

fn ask(request: &str) -> Result<Request, Refusal> {
    parse(request, |name| u32::try_from(name.len()).ok())
}

fn say_back(device: &DeviceAnswer) {
    let said = device.text(true);
    let lines = said.lines().filter(|line| !TOLD_ONLY.iter().any(|key| line.starts_with(key)));
    let request: String = ["set=1"].into_iter().chain(lines).map(|line| format!("{line}\n")).collect();
    let Ok(Request::Set(change)) = ask(&request) else { panic!("refused: {request}") };
    let mut again = DeviceAnswer::default();
    apply(&mut again, change);
    assert_eq!(*again.text(true), *said);
}

fn apply(device: &mut DeviceAnswer, change: Change) {
    match change.private_key {
        Setting::Keep => {}
        Setting::Clear => device.private_key = None,
        Setting::Set(key) => device.private_key = Some(key.reveal_hex()),
    }
    device.listen_port = change.listen_port.unwrap_or(device.listen_port);
    device.fwmark = change.fwmark.unwrap_or(device.fwmark);
    if change.replace_peers {
        device.peers.clear();
    }
    change.peers.into_iter().for_each(|peer| apply_to_peer(&mut device.peers, peer));
}

fn apply_to_peer(peers: &mut Vec<PeerAnswer>, change: PeerChange) {
    let key = change.public_key;
    if change.remove {
        return peers.retain(|peer| peer.public_key != key);
    }
    if !peers.iter().any(|peer| peer.public_key == key) {
        if change.update_only {
            return;
        }
        peers.push(stranger(&change));
    }
    for one in &change.allowed_ips {
        if let AllowedIp::Give(network) = one {
            // It is the last one's who asked for it.
            let others = peers.iter_mut().filter(|peer| peer.public_key != key);
            others.for_each(|peer| peer.allowed_ips.retain(|known| known != network));
        }
    }
    let peer = peers.iter_mut().find(|peer| peer.public_key == key).unwrap();
    match &change.preshared_key {
        Setting::Keep => {}
        Setting::Clear => peer.preshared_key = None,
        Setting::Set(key) => peer.preshared_key = Some(key.reveal_hex()),
    }
    peer.endpoint = change.endpoint.or(peer.endpoint);
    peer.keepalive = change.keepalive.unwrap_or(peer.keepalive);
    if change.replace_allowed_ips {
        peer.allowed_ips.clear();
    }
    for one in change.allowed_ips {
        let (AllowedIp::Give(network) | AllowedIp::Take(network)) = one;
        peer.allowed_ips.retain(|known| *known != network);
        if matches!(one, AllowedIp::Give(_)) {
            peer.allowed_ips.push(network);
        }
    }
}

fn stranger(change: &PeerChange) -> PeerAnswer {
    PeerAnswer {
        public_key: change.public_key,
        preshared_key: None,
        endpoint: None,
        last_handshake: None,
        sent: 0,
        received: 0,
        keepalive: 0,
        allowed_ips: Vec::new(),
    }
}
