//! A daemon under the eyes of others: Prometheus with the shipped rules, readers of its JSON, an admin who changes its log.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::harness::daemon::{Daemon, LINKSPAN};
use crate::harness::host::{Finished, finish};
use crate::harness::monitored::{dashboard_queries, schema};
use crate::harness::prometheus::{check_metrics, http_get};
use crate::harness::traffic::pings_pass;
use crate::harness::*;

const METRICS: &str = "127.0.0.1:9586";

/// Two sites; A has a port for metrics.
fn link(net: &Net) -> (Daemon<'_>, Daemon<'_>) {
    net.link(&net.file(A, &[B]).with(&format!("metrics = {METRICS:?}")), &net.file(B, &[A]))
}

/// All that `linkspan status --json` says; it gives up after 2 s.
fn status(daemon: &Daemon<'_>) -> Value {
    let said = || Some(daemon.ask_status(&["--json"]).stdout).filter(|said| !said.is_empty());
    serde_json::from_str(&eventually(seconds(20), "its status", said)).unwrap()
}

fn log_level(daemon: &Daemon<'_>, level: &[&str]) -> Finished {
    let mut command = Command::new(LINKSPAN);
    command.args(["log-level", "--socket"]).arg(daemon.socket()).args(level);
    finish(command, seconds(10))
}

#[test]
fn a_cut_tunnel_fires_the_alert_in_a_real_prometheus_and_a_healed_one_ends_it() {
    let Some(net) = Net::two_sites() else { return };
    let Some(prometheus) = net.prometheus(A, METRICS) else { return };
    let (_a, _b) = link(&net);
    let up = || prometheus.query("linkspan_tunnel_up == 1").first().cloned();
    let sample = eventually(seconds(20), "it is scraped", up);
    assert_eq!(sample["metric"]["connection"], "site-2");
    assert_eq!(sample["metric"]["tunnel"], "only");
    let rules = prometheus.api("/api/v1/rules").to_string();
    assert!(rules.contains("LinkspanTunnelDown") && !rules.contains("\"health\":\"err\""), "{rules}");
    assert_eq!(prometheus.firing("LinkspanTunnelDown"), [] as [Value; 0]);

    net.lose(100);
    let down = || prometheus.firing("LinkspanTunnelDown").first().cloned();
    // 25 s of silence, the 10 s of the rule, and up to 5 s twice until the rules are looked at.
    let alert = eventually(seconds(90), "the alert fires", down);
    assert_eq!(alert["connection"], "site-2");
    assert_eq!(alert["severity"], "critical");

    net.lose(0);
    eventually(seconds(60), "the alert ends", || down().is_none().then_some(()));
}

#[test]
fn prometheus_takes_all_metrics_and_answers_every_question_of_the_dashboard() {
    let Some(net) = Net::two_sites() else { return };
    let Some(prometheus) = net.prometheus(A, METRICS) else { return };
    let (a, _b) = link(&net);
    pings_pass(net.lan(A), net.site(B).lan4(), &["-c", "300", "-i", "0.002"]);
    let page = http_get(net.gateway(A), METRICS.parse().unwrap(), "/metrics").expect("a page");
    assert_eq!(check_metrics(&page).as_deref(), Some(""), "{page}");
    assert!(page.lines().any(|line| line.starts_with("linkspan_tunnel_handshakes_total{") && !line.ends_with(" 0")));
    assert!(!page.contains(net.site(A).key.reveal().trim_end_matches('=')), "a key in the metrics");
    // 300 pings are a few milliseconds of work.
    let busy = |line: &&str| line.starts_with("linkspan_thread_busy_seconds_total{") && line.contains("inbound-0");
    assert!(page.lines().find(busy).is_some_and(|line| !line.ends_with(" 0.0")), "{page}");

    // The rate of anything needs two scrapes, and there are packets enough in each.
    let mut left = dashboard_queries();
    let changes_nothing = |query: &String| query.contains("changes(") || query.contains("reason");
    eventually(seconds(30), "an answer to each question", || {
        left.retain(|query| !changes_nothing(query) && prometheus.query(query).is_empty());
        left.is_empty().then_some(())
    });
    // What has no answer while all is well is at least understood.
    for query in dashboard_queries() {
        prometheus.query(&query);
    }
    let sample = || prometheus.query("linkspan_tunnel_sent_packets_total").first().cloned();
    let sample = eventually(seconds(10), "what was sent", sample);
    let sent: f64 = sample["value"][1].as_str().unwrap().parse().unwrap();
    assert!(sent <= a.state().sent(0).packets as f64);
}

