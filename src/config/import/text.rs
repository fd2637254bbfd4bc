//! The text of the new file.

use std::fmt::Write as _;
use std::path::Path;

use super::interface::{Interface, Table};
use super::peer::Connection;

pub(super) fn file(interface: &Interface, connections: &[Connection], name: &str, folder: &Path) -> String {
    let mut text = format!("# Made from wg-quick's {name}.conf by `linkspan import`.\n\n[interface]\n");
    if folder != Path::new("/etc/linkspan") {
        line(&mut text, "private_key_file", quoted(&folder.join(format!("{name}.key")).to_string_lossy()));
    }
    option(&mut text, "listen_port", interface.listen_port);
    if !interface.addresses.is_empty() {
        line(&mut text, "addresses", list(&interface.addresses));
    }
    option(&mut text, "mtu", interface.mtu);
    option(&mut text, "fwmark", interface.fwmark);
    for connection in connections {
        section(&mut text, connection);
    }
    text
}

fn section(text: &mut String, connection: &Connection) {
    text.push_str("\n[[connection]]\n");
    line(text, "name", quoted(&connection.name));
    line(text, "networks", list(&connection.networks));
    match connection.table {
        Table::Auto => {}
        Table::Off => line(text, "routes", "false"),
        Table::Number(number) => line(text, "table", number),
    }
    // A peer that comes and goes is not called after: WireGuard itself only answers it.
    if connection.endpoint.is_none() {
        line(text, "startup_action", quoted("add"));
    }
    text.push_str("\n[[connection.tunnel]]\n");
    line(text, "public_key", quoted(&connection.public_key.to_string()));
    option(text, "endpoint", connection.endpoint.as_ref().map(|endpoint| quoted(&endpoint.to_string())));
    let path = connection.preshared_key_file.as_ref();
    option(text, "preshared_key_file", path.map(|path| quoted(&path.to_string_lossy())));
    match (connection.keepalive, &connection.endpoint) {
        // Left out, it would be "auto", which is not what the old file means.
        (Some(0), _) | (None, None) => line(text, "persistent_keepalive", quoted("off")),
        (Some(seconds), _) => line(text, "persistent_keepalive", quoted(&format!("{seconds}s"))),
        (None, Some(_)) => {}
    }
}

fn line(text: &mut String, key: &str, value: impl std::fmt::Display) {
    let _ = writeln!(text, "{key} = {value}");
}

fn option(text: &mut String, key: &str, value: Option<impl std::fmt::Display>) {
    if let Some(value) = value {
        line(text, key, value);
    }
}

fn list(items: &[impl ToString]) -> String {
    let items: Vec<_> = items.iter().map(|item| quoted(&item.to_string())).collect();
    format!("[{}]", items.join(", "))
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}
