//! The wire, byte for byte: bodies against the golden files, refusals, headers, methods, paths.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail as tests do")]

mod common;

use berth_metadata::MetadataLimits;
use common::{Live, get, raw, read_one, request, sample};
use std::{fs, path::Path};
use tokio::{io::AsyncWriteExt, net::TcpStream};

fn golden(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let text = fs::read_to_string(&path).unwrap();
    text.strip_suffix('\n').map(str::to_owned).unwrap_or(text)
}

#[tokio::test]
async fn bodies_are_those_of_the_golden_files() {
    let live = Live::start(MetadataLimits::default());
    let address = live.open(sample::slot_id(1)).await;
    let (app, sidecar) = (sample::endpoint_id(1, 0), sample::endpoint_id(1, 1));
    for (path, file) in [
        (format!("/v4/{app}"), "v4_container.json"),
        (format!("/v4/{app}/task"), "v4_task.json"),
        (format!("/v4/{sidecar}/task"), "v4_task.json"),
        (format!("/v4/{sidecar}"), "v4_container_not_created.json"),
        (format!("/v3/{app}"), "v3_container.json"),
        (format!("/v3/{app}/task"), "v3_task.json"),
        (format!("/v3/{sidecar}"), "v3_container_not_created.json"),
        (format!("/v4/{app}/task?with=a&query"), "v4_task.json"),
        (format!("/v4/%30{}/%74ask", &app.as_str()[1..]), "v4_task.json"),
    ] {
        let response = get(address, &path).await;
        assert_eq!((response.status, response.body.as_str()), (200, golden(file).as_str()), "{path}");
        assert_eq!(response.header("Content-Type"), Some("application/json"), "{path}");
    }
    live.stop().await;
}

#[tokio::test]
async fn refusals_are_those_of_the_golden_file() {
    let live = Live::start(MetadataLimits::default());
    let address = live.open(sample::slot_id(1)).await;
    let table = golden("refusals.txt");
    for row in table.lines().filter(|row| !row.starts_with('#')) {
        let [path, status, content_type, body] = row.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{row}")
        };
        let response = get(address, path).await;
        let text = content_type.starts_with("text/plain");
        assert_eq!(response.body, if text { format!("{body}\n") } else { body.to_owned() }, "{path}");
        assert_eq!(
            (response.status, response.header("Content-Type")),
            (status.parse().unwrap(), Some(content_type))
        );
        assert_eq!(response.header("X-Content-Type-Options"), text.then_some("nosniff"), "{path}");
    }
    live.stop().await;
}

#[tokio::test]
async fn every_answer_but_a_redirect_carries_the_rate_limit_headers() {
    let live = Live::start(MetadataLimits::default());
    let address = live.open(sample::slot_id(1)).await;
    for path in ["/v4/nope", "/nothing", &format!("/v4/{}", sample::endpoint_id(1, 0))] {
        let response = request(address, "GET", path, "X-Forwarded-For: 192.0.2.1, 10.0.0.1\r\n").await;
        assert_eq!(response.header("X-Rate-Limit-Duration"), Some("1"), "{path}");
        assert_eq!(response.header("X-Rate-Limit-Limit"), Some("40.00"));
        assert_eq!(response.header("X-Rate-Limit-Request-Forwarded-For"), Some("192.0.2.1, 10.0.0.1"));
        assert!(response.header("X-Rate-Limit-Request-Remote-Addr").unwrap().starts_with("127.0.0.1:"));
    }
    let without = get(address, "/").await;
    assert_eq!(
        without.header("X-Rate-Limit-Request-Forwarded-For").map(str::trim),
        Some(""),
        "there, and empty"
    );
    let redirect = get(address, "//v4//nope?a=b").await;
    assert_eq!((redirect.status, redirect.header("Location")), (301, Some("/v4/nope?a=b")));
    assert_eq!((redirect.body.as_str(), redirect.header("Content-Length")), ("", Some("0")));
    assert!(!redirect.head.contains("X-Rate-Limit"), "{}", redirect.head);
    live.stop().await;
}

#[tokio::test]
async fn any_method_reads_and_head_says_how_long_the_body_would_be() {
    let live = Live::start(MetadataLimits::default());
    let address = live.open(sample::slot_id(1)).await;
    let path = format!("/v4/{}/task", sample::endpoint_id(1, 0));
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
        let response = request(address, method, &path, "Content-Length: 0\r\n").await;
        assert_eq!((response.status, response.body), (200, golden("v4_task.json")), "{method}");
    }
    let head = request(address, "HEAD", &path, "").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(head.header("Content-Length"), Some(golden("v4_task.json").len().to_string().as_str()));
    live.stop().await;
}

#[tokio::test]
async fn a_kept_connection_survives_request_bodies_and_errors() {
    let live = Live::start(MetadataLimits::default());
    let address = live.open(sample::slot_id(1)).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let container = format!("/v4/{}", sample::endpoint_id(1, 0));
    for (request, status) in [
        (format!("POST {container} HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"), "200"),
        (
            format!(
                "POST {container} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
            ),
            "200",
        ),
        ("GET /v4/nope HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), "404"),
        ("GET //x HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), "301"),
        (format!("GET {container} HTTP/1.1\r\nHost: h\r\n\r\n"), "200"),
    ] {
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = read_one(&mut stream).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
    }
    live.stop().await;
}

#[tokio::test]
async fn a_target_that_cannot_be_decoded_is_a_bad_request() {
    let live = Live::start(MetadataLimits::default());
    let address = live.open(sample::slot_id(1)).await;
    let response = get(address, "/v4/%zz").await;
    assert_eq!((response.status, response.body.as_str()), (400, "400 Bad Request"));
    assert_eq!(response.header("Connection"), Some("close"));
    live.stop().await;
}

#[tokio::test]
async fn old_and_half_closed_clients_are_answered() {
    let live = Live::start(MetadataLimits::default());
    let address = live.open(sample::slot_id(1)).await;
    let path = format!("/v4/{}/task", sample::endpoint_id(1, 0));
    let answer =
        String::from_utf8(raw(address, format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200") && answer.ends_with(&golden("v4_task.json")), "{answer}");
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(read_one(&mut stream).await.ends_with(&golden("v4_task.json")));
    live.stop().await;
}
