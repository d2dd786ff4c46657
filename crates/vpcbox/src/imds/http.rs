//! HTTP for one instance's metadata service: accepts, checks the token, answers from the tree.

use super::{
    ImdsView,
    token::{self, Tokens},
    tree::{self, Found},
};
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use percent_encoding::percent_decode_str;
use std::{
    convert::Infallible,
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Connections at a time. An agent and its tasks hold a few; more wait in the accept queue.
const MAX_CONNECTIONS: usize = 64;
/// For a request's head, and between two requests: whoever is silent for longer gives the place up.
const IDLE: Duration = Duration::from_secs(15);
/// The least that hyper takes; metadata requests have no body and short heads.
const READ_BUFFER: usize = 8192;
/// After an accept that failed for want of descriptors, trying at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

const TOKEN_PATH: &str = "/latest/api/token";
const TOKEN: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token");
const TOKEN_TTL: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");
const FORWARDED: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The metadata service of one instance.
pub(super) struct Server {
    view: Arc<dyn ImdsView>,
    instance: String,
    /// A cache of this file's own; never held over an await.
    tokens: Mutex<Tokens>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("instance", &self.instance).finish_non_exhaustive()
    }
}

/// An answer before it is HTTP.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) body: String,
    /// Seconds for which the token is still good.
    pub(super) ttl: Option<u64>,
    /// What a path takes, when the method was wrong.
    allow: Option<&'static str>,
}

/// Accepts until `shutdown`.
pub(super) async fn serve(listener: std::net::TcpListener, server: Server, shutdown: CancellationToken) {
    let instance = server.instance.clone();
    let listener = match listen(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(instance, error = &error as &dyn std::error::Error, "imds cannot listen");
            return;
        }
    };
    let (server, permits, tracker) =
        (Arc::new(server), Arc::new(Semaphore::new(MAX_CONNECTIONS)), TaskTracker::new());
    loop {
        // A cancelled accept takes no connection, a cancelled acquire no permit.
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = accept(&listener, &permits) => accepted,
        };
        match accepted {
            Ok((stream, permit)) => {
                let connection = converse(stream, Arc::clone(&server), shutdown.clone(), permit);
                tracker.spawn(connection);
            }
            Err(error) => {
                tracing::warn!(instance, error = &error as &dyn std::error::Error, "imds accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    tracker.close();
    tracker.wait().await;
}

fn listen(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.map_err(io::Error::other)?;
    Ok((listener.accept().await?.0, permit))
}

async fn converse(
    stream: TcpStream,
    server: Arc<Server>,
    shutdown: CancellationToken,
    _permit: OwnedSemaphorePermit,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let reply = server.answer(request.method(), request.uri().path(), request.headers(), Instant::now());
        async move { Ok::<_, Infallible>(reply.into_http()) }
    });
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .max_buf_size(READ_BUFFER)
            .serve_connection(TokioIo::new(stream), service)
    );
    // An answer is made without waiting for anything, so a connection that is cut here had none under way.
    let ended = tokio::select! {
        () = shutdown.cancelled() => return,
        ended = connection.as_mut() => ended,
    };
    if let Err(error) = ended {
        // Clients that hang up or send garbage are their own affair.
        tracing::debug!(error = &error as &dyn std::error::Error, "imds connection ended");
    }
}

impl Server {
    pub(super) fn new(view: Arc<dyn ImdsView>, instance: String) -> Self {
        Self { view, instance, tokens: Mutex::default() }
    }

    /// The whole service, as a function.
    pub(super) fn answer(&self, method: &Method, path: &str, headers: &HeaderMap, now: Instant) -> Reply {
        if path == TOKEN_PATH {
            return match *method {
                Method::PUT => self.new_token(headers, now),
                _ => Reply::not_allowed("OPTIONS, PUT"),
            };
        }
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Reply::not_allowed("OPTIONS, GET, HEAD");
        }
        let token = headers.get(&TOKEN).and_then(|t| t.to_str().ok()).unwrap_or_default();
        let left = self.tokens.lock().unwrap_or_else(PoisonError::into_inner).left(now, token);
        let Some(left) = left else { return Reply::error(StatusCode::UNAUTHORIZED) };
        // Rounded up: a token with half a second left is not one with none.
        let ttl = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        match self.look_up(path) {
            Some(body) => Reply { status: StatusCode::OK, body, ttl: Some(ttl), allow: None },
            None => Reply { ttl: Some(ttl), ..Reply::error(StatusCode::NOT_FOUND) },
        }
    }

    fn new_token(&self, headers: &HeaderMap, now: Instant) -> Reply {
        // The request came through a proxy: the real service gives no token to whoever can make one forward requests.
        if headers.contains_key(&FORWARDED) {
            return Reply::error(StatusCode::FORBIDDEN);
        }
        let ttl = headers.get(&TOKEN_TTL).and_then(|v| v.to_str().ok()).and_then(token::parse_ttl);
        let Some(ttl) = ttl else { return Reply::error(StatusCode::BAD_REQUEST) };
        let token = self.tokens.lock().unwrap_or_else(PoisonError::into_inner).issue(now, ttl);
        // Without the header the AWS SDK for Rust refuses the token.
        Reply { status: StatusCode::OK, body: token, ttl: Some(ttl.as_secs()), allow: None }
    }

    fn look_up(&self, path: &str) -> Option<String> {
        let path = percent_decode_str(path).decode_utf8().ok()?;
        let instance = self.view.instance(&self.instance)?;
        match tree::find(&instance, &path)? {
            Found::Text(text) => Some(text),
            Found::Credentials => {
                self.view.issue_credentials(&self.instance).map(|c| tree::credentials_document(&c))
            }
            Found::Signature(document) => Some(self.view.seal(&document)),
        }
    }
}

impl Reply {
    /// The page that the real service sends with an error.
    fn error(status: StatusCode) -> Self {
        let title = format!("{} - {}", status.as_u16(), status.canonical_reason().unwrap_or("Error"));
        let body = format!(
            r#"<?xml version="1.0" encoding="iso-8859-1"?>
<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN"
	"http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">
<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="en" lang="en">
 <head>
  <title>{title}</title>
 </head>
 <body>
  <h1>{title}</h1>
 </body>
</html>
"#
        );
        Self { status, body, ttl: None, allow: None }
    }

    fn not_allowed(allow: &'static str) -> Self {
        Self { allow: Some(allow), ..Self::error(StatusCode::METHOD_NOT_ALLOWED) }
    }

    fn into_http(self) -> Response<Full<Bytes>> {
        let html = !self.status.is_success();
        let mut response = Response::new(Full::new(Bytes::from(self.body)));
        *response.status_mut() = self.status;
        let kind = HeaderValue::from_static(if html { "text/html" } else { "text/plain" });
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, kind);
        headers.insert(header::SERVER, HeaderValue::from_static("EC2ws"));
        if let Some(ttl) = self.ttl {
            headers.insert(TOKEN_TTL, ttl.into());
        }
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}
