//! Text in, valid [`Config`] out. Nobody below this room parses text, and a `Config` exists only valid.
//!
//! The TOML tree is walked key by key: each value that is wrong becomes a [`Problem`] and the walk goes on, so that
//! one run names everything there is to repair. [`key_file`] reads and writes the key files that a `Config` names.

mod address;
mod connection;
mod difference;
mod endpoint;
mod file;
pub mod import;
mod interface;
pub mod key_file;
mod ledger;
pub mod model;
mod problem;
mod report;
mod schema;
mod section;
mod syntax;
mod tunnel;
pub mod uapi;
mod value;

pub use difference::Difference;
pub use file::load;
pub use model::{
    Config, Connection, Endpoint, FailClosed, Inside, Interface, RouteSource, Startup, Tunnel, is_default,
};
pub use problem::{Place, Problem, Problems};

use toml::de::DeTable;

use ledger::Ledger;
use report::Report;
use section::Section;

/// The smallest file that is worth something, shown to whoever has none.
pub const SMALLEST: &str = r#"[[connection]]
name = "production-vpc"
networks = ["10.20.0.0/16"]
[[connection.tunnel]]
public_key = "the far end's, as `linkspan pubkey` prints it there"
endpoint = "vpn.example.com:51820"
"#;

/// Reads `text`, the configuration of the network interface `interface_name`; `file_name` is what problems call it.
///
/// # Errors
/// All that is wrong with the text and the name, in the order of the file.
pub fn parse(text: &str, file_name: &str, interface_name: &str) -> Result<Config, Problems> {
    let mut report = Report::new(file_name, text);
    if let Err(wrong) = interface::check_name(interface_name) {
        report.everywhere(&wrong);
    }
    let (document, errors) = DeTable::parse_recoverable(text);
    syntax::note(&mut report, &errors);
    let config = whole(&mut report, document.get_ref(), interface_name);
    match report.finish() {
        None => Ok(config),
        Some(problems) => Err(problems),
    }
}

/// What stands in the file, with gaps where the report has a problem.
fn whole(report: &mut Report<'_>, document: &DeTable<'_>, name: &str) -> Config {
    let mut ledger = Ledger::default();
    let root = Section::open(report, document, 0..0, &schema::ROOT);
    let mut interface = interface::read(report, &root, name, &mut ledger);
    let connections = connection::read_all(report, &root, &mut ledger);
    ledger.check(report);
    if interface.addresses.is_empty() {
        interface.addresses = ledger.inside_addresses();
    }
    Config { interface, connections }
}

#[cfg(test)]
mod tests;
