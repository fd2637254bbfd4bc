//! What other programs read of Linkspan: the JSON of the status and its schema, the metrics, and the alert rules and the
//! dashboard in `conf/` that are made of them.
#![cfg(not(feature = "sim"))]
// Helpers are tests, too: a failure is a panic.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

#[path = "harness/mod.rs"]
mod harness;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use harness::monitored::{dashboard_queries, exported, names, schema};
use harness::prometheus::{check_metrics, promtool};
use harness::seconds;
use linkspan::control::metrics;
use linkspan::control::status::Status;
use serde_json::{Value, json};

const RULES: &str = "conf/prometheus/linkspan.rules.yml";

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// A daemon with all that it may have.
fn status() -> Value {
    let traffic = json!({"packets": 9, "bytes": 9000, "packets_per_s": 1, "bits_per_s": 8000});
    let key = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
    let tunnel = json!({
        "name": "a", "public_key": key, "state": "up", "since": "2026-03-01T12:00:00Z", "since_s": 60,
        "endpoint": "192.0.2.1:51820", "configured_endpoint": null, "last_handshake_s": 50, "last_receive_s": 1,
        "mtu": 1420, "sent": traffic, "received": traffic, "wire": {"sent_bytes": 9999, "received_bytes": 9999},
        "handshakes": {"completed": 1, "initiations": 2, "failed": 1},
    });
    let interface = json!({"name": "wan0", "index": 7, "mtu": 1420, "port": 51820, "offloads": "tcp+udp",
        "public_key": key, "workers": 1});
    json!({
        "version": "0.1.0", "interface": interface, "uptime_s": 61, "state": "up",
        "connections": [{"name": "vpc", "networks": ["10.20.0.0/16"], "state": "up", "tunnels": [tunnel]}],
        "drops": [{"reason": "in_replay", "packets": 2, "sentence": "seen before"}],
        "threads": [{"name": "outbound-0", "busy_ms": 1500}], "clock_behind_s": 0, "warnings": ["a sentence"],
    })
}

fn page() -> String {
    metrics::page(&serde_json::from_value::<Status>(status()).unwrap())
}

#[test]
fn the_schema_takes_a_status_and_the_status_has_every_key_of_the_schema() {
    let schema = schema();
    let status = status();
    let faults: Vec<String> = schema.iter_errors(&status).map(|error| error.to_string()).collect();
    assert!(faults.is_empty(), "{faults:?}");
    // What the schema names and the daemon does not write, or the other way round, would be lost here.
    let read: Status = serde_json::from_value(status.clone()).unwrap();
    assert_eq!(serde_json::to_value(read).unwrap(), status);
}

/// Takes every key away, one at a time, and puts something else in the place of every value.
#[test]
fn the_schema_refuses_what_lacks_a_key_or_has_another_kind_of_value() {
    let schema = schema();
    let mut paths = Vec::new();
    leaves("", &status(), &mut paths);
    assert!(paths.len() > 40, "{paths:?}");
    for path in paths {
        let (parent, key) = path.rsplit_once('/').unwrap();
        let mut lacking = status();
        if let Some(object) = lacking.pointer_mut(parent).unwrap().as_object_mut() {
            object.remove(key);
            assert!(!schema.is_valid(&lacking), "{path} may be missing");
        }
        let mut other = status();
        *other.pointer_mut(&path).unwrap() = json!({"another": "thing"});
        assert!(!schema.is_valid(&other), "{path} may be anything");
    }
}

fn leaves(path: &str, value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => object.iter().for_each(|(key, value)| leaves(&format!("{path}/{key}"), value, found)),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(i, value)| leaves(&format!("{path}/{i}"), value, found))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => found.push(path.to_owned()),
    }
}

#[test]
fn prometheus_finds_no_fault_with_the_metrics() {
    let Some(faults) = check_metrics(&page()) else { return };
    assert_eq!(faults, "");
}

#[test]
fn the_linter_that_finds_none_would_find_one() {
    let Some(faults) = check_metrics("# TYPE TunnelState gauge\nTunnelState 1\n") else { return };
    assert!(faults.contains("camelCase") && faults.contains("no help text"), "{faults}");
}

#[test]
fn each_alert_fires_when_it_should_and_not_before() {
    promtool(&["check", "rules", RULES], seconds(20));
    promtool(&["test", "rules", "tests/prometheus/alerts.yml"], seconds(60));
}

#[test]
fn every_alert_has_its_test() {
    let (rules, tests) = (read(RULES), read("tests/prometheus/alerts.yml"));
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 8, "{alerts:?}");
    for alert in alerts {
        let block = |rest: &str| rest.lines().take(3).any(|line| line.contains("exp_labels"));
        let tested = tests.split(&format!("alertname: {alert}\n")).skip(1).any(block);
        assert!(tested, "{alert} is never seen to fire");
    }
}

#[test]
fn rules_and_dashboard_ask_for_nothing_that_is_not_exported() {
    let exported = exported(&page());
    let asked: BTreeSet<String> = names(&(read(RULES) + &read("conf/grafana/linkspan.json")));
    assert!(asked.len() > 12, "{asked:?}");
    let unknown: Vec<_> = asked.difference(&exported).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    // And the dashboard does without none but these.
    let shown: BTreeSet<String> = dashboard_queries().iter().flat_map(|query| names(query)).collect();
    let hidden: Vec<_> = exported.difference(&shown).filter(|name| name.starts_with("linkspan_tunnel")).collect();
    assert_eq!(hidden, ["linkspan_tunnel_handshake_initiations_total", "linkspan_tunnel_state_age_seconds"]);
}

#[test]
fn the_reasons_in_the_rules_exist() {
    let rules = read(RULES);
    let named = rules.split("reason=~\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    for reason in named.split('|') {
        assert!(page().contains(&format!("reason=\"{reason}\"")), "{reason}");
    }
}
