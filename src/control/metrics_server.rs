//! `GET /metrics` on a loopback port, for a Prometheus on this machine. Anybody on it may ask: there is no secret there.

use std::cell::{OnceCell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::http::{self, Reply};
use super::metrics;
use super::status::Status;

/// How long to wait for a port that is taken. Any user of this machine may take it, while the daemon restarts for example:
/// that must not keep the tunnels down.
const RETRY: Duration = Duration::from_secs(5);

/// The listening port, or the wish for it.
pub(super) struct MetricsServer {
    address: SocketAddr,
    listener: OnceCell<TcpListener>,
    problem: RefCell<Option<String>>,
}

impl MetricsServer {
    /// Listens at `address`, or tries again while it serves. Inside a tokio runtime.
    pub(super) async fn open(address: SocketAddr) -> Self {
        let server = Self { address, listener: OnceCell::new(), problem: RefCell::default() };
        server.listen().await;
        server
    }

    /// The same, if there is to be one.
    pub(super) async fn open_if(address: Option<SocketAddr>) -> Option<Self> {
        match address {
            Some(address) => Some(Self::open(address).await),
            None => None,
        }
    }

    /// Why nobody can ask as yet, and the remedy.
    pub(super) fn problem(&self) -> Option<String> {
        self.problem.borrow().clone()
    }

    /// Answers until dropped. `status` is asked once for each request.
    pub(super) async fn serve(&self, status: impl Fn() -> Status) {
        http::serve(|| self.accept(), async |head: &Parts, _: &[u8]| answer(head, &status)).await;
    }

    async fn listen(&self) {
        let problem = match TcpListener::bind(self.address).await {
            Ok(listener) => {
                self.listener.get_or_init(|| listener);
                None
            }
            Err(error) => Some(refused(self.address, &error)),
        };
        let before = self.problem.replace(problem.clone());
        match problem {
            Some(problem) if before.as_ref() != Some(&problem) => warn!("{problem}"),
            None if before.is_some() => info!("listening at {} for metrics", self.address),
            _ => {}
        }
    }

    async fn accept(&self) -> TcpStream {
        loop {
            let Some(listener) = self.listener.get() else {
                sleep(RETRY).await;
                self.listen().await;
                continue;
            };
            match listener.accept().await {
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

fn refused(address: SocketAddr, error: &io::Error) -> String {
    #[expect(clippy::wildcard_enum_match_arm, reason = "dozens of kinds, two with a remedy")]
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => "; another program has that port; choose another one with `metrics`",
        io::ErrorKind::AddrNotAvailable => "; this host has no such address; write metrics = \"127.0.0.1:9586\"",
        _ => "",
    };
    format!("cannot listen at {address} for metrics: {error}{remedy}; trying again")
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
        let server = listening().await;
        let address = server.listener.get().unwrap().local_addr().unwrap();
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

    async fn listening() -> MetricsServer {
        let server = MetricsServer::open("127.0.0.1:0".parse().unwrap()).await;
        assert_eq!(server.problem(), None);
        server
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_named_with_the_key_to_change_and_taken_once_it_is_free() {
        let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = MetricsServer::open(other.local_addr().unwrap()).await;
        let problem = server.problem().unwrap();
        assert!(problem.contains("choose another one with `metrics`"), "{problem}");
        drop(other);
        // A program that another test is starting may hold the listener a little longer.
        let end = tokio::time::Instant::now() + Duration::from_secs(2);
        while server.problem().is_some() && tokio::time::Instant::now() < end {
            sleep(Duration::from_millis(10)).await;
            server.listen().await;
        }
        assert!(server.problem().is_none() && server.listener.get().is_some());
    }

    #[tokio::test]
    async fn an_address_that_is_not_this_hosts_is_named() {
        // TEST-NET-1 is nobody's.
        let problem = MetricsServer::open("192.0.2.1:9586".parse().unwrap()).await.problem().unwrap();
        assert!(problem.contains("no such address"), "{problem}");
    }
}
