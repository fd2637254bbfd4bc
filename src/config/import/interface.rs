//! `[Interface]`

use std::num::ParseIntError;

use ipnet::IpNet;

use super::Remark;
use super::scripts;
use super::wg_quick::Entry;
use crate::config::address;
use crate::packet::Mtu;
use crate::tunnel::key::PrivateKey;

const UNPRIVILEGED: u16 = 1024;

/// What `[interface]` of the new file says; none = its default.
#[derive(Default)]
pub(super) struct Interface {
    pub(super) listen_port: Option<u16>,
    pub(super) addresses: Vec<IpNet>,
    pub(super) mtu: Option<u16>,
    pub(super) fwmark: Option<u32>,
    pub(super) table: Table,
}

/// wg-quick's `Table`.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    #[default]
    Auto,
    Off,
    Number(u32),
}

/// The section, and the key that was in it.
pub(super) fn translate(
    entries: &[Entry<'_>],
    name: &str,
    remarks: &mut Vec<Remark>,
) -> Result<(Interface, Option<PrivateKey>), Vec<Remark>> {
    let mut interface = Interface::default();
    let mut key = None;
    let mut wrong = Vec::new();
    for entry in entries {
        if entry.is("PrivateKey") {
            match PrivateKey::parse(entry.value) {
                Ok(parsed) => key = Some(parsed),
                Err(not) => wrong.push(Remark::at(entry.line, format!("PrivateKey: {not}"), "correct the line")),
            }
        } else {
            remarks.extend(set(&mut interface, entry, name));
        }
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    remarks.extend(lacking(entries, key.is_none(), name));
    Ok((interface, key))
}

/// Takes one line over; gives what could not be.
fn set(interface: &mut Interface, entry: &Entry<'_>, name: &str) -> Vec<Remark> {
    let one = |result: Result<(), Remark>| result.err().into_iter().collect();
    if entry.is("Address") {
        entry.list().filter_map(|text| add_address(interface, entry, text).err()).collect()
    } else if entry.is("ListenPort") {
        one(port(entry, name).map(|port| interface.listen_port = port))
    } else if entry.is("MTU") {
        one(mtu(entry).map(|mtu| interface.mtu = mtu))
    } else if entry.is("FwMark") {
        one(fwmark(entry).map(|mark| interface.fwmark = mark))
    } else if entry.is("Table") {
        one(table(entry).map(|table| interface.table = table))
    } else if scripts::is_script(entry) {
        vec![scripts::remark(entry, name)]
    } else {
        not_ours(entry, name).into_iter().collect()
    }
}

fn add_address(interface: &mut Interface, entry: &Entry<'_>, text: &str) -> Result<(), Remark> {
    let alone = text.parse::<std::net::IpAddr>().map(|ip| IpNet::from(ip).to_string());
    let text = alone.as_deref().unwrap_or(text);
    let address = address::interface_address(text)
        .map_err(|wrong| Remark::at(entry.line, format!("Address: {}, so it is left out", wrong.what), wrong.remedy))?;
    if !interface.addresses.contains(&address) {
        interface.addresses.push(address);
    }
    Ok(())
}

fn port(entry: &Entry<'_>, name: &str) -> Result<Option<u16>, Remark> {
    match entry.value.parse::<u16>() {
        Ok(0) => Ok(None),
        Ok(port) if port >= UNPRIVILEGED => Ok(Some(port)),
        Ok(port) => Err(Remark::at(
            entry.line,
            format!(
                "ListenPort: {port} is below {UNPRIVILEGED} and needs a privilege that the daemon does not have; \
                 {name} listens on 51820"
            ),
            format!("let the firewall redirect it: nft add rule ip nat prerouting udp dport {port} redirect to :51820"),
        )),
        Err(_) => Err(Remark::at(entry.line, "ListenPort: no port number, so it is left out", "write listen_port")),
    }
}

fn mtu(entry: &Entry<'_>) -> Result<Option<u16>, Remark> {
    let given = entry.value.parse::<u16>().ok();
    if let Some(mtu) = given.filter(|mtu| Mtu::new(*mtu).is_some()) {
        return Ok(Some(mtu));
    }
    let low = Mtu::MIN.bytes();
    let instead = format!("set `mtu` to a number from {low} to {}", Mtu::MAX.bytes());
    Err(Remark::at(entry.line, "MTU: out of range, so it is left out", instead))
}

/// "off", a number, or a number in hexadecimal.
fn fwmark(entry: &Entry<'_>) -> Result<Option<u32>, Remark> {
    if entry.value.eq_ignore_ascii_case("off") {
        return Ok(None);
    }
    let remark = |_| Remark::at(entry.line, "FwMark: no 32-bit number, so it is left out", "set `fwmark`");
    number(entry.value).map(|mark| Some(mark).filter(|mark| *mark > 0)).map_err(remark)
}

/// In decimal, or in hexadecimal after "0x".
fn number(text: &str) -> Result<u32, ParseIntError> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    }
}

fn table(entry: &Entry<'_>) -> Result<Table, Remark> {
    const MAIN: u32 = 254;
    const LOCAL: u32 = 255;
    match entry.value.to_ascii_lowercase().as_str() {
        "auto" => Ok(Table::Auto),
        "off" => Ok(Table::Off),
        "main" => Ok(Table::Number(MAIN)),
        text => match number(text) {
            Ok(number) if number > 0 && number != LOCAL => Ok(Table::Number(number)),
            _ => Err(Remark::at(
                entry.line,
                "Table: not a number, so the routes go into the main table",
                "find its number in /etc/iproute2/rt_tables and write it as `table` of each connection",
            )),
        },
    }
}

/// What wg-quick did beside WireGuard, and words that nobody knows.
fn not_ours(entry: &Entry<'_>, name: &str) -> Option<Remark> {
    let (what, instead) = if entry.is("DNS") {
        ("DNS: Linkspan leaves name servers alone", format!("with systemd-resolved: resolvectl dns {name} ADDRESS..."))
    } else if entry.is("SaveConfig") {
        if !entry.value.eq_ignore_ascii_case("true") {
            return None;
        }
        let instead = "change the file, then restart; see what runs with: linkspan status".to_owned();
        ("SaveConfig: the file is the truth, and is never written by the daemon", instead)
    } else {
        let instead = "nothing, unless it matters".to_owned();
        return Some(Remark::at(entry.line, format!("{}: unknown, so it is left out", word(entry.key)), instead));
    };
    Some(Remark::at(entry.line, what, instead))
}

/// A key that may stand in a message.
pub(super) fn word(key: &str) -> String {
    key.chars().take(40).collect()
}

/// What is otherwise because something is not there.
fn lacking(entries: &[Entry<'_>], no_key: bool, name: &str) -> Vec<Remark> {
    let mut remarks = Vec::new();
    if no_key {
        let what = format!("there is no PrivateKey, so {name}.key is not written");
        let instead =
            format!("write the key that a script set into it, or make a new one with: linkspan genkey {name}");
        remarks.push(Remark::on_the_whole(what, instead));
    }
    let random = |entry: &&Entry<'_>| entry.is("ListenPort") && entry.value != "0";
    if !entries.iter().any(|entry| random(&entry)) {
        let what = format!("there is no ListenPort, which is a random one with wg-quick; {name} uses 51820");
        remarks.push(Remark::on_the_whole(what, "set another `listen_port` if that one is in use"));
    }
    remarks
}
