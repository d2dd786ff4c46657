//! A live endpoint on loopback, and a client that shows every byte.

#![allow(dead_code, reason = "each test takes its part")]

pub(crate) mod sample;

use berth_metadata::{Metadata, MetadataConfig, MetadataLimits};
use berth_types::{
    eni::EniSnapshot,
    ids::SlotId,
    lease::{LISTENER_QUEUE, ListenerChange},
    task::EngineSnapshot,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Nothing here takes this long unless it hangs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// A running endpoint and the ends of its channels.
pub(crate) struct Live {
    pub(crate) engine: watch::Sender<Arc<EngineSnapshot>>,
    pub(crate) enis: watch::Sender<Arc<EniSnapshot>>,
    pub(crate) changes: mpsc::Sender<ListenerChange>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) running: JoinHandle<()>,
}

impl Live {
    /// Serves nothing yet; slot 1 is leased by task 1, slot 2 by task 2, slot 3 is warm.
    pub(crate) fn start(limits: MetadataLimits) -> Self {
        let (engine, engine_seen) = watch::channel(sample::engine([sample::task(1), sample::task(2)]));
        let (enis, enis_seen) = watch::channel(sample::enis([(1, Some(1)), (2, Some(2)), (3, None)]));
        let (changes, queue) = mpsc::channel(LISTENER_QUEUE);
        let shutdown = CancellationToken::new();
        let metadata = Metadata::new(MetadataConfig { limits, ..sample::config() }, engine_seen, enis_seen);
        let running = tokio::spawn(metadata.run(queue, shutdown.clone()));
        Self { engine, enis, changes, shutdown, running }
    }

    /// Opens a listener of this slot on loopback.
    pub(crate) async fn open(&self, slot: SlotId) -> SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        self.changes.send(ListenerChange::Open { slot, listener }).await.unwrap();
        address
    }

    /// Closes this slot's listener and waits until that is done.
    pub(crate) async fn close(&self, slot: SlotId) {
        let (done, closed) = oneshot::channel();
        self.changes.send(ListenerChange::Close { slot, done }).await.unwrap();
        timeout(DEADLINE, closed).await.unwrap().unwrap();
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        timeout(DEADLINE, self.running).await.unwrap().unwrap();
    }
}

/// A response, read apart as little as a test needs.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// The head as it came, status line included.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        // With the name's case as given: some scripts match it so.
        self.head.lines().find_map(|line| {
            line.strip_prefix(name)?.strip_prefix(": ").or(line.strip_prefix(name)?.strip_prefix(":"))
        })
    }
}

/// Sends these bytes and reads until the other side closes.
pub(crate) async fn raw(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The other side may answer and close before it has read everything.
    stream.write_all(bytes).await.ok();
    let mut answer = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("the connection ends").ok();
    answer
}

/// One request on a connection of its own.
pub(crate) async fn request(address: SocketAddr, method: &str, target: &str, more: &str) -> Response {
    let head =
        format!("{method} {target} HTTP/1.1\r\nHost: 169.254.170.2\r\nConnection: close\r\n{more}\r\n");
    let answer = String::from_utf8(raw(address, head.as_bytes()).await).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{target}: {answer:?}"));
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap();
    Response { status, head: head.into(), body: body.into() }
}

pub(crate) async fn get(address: SocketAddr, target: &str) -> Response {
    request(address, "GET", target, "").await
}

/// Reads one response with a Content-Length from a kept connection.
pub(crate) async fn read_one(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length: usize =
                head.split("Content-Length: ").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
            if body.len() >= length {
                return text.into_owned();
            }
        }
        let read = timeout(DEADLINE, stream.read_buf(&mut bytes)).await.expect("an answer comes").unwrap();
        assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&bytes));
    }
}
