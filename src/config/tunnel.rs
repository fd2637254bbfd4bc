//! `[[connection.tunnel]]`

use super::interface::or;
use super::ledger::Ledger;
use super::model::{Inside, Tunnel};
use super::problem::Wrong;
use super::report::Report;
use super::section::Section;
use super::{address, endpoint, schema, value};
use crate::tunnel::key::PublicKey;

const ENDS: [(&str, bool); 2] = [("customer", false), ("aws", true)];

/// The tunnels of one connection; for now there has to be exactly one.
pub(super) fn read_all(report: &mut Report<'_>, connection: &Section<'_>, ledger: &mut Ledger) -> Vec<Tunnel> {
    let sections = connection.many(report, "tunnel", &schema::TUNNEL);
    if connection.lacks("tunnel") {
        let remedy = "add [[connection.tunnel]] with the far end's public_key below it";
        report.shape(connection.span.clone(), "tunnel", &Wrong::new("missing from this [[connection]]", remedy));
    }
    for second in sections.iter().skip(1) {
        let wrong = Wrong::new("a second tunnel is not there yet in this version", "remove this [[connection.tunnel]]");
        report.shape(second.span.clone(), "tunnel", &wrong);
    }
    let numbered = sections.iter().zip(1..);
    numbered.map(|(section, number)| read(report, section, number, ledger)).collect()
}

fn read(report: &mut Report<'_>, section: &Section<'_>, number: usize, ledger: &mut Ledger) -> Tunnel {
    let name = section.text(report, "name", value::name);
    section.need(report, "public_key", "\"...\", as `linkspan pubkey` prints it at the far end");
    let public_key = section.text(report, "public_key", value::public_key);
    if let Some(key) = &public_key {
        ledger.public_key(report, key);
    }
    let inside = inside(report, section, ledger);
    Tunnel {
        name: or(name, number.to_string()),
        public_key: or(public_key, PublicKey::new([0; 32])),
        endpoint: section.text(report, "endpoint", endpoint::endpoint).map(toml::Spanned::into_inner),
        preshared_key_file: or(section.text(report, "preshared_key_file", value::optional_path), None),
        inside,
        keepalive: or(section.value(report, "persistent_keepalive", value::keepalive), Some(value::KEEPALIVE)),
    }
}

/// `inside_cidr` and which end of it is ours.
fn inside(report: &mut Report<'_>, section: &Section<'_>, ledger: &mut Ledger) -> Option<Inside> {
    let end = section.text(report, "inside", value::one_of(&ENDS));
    let net = section.text(report, "inside_cidr", address::inside_cidr);
    if let (Some(end), false) = (&end, section.has("inside_cidr")) {
        let remedy = "add inside_cidr = \"169.254.77.0/30\", or remove the line";
        report.shape(end.span(), "inside", &Wrong::new("which end of what? There is no inside_cidr", remedy));
    }
    let net = net?;
    let inside = address::inside(*net.get_ref(), or(end, false))?;
    ledger.inside(report, &net, inside);
    Some(inside)
}
