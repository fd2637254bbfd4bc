//! `GET /metrics` on a loopback port, for a Prometheus on this machine. Anybody on it may ask: there is no secret there.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::anyhow;
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tracing::debug;

use super::http::{self, Reply};
use super::metrics;
use super::status::Status;

/// The listening port.
pub(super) struct MetricsServer(TcpListener);

impl MetricsServer {
    /// Listens at `address`. Inside a tokio runtime.
    ///
    /// # Errors
    /// When that is taken, or not an address of this host.
    pub(super) async fn bind(address: SocketAddr) -> anyhow::Result<Self> {
        TcpListener::bind(address).await.map(Self).map_err(|error| refused(address, error))
    }

    /// The same, if there is to be one.
    ///
    /// # Errors
    /// As [`MetricsServer::bind`].
    pub(super) async fn bind_if(address: Option<SocketAddr>) -> anyhow::Result<Option<Self>> {
        match address {
            Some(address) => Self::bind(address).await.map(Some),
            None => Ok(None),
        }
    }

    /// Answers until dropped. `status` is asked once for each request.
    pub(super) async fn serve(&self, status: impl Fn() -> Status) {
        http::serve(|| self.accept(), async |head: &Parts, _: &[u8]| answer(head, &status)).await;
    }

    async fn accept(&self) -> TcpStream {
        loop {
            match self.0.accept().await {
                Ok((stream, _)) => return stream,
                Err(error) => {
                    // Out of descriptors, most likely: that passes.
                    debug!("metrics: {error}");
                    sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

fn answer(head: &Parts, status: &impl Fn() -> Status) -> Reply {
    match (head.uri.path(), &head.method) {
        ("/metrics", &Method::GET) => metrics::reply(&status()),
        ("/metrics", _) => http::not_allowed("GET"),
        _ => http::text(StatusCode::NOT_FOUND, "there is only /metrics"),
    }
}

fn refused(address: SocketAddr, error: io::Error) -> anyhow::Error {
    #[expect(clippy::wildcard_enum_match_arm, reason = "dozens of kinds, two with a remedy")]
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => ": another program has that port; choose another one with `metrics`",
        io::ErrorKind::AddrNotAvailable => ": this host has no such address; write metrics = \"127.0.0.1:9586\"",
        _ => "",
    };
    anyhow!(error).context(format!("cannot listen at {address} for metrics{remedy}"))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::timeout;

    use super::*;
    use crate::control::status::tests::example;

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn it_tells_metrics_and_nothing_else() {
        let server = MetricsServer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = server.0.local_addr().unwrap();
        let questions = async {
            let answer = ask(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
            assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("linkspan_tunnel_up{"), "{answer}");
            assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
            for (request, code) in [
                ("GET /status", "404"),
                ("GET /log-level", "404"),
                ("POST /log-level", "404"),
                ("POST /metrics", "405"),
            ] {
                let answer = ask(address, &format!("{request} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
                assert!(answer.starts_with(&format!("HTTP/1.1 {code}")), "{request}: {answer}");
            }
        };
        tokio::select! {
            () = server.serve(example) => unreachable!(),
            done = timeout(Duration::from_secs(10), questions) => done.expect("within 10 s"),
        }
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_named_with_the_key_to_change() {
        let first = MetricsServer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let error = MetricsServer::bind(first.0.local_addr().unwrap()).await.err().unwrap();
        assert!(error.to_string().ends_with("choose another one with `metrics`"), "{error}");
        // TEST-NET-1 is nobody's.
        let error = MetricsServer::bind("192.0.2.1:9586".parse().unwrap()).await.err().unwrap();
        assert!(error.to_string().contains("no such address"), "{error}");
    }
}
