//! A client of the admin API over its unix socket.

use anyhow::{Context, Result, bail};
use berth_admin::ErrorBody;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use std::path::{Path, PathBuf};
use tokio::net::UnixStream;

/// Largest answer that is read: 1,000 log lines of 16 KiB with their escapes.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// Largest line of a stream that is read: an event carries a few ids and a sentence.
const MAX_LINE: usize = 1024 * 1024;

/// One agent.
#[derive(Debug)]
pub(super) struct Client {
    socket: PathBuf,
}

impl Client {
    pub(super) fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.call(Method::GET, path, Bytes::new()).await
    }

    pub(super) async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T> {
        self.call(method, path, serde_json::to_vec(body)?.into()).await
    }

    /// A call whose success has no body.
    pub(super) async fn delete(&self, path: &str) -> Result<()> {
        let (status, body) = self.exchange(Method::DELETE, path, Bytes::new()).await?;
        if status.is_success() { Ok(()) } else { bail!("{}", error_text(&body)) }
    }

    /// Hands on the lines of an answer as they come, until it ends or `each` wants no more.
    pub(super) async fn lines(&self, path: &str, mut each: impl FnMut(&str) -> Result<bool>) -> Result<()> {
        let response = self.ask(Method::GET, path, Bytes::new()).await?;
        let (status, mut body) = (response.status(), response.into_body());
        if !status.is_success() {
            bail!("{}", error_text(&read_all(body).await?));
        }
        let mut rest = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.with_context(|| format!("the agent on {} broke off", self.socket.display()))?;
            rest.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                if !each(String::from_utf8_lossy(&line[..end]).as_ref())? {
                    return Ok(());
                }
            }
            if rest.len() > MAX_LINE {
                bail!("the agent sent a line of more than {MAX_LINE} bytes");
            }
        }
        Ok(())
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T> {
        let (status, body) = self.exchange(method, path, body).await?;
        // Health answers 503 with its own body: the form decides, not the status.
        match serde_json::from_slice(&body) {
            Ok(value) => Ok(value),
            Err(_) if !status.is_success() => bail!("{}", error_text(&body)),
            Err(error) => Err(error).with_context(|| format!("read the agent's answer to {path}")),
        }
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> Result<(http::StatusCode, Bytes)> {
        let response = self.ask(method, path, body).await?;
        let status = response.status();
        Ok((status, read_all(response.into_body()).await?))
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<http::Response<Incoming>> {
        let at = self.socket.display();
        let stream = UnixStream::connect(&self.socket).await.with_context(|| {
            format!("no agent answers on {at}; is `berth agent` running? (--socket names another)")
        })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the answer, or with the process.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, "berth")
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        sender.send_request(request).await.with_context(|| format!("the agent on {at} broke off"))
    }
}

async fn read_all(body: Incoming) -> Result<Bytes> {
    let read = Limited::new(body, MAX_ANSWER).collect().await;
    Ok(read.map_err(|e| anyhow::anyhow!(e))?.to_bytes())
}

fn error_text(body: &[u8]) -> String {
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(answer) => answer.error.message,
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    }
}
