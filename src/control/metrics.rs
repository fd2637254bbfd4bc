//! The status as Prometheus reads it: a page of its text format. Names and units are promises: dashboards and alerts of
//! `conf/` are made of them, and others' are, too.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::prometheus_text::{CONTENT_TYPE, encode};
use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Registry;

use super::http::{self, Reply};
use super::status::{State, Status, Tunnel};
use crate::packet::Reason;

/// The answer to `GET /metrics`.
pub(super) fn reply(status: &Status) -> Reply {
    http::page(CONTENT_TYPE, page(status))
}

/// All metrics of one daemon.
#[must_use]
pub fn page(status: &Status) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Snapshot(status.clone())));
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = encode(&mut text, &registry);
    text
}

#[derive(Debug)]
struct Snapshot(Status);

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page { status: &self.0, encoder };
        page.daemon()?;
        page.threads()?;
        page.drops()?;
        page.state()?;
        page.traffic()?;
        page.handshakes()?;
        page.cloudwatch()
    }
}

type Labels<'s> = Vec<(&'static str, &'s str)>;

struct Page<'s, 'e> {
    status: &'s Status,
    encoder: DescriptorEncoder<'e>,
}

impl<'s> Page<'s, '_> {
    fn daemon(&mut self) -> fmt::Result {
        let Status { version, interface, uptime_s, clock_behind_s, warnings, .. } = self.status;
        let build = self.interface(&[("version", version)]);
        self.gauges("linkspan_build_info", "Version of the daemon; the value is 1.", [(build, 1_u64)])?;
        let port = interface.port.to_string();
        let facts = [("port", &*port), ("public_key", &interface.public_key), ("offloads", &interface.offloads)];
        let facts: Labels<'_> = [("interface", &*interface.name)].into_iter().chain(facts).collect();
        self.gauges("linkspan_interface_info", "Interface and socket; the value is 1.", [(facts, 1_u64)])?;
        self.gauge("linkspan_uptime_seconds", "Since the daemon started.", *uptime_s)?;
        self.gauge("linkspan_interface_mtu_bytes", "Largest inner packet.", interface.mtu.into())?;
        self.gauge("linkspan_workers", "Pairs of data threads.", interface.workers.into())?;
        self.gauge("linkspan_warnings", "How many warnings `linkspan status` shows.", warnings.len() as u64)?;
        let behind = "How far the clock was set back; far ends refuse handshakes while it is above 0.";
        self.gauge("linkspan_clock_behind_seconds", behind, *clock_behind_s)
    }

    fn threads(&mut self) -> fmt::Result {
        let threads = self.status.threads.iter();
        let busy = threads.map(|thread| (&*thread.name, Duration::from_millis(thread.busy_ms).as_secs_f64()));
        let samples: Vec<_> = busy.map(|(name, seconds)| (self.interface(&[("thread", name)]), seconds)).collect();
        self.counters("linkspan_thread_busy_seconds", "CPU time of each data thread.", samples)
    }

    /// All reasons from the start, so that the first packet dropped is a change.
    fn drops(&mut self) -> fmt::Result {
        let dropped = |key: &str| self.status.drops.iter().find(|drop| drop.reason == key);
        let count = |key| dropped(key).map_or(0, |drop| drop.packets);
        let keys = Reason::ALL.iter().map(|reason| reason.key());
        let samples: Vec<_> = keys.map(|key| (self.interface(&[("reason", key)]), count(key))).collect();
        self.counters("linkspan_dropped_packets", "Packets dropped, each for one reason.", samples)
    }

    fn state(&mut self) -> fmt::Result {
        self.tunnel_gauges("linkspan_tunnel_up", "1 if the tunnel is up, 0 if it is down.", |t| Some(up(t)))?;
        let since = "For how long it has been up, or down.";
        self.tunnel_gauges("linkspan_tunnel_state_age_seconds", since, |t| Some(t.since_s))?;
        self.tunnel_gauges("linkspan_tunnel_mtu_bytes", "Largest inner packet.", |t| Some(t.mtu.into()))?;
        let heard = "Since something from the far end was last authenticated; absent: never.";
        self.tunnel_gauges("linkspan_tunnel_receive_age_seconds", heard, |t| t.last_receive_s)?;
        let facts = |(labels, tunnel): (Labels<'s>, &'s Tunnel)| {
            let endpoint = tunnel.endpoint.as_deref().unwrap_or_default();
            let configured = tunnel.configured_endpoint.as_deref().unwrap_or_default();
            let facts =
                [("endpoint", endpoint), ("configured_endpoint", configured), ("public_key", &tunnel.public_key)];
            (labels.into_iter().chain(facts).collect(), 1_u64)
        };
        let samples: Vec<_> = self.tunnels().map(facts).collect();
        self.gauges("linkspan_tunnel_info", "Far end, as far as it is known; the value is 1.", samples)
    }

    fn traffic(&mut self) -> fmt::Result {
        let [to, from] = ["to the far end.", "from the far end."];
        self.tunnel_counters("linkspan_tunnel_sent_bytes", &format!("Inner bytes {to}"), |t| t.sent.bytes)?;
        self.tunnel_counters("linkspan_tunnel_sent_packets", &format!("Inner packets {to}"), |t| t.sent.packets)?;
        self.tunnel_counters("linkspan_tunnel_received_bytes", &format!("Inner bytes {from}"), |t| t.received.bytes)?;
        let packets = format!("Inner packets {from}");
        self.tunnel_counters("linkspan_tunnel_received_packets", &packets, |t| t.received.packets)?;
        let outer = |way: &str| format!("Bytes of UDP payload, handshakes and keepalives included, {way}");
        self.tunnel_counters("linkspan_tunnel_wire_sent_bytes", &outer(to), |t| t.wire.sent_bytes)?;
        self.tunnel_counters("linkspan_tunnel_wire_received_bytes", &outer(from), |t| t.wire.received_bytes)
    }

    fn handshakes(&mut self) -> fmt::Result {
        let age = "Age of the newest session; absent: there was none.";
        self.tunnel_gauges("linkspan_tunnel_handshake_age_seconds", age, |t| t.last_handshake_s)?;
        let done = "Handshakes completed, by whichever end.";
        self.tunnel_counters("linkspan_tunnel_handshakes", done, |t| t.handshakes.completed)?;
        let sent = "Handshake initiations sent.";
        self.tunnel_counters("linkspan_tunnel_handshake_initiations", sent, |t| t.handshakes.initiations)?;
        let failed = "Handshake initiations without an answer.";
        self.tunnel_counters("linkspan_tunnel_handshake_failures", failed, |t| t.handshakes.failed)
    }

    /// What AWS calls them in CloudWatch, in the spelling of Prometheus: its linter refuses capitals, and wants the unit.
    fn cloudwatch(&mut self) -> fmt::Result {
        self.tunnel_gauges("tunnel_state", "AWS's TunnelState: 1 up, 0 down.", |t| Some(up(t)))?;
        let [data_in, data_out] = ["AWS's TunnelDataIn, from the far end.", "AWS's TunnelDataOut, to the far end."];
        self.tunnel_counters("tunnel_data_in_bytes", data_in, |t| t.received.bytes)?;
        self.tunnel_counters("tunnel_data_out_bytes", data_out, |t| t.sent.bytes)
    }

    /// The label that all have, and these.
    fn interface<'l>(&self, more: &[(&'static str, &'l str)]) -> Labels<'l>
    where
        's: 'l,
    {
        let all: (_, &'l str) = ("interface", &self.status.interface.name);
        [all].into_iter().chain(more.iter().copied()).collect()
    }

    /// Every tunnel and its labels.
    fn tunnels(&self) -> impl Iterator<Item = (Labels<'s>, &'s Tunnel)> + use<'s> {
        let interface = &*self.status.interface.name;
        self.status.connections.iter().flat_map(move |connection| {
            connection.tunnels.iter().map(move |tunnel| {
                (vec![("interface", interface), ("connection", &connection.name), ("tunnel", &tunnel.name)], tunnel)
            })
        })
    }

    fn tunnel_gauges(&mut self, name: &str, help: &str, value: impl Fn(&Tunnel) -> Option<u64>) -> fmt::Result {
        self.gauges(name, help, self.tunnels().filter_map(|(labels, tunnel)| Some((labels, value(tunnel)?))))
    }

    fn tunnel_counters(&mut self, name: &str, help: &str, value: impl Fn(&Tunnel) -> u64) -> fmt::Result {
        self.counters(name, help, self.tunnels().map(|(labels, tunnel)| (labels, value(tunnel))))
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.gauges(name, help, [(self.interface(&[]), value)])
    }

    fn gauges<'l, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'l>, V)>,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        samples.into_iter().try_for_each(|(labels, value)| family.encode_family(&labels)?.encode_gauge(&value))
    }

    /// `_total` is added to the name.
    fn counters<'l, V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'l>, V)>,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        let none = None::<&Exemplar<NoLabelSet, f64>>;
        samples.into_iter().try_for_each(|(labels, value)| family.encode_family(&labels)?.encode_counter(&value, none))
    }
}

fn up(tunnel: &Tunnel) -> u64 {
    u64::from(tunnel.state == State::Up)
}

#[cfg(test)]
mod tests;
