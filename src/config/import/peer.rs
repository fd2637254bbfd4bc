//! `[Peer]`: a connection with one tunnel.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::Remark;
use super::interface::{Interface, Table, word};
use super::wg_quick::{Entry, Section};
use crate::config::model::{self, Endpoint};
use crate::config::{address, endpoint, value};
use crate::tunnel::key::{PresharedKey, PublicKey};

/// Longest keepalive of WireGuard, in seconds.
const MOST_SECONDS: u16 = u16::MAX;
/// Longer comments are not names.
const LONGEST_NAME: usize = 32;

/// A peer as far as it could be taken over.
pub(super) struct Peer {
    line: usize,
    connection: Connection,
    preshared_key: Option<PresharedKey>,
}

/// What a `[[connection]]` and its tunnel will say.
pub(super) struct Connection {
    pub(super) name: String,
    pub(super) networks: Vec<IpNet>,
    pub(super) table: Table,
    pub(super) public_key: PublicKey,
    pub(super) endpoint: Option<Endpoint>,
    /// In seconds; 0 = the file says "off", none = it says nothing.
    pub(super) keepalive: Option<u16>,
    pub(super) preshared_key_file: Option<PathBuf>,
}

impl Peer {
    /// The connection, and its preshared key with the file in `folder` it goes to.
    pub(super) fn split(
        self,
        folder: &Path,
        name: &str,
        number: usize,
    ) -> (Connection, Option<(PathBuf, PresharedKey)>) {
        let mut connection = self.connection;
        let key = self.preshared_key.map(|key| (folder.join(format!("{name}-{number}.psk")), key));
        connection.preshared_key_file = key.as_ref().map(|(path, _)| path.clone());
        (connection, key)
    }
}

