//! Requests per second of the v4 task route over kept connections on loopback, ours against a bare hyper service that returns the
//! same bytes, in the same run. Prints a table and one line of JSON.
//!
//! The server has a thread of its own, and so has the client, which is as small as it can be: fixed request, fixed length of
//! response. Rounds alternate, so that a change of the machine's mood hits both.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark that fails has nothing to save")]

use berth_metadata::{Metadata, MetadataConfig, MetadataLimits};
use berth_types::lease::{LISTENER_QUEUE, ListenerChange};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;

#[path = "../tests/common/sample.rs"]
mod sample;

const CONNECTIONS: usize = 16;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_millis(600);

fn runtime(name: &str) -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name(name)
        .enable_all()
        .build()
        .unwrap()
}

/// Our endpoint, and the request that it is asked.
async fn start_ours() -> SocketAddr {
    let (engine, engine_seen) = watch::channel(sample::engine((1..=100).map(sample::task)));
    let (enis, enis_seen) = watch::channel(sample::enis((1..=100).map(|n| (n, Some(n)))));
    let (changes, queue) = mpsc::channel(LISTENER_QUEUE);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    changes.send(ListenerChange::Open { slot: sample::slot_id(50), listener }).await.unwrap();
    let metadata = Metadata::new(sample::config(), engine_seen, enis_seen);
    tokio::spawn(async move {
        // The owners live as long as the endpoint.
        let owners = (engine, enis, changes);
        metadata.run(queue, CancellationToken::new()).await;
        drop(owners);
    });
    address
}

/// hyper with the same settings and nothing of ours.
async fn start_bare(body: Bytes) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let body = body.clone();
            let service = service_fn(move |_| {
                let mut response = Response::new(Full::new(body.clone()));
                let json = http::HeaderValue::from_static("application/json");
                response.headers_mut().insert(http::header::CONTENT_TYPE, json);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(5))
                .max_buf_size(8192)
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    });
    address
}

fn request() -> String {
    format!("GET /v4/{}/task HTTP/1.1\r\nHost: 169.254.170.2\r\n\r\n", sample::endpoint_id(50, 0))
}

/// One request; answers the whole response.
async fn ask(address: SocketAddr) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(request().replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    answer
}

fn body_of(answer: &[u8]) -> Bytes {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    Bytes::copy_from_slice(&answer[end..])
}

/// Asks again and again on one connection; answers each request's time in nanoseconds.
async fn hammer(address: SocketAddr, until: Instant) -> Vec<u64> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let request = request();
    let mut buffer = vec![0; 64 * 1024];
    // The first answer says how long each is: nothing in it changes its length on one connection.
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut length = 0;
    let whole = loop {
        length += stream.read(&mut buffer[length..]).await.unwrap();
        let head = String::from_utf8_lossy(&buffer[..length]).to_lowercase();
        let Some(end) = head.find("\r\n\r\n") else { continue };
        let body: usize =
            head.split("content-length: ").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
        if length >= end + 4 + body {
            break end + 4 + body;
        }
    };
    let mut times = Vec::with_capacity(100_000);
    while Instant::now() < until {
        let start = Instant::now();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.read_exact(&mut buffer[..whole]).await.unwrap();
        times.push(u64::try_from(start.elapsed().as_nanos()).unwrap());
    }
    times
}

struct Figures {
    per_second: f64,
    p50: f64,
    p99: f64,
}

fn round(client: &Runtime, address: SocketAddr) -> Figures {
    let start = Instant::now();
    let mut times: Vec<u64> = client.block_on(async {
        let running: Vec<_> =
            (0..CONNECTIONS).map(|_| tokio::spawn(hammer(address, start + ROUND))).collect();
        let mut all = Vec::new();
        for one in running {
            all.extend(one.await.unwrap());
        }
        all
    });
    let elapsed = start.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100] as f64 / 1000.0;
    Figures { per_second: times.len() as f64 / elapsed, p50: at(50), p99: at(99) }
}

fn median(rounds: &[Figures], of: fn(&Figures) -> f64) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let (server, client) = (runtime("server"), runtime("client"));
    let ours = server.block_on(start_ours());
    let body = body_of(&client.block_on(ask(ours)));
    assert!(body.starts_with(b"{\"Cluster\""), "{body:?}");
    let bare = server.block_on(start_bare(body.clone()));
    assert_eq!(body_of(&client.block_on(ask(bare))), body, "the two answer different bodies");
    round(&client, ours);
    round(&client, bare);
    let (mut of_ours, mut of_bare) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        of_ours.push(round(&client, ours));
        of_bare.push(round(&client, bare));
    }
    println!("v4 task, {} bytes, {CONNECTIONS} kept connections, median of {ROUNDS} rounds", body.len());
    println!("{:<12} {:>12} {:>10} {:>10}", "", "requests/s", "p50 us", "p99 us");
    let mut per_second = Vec::new();
    for (name, rounds) in [("berth", &of_ours), ("bare hyper", &of_bare)] {
        let rate = median(rounds, |f| f.per_second);
        println!(
            "{name:<12} {rate:>12.0} {:>10.1} {:>10.1}",
            median(rounds, |f| f.p50),
            median(rounds, |f| f.p99)
        );
        per_second.push(rate);
    }
    let ratio = per_second[0] / per_second[1];
    println!("ratio        {ratio:>12.3}");
    println!(
        "{{\"bench\":\"tmds\",\"body_bytes\":{},\"connections\":{CONNECTIONS},\"berth_rps\":{:.0},\"bare_rps\":{:.0},\"ratio\":{ratio:.3},\"berth_p50_us\":{:.1},\"berth_p99_us\":{:.1},\"bare_p50_us\":{:.1},\"bare_p99_us\":{:.1}}}",
        body.len(),
        per_second[0],
        per_second[1],
        median(&of_ours, |f| f.p50),
        median(&of_ours, |f| f.p99),
        median(&of_bare, |f| f.p50),
        median(&of_bare, |f| f.p99),
    );
}
