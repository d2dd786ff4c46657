//! Listeners and connections: limits, closing, replacing, shutdown, hostile clients.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail as tests do")]

mod common;

use berth_metadata::MetadataLimits;
use berth_types::{lease::ListenerChange, task::EngineSnapshot};
use common::{DEADLINE, Live, get, raw, read_one, sample};
use proptest::{prelude::*, test_runner::TestRunner};
use std::{fs, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    time::{Instant, timeout},
};

/// Short enough for tests that wait for it.
const SHORT: Duration = Duration::from_millis(150);

fn short() -> MetadataLimits {
    MetadataLimits {
        read_timeout: SHORT,
        write_timeout: SHORT,
        recovery_wait: SHORT,
        ..MetadataLimits::default()
    }
}

fn task_path(n: u8) -> String {
    format!("/v4/{}/task", sample::endpoint_id(n, 0))
}

fn ask(n: u8) -> String {
    format!("GET {} HTTP/1.1\r\nHost: h\r\n\r\n", task_path(n))
}

/// A connection that has been answered once and is kept open.
async fn kept(address: SocketAddr, n: u8) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(ask(n).as_bytes()).await.unwrap();
    assert!(read_one(&mut stream).await.starts_with("HTTP/1.1 200"));
    stream
}

/// Waits until the other side has closed this connection.
async fn closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    // A reset is a close too.
    timeout(DEADLINE, stream.read_to_end(&mut rest)).await.is_ok()
}

/// Sockets of this process that are bound to this port, as the kernel lists them: inode by inode.
fn own_sockets(port: u16) -> usize {
    let inodes: Vec<String> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|fd| {
            fs::read_link(fd.ok()?.path())
                .ok()?
                .to_str()?
                .strip_prefix("socket:[")?
                .strip_suffix(']')
                .map(str::to_owned)
        })
        .collect();
    let table = fs::read_to_string("/proc/self/net/tcp").unwrap();
    let local = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .filter(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields[1].ends_with(&local) && inodes.iter().any(|inode| inode == fields[9])
        })
        .count()
}

#[tokio::test]
async fn each_listener_answers_for_its_own_slots_task_only() {
    let live = Live::start(MetadataLimits::default());
    let (one, two, warm) = (
        live.open(sample::slot_id(1)).await,
        live.open(sample::slot_id(2)).await,
        live.open(sample::slot_id(3)).await,
    );
    for (address, own) in [(one, Some(1)), (two, Some(2)), (warm, None)] {
        for asked in [1, 2] {
            let expected = if own == Some(asked) { 200 } else { 404 };
            assert_eq!(get(address, &task_path(asked)).await.status, expected, "{own:?} asks for {asked}");
        }
    }
    live.stop().await;
}

#[tokio::test]
async fn a_published_change_is_in_the_next_answer_of_a_kept_connection() {
    let live = Live::start(MetadataLimits::default());
    let address = live.open(sample::slot_id(3)).await;
    live.enis.send_replace(sample::enis([(3, Some(1))]));
    let mut stream = kept(address, 1).await;
    live.enis.send_replace(sample::enis([(3, Some(2))]));
    stream.write_all(ask(1).as_bytes()).await.unwrap();
    assert!(read_one(&mut stream).await.starts_with("HTTP/1.1 404"), "the slot has another holder now");
    live.stop().await;
}

#[tokio::test]
async fn close_ends_listener_and_connections_before_it_is_done() {
    let live = Live::start(MetadataLimits::default());
    let address = live.open(sample::slot_id(1)).await;
    let other = live.open(sample::slot_id(2)).await;
    let mut idle = kept(address, 1).await;
    let mut half_sent = TcpStream::connect(address).await.unwrap();
    half_sent.write_all(b"GET /v4/").await.unwrap();
    let mut elsewhere = kept(other, 2).await;
    assert!(own_sockets(address.port()) >= 2);
    live.close(sample::slot_id(1)).await;
    assert_eq!(own_sockets(address.port()), 0, "an open descriptor would pin the namespace");
    assert!(TcpStream::connect(address).await.is_err());
    assert!(closed(&mut idle).await && closed(&mut half_sent).await);
    elsewhere.write_all(ask(2).as_bytes()).await.unwrap();
    assert!(read_one(&mut elsewhere).await.starts_with("HTTP/1.1 200"), "other slots go on");
    live.close(sample::slot_id(1)).await;
    live.close(sample::slot_id(9)).await;
    live.stop().await;
}

