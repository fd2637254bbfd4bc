//! What `linkspan status --json` says, as far as tests look at it. The only place that knows the shape.

use serde_json::Value;

/// One answer.
#[derive(Debug, Clone)]
pub struct Status(Value);

/// Inner packets and bytes of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    pub packets: u64,
    pub bytes: u64,
}

impl Status {
    pub fn parse(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok().map(Self)
    }

    /// Whether every connection is up.
    pub fn is_up(&self) -> bool {
        let connections = self.0["connections"].as_array();
        connections.is_some_and(|all| !all.is_empty() && all.iter().all(|c| c["state"] == "up"))
    }

    pub fn connection_is_up(&self, connection: usize) -> bool {
        self.0["connections"][connection]["state"] == "up"
    }

    pub fn sent(&self, connection: usize) -> Traffic {
        self.traffic(connection, "sent")
    }

    pub fn received(&self, connection: usize) -> Traffic {
        self.traffic(connection, "received")
    }

    /// Where the tunnel's datagrams go now.
    pub fn endpoint(&self, connection: usize) -> String {
        self.tunnel(connection)["endpoint"].as_str().unwrap_or_default().to_owned()
    }

    /// Seconds since the daemon's start.
    pub fn uptime(&self) -> u64 {
        self.0["uptime_s"].as_u64().expect("it is there")
    }

    /// Seconds since the tunnel's last handshake; none = there was none.
    pub fn last_handshake(&self, connection: usize) -> Option<u64> {
        self.tunnel(connection)["last_handshake_s"].as_u64()
    }

    /// Packets dropped for this reason (a key of `Reason`) since the start.
    pub fn dropped(&self, reason: &str) -> u64 {
        let all = self.0["drops"].as_array().expect("drops are listed");
        all.iter().find(|drop| drop["reason"] == reason).map_or(0, |drop| drop["packets"].as_u64().unwrap())
    }

    /// Packets dropped since the start for any reason but these.
    pub fn dropped_but(&self, reasons: &[&str]) -> u64 {
        let all = self.0["drops"].as_array().expect("drops are listed").iter();
        let others = all.filter(|drop| !reasons.contains(&drop["reason"].as_str().unwrap()));
        others.map(|drop| drop["packets"].as_u64().unwrap()).sum()
    }

    /// All drops there were, for messages.
    pub fn drops(&self) -> String {
        self.0["drops"].to_string()
    }

    /// What the admin should know.
    pub fn warnings(&self) -> String {
        self.0["warnings"].to_string()
    }

    fn tunnel(&self, connection: usize) -> &Value {
        &self.0["connections"][connection]["tunnels"][0]
    }

    fn traffic(&self, connection: usize, direction: &str) -> Traffic {
        let counted = &self.tunnel(connection)[direction];
        let number =
            |what: &str| counted[what].as_u64().unwrap_or_else(|| panic!("no {direction}.{what} in {}", self.0));
        Traffic { packets: number("packets"), bytes: number("bytes") }
    }
}
