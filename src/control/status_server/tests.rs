use std::cell::{Cell, RefCell};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener as StdListener;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use super::*;
use crate::control::http::{BODY_BYTES, CONNECTIONS, DEADLINE, HEADER_BYTES};
use crate::control::reload::Outcome;
use crate::control::status::tests::example;
use crate::control::status_client::{self, fetch, log_level, set_log_level};

/// A daemon that is always the same, but for its log.
#[derive(Default)]
struct Example {
    asked: Cell<u32>,
    level: RefCell<String>,
    /// No longer there for a reload.
    stopping: bool,
}

fn told(outcome: Outcome) -> Answer {
    Answer { outcome, changes: vec!["~ a".into()], notes: vec![], why: None }
}

impl Answers for Example {
    fn status(&self) -> Status {
        self.asked.set(self.asked.get() + 1);
        example()
    }

    fn log_level(&self) -> String {
        self.level.borrow().clone()
    }

    fn set_log_level(&self, level: &str) -> anyhow::Result<()> {
        anyhow::ensure!(level != "loud", "not a log level: \"loud\"");
        level.clone_into(&mut self.level.borrow_mut());
        Ok(())
    }

    async fn reload(&self, wish: Wish) -> Option<Answer> {
        // Longer than a client may take.
        sleep(if self.stopping { Duration::ZERO } else { DEADLINE + Duration::from_secs(1) }).await;
        let outcome = if wish == Wish::Reload { Outcome::Failed } else { Outcome::Different };
        (!self.stopping).then(|| told(outcome))
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

async fn ask(path: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(path).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Runs `client` beside a server at `path`.
async fn with_server<T>(path: &Path, client: impl Future<Output = T>) -> T {
    let server = StatusServer::bind(path).unwrap();
    let daemon = Example::default();
    tokio::select! {
        () = server.serve(&daemon) => unreachable!(),
        result = timeout(Duration::from_secs(10), client) => result.expect("within 10 s"),
    }
}

#[tokio::test]
async fn the_client_fetches_what_the_server_says() {
    let folder = folder();
    let path = folder.path().join("made/ls0.sock");
    let server = StatusServer::bind(&path).unwrap();
    let daemon = Example::default();
    tokio::select! {
        () = server.serve(&daemon) => unreachable!(),
        result = async { (fetch(&path).await, fetch(&path).await) } => {
            assert_eq!(result.0.unwrap(), example());
            assert_eq!(result.1.unwrap(), example());
        }
    }
    assert_eq!(daemon.asked.get(), 2);
}

#[tokio::test]
async fn anything_else_is_404_or_405() {
    let folder = folder();
    let path = folder.path().join("s");
    with_server(&path, async {
        assert!(ask(&path, "GET /else HTTP/1.1\r\nHost: x\r\n\r\n").await.starts_with("HTTP/1.1 404"));
        let post = ask(&path, "POST /status HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await;
        assert!(post.starts_with("HTTP/1.1 405") && post.contains("allow: GET"), "{post}");
        assert!(ask(&path, "nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    })
    .await;
}

#[tokio::test]
async fn metrics_come_by_the_socket_too() {
    let folder = folder();
    let path = folder.path().join("s");
    with_server(&path, async {
        let answer = ask(&path, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\nlinkspan_tunnel_up{"), "{answer}");
    })
    .await;
}

#[tokio::test]
async fn the_log_level_is_told_and_set_and_refused_with_the_reason() {
    let folder = folder();
    let path = folder.path().join("s");
    with_server(&path, async {
        assert_eq!(set_log_level(&path, "debug").await.unwrap(), "debug");
        assert_eq!(log_level(&path).await.unwrap(), "debug");
        let error = set_log_level(&path, "loud").await.unwrap_err();
        assert_eq!(error.to_string(), "not a log level: \"loud\"");
        assert_eq!(log_level(&path).await.unwrap(), "debug");
        let error = set_log_level(&path, &"x".repeat(2 * BODY_BYTES)).await.unwrap_err();
        assert!(error.to_string().contains("too much"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn an_endless_header_is_refused() {
    let folder = folder();
    let path = folder.path().join("s");
    let request = format!("GET /status HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(2 * HEADER_BYTES));
    let answer = with_server(&path, async {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        // The server may hang up before it has read all.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        answer
    })
    .await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn seventeen_silent_clients_do_not_keep_the_next_one_out_for_ever() {
    let folder = folder();
    let path = folder.path().join("s");
    let server = StatusServer::bind(&path).unwrap();
    let daemon = Example::default();
    tokio::select! {
        () = server.serve(&daemon) => unreachable!(),
        () = async {
            let started = Instant::now();
            let mut silent = Vec::new();
            for _ in 0..CONNECTIONS {
                silent.push(UnixStream::connect(&path).await.unwrap());
            }
            let mut stream = UnixStream::connect(&path).await.unwrap();
            stream.write_all(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            assert!(started.elapsed() < 2 * DEADLINE);
        } => {}
    }
}

#[tokio::test]
async fn the_file_is_for_owner_and_group_and_goes_at_the_end() {
    let folder = folder();
    let path = folder.path().join("s");
    let server = StatusServer::bind(&path).unwrap();
    assert_eq!(mode(&path), 0o660);
    drop(server);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_new_folder_lets_the_group_through_and_an_old_one_stays_as_it_is() {
    let folder = folder();
    let made = folder.path().join("made");
    let _server = StatusServer::bind(&made.join("s")).unwrap();
    assert_eq!(mode(&made), 0o755);
    let old = folder.path().join("old");
    std::fs::DirBuilder::new().mode(0o700).create(&old).unwrap();
    let _server = StatusServer::bind(&old.join("s")).unwrap();
    assert_eq!(mode(&old), 0o700);
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_living_one_is_an_error() {
    let folder = folder();
    let path = folder.path().join("s");
    drop(StdListener::bind(&path).unwrap());
    assert!(path.exists(), "std leaves the file");
    let living = StatusServer::bind(&path).unwrap();
    let error = StatusServer::bind(&path).unwrap_err();
    assert!(error.to_string().contains("another daemon answers at"), "{error}");
    drop(living);
    std::fs::write(&path, "a file").unwrap();
    let error = StatusServer::bind(&path).unwrap_err();
    assert!(error.to_string().contains("is no socket"), "{error}");
}

#[tokio::test]
async fn where_it_cannot_listen_it_says_why_and_what_to_do() {
    let folder = folder();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = StatusServer::bind(&file.join("below/s")).unwrap_err();
    assert!(error.to_string().contains("--socket"), "{error}");
    let error = StatusServer::bind(&folder.path().join("s".repeat(200))).unwrap_err();
    assert!(error.to_string().ends_with("; choose a shorter path"), "{error}");
    assert!(StatusServer::bind(Path::new("/proc/s")).unwrap_err().to_string().contains("; "));
}

#[tokio::test]
async fn a_successors_socket_is_left_alone() {
    let folder = folder();
    let path = folder.path().join("s");
    let first = StatusServer::bind(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let second = StatusServer::bind(&path).unwrap();
    drop(first);
    assert!(path.exists());
    drop(second);
}

#[tokio::test]
async fn a_reload_waits_for_its_answer_and_tells_the_wish_by_the_method() {
    let folder = folder();
    let path = folder.path().join("s");
    let reload = async |wish| status_client::reload(&path, wish).await;
    with_server(&path, async {
        let (reloaded, compared) = tokio::join!(reload(Wish::Reload), reload(Wish::Compare));
        assert_eq!(reloaded.unwrap(), told(Outcome::Failed));
        assert_eq!(compared.unwrap(), told(Outcome::Different));
    })
    .await;
    let server = StatusServer::bind(&path).unwrap();
    let daemon = Example { stopping: true, ..Example::default() };
    tokio::select! {
        () = server.serve(&daemon) => unreachable!(),
        gone = reload(Wish::Reload) => assert_eq!(gone.unwrap_err().to_string(), "the daemon is stopping"),
    }
}
