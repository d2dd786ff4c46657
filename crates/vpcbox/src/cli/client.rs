//! The little HTTP that the commands need to talk to a running box.

use anyhow::Context;
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::net::TcpStream;

/// Largest answer: the status of a full account (5000 ENIs) takes 3 MiB, that of as many tasks as ECS remembers some 2 KiB each.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// A box on the same machine answers in milliseconds.
const TIMEOUT: Duration = Duration::from_secs(10);

/// GET.
pub(super) async fn get(endpoint: &str, path: &str) -> anyhow::Result<Bytes> {
    call(endpoint, Method::GET, path, Bytes::new()).await
}

/// POST of JSON.
pub(super) async fn post(endpoint: &str, path: &str, body: Vec<u8>) -> anyhow::Result<Bytes> {
    call(endpoint, Method::POST, path, body.into()).await
}

async fn call(endpoint: &str, method: Method, path: &str, body: Bytes) -> anyhow::Result<Bytes> {
    let talk = exchange(endpoint, method, path, body);
    let (status, answer) = tokio::time::timeout(TIMEOUT, talk)
        .await
        .with_context(|| format!("{endpoint} did not answer in {TIMEOUT:?}"))?
        .with_context(|| format!("ask {endpoint}: is it up?"))?;
    anyhow::ensure!(status == StatusCode::OK, "{endpoint} refused: {}", String::from_utf8_lossy(&answer));
    Ok(answer)
}

async fn exchange(
    endpoint: &str,
    method: Method,
    path: &str,
    body: Bytes,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let host = endpoint.strip_prefix("http://").context("not an http:// URL")?;
    let stream = TcpStream::connect(host).await.context("connect")?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request =
        Request::builder().method(method).uri(path).header(header::HOST, host).body(Full::new(body))?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!(error)).context("read the answer")?;
        drop(sender);
        anyhow::Ok((status, body.to_bytes()))
    };
    // The connection has to be driven while the answer is awaited; its own error is the answer's.
    let (answer, _connection) = tokio::join!(answer, connection);
    answer
}