#[tokio::test]
async fn a_second_listener_of_a_slot_replaces_the_first() {
    let live = Live::start(MetadataLimits::default());
    let first = live.open(sample::slot_id(1)).await;
    let mut old = kept(first, 1).await;
    let second = live.open(sample::slot_id(1)).await;
    assert_eq!(get(second, &task_path(1)).await.status, 200);
    assert!(closed(&mut old).await);
    live.close(sample::slot_id(1)).await;
    assert_eq!(own_sockets(first.port()) + own_sockets(second.port()), 0);
    let again = live.open(sample::slot_id(1)).await;
    assert_eq!(get(again, &task_path(1)).await.status, 200, "a slot may be opened again");
    live.stop().await;
}

#[tokio::test]
async fn a_sender_that_does_not_wait_for_done_hurts_nobody() {
    let live = Live::start(MetadataLimits::default());
    live.open(sample::slot_id(1)).await;
    let (done, nobody) = oneshot::channel();
    drop(nobody);
    live.changes.send(ListenerChange::Close { slot: sample::slot_id(1), done }).await.unwrap();
    let address = live.open(sample::slot_id(2)).await;
    assert_eq!(get(address, &task_path(2)).await.status, 200);
    live.stop().await;
}

#[tokio::test]
async fn shutdown_closes_everything() {
    let live = Live::start(MetadataLimits::default());
    let address = live.open(sample::slot_id(1)).await;
    let mut idle = kept(address, 1).await;
    let mut half_sent = TcpStream::connect(address).await.unwrap();
    half_sent.write_all(b"GET /v4/").await.unwrap();
    live.stop().await;
    assert!(closed(&mut idle).await && closed(&mut half_sent).await);
    assert!(TcpStream::connect(address).await.is_err());
    assert_eq!(own_sockets(address.port()), 0);
}

#[tokio::test]
async fn serving_goes_on_when_the_eni_manager_is_gone() {
    let Live { engine, enis, changes, shutdown, running } = Live::start(MetadataLimits::default());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    changes.send(ListenerChange::Open { slot: sample::slot_id(1), listener }).await.unwrap();
    drop((changes, enis));
    assert_eq!(get(address, &task_path(1)).await.status, 200);
    shutdown.cancel();
    timeout(DEADLINE, running).await.unwrap().unwrap();
    drop(engine);
}

#[tokio::test]
async fn idle_and_slow_connections_are_closed() {
    let live = Live::start(short());
    let address = live.open(sample::slot_id(1)).await;
    let mut idle = kept(address, 1).await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nX-Slow: ").await.unwrap();
    let start = Instant::now();
    assert!(closed(&mut idle).await && closed(&mut silent).await && closed(&mut slow).await);
    assert!(start.elapsed() < SHORT * 20, "{:?}", start.elapsed());
    live.stop().await;
}

