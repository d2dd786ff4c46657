//! What a registry can do wrong, as values; and the bodies that stop, lie, drip or never end.

use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::Frame;
use nix::sys::socket::{setsockopt, sockopt::Linger};
use std::{io, os::fd::OwnedFd, sync::Arc, time::Duration};
use tokio_util::{bytes::Bytes, sync::CancellationToken};

/// What an endless body is made of, and what a body is cut into before its fault.
const PIECE: usize = 16 << 10;
/// Largest manifest that registries take is 4 MiB.
const HUGE: usize = 10 << 20;

/// Which requests a fault is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// All of manifests and blobs.
    Everything,
    /// Manifests and indexes, by tag or digest.
    Manifests,
    /// All blobs.
    Blobs,
    /// One manifest or blob, by its digest.
    Digest(String),
}

/// What the registry does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The bytes are other bytes: their digest is not the one that was asked for. A manifest still says the same.
    WrongBytes,
    /// The bytes are right, and the header `Docker-Content-Digest` says otherwise.
    WrongDigestHeader,
    /// The connection is closed after so many bytes of the body.
    Truncated(usize),
    /// Nothing comes after so many bytes of the body; the connection stays.
    Stall(usize),
    /// The connection is reset after so many bytes of the body.
    Reset(usize),
    /// The registry's process is gone after so many bytes of the body: all connections end, new ones are refused.
    Vanish(usize),
    /// The body comes in pieces of so many bytes with a pause between them.
    Drip(usize, Duration),
    /// The body has no length and no end.
    Endless,
    /// Ten MiB: correct bytes, then blanks. For manifests, which are never that large.
    Huge,
    /// 401 whatever is shown: a client that asks for a token gets one, and it does not help.
    LoginLoop,
    /// 403 with the registry's words.
    Denied,
    /// 404 with the registry's words.
    Unknown,
    /// 429, to be tried again after so many seconds.
    TooMany(u32),
    /// This status with no words at all, such as 500 or 502.
    Status(u16),
    /// A reply to a request for a range holds everything, as if no range had been asked for.
    NoRanges,
}

/// A body of any kind.
pub(super) type Body = BoxBody<Bytes, io::Error>;

/// How far a reply can reach beyond its body.
#[derive(Debug, Clone)]
pub(super) struct Reach {
    /// The connection's socket.
    pub(super) socket: Arc<OwnedFd>,
    /// Ends the whole registry.
    pub(super) gone: CancellationToken,
}

/// A right body.
pub(super) fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

/// What comes instead of `bytes`; `manifest` is whether they are a document.
pub(super) fn changed(fault: Fault, bytes: Bytes, manifest: bool) -> Bytes {
    match fault {
        Fault::WrongBytes if manifest => [&bytes[..], b"\n"].concat().into(),
        Fault::WrongBytes => {
            let mut wrong = bytes.to_vec();
            if let Some(byte) = wrong.last_mut() {
                *byte ^= 0xff;
            }
            wrong.into()
        }
        Fault::Huge => {
            let mut huge = bytes.to_vec();
            huge.resize(HUGE.max(huge.len()), b' ');
            huge.into()
        }
        _ => bytes,
    }
}

/// The body with its fault.
pub(super) fn body(fault: Fault, bytes: Bytes, reach: Reach) -> Body {
    let end = match fault {
        Fault::Truncated(after) => End { after, how: How::Close },
        Fault::Stall(after) => End { after, how: How::Stall },
        Fault::Reset(after) => End { after, how: How::Reset },
        Fault::Vanish(after) => End { after, how: How::Vanish },
        Fault::Drip(piece, pause) => return drip(bytes, piece.max(1), pause),
        Fault::Endless => return endless(),
        _ => return whole(bytes),
    };
    broken(bytes, end, reach)
}

#[derive(Debug, Clone, Copy)]
struct End {
    after: usize,
    how: How,
}

#[derive(Debug, Clone, Copy)]
enum How {
    Close,
    Stall,
    Reset,
    Vanish,
}

fn broken(bytes: Bytes, end: End, reach: Reach) -> Body {
    let rest = bytes.slice(..end.after.min(bytes.len()));
    let stream = futures::stream::unfold((rest, reach), move |(mut rest, reach)| async move {
        if !rest.is_empty() {
            let piece = rest.split_to(PIECE.min(rest.len()));
            return Some((Ok(Frame::data(piece)), (rest, reach)));
        }
        // Lets the connection send what it was given before it learns of the end.
        tokio::task::yield_now().await;
        match end.how {
            How::Stall => std::future::pending().await,
            How::Vanish => {
                reach.gone.cancel();
                std::future::pending().await
            }
            How::Close => {}
            How::Reset => reset_on_close(&reach.socket),
        }
        Some((Err(io::Error::other("told to break off")), (rest, reach)))
    });
    StreamBody::new(stream).boxed()
}

/// A socket that lingers for no time is closed by a reset.
fn reset_on_close(socket: &OwnedFd) {
    let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    if let Err(error) = setsockopt(socket, Linger, &linger) {
        tracing::error!(%error, "the connection will be closed in order");
    }
}

fn drip(bytes: Bytes, piece: usize, pause: Duration) -> Body {
    let stream = futures::stream::unfold(bytes, move |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        let drop = rest.split_to(piece.min(rest.len()));
        tokio::time::sleep(pause).await;
        Some((Ok(Frame::data(drop)), rest))
    });
    StreamBody::new(stream).boxed()
}

fn endless() -> Body {
    let stream = futures::stream::unfold(Bytes::from(vec![b' '; PIECE]), |piece| async move {
        tokio::task::yield_now().await;
        Some((Ok(Frame::data(piece.clone())), piece))
    });
    StreamBody::new(stream).boxed()
}
