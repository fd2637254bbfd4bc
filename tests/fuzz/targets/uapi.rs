//! What `wg` says over its socket: a change, or a refusal. The change fits the request.

use linkspan::config::uapi::{Request, parse};

/// The text of the request.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(Request::Set(change)) = parse(&text, |name| u32::try_from(name.len()).ok()) {
        let named = change.peers.len() + change.peers.iter().map(|peer| peer.allowed_ips.len()).sum::<usize>();
        assert!(named < text.lines().count());
    }
}