#[tokio::test]
async fn a_body_that_is_too_long_or_too_slow_is_answered_and_the_connection_closed() {
    let live = Live::start(short());
    let address = live.open(sample::slot_id(1)).await;
    let head =
        |length| format!("POST {} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n", task_path(1));
    let slow = String::from_utf8(raw(address, (head(10) + "abc").as_bytes()).await).unwrap();
    assert!(slow.starts_with("HTTP/1.1 200") && slow.contains("\r\nConnection: close\r\n"), "{slow}");
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all((head(1 << 30) + &"x".repeat(100_000)).as_bytes()).await.unwrap();
    let answer = read_one(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\r\nConnection: close\r\n"), "{answer}");
    assert!(closed(&mut stream).await);
    live.stop().await;
}

#[tokio::test]
async fn a_head_over_the_limit_is_refused() {
    let live = Live::start(short());
    let address = live.open(sample::slot_id(1)).await;
    let head = format!("GET / HTTP/1.1\r\nX-Long: {}\r\n\r\n", "x".repeat(9000));
    let answer = String::from_utf8(raw(address, head.as_bytes()).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert_eq!(get(address, &task_path(1)).await.status, 200);
    live.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_given_up() {
    let live = Live::start(short());
    let address = live.open(sample::slot_id(1)).await;
    let mut deaf = TcpStream::connect(address).await.unwrap();
    let requests = ask(1).repeat(100);
    // It asks until nothing more is taken, because our answers fill its buffers, and until we hang up.
    let ended = timeout(DEADLINE, async { while deaf.write_all(requests.as_bytes()).await.is_ok() {} }).await;
    assert!(ended.is_ok(), "still connected");
    assert_eq!(get(address, &task_path(1)).await.status, 200);
    live.stop().await;
}

#[tokio::test]
async fn a_caller_over_its_limit_waits_and_is_answered() {
    let live = Live::start(MetadataLimits { connections_per_listener: 2, ..MetadataLimits::default() });
    let address = live.open(sample::slot_id(1)).await;
    let other = live.open(sample::slot_id(2)).await;
    let first = kept(address, 1).await;
    let _second = kept(address, 1).await;
    let mut third = TcpStream::connect(address).await.unwrap();
    third.write_all(ask(1).as_bytes()).await.unwrap();
    // While it waits, another slot is served: this answer comes after the third's request is in the queue.
    assert_eq!(get(other, &task_path(2)).await.status, 200);
    assert_eq!(third.try_read(&mut [0; 16]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    drop(first);
    assert!(read_one(&mut third).await.starts_with("HTTP/1.1 200"));
    live.stop().await;
}

#[tokio::test]
async fn a_slot_that_uses_up_the_total_does_not_starve_another() {
    // Nothing times out before the test does: only the reserve can help.
    let patient = MetadataLimits { read_timeout: DEADLINE * 2, ..MetadataLimits::default() };
    let live = Live::start(MetadataLimits { connections_total: 4, ..patient });
    let (greedy, modest) = (live.open(sample::slot_id(1)).await, live.open(sample::slot_id(2)).await);
    // Its own and the total are taken here; the others wait in the kernel's queue.
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(kept(greedy, 1).await);
    }
    let mut waiting = TcpStream::connect(greedy).await.unwrap();
    waiting.write_all(ask(1).as_bytes()).await.unwrap();
    for _ in 0..3 {
        assert_eq!(get(modest, &task_path(2)).await.status, 200);
    }
    assert_eq!(waiting.try_read(&mut [0; 16]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    drop(held);
    assert!(read_one(&mut waiting).await.starts_with("HTTP/1.1 200"));
    live.stop().await;
}

#[tokio::test]
async fn a_request_before_recovery_waits_and_is_told_when_to_come_back() {
    let live = Live::start(short());
    let address = live.open(sample::slot_id(1)).await;
    let known = live.engine.borrow().clone();
    live.engine.send_replace(Arc::new(EngineSnapshot::default()));
    let response = get(address, &task_path(1)).await;
    assert_eq!((response.status, response.header("Retry-After")), (503, Some("1")));
    let mut waiting = TcpStream::connect(address).await.unwrap();
    waiting.write_all(ask(1).as_bytes()).await.unwrap();
    live.engine.send_replace(known);
    assert!(read_one(&mut waiting).await.starts_with("HTTP/1.1 200"));
    live.stop().await;
}

/// Runs a property against one live endpoint, which has to answer as ever afterwards.
fn against_live<S: Strategy>(
    strategy: &S,
    property: impl AsyncFn(SocketAddr, S::Value) -> Result<(), TestCaseError>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let live = runtime.block_on(async { Live::start(short()) });
    let address = runtime.block_on(live.open(sample::slot_id(1)));
    let cases = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) };
    let outcome = TestRunner::new(cases).run(strategy, |value| runtime.block_on(property(address, value)));
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    runtime.block_on(async {
        assert_eq!(get(address, &task_path(1)).await.status, 200);
        live.stop().await;
    });
}

/// Bytes that look like requests now and then, so that more than the first line is reached.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let like_http = "(GET|POST|HEAD|\\x00|PRI) (/|\\*|//|/v4/[^\r\n ]{0,30}|http://h/v4/x) HTTP/1\\.[019]\r\n\
                     (Host: h\r\n|Content-Length: (-1|0|5|99999999999999999999)\r\n|Transfer-Encoding: chunked\r\n|Expect: 100-continue\r\n|[^\r]{0,20}\r\n){0,4}\r\n\\PC{0,40}";
    prop_oneof![prop::collection::vec(any::<u8>(), 0..300), like_http.prop_map(String::into_bytes)]
}

#[test]
fn no_bytes_break_a_listener_or_bring_out_another_tasks_data() {
    against_live(&bytes(), async |address, bytes| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&bytes).await.ok();
        stream.shutdown().await.ok();
        let mut answer = Vec::new();
        let ended = timeout(DEADLINE, stream.read_to_end(&mut answer)).await;
        prop_assert!(ended.is_ok(), "left hanging");
        let answer = String::from_utf8_lossy(&answer);
        prop_assert!(answer.is_empty() || answer.starts_with("HTTP/1."), "{answer}");
        prop_assert!(!answer.contains(sample::arn(2).as_str()), "{answer}");
        Ok(())
    });
}

#[test]
fn every_path_gets_an_answer() {
    let own = sample::endpoint_id(1, 0);
    let paths = format!(
        "/(v[2-5]|api|\\.\\.|)/({own}|nope|%[0-9a-f]{{2}}|[!-~&&[^#]]{{0,12}})/?(task|stats|[!-~&&[^#]]{{0,8}})"
    );
    against_live(&proptest::string::string_regex(&paths).unwrap(), async |address, path| {
        let response = get(address, &path).await;
        prop_assert!([200, 301, 400, 404, 500].contains(&response.status), "{}", response.head);
        Ok(())
    });
}
