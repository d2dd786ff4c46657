//! A registry of our own on the loopback that serves right content from memory, and does wrong what it is told to, from one request
//! to the next. Every request is on a list, so that a test can say that a layer was fetched once, or that a pull was resumed.
//!
//! It runs on the tokio runtime of the test.

use super::{
    BASIC, Blob, BuiltImage, ImageSource,
    fault::{self, Body, Fault, Reach, Target},
    image,
};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::json;
use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::AsFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{bytes::Bytes, sync::CancellationToken};

/// So often the address is asked for again while the old listener is being closed.
const COME_BACK_TRIES: u32 = 10_000;

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// `GET` or `HEAD`.
    pub method: String,
    /// `/v2/NAME/blobs/sha256:...`.
    pub path: String,
    /// `bytes=100-` if only a part was asked for.
    pub range: Option<String>,
    /// What was answered.
    pub status: u16,
}

/// A fault in place: for which requests, and for how many more of them.
#[derive(Debug)]
struct Placed {
    target: Target,
    fault: Fault,
    left: Option<u32>,
}

#[derive(Debug, Default)]
struct State {
    /// By path: `NAME/manifests/TAG`, `NAME/manifests/DIGEST`, `NAME/blobs/DIGEST`.
    content: BTreeMap<String, Blob>,
    faults: Vec<Placed>,
    asked: Vec<Asked>,
    /// The token that lets in, where one is needed.
    token: Option<u32>,
}

impl State {
    /// The fault for a request, counted.
    fn fault(&mut self, manifest: bool, digest: &str) -> Option<Fault> {
        let placed = self.faults.iter_mut().find(|placed| {
            let meant = match &placed.target {
                Target::Everything => true,
                Target::Manifests => manifest,
                Target::Blobs => !manifest,
                Target::Digest(wanted) => wanted == digest,
            };
            meant && placed.left != Some(0)
        })?;
        placed.left = placed.left.map(|left| left - 1);
        Some(placed.fault)
    }
}

/// A registry that does as it is told; gone on drop.
#[derive(Debug)]
pub struct BadRegistry {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    gone: CancellationToken,
}

impl BadRegistry {
    /// Starts one that does nothing wrong yet, on the current runtime.
    pub async fn start() -> io::Result<Self> {
        let state = Arc::default();
        let (address, gone) = listen((Ipv4Addr::LOCALHOST, 0).into(), &state).await?;
        Ok(Self { address, state, gone })
    }

    /// Where it listens: the first part of the names of its images.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The full name of an image of its: `127.0.0.1:40001/web:1`.
    pub fn reference(&self, name: &str, tag: &str) -> String {
        format!("{}/{name}:{tag}", self.address)
    }

    /// Puts an image into it.
    pub fn add(&self, name: &str, tag: &str, source: &ImageSource) -> io::Result<BuiltImage> {
        let image = source.build()?;
        let mut state = lock(&self.state);
        for blob in image.blobs() {
            state.content.insert(format!("{name}/blobs/{}", blob.digest), blob.clone());
        }
        for reference in [tag, &image.manifest.digest] {
            state.content.insert(format!("{name}/manifests/{reference}"), image.manifest.clone());
        }
        Ok(image)
    }

    /// Puts images of several platforms under one tag; answers the index's digest.
    pub fn add_index(&self, name: &str, tag: &str, sources: &[ImageSource]) -> io::Result<String> {
        let images = sources
            .iter()
            .map(|source| self.add(name, &source.build()?.manifest.digest, source))
            .collect::<io::Result<Vec<_>>>()?;
        let index = image::index(&images)?;
        self.add_document(name, tag, index.clone());
        Ok(index.digest)
    }

    /// Puts any document where a manifest is looked for: what no honest registry would hold.
    pub fn add_document(&self, name: &str, tag: &str, document: Blob) {
        let mut state = lock(&self.state);
        state.content.insert(format!("{name}/manifests/{}", document.digest), document.clone());
        state.content.insert(format!("{name}/manifests/{tag}"), document);
    }

    /// From now on it does this wrong, until [`heal`](Self::heal). Of several faults for a request the first counts.
    pub fn fail(&self, target: Target, fault: Fault) {
        lock(&self.state).faults.push(Placed { target, fault, left: None });
    }

