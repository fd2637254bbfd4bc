//! What a local client writes to the status socket: whatever it is, the server answers or hangs up, and lives.

use std::time::Duration;

use linkspan::control::log;
use linkspan::control::reload::{Answer, Wish};
use linkspan::control::status::Status;
use linkspan::control::status_server::{Answers, StatusServer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};

const STATUS: &str = r#"{"version":"0.1.0","interface":{"name":"ls0","index":7,"mtu":1420,"port":51820,
    "offloads":"tcp+udp","public_key":"AAAA","workers":2},"uptime_s":1,"state":"down","connections":[],"drops":[],
    "threads":[],"clock_behind_s":0,"warnings":[]}"#;
/// No request may hold the server up for longer.
const DEADLINE: Duration = Duration::from_secs(10);

struct Fixed(Status);

impl Answers for Fixed {
    fn status(&self) -> Status {
        self.0.clone()
    }

    fn log_level(&self) -> String {
        "info".to_owned()
    }

    fn set_log_level(&self, level: &str) -> anyhow::Result<()> {
        log::check(level)
    }

    async fn reload(&self, _: Wish) -> Option<Answer> {
        None
    }
}

struct World {
    runtime: Runtime,
    folder: tempfile::TempDir,
    server: StatusServer,
}

thread_local! {
    static WORLD: World = World::new();
}

impl World {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let server = runtime.block_on(async { StatusServer::bind(&folder.path().join("status")).unwrap() });
        Self { runtime, folder, server }
    }

    fn ask(&self, request: &[u8]) -> Vec<u8> {
        let daemon = Fixed(serde_json::from_str(STATUS).unwrap());
        self.runtime.block_on(async {
            tokio::select! {
                () = self.server.serve(&daemon) => unreachable!("it serves for ever"),
                answer = tokio::time::timeout(DEADLINE, self.converse(request)) => answer.expect("an answer in time"),
            }
        })
    }

    async fn converse(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = UnixStream::connect(self.folder.path().join("status")).await.unwrap();
        // It may hang up before it has read all.
        let _ = stream.write_all(request).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        answer
    }
}

/// The bytes that a client writes before it closes its sending side.
pub fn run(data: &[u8]) {
    WORLD.with(|world| {
        let answer = world.ask(data);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{}", String::from_utf8_lossy(&answer));
    });
}