#[test]
fn the_status_of_a_real_daemon_fits_the_published_schema() {
    let Some(net) = Net::two_sites() else { return };
    let b = net.start(B, &net.file(B, &[A]).endpoint(None::<&str>));
    let schema = schema();
    let fits = |daemon: &Daemon<'_>| {
        let answer = status(daemon);
        let faults: Vec<String> = schema.iter_errors(&answer).map(|error| format!("{error}")).collect();
        assert!(faults.is_empty(), "{faults:?} in {answer}");
        answer
    };
    b.wait("it answers", |_| true);
    let before = fits(&b);
    assert!(before["connections"][0]["tunnels"][0]["endpoint"].is_null(), "{before}");
    let a = net.start(A, &net.file(A, &[B]));
    b.wait_up();
    pings_pass(net.lan(A), net.site(B).lan4(), &["-c", "3", "-i", "0.2", "-W", "2"]);
    let after = fits(&b);
    let tunnel = &after["connections"][0]["tunnels"][0];
    assert!(tunnel["handshakes"]["completed"].as_u64() >= Some(1), "{after}");
    assert!(tunnel["wire"]["received_bytes"].as_u64() > tunnel["received"]["bytes"].as_u64(), "{after}");
    assert!(after["threads"].as_array().unwrap().iter().any(|thread| thread["name"] == "inbound-0"), "{after}");
    drop(a);
}

#[test]
fn a_rate_is_seen_while_something_goes_through() {
    let Some(net) = Net::two_sites() else { return };
    let (a, _b) = link(&net);
    let far = net.site(B).lan4().to_string();
    let mut ping = net.lan(A).command("ping", &["-q", "-i", "0.01", "-s", "1000", "-w", "30", &far]);
    let mut ping = ping.stdout(std::process::Stdio::null()).spawn().unwrap();
    let rate = |way: &str| {
        let answer = status(&a);
        answer["connections"][0]["tunnels"][0][way]["bits_per_s"].as_u64().unwrap()
    };
    let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        // Up to 100 packets/s of 1028 bytes: 822 kbit/s; fewer on a busy machine, never more.
        for way in ["sent", "received"] {
            eventually(seconds(20), "a rate", || (100_000..2_000_000).contains(&rate(way)).then_some(()));
        }
    }));
    let _ = ping.kill();
    let _ = ping.wait();
    seen.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    eventually(seconds(20), "no rate once it is quiet", || (rate("sent") < 100_000).then_some(()));
}

#[test]
fn the_log_level_of_a_running_daemon_changes_and_no_key_is_told() {
    let Some(net) = Net::two_sites() else { return };
    let a = net.start(A, &net.file(A, &[B]));
    a.wait("it answers", |_| true);
    assert!(log_level(&a, &[]).stdout.ends_with(": info\n"));
    assert!(!a.log().contains("DEBUG"));
    let changed = log_level(&a, &["trace"]);
    assert!(changed.status.success() && changed.stdout.ends_with(": trace\n"), "{changed:?}");
    let b = net.start(B, &net.file(B, &[A]));
    a.wait_up();
    eventually(seconds(10), "a line of the new level", || a.log().contains("DEBUG").then_some(()));
    let key = net.site(A).key.reveal();
    assert!(!a.log().contains(key.trim_end_matches('=')), "a key in the log");

    assert!(log_level(&a, &["error"]).status.success());
    let quiet = eventually(seconds(10), "what was under way is written", || {
        let before = a.log().len();
        std::thread::sleep(Duration::from_millis(200));
        (a.log().len() == before).then_some(before)
    });
    drop(b);
    assert!(log_level(&a, &["loud"]).stderr.contains("not a log level"));
    assert_eq!(log_level(&a, &[]).stdout.trim().rsplit(' ').next(), Some("error"));
    assert_eq!(a.log().len(), quiet, "{}", a.log());
}

#[test]
fn a_port_for_metrics_that_is_taken_is_told_and_no_reason_not_to_run() {
    let Some(net) = Net::two_sites() else { return };
    let other = net.gateway(A).listen(METRICS.parse().unwrap());
    let (a, _b) = net.link(&net.file(A, &[B]).with(&format!("metrics = {METRICS:?}")), &net.file(B, &[A]));
    let told = || a.ask_status(&[]).stdout.contains("choose another one with `metrics`");
    eventually(seconds(10), "the status tells", || told().then_some(()));
    let lines = a.log().lines().filter(|line| line.contains("WARN")).count();
    assert_eq!(lines, 1, "{}", a.log());
    drop(other);
    eventually(seconds(15), "the port is free, and taken", || (!told()).then_some(()));
    assert!(net.gateway(A).ask("ss", &["-Hltn"]).contains(METRICS));
}
