//! The pushing side of the registry API, one connection per request: as much as a test needs to fill a registry.
//!
//! Runs on the thread that calls it, which stands in the registry's network namespace.

use super::{BASIC, image::Blob};
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use std::{io, net::SocketAddr};
use tokio::net::TcpStream;
use tokio_util::bytes::Bytes;

/// A registry to push to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client {
    pub(super) address: SocketAddr,
    pub(super) login: bool,
}

/// What came back, as much of it as is needed.
struct Answer {
    status: StatusCode,
    location: Option<String>,
    body: Bytes,
}

impl Client {
    /// Uploads a blob in one piece, unless it is there.
    pub(super) async fn put_blob(&self, name: &str, blob: &Blob) -> io::Result<()> {
        let there = self.ask(Method::HEAD, &format!("/v2/{name}/blobs/{}", blob.digest), None).await?;
        if there.status.is_success() {
            return Ok(());
        }
        let begun = self.ask(Method::POST, &format!("/v2/{name}/blobs/uploads/"), None).await?;
        let location = begun.location.ok_or_else(|| refused("begin upload", begun.status, &begun.body))?;
        // It comes as a full URL, of which the authority is ours already.
        let uri: Uri = location.parse().map_err(io::Error::other)?;
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        let mark = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{mark}digest={}", blob.digest);
        let done = self.ask(Method::PUT, &path, Some(("application/octet-stream", &blob.bytes))).await?;
        expect(done.status == StatusCode::CREATED, "upload blob", &done)
    }

    /// Sets what a tag (or a digest) means.
    pub(super) async fn put_manifest(&self, name: &str, reference: &str, manifest: &Blob) -> io::Result<()> {
        let path = format!("/v2/{name}/manifests/{reference}");
        let done = self.ask(Method::PUT, &path, Some((&manifest.media_type, &manifest.bytes))).await?;
        expect(done.status == StatusCode::CREATED, "put manifest", &done)
    }

    /// Removes a manifest with all its tags.
    pub(super) async fn delete_manifest(&self, name: &str, digest: &str) -> io::Result<()> {
        let done = self.ask(Method::DELETE, &format!("/v2/{name}/manifests/{digest}"), None).await?;
        expect(done.status == StatusCode::ACCEPTED, "delete manifest", &done)
    }

    /// Whether it answers at all.
    pub(super) async fn answers(&self) -> bool {
        self.ask(Method::GET, "/v2/", None).await.is_ok_and(|a| a.status.is_success())
    }

    async fn ask(&self, method: Method, path: &str, body: Option<(&str, &Bytes)>) -> io::Result<Answer> {
        let stream = TcpStream::connect(self.address).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let mut request =
            Request::builder().method(method).uri(path).header(header::HOST, self.address.to_string());
        if self.login {
            request = request.header(header::AUTHORIZATION, BASIC);
        }
        if let Some((media_type, _)) = body {
            request = request.header(header::CONTENT_TYPE, media_type);
        }
        let bytes = body.map(|(_, bytes)| bytes.clone()).unwrap_or_default();
        let request = request.body(Full::new(bytes)).map_err(io::Error::other)?;
        let exchange = async {
            let reply = sender.send_request(request).await?;
            let (head, body) = reply.into_parts();
            let body = body.collect().await?.to_bytes();
            let location =
                head.headers.get(header::LOCATION).and_then(|v| v.to_str().ok()).map(str::to_owned);
            Ok(Answer { status: head.status, location, body })
        };
        // The connection is driven while we wait for the answer, and dropped with it.
        tokio::pin!(connection);
        tokio::pin!(exchange);
        tokio::select! {
            biased;
            answer = &mut exchange => answer.map_err(|e: hyper::Error| io::Error::other(e)),
            ended = &mut connection => {
                ended.map_err(io::Error::other)?;
                // The last bytes may have been taken in by the connection and not yet by us.
                exchange.await.map_err(io::Error::other)
            }
        }
    }
}

fn expect(so: bool, what: &str, answer: &Answer) -> io::Result<()> {
    if so { Ok(()) } else { Err(refused(what, answer.status, &answer.body)) }
}

fn refused(what: &str, status: StatusCode, body: &Bytes) -> io::Error {
    io::Error::other(format!("{what}: the registry answers {status}: {}", String::from_utf8_lossy(body)))
}
