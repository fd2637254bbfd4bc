use std::cell::Cell;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener as StdListener;
use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::*;
use crate::control::reload::{Answer, Outcome};
use crate::control::status::tests::example;
use crate::control::status_client::{fetch, reload};

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

/// A daemon that takes no reloads any more.
fn nobody() -> mpsc::Sender<reload::Request> {
    mpsc::channel(1).0
}

/// Runs `client` beside a server at `path`.
async fn with_server<T>(path: &Path, client: impl Future<Output = T>) -> T {
    let server = StatusServer::bind(path).unwrap();
    let nobody = nobody();
    tokio::select! {
        () = server.serve(example, &nobody) => unreachable!(),
        result = timeout(Duration::from_secs(10), client) => result.expect("within 10 s"),
    }
}

#[tokio::test]
async fn the_client_fetches_what_the_server_says() {
    let folder = folder();
    let path = folder.path().join("made/ls0.sock");
    let server = StatusServer::bind(&path).unwrap();
    let asked = Cell::new(0);
    let status = || {
        asked.set(asked.get() + 1);
        example()
    };
    let nobody = nobody();
    tokio::select! {
        () = server.serve(status, &nobody) => unreachable!(),
        result = async { (fetch(&path).await, fetch(&path).await) } => {
            assert_eq!(result.0.unwrap(), example());
            assert_eq!(result.1.unwrap(), example());
        }
    }
    assert_eq!(asked.get(), 2);
}

#[tokio::test]
async fn anything_else_is_404_or_405() {
    let folder = folder();
    let path = folder.path().join("s");
    with_server(&path, async {
        assert!(ask(&path, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.starts_with("HTTP/1.1 404"));
        let post = ask(&path, "POST /status HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await;
        assert!(post.starts_with("HTTP/1.1 405") && post.contains("allow: GET"), "{post}");
        assert!(ask(&path, "nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400"));
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
    let nobody = nobody();
    tokio::select! {
        () = server.serve(example, &nobody) => unreachable!(),
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
    let server = StatusServer::bind(&path).unwrap();
    let (wishes, mut asked) = mpsc::channel::<reload::Request>(1);
    let answer = |outcome| Answer { outcome, changes: vec!["~ a".into()], notes: vec![], why: None };
    let daemon = async {
        while let Some((wish, asker)) = asked.recv().await {
            // Longer than a client may take.
            sleep(DEADLINE + Duration::from_secs(1)).await;
            let outcome = if wish == Wish::Reload { Outcome::Failed } else { Outcome::Different };
            asker.send(answer(outcome)).unwrap();
        }
    };
    tokio::select! {
        () = server.serve(example, &wishes) => unreachable!(),
        () = daemon => unreachable!(),
        result = async { tokio::join!(reload(&path, Wish::Reload), reload(&path, Wish::Compare)) } => {
            assert_eq!(result.0.unwrap(), answer(Outcome::Failed));
            assert_eq!(result.1.unwrap(), answer(Outcome::Different));
        }
    }
    drop(server);
    let gone = with_server(&path, reload(&path, Wish::Reload)).await.unwrap_err().to_string();
    assert!(gone.contains("503"), "{gone}");
}
