//! The listener in a real namespace: a request from inside is answered by the process outside, and a close lets the namespace go.
//!
//! All of it happens below a namespace of the test's own; the machine's network is not touched. Needs root and iproute2.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail as tests do")]

mod common;

use berth_metadata::MetadataLimits;
use berth_types::lease::ListenerChange;
use common::{DEADLINE, Live, read_one, sample};
use nix::sched::{CloneFlags, unshare};
use std::{io::Write, net::TcpListener, process::Command, thread, time::Instant};
use tokio::net::TcpStream;

/// Moves the calling thread, and with it all that it starts, into a fresh network namespace. The thread has to end afterwards.
#[allow(
    clippy::disallowed_methods,
    reason = "on a thread of the test's own, which ends in the namespace that it made"
)]
fn enter_new_namespace() {
    unshare(CloneFlags::CLONE_NEWNET).expect("unshare(CLONE_NEWNET): this test runs as root");
}

fn ip(arguments: &str) -> bool {
    Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .expect("ip (iproute2) is installed")
        .status
        .success()
}

/// Path of the calling thread's namespace, as other processes see it.
fn own_namespace() -> String {
    let thread = std::fs::read_link("/proc/thread-self").unwrap();
    format!("/proc/{}/ns/net", thread.display())
}

/// A task's namespace: the metadata listener, and a client connected to it. Its only link is one end of a veth pair whose other end,
/// `witness`, is in the namespace `outer`, and goes when the task's namespace goes.
fn task_namespace(outer: &str) -> (TcpListener, std::net::TcpStream) {
    enter_new_namespace();
    assert!(ip("link set lo up") && ip("address add 169.254.170.2/32 dev lo"));
    assert!(ip(&format!("link add eth0 type veth peer name witness netns {outer}")));
    let listener = TcpListener::bind("169.254.170.2:80").unwrap();
    let client = std::net::TcpStream::connect("169.254.170.2:80").unwrap();
    (listener, client)
}

async fn serve_and_close() {
    let outer = own_namespace();
    // The thread has ended when this returns: only the two sockets keep the namespace.
    let (listener, mut client) = thread::spawn(move || task_namespace(&outer)).join().unwrap();
    assert!(ip("link show witness"), "the namespace lives");

    let live = Live::start(MetadataLimits::default());
    live.changes.send(ListenerChange::Open { slot: sample::slot_id(1), listener }).await.unwrap();
    let path = format!("/v4/{}", sample::endpoint_id(1, 0));
    write!(client, "GET {path} HTTP/1.1\r\nHost: 169.254.170.2\r\n\r\n").unwrap();
    client.set_nonblocking(true).unwrap();
    let mut client = TcpStream::from_std(client).unwrap();
    let answer = read_one(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("\r\nX-Rate-Limit-Request-Remote-Addr: 169.254.170.2:"), "{answer}");

    // The client's end is the test's: without it, whatever still pins the namespace is ours.
    drop(client);
    assert!(ip("link show witness"), "the listener pins the namespace");
    live.close(sample::slot_id(1)).await;
    let deadline = Instant::now() + DEADLINE;
    while ip("link show witness") {
        assert!(Instant::now() < deadline, "the namespace is still pinned");
        tokio::task::yield_now().await;
    }
    live.stop().await;
}

#[test]
fn a_closed_listener_lets_its_namespace_go() {
    let test = thread::spawn(|| {
        enter_new_namespace();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(serve_and_close());
    });
    test.join().unwrap();
}