    /// The next so many such requests go wrong, those after them do not.
    pub fn fail_times(&self, target: Target, fault: Fault, times: u32) {
        lock(&self.state).faults.push(Placed { target, fault, left: Some(times) });
    }

    /// It does nothing wrong any more.
    pub fn heal(&self) {
        lock(&self.state).faults.clear();
    }

    /// From now on it wants a token, which it gives to [`USER`](super::USER) with [`PASSWORD`](super::PASSWORD). Called again, it wants
    /// a new one: those that were given have expired.
    pub fn require_token(&self) {
        let mut state = lock(&self.state);
        state.token = Some(state.token.unwrap_or_default() + 1);
    }

    /// All requests so far, tokens included.
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.state).asked.clone()
    }

    /// Requests with this in their path, `GET` only.
    pub fn fetches(&self, part: &str) -> Vec<Asked> {
        self.asked().into_iter().filter(|a| a.method == "GET" && a.path.contains(part)).collect()
    }

    /// Forgets the list of requests.
    pub fn forget(&self) {
        lock(&self.state).asked.clear();
    }

    /// Its process is gone: connections end, new ones are refused.
    pub fn vanish(&self) {
        self.gone.cancel();
    }

    /// It is back after it vanished, at the same address.
    pub async fn come_back(&mut self) -> io::Result<()> {
        self.gone.cancel();
        // The old listener is closed by its own task, some moments after it was told.
        let mut tries = 0;
        let (_, gone) = loop {
            match listen(self.address, &self.state).await {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries < COME_BACK_TRIES => {
                    tries += 1;
                    tokio::task::yield_now().await;
                }
                other => break other?,
            }
        };
        self.gone = gone;
        Ok(())
    }
}

impl Drop for BadRegistry {
    fn drop(&mut self) {
        self.gone.cancel();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves until the token is cancelled, by us or by a fault.
async fn listen(
    address: SocketAddr,
    state: &Arc<Mutex<State>>,
) -> io::Result<(SocketAddr, CancellationToken)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let gone = CancellationToken::new();
    let (state, token) = (Arc::clone(state), gone.clone());
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = token.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            if let Ok((stream, _)) = accepted {
                tokio::spawn(connection(stream, address, Arc::clone(&state), token.clone()));
            }
        }
    });
    Ok((address, gone))
}

async fn connection(
    stream: TcpStream,
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    gone: CancellationToken,
) {
    let Ok(socket) = stream.as_fd().try_clone_to_owned() else { return };
    let reach = Reach { socket: Arc::new(socket), gone: gone.clone() };
    let service = service_fn(move |request| {
        let reply = answer(&request, address, &state, &reach);
        async move { reply }
    });
    let serve = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // Its errors are the faults that were asked for, and clients that have seen enough.
    tokio::select! {
        () = gone.cancelled() => {}
        ended = serve => drop(ended),
    }
}

type Reply = Result<Response<Body>, http::Error>;

fn answer(request: &Request<Incoming>, address: SocketAddr, state: &Mutex<State>, reach: &Reach) -> Reply {
    let text = |name| request.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let range = text(header::RANGE);
    let path = request.uri().path().to_owned();
    let mut state = lock(state);
    let reply = route(request, text(header::AUTHORIZATION), range.as_deref(), address, &mut state, reach)?;
    state.asked.push(Asked {
        method: request.method().to_string(),
        path,
        range,
        status: reply.status().as_u16(),
    });
    Ok(reply)
}

