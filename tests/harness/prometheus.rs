//! Debian's Prometheus beside a daemon in its gateway, with the alert rules that are shipped, and looks each second.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::host::{Host, finish};
use super::net::Net;
use super::stock::{installed, peers};
use super::{eventually, seconds};

/// Where it listens.
const ADDRESS: &str = "127.0.0.1:9090";

/// A running one. Killed on drop.
pub struct Prometheus<'n> {
    host: &'n Host,
    log: PathBuf,
    child: Child,
}

impl Net {
    /// Starts one in a site's gateway, to scrape `target` there. None, and loudly, if it is not installed.
    pub fn prometheus(&self, site: usize, target: &str) -> Option<Prometheus<'_>> {
        let program = program("prometheus")?;
        let folder = self.directory("prometheus");
        let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/prometheus/linkspan.rules.yml");
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\nrule_files: [{rules:?}]\n\
             scrape_configs: [{{job_name: linkspan, static_configs: [{{targets: [{target:?}]}}]}}]\n"
        );
        let (file, log) = (folder.join("prometheus.yml"), folder.join("log"));
        fs::write(&file, config).unwrap();
        let words = [
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", folder.join("data").display()),
            format!("--web.listen-address={ADDRESS}"),
        ];
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let output = fs::File::create(&log).unwrap();
        let mut command = self.gateway(site).command(program.to_str().unwrap(), &words);
        command.current_dir(&folder).stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        let prometheus = Prometheus { host: self.gateway(site), log, child: command.spawn().unwrap() };
        eventually(seconds(30), "Prometheus is ready", || prometheus.try_get("/-/ready"));
        Some(prometheus)
    }
}

impl Prometheus<'_> {
    /// What the page of its API at `path` has under "data".
    pub fn api(&self, path: &str) -> Value {
        let text = eventually(seconds(30), path, || self.try_get(path));
        let mut answer: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"));
        assert_eq!(answer["status"], "success", "{path}: {answer}");
        answer["data"].take()
    }

    /// The samples that an expression has now.
    pub fn query(&self, expression: &str) -> Vec<Value> {
        let escaped: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let mut data = self.api(&format!("/api/v1/query?query={escaped}"));
        data["result"].as_array_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The labels of every alert of this name that fires.
    pub fn firing(&self, name: &str) -> Vec<Value> {
        let data = self.api("/api/v1/alerts");
        let alerts = data["alerts"].as_array().expect("a list").iter();
        let fires = alerts.filter(|alert| alert["labels"]["alertname"] == name && alert["state"] == "firing");
        fires.map(|alert| alert["labels"].clone()).collect()
    }

    fn try_get(&self, path: &str) -> Option<String> {
        http_get(self.host, ADDRESS.parse().unwrap(), path)
    }
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of Prometheus\n{}---", fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

/// The body of a page, if the answer is 200.
pub fn http_get(host: &Host, address: SocketAddr, path: &str) -> Option<String> {
    let connect = || std::net::TcpStream::connect_timeout(&address, seconds(2));
    let mut stream = host.run(connect).ok()?;
    stream.set_read_timeout(Some(seconds(10))).ok()?;
    // HTTP/1.0: no chunks, and the end of the page is the end of the connection.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.lines().next()?.contains(" 200 ").then(|| body.to_owned())
}

/// `promtool check metrics` of a page: what it finds fault with.
pub fn check_metrics(page: &str) -> Option<String> {
    let mut command = Command::new(program("promtool")?);
    let mut child = command.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let faults = String::from_utf8(output.stderr).unwrap();
    Some(if output.status.success() { faults } else { format!("{}: {faults}", output.status) })
}

/// `promtool` with these arguments, which has to be content.
pub fn promtool(arguments: &[&str], within: Duration) {
    let Some(program) = program("promtool") else { return };
    let mut command = Command::new(program);
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR"));
    let finished = finish(command, within);
    assert!(finished.status.success(), "{arguments:?}: {finished:?}");
}

fn program(name: &str) -> Option<PathBuf> {
    let path = peers().join("prometheus/usr/bin").join(name);
    installed(&path).then_some(path)
}
