//! One connection: hyper's HTTP/1.1 with our limits around a service that asks the slot's [`Endpoint`].

use crate::{
    answer::{self, Answer, RateHeaders, Reply},
    config::MetadataLimits,
    endpoint::{Caller, Endpoint},
    patience::Patient,
    route::{self, Route, Target},
};
use http::{Request, request::Parts};
use http_body_util::BodyExt;
use hyper::{
    body::{Body, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpStream, time::timeout};
use tokio_util::sync::CancellationToken;

/// Bytes of buffer, and so of a request's head: the least that hyper takes. SDKs send under 1 KiB.
const BUFFER: usize = 8192;

/// Bytes of a request body that are read and thrown away so that the connection can go on. No route takes one; past this the
/// answer is the connection's last.
const BODY_LIMIT: usize = 64 * 1024;

/// For a response under way at shutdown. It is rendered already: this is for the caller to take it.
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// What ends a connection from our side.
#[derive(Debug, Clone)]
pub(crate) struct Ends {
    /// The listener is to close. At once: the connection is dropped, whatever it is doing.
    pub(crate) stop: CancellationToken,
    /// Set before `stop` at shutdown: the response that is under way may still go out.
    pub(crate) gently: CancellationToken,
}

/// What the requests of one connection share.
#[derive(Debug)]
struct Session {
    endpoint: Arc<Endpoint>,
    limits: MetadataLimits,
    rate: RateHeaders,
}

/// Serves a connection until its client, a limit or `ends` ends it. The socket is closed when this returns, and then the connection's
/// share of the limits, `_permits`, is given back.
pub(crate) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    endpoint: Arc<Endpoint>,
    limits: MetadataLimits,
    ends: Ends,
    _permits: impl Send,
) {
    let session = Arc::new(Session { endpoint, limits, rate: RateHeaders::new(limits.steady_rate, peer) });
    let owner = Arc::clone(&session);
    let service = service_fn(move |request| {
        let session = Arc::clone(&session);
        async move { Ok::<_, Infallible>(session.handle(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // Runs between requests too: it is the idle timeout of a kept connection.
        .header_read_timeout(limits.read_timeout)
        .max_buf_size(BUFFER)
        // Some scripts match header names by case.
        .title_case_headers(true)
        // A client may close its sending side and still wait for the answer.
        .half_close(true)
        .serve_connection(TokioIo::new(Patient::new(stream, limits.write_timeout)), service);
    tokio::pin!(connection);
    // The connection is only ever polled on, never started again; the other arm can lose nothing.
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = ends.stop.cancelled() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None if ends.gently.is_cancelled() => {
            connection.as_mut().graceful_shutdown();
            timeout(DRAIN_TIME, connection).await.unwrap_or(Ok(()))
        }
        None => return,
    };
    if let Err(error) = ended {
        // Time-outs, resets, bad heads: the client's doing, and a hostile one's way to flood a log.
        tracing::debug!(slot = %owner.endpoint.slot(), %peer, %error, "metadata connection ended early");
    }
}

impl Session {
    async fn handle(&self, request: Request<Incoming>) -> Reply {
        let (parts, body) = request.into_parts();
        let drained = body.is_end_stream() || self.drain(body).await;
        let mut reply = self.reply(&parts).await;
        if !drained {
            answer::close_after(&mut reply);
        }
        tracing::debug!(slot = %self.endpoint.slot(), path = parts.uri.path(), status = reply.status().as_u16(), "metadata request");
        reply
    }

    async fn reply(&self, parts: &Parts) -> Reply {
        let path = match route::target(&parts.uri) {
            Target::Path(path) => path,
            Target::Redirect(location) => return answer::redirect(location),
            Target::Malformed => return answer::malformed(),
        };
        let route = Route::of(&path);
        let answer = match route {
            Route::Unknown => Answer::UnknownPath,
            Route::Metadata { .. } => match self.endpoint.settled_caller().await {
                Caller::Task(view) => Answer::to(route, Some(&view)),
                Caller::Nobody => Answer::to(route, None),
                Caller::Unsettled => Answer::Recovering,
            },
        };
        answer.into_reply(&self.rate, &parts.headers)
    }

    /// Reads the body to its end; false when it is too long, too slow or broken.
    async fn drain(&self, mut body: Incoming) -> bool {
        let read = async {
            let mut left = BODY_LIMIT;
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else { return false };
                let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, bytes::Bytes::len)) else {
                    return false;
                };
                left = rest;
            }
            true
        };
        timeout(self.limits.read_timeout, read).await.unwrap_or(false)
    }
}