/// All peers that can carry traffic, each network with the last that claims it, as the kernel has it.
pub(super) fn translate_all(
    sections: &[Section<'_>],
    interface: &Interface,
    remarks: &mut Vec<Remark>,
) -> Result<Vec<Peer>, Vec<Remark>> {
    let (mut peers, mut wrong) = (Vec::<Peer>::new(), Vec::new());
    for section in sections {
        match translate(section, interface.table, remarks) {
            Ok(peer) => {
                merge(&mut peers, &peer, remarks);
                peers.push(peer);
            }
            Err(error) => wrong.push(error),
        }
    }
    if wrong.is_empty() && sections.is_empty() {
        wrong.push(Remark::on_the_whole("there is no [Peer]", "add the far end to the file, then import it"));
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    peers.retain(|peer| has_networks(peer, remarks));
    if peers.is_empty() {
        return Err(vec![Remark::on_the_whole("no peer has AllowedIPs", "write what is behind each peer")]);
    }
    give_names(&mut peers);
    Ok(peers)
}

fn translate(section: &Section<'_>, table: Table, remarks: &mut Vec<Remark>) -> Result<Peer, Remark> {
    let public_key = public_key(section)?;
    let mut connection = Connection {
        name: section.comments.iter().rev().find_map(|comment| name(comment)).unwrap_or_default(),
        networks: Vec::new(),
        table,
        public_key,
        endpoint: None,
        keepalive: None,
        preshared_key_file: None,
    };
    let mut preshared_key = None;
    for entry in &section.entries {
        if entry.is("PublicKey") {
        } else if entry.is("PresharedKey") {
            preshared_key = preshared(entry)?;
        } else {
            remarks.extend(set(&mut connection, entry));
        }
    }
    remarks.extend(default_route_by_name(section.line, &connection));
    Ok(Peer { line: section.line, connection, preshared_key })
}

fn public_key(section: &Section<'_>) -> Result<PublicKey, Remark> {
    let Some(entry) = section.entries.iter().rfind(|entry| entry.is("PublicKey")) else {
        return Err(Remark::at(section.line, "this [Peer] has no PublicKey", "add it"));
    };
    value::public_key(entry.value)
        .map_err(|wrong| Remark::at(entry.line, format!("PublicKey: {}", wrong.what), wrong.remedy))
}

/// WireGuard's own word for none is a key of zeros.
fn preshared(entry: &Entry<'_>) -> Result<Option<PresharedKey>, Remark> {
    const NONE: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    if entry.value == NONE {
        return Ok(None);
    }
    let wrong = |not| Remark::at(entry.line, format!("PresharedKey: {not}"), "correct the line");
    PresharedKey::parse(entry.value).map(Some).map_err(wrong)
}

fn set(connection: &mut Connection, entry: &Entry<'_>) -> Vec<Remark> {
    if entry.is("AllowedIPs") {
        entry.list().filter_map(|text| add_network(connection, entry, text).err()).collect()
    } else if entry.is("Endpoint") {
        let found = parse_endpoint(entry).map(|endpoint| connection.endpoint = Some(endpoint));
        found.err().into_iter().collect()
    } else if entry.is("PersistentKeepalive") {
        let found = keepalive(entry).map(|seconds| connection.keepalive = seconds);
        found.err().into_iter().collect()
    } else {
        let what = format!("{}: unknown, so it is left out", word(entry.key));
        vec![Remark::at(entry.line, what, "nothing, unless it matters")]
    }
}

/// Any address is one network; bits behind the prefix do not count.
fn add_network(connection: &mut Connection, entry: &Entry<'_>, text: &str) -> Result<(), Remark> {
    let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let shown = net.map_or_else(|_| text.to_owned(), |net| net.trunc().to_string());
    let network = address::network(&shown)
        .map_err(|w| Remark::at(entry.line, format!("AllowedIPs: {}, so it is left out", w.what), w.remedy))?;
    if !connection.networks.contains(&network) {
        connection.networks.push(network);
    }
    Ok(())
}

/// As `wg` reads it: what is before the last colon may be a bare IPv6 address.
fn parse_endpoint(entry: &Entry<'_>) -> Result<Endpoint, Remark> {
    let bare = entry.value.rsplit_once(':').filter(|(host, _)| host.parse::<Ipv6Addr>().is_ok());
    let text = bare.map_or_else(|| entry.value.to_owned(), |(host, port)| format!("[{host}]:{port}"));
    endpoint::endpoint(&text).map_err(|wrong| {
        let what = format!("Endpoint: {}, so it is left out and the peer has to come to us", wrong.what);
        Remark::at(entry.line, what, wrong.remedy)
    })
}

fn keepalive(entry: &Entry<'_>) -> Result<Option<u16>, Remark> {
    if entry.value.eq_ignore_ascii_case("off") {
        return Ok(Some(0));
    }
    let instead = format!("set `persistent_keepalive` to seconds from \"1s\" to \"{MOST_SECONDS}s\"");
    let what = "PersistentKeepalive: no number of seconds, so it is left out";
    entry.value.parse().map(Some).map_err(|_| Remark::at(entry.line, what, instead))
}

/// Everything through the tunnel, but for the questions for the far end's name.
fn default_route_by_name(line: usize, connection: &Connection) -> Option<Remark> {
    let is_default = connection.networks.iter().any(model::is_default);
    let is_name = matches!(connection.endpoint, Some(Endpoint::Name(..)));
    let routed = connection.table == Table::Auto;
    (is_default && is_name && routed).then(|| {
        Remark::at(
            line,
            "everything goes through this tunnel, and its endpoint is a name that has to be resolved outside of it: \
             while the tunnel is dark, this machine's own questions to port 53 go out in clear",
            "write its address as `endpoint` if they must not",
        )
    })
}

/// A key that comes twice is one peer, whose later words count; a network that comes twice is the later peer's.
fn merge(peers: &mut Vec<Peer>, new: &Peer, remarks: &mut Vec<Remark>) {
    let key = new.connection.public_key;
    if let Some(place) = peers.iter().position(|peer| peer.connection.public_key == key) {
        let old = peers.remove(place);
        let what = format!("this [Peer] has the key of the one at line {}, and only the later one is taken", old.line);
        remarks.push(Remark::at(new.line, what, "add to its `networks` what the other should have"));
    }
    for peer in peers {
        let (own, lost): (Vec<_>, _) =
            peer.connection.networks.iter().partition(|network| !new.connection.networks.contains(network));
        peer.connection.networks = own;
        remarks.extend(lost.iter().map(|network: &IpNet| {
            let what =
                format!("AllowedIPs: {network} is the peer's at line {}, too; it goes to the later one", peer.line);
            Remark::at(new.line, what, "a network is behind one far end: remove it there")
        }));
    }
}

fn has_networks(peer: &Peer, remarks: &mut Vec<Remark>) -> bool {
    let has = !peer.connection.networks.is_empty();
    if !has {
        let what = "this [Peer] has no AllowedIPs, so nothing can pass, and it is left out";
        remarks.push(Remark::at(peer.line, what, "add a [[connection]] once there is something behind it"));
    }
    has
}

/// What a comment calls a peer: "# office", "# Name = office", "### begin office ###". Nothing that may be a key.
fn name(comment: &str) -> Option<String> {
    let words = ["begin ", "begin_peer ", "client:", "client ", "peer:", "peer ", "name =", "name=", "name:"];
    let lower = comment.to_ascii_lowercase();
    let rest = words.iter().find(|word| lower.starts_with(**word)).and_then(|word| comment.get(word.len()..));
    let text = rest.unwrap_or(comment).trim();
    let text = text.split_once(" (").map_or(text, |(name, _)| name.trim_end());
    let plain = |c: char| c.is_ascii_alphanumeric() || [' ', '-', '_', '.', '@'].contains(&c);
    let is_name = text.len() <= LONGEST_NAME && text.chars().all(plain) && !lower.starts_with("end ");
    value::name(text).ok().filter(|_| is_name)
}

/// Names are unique; who has none is called after its endpoint, or by its number.
fn give_names(peers: &mut [Peer]) {
    let mut taken: HashMap<String, usize> = HashMap::new();
    for (number, peer) in (1..).zip(peers) {
        let connection = &mut peer.connection;
        if connection.name.is_empty() {
            connection.name = match &connection.endpoint {
                Some(Endpoint::Name(host, _)) if value::name(host).is_ok() => host.clone(),
                _ => format!("peer-{number}"),
            };
        }
        let wanted = connection.name.clone();
        while taken.contains_key(&connection.name) {
            let count = taken.entry(wanted.clone()).or_insert(1);
            *count += 1;
            connection.name = format!("{wanted}-{count}");
        }
        taken.insert(connection.name.clone(), 1);
    }
}
