//! A daemon's configuration file: what most tests want by default, every part open to change.

use std::fmt::Write as _;

use super::net::Net;

/// Name of every daemon's interface.
pub const INTERFACE: &str = "ls0";

/// One TOML file.
#[derive(Clone)]
pub struct File {
    /// The interface and the stem of the file's name.
    pub name: String,
    pub listen_port: u16,
    /// More lines of `[interface]`.
    pub interface: Vec<String>,
    pub connections: Vec<Connection>,
}

/// One `[[connection]]` with its one tunnel.
#[derive(Clone)]
pub struct Connection {
    pub name: String,
    pub networks: Vec<String>,
    pub local_networks: Vec<String>,
    pub public_key: String,
    pub endpoint: Option<String>,
    /// `inside_cidr` and `inside`.
    pub inside: Option<(String, &'static str)>,
    /// More lines of `[[connection]]` and of `[[connection.tunnel]]`.
    pub connection: Vec<String>,
    pub tunnel: Vec<String>,
}

impl Net {
    /// The file of site `here` with a connection to each of `far`, over IPv4.
    pub fn file(&self, here: usize, far: &[usize]) -> File {
        File {
            name: INTERFACE.to_owned(),
            listen_port: super::net::PORT,
            interface: Vec::new(),
            connections: far.iter().map(|far| self.connection(here, *far)).collect(),
        }
    }

    fn connection(&self, here: usize, far: usize) -> Connection {
        let (here, far) = (self.site(here), self.site(far));
        let (low, high) = (here.number.min(far.number), here.number.max(far.number));
        let end = if here.number == low { "aws" } else { "customer" };
        Connection {
            name: format!("site-{}", far.number),
            networks: far.networks(),
            local_networks: here.networks(),
            public_key: far.public().to_string(),
            endpoint: Some(far.endpoint4().to_string()),
            inside: Some((format!("169.254.{low}{high}.0/30"), end)),
            connection: Vec::new(),
            tunnel: Vec::new(),
        }
    }
}

impl File {
    /// The same with another endpoint for its only connection.
    pub fn endpoint(mut self, endpoint: Option<impl ToString>) -> Self {
        self.connections[0].endpoint = endpoint.map(|e| e.to_string());
        self
    }

    /// The same with one more line of `[interface]`.
    pub fn with(mut self, line: &str) -> Self {
        self.interface.push(line.to_owned());
        self
    }

    /// The text, for a key file at `key`.
    pub fn text(&self, key: &str) -> String {
        let mut text = format!("[interface]\nprivate_key_file = {key:?}\nlisten_port = {}\n", self.listen_port);
        text += &lines(&self.interface);
        for connection in &self.connections {
            text += &connection.text();
        }
        text
    }
}

impl Connection {
    fn text(&self) -> String {
        let Self { name, networks, local_networks, public_key, .. } = self;
        let mut text = format!("\n[[connection]]\nname = {name:?}\nnetworks = {networks:?}\n");
        let _ = writeln!(text, "local_networks = {local_networks:?}");
        text += &lines(&self.connection);
        let _ = writeln!(text, "\n[[connection.tunnel]]\nname = \"only\"\npublic_key = {public_key:?}");
        if let Some(endpoint) = &self.endpoint {
            let _ = writeln!(text, "endpoint = {endpoint:?}");
        }
        if let Some((cidr, end)) = &self.inside {
            let _ = writeln!(text, "inside_cidr = {cidr:?}\ninside = {end:?}");
        }
        text + &lines(&self.tunnel)
    }
}

fn lines(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}