fn route(
    request: &Request<Incoming>,
    authorization: Option<String>,
    range: Option<&str>,
    address: SocketAddr,
    state: &mut State,
    reach: &Reach,
) -> Reply {
    let path = request.uri().path();
    if path == "/token" {
        let let_in = state.token.is_none() || authorization.as_deref() == Some(BASIC);
        let token = json!({"token": format!("token-{}", state.token.unwrap_or_default()), "expires_in": 300});
        return if let_in {
            json_reply(StatusCode::OK, &token)
        } else {
            words(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "incorrect username or password")
        };
    }
    let known = state.token.is_none_or(|token| authorization == Some(format!("Bearer token-{token}")));
    if !known {
        return challenge(address, path);
    }
    let path = path.strip_prefix("/v2/").unwrap_or_default();
    if path.is_empty() {
        return json_reply(StatusCode::OK, &json!({}));
    }
    let manifest = path.contains("/manifests/");
    let Some(blob) = state.content.get(path).cloned() else {
        let (code, message) = unknown(manifest);
        return words(StatusCode::NOT_FOUND, code, message);
    };
    match state.fault(manifest, &blob.digest) {
        Some(Fault::LoginLoop) => challenge(address, path),
        Some(Fault::Denied) => {
            words(StatusCode::FORBIDDEN, "DENIED", "requested access to the resource is denied")
        }
        Some(Fault::Unknown) => {
            let (code, message) = unknown(manifest);
            words(StatusCode::NOT_FOUND, code, message)
        }
        Some(Fault::TooMany(seconds)) => {
            let mut reply = words(
                StatusCode::TOO_MANY_REQUESTS,
                "TOOMANYREQUESTS",
                "You have reached your pull rate limit.",
            )?;
            reply.headers_mut().insert(header::RETRY_AFTER, seconds.into());
            Ok(reply)
        }
        Some(Fault::Status(status)) => Response::builder().status(status).body(fault::whole(Bytes::new())),
        fault => content(request.method(), &blob, manifest, range, fault, reach),
    }
}

fn unknown(manifest: bool) -> (&'static str, &'static str) {
    if manifest {
        ("MANIFEST_UNKNOWN", "manifest unknown")
    } else {
        ("BLOB_UNKNOWN", "blob unknown to registry")
    }
}

fn content(
    method: &Method,
    blob: &Blob,
    manifest: bool,
    range: Option<&str>,
    fault: Option<Fault>,
    reach: &Reach,
) -> Reply {
    let all = fault.map_or_else(|| blob.bytes.clone(), |f| fault::changed(f, blob.bytes.clone(), manifest));
    let digest = match fault {
        Some(Fault::WrongDigestHeader) => format!("sha256:{}", "0".repeat(64)),
        _ => blob.digest.clone(),
    };
    let part =
        range.filter(|_| !manifest && fault != Some(Fault::NoRanges)).and_then(|r| slice(r, all.len()));
    let (from, to) = part.unwrap_or((0, all.len()));
    let bytes = all.slice(from..to);
    let mut reply = Response::builder()
        .header(header::CONTENT_TYPE, &blob.media_type)
        .header("Docker-Content-Digest", digest);
    if fault != Some(Fault::NoRanges) {
        reply = reply.header(header::ACCEPT_RANGES, "bytes");
    }
    if fault != Some(Fault::Endless) {
        reply = reply.header(header::CONTENT_LENGTH, bytes.len());
    }
    if part.is_some() {
        let content_range = format!("bytes {from}-{}/{}", to.saturating_sub(1), all.len());
        reply = reply.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, content_range);
    }
    let body = match fault {
        _ if method == Method::HEAD => fault::whole(Bytes::new()),
        Some(fault) => fault::body(fault, bytes, reach.clone()),
        None => fault::whole(bytes),
    };
    reply.body(body)
}

/// `bytes=FROM-` and `bytes=FROM-TO` as a slice; nothing that is not one.
fn slice(range: &str, len: usize) -> Option<(usize, usize)> {
    let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
    let from: usize = from.parse().ok()?;
    let to = if to.is_empty() { len } else { to.parse::<usize>().ok()?.checked_add(1)?.min(len) };
    (from < to).then_some((from, to))
}

fn challenge(address: SocketAddr, path: &str) -> Reply {
    let name = path.strip_prefix("/v2/").unwrap_or(path);
    let name = name.split("/manifests/").next().unwrap_or_default();
    let name = name.split("/blobs/").next().unwrap_or_default();
    let mut reply = words(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "authentication required")?;
    let value = format!(
        "Bearer realm=\"http://{address}/token\",service=\"bad registry\",scope=\"repository:{name}:pull\""
    );
    reply.headers_mut().insert(header::WWW_AUTHENTICATE, value.parse()?);
    Ok(reply)
}

/// An error in the form of the registry API.
fn words(status: StatusCode, code: &str, message: &str) -> Reply {
    json_reply(status, &json!({"errors": [{"code": code, "message": message, "detail": null}]}))
}

fn json_reply(status: StatusCode, body: &serde_json::Value) -> Reply {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/json")
        .body(fault::whole(body.to_string().into()))
}
