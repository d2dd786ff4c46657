//! From a route and the asking task's view to an answer, and from an answer to an HTTP response. The texts, codes and headers are
//! the official agent's; clients match on them. Pure.

use crate::{
    documents::TaskView,
    gojson,
    route::{Route, Subject, Version},
};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{CONNECTION, CONTENT_TYPE, LOCATION, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS},
};
use http_body_util::Full;

/// What every response carries.
pub(crate) type Reply = Response<Full<Bytes>>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// Recovery takes well under a second; a client that comes back after this finds it done.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// Room for all headers of an answer: ours, and hyper's Content-Length and Date.
const HEADERS: usize = 8;

const RATE_DURATION: HeaderName = HeaderName::from_static("x-rate-limit-duration");
const RATE_LIMIT: HeaderName = HeaderName::from_static("x-rate-limit-limit");
const RATE_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-rate-limit-request-forwarded-for");
const RATE_REMOTE_ADDR: HeaderName = HeaderName::from_static("x-rate-limit-request-remote-addr");

/// What is answered, before the headers that depend on the connection.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    /// A rendered body.
    Ok(Bytes),
    /// A refusal: a bare JSON string.
    Refused(StatusCode, String),
    /// The task behind the listener is not known *yet*.
    Recovering,
    /// No such path.
    UnknownPath,
}

impl Answer {
    /// `view` is the task that leases the slot of the listener: nobody else's data can be reached from here.
    pub(crate) fn to(route: Route<'_>, view: Option<&TaskView>) -> Self {
        let Route::Metadata { version, subject, endpoint_id } = route else { return Self::UnknownPath };
        let Some((view, at)) = view.and_then(|v| Some((v, v.container_at(endpoint_id)?))) else {
            return unknown_id(version, subject, endpoint_id);
        };
        let body = match subject {
            Subject::Task => view.task(version),
            Subject::Container => view.container(version, at),
        };
        body.map_or_else(|| not_rendered(version, subject, view, at), Self::Ok)
    }

    /// The response; `rate` are the connection's rate-limit headers.
    pub(crate) fn into_reply(self, rate: &RateHeaders, request: &HeaderMap) -> Reply {
        let mut reply = match self {
            Self::Ok(body) => reply(StatusCode::OK, JSON, body),
            Self::Refused(status, text) => json_string(status, &text),
            Self::Recovering => {
                let mut reply =
                    json_string(StatusCode::SERVICE_UNAVAILABLE, "The agent is recovering its tasks");
                reply.headers_mut().insert(RETRY_AFTER, RETRY_SECONDS);
                reply
            }
            Self::UnknownPath => {
                let mut reply =
                    reply(StatusCode::NOT_FOUND, TEXT, Bytes::from_static(b"404 page not found\n"));
                reply.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
                reply
            }
        };
        rate.add_to(reply.headers_mut(), request);
        reply
    }
}

/// An id of another task, of no task, or asked for before its task is known: the caller cannot tell which.
fn unknown_id(version: Version, subject: Subject, id: &str) -> Answer {
    let status = match version {
        Version::V3 => StatusCode::INTERNAL_SERVER_ERROR,
        Version::V4 => StatusCode::NOT_FOUND,
    };
    let v = version.as_str();
    // All versions speak of a "v3 endpoint ID", because they share it.
    let text = match subject {
        Subject::Task => format!(
            "{v} task metadata handler: unable to get task arn from request: unable to get task Arn from v3 endpoint ID: {id}"
        ),
        Subject::Container => format!(
            "{v} container metadata handler: unable to get container ID from request: unable to get docker ID from v3 endpoint ID: {id}"
        ),
    };
    Answer::Refused(status, text)
}

fn not_rendered(version: Version, subject: Subject, view: &TaskView, at: usize) -> Answer {
    let text = match (subject, version) {
        (Subject::Task, Version::V3) => format!("Unable to generate metadata for task: '{}'", view.arn()),
        (Subject::Task, Version::V4) => format!("Unable to generate metadata for v4 task: '{}'", view.arn()),
        (Subject::Container, _) => {
            format!("Unable to generate metadata for container '{}'", view.docker_id(at))
        }
    };
    Answer::Refused(StatusCode::INTERNAL_SERVER_ERROR, text)
}

/// To the clean form of a path. No rate-limit headers: it comes before the limiter.
pub(crate) fn redirect(location: HeaderValue) -> Reply {
    let mut reply = Reply::default();
    *reply.status_mut() = StatusCode::MOVED_PERMANENTLY;
    reply.headers_mut().insert(LOCATION, location);
    reply
}

/// What Go's server says of a target that it cannot parse.
pub(crate) fn malformed() -> Reply {
    let mut reply = reply(StatusCode::BAD_REQUEST, TEXT, Bytes::from_static(b"400 Bad Request"));
    close_after(&mut reply);
    reply
}

/// Makes this the connection's last response.
pub(crate) fn close_after(reply: &mut Reply) {
    reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
}

fn json_string(status: StatusCode, text: &str) -> Reply {
    // A string always renders; were it not so, an empty body with the right status is the next best.
    reply(status, JSON, gojson::to_bytes(text).unwrap_or_default())
}

fn reply(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Reply {
    let mut reply = Response::new(Full::new(body));
    *reply.status_mut() = status;
    reply.headers_mut().reserve(HEADERS);
    reply.headers_mut().insert(CONTENT_TYPE, content_type);
    reply
}

/// The rate-limit headers of a connection, made once.
#[derive(Debug)]
pub(crate) struct RateHeaders {
    limit: HeaderValue,
    remote: HeaderValue,
}

impl RateHeaders {
    pub(crate) fn new(steady_rate: u32, remote: std::net::SocketAddr) -> Self {
        // Digits, dots and colons always make a header value.
        let value = |text: String| HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
        Self { limit: value(format!("{steady_rate}.00")), remote: value(remote.to_string()) }
    }

    fn add_to(&self, headers: &mut HeaderMap, request: &HeaderMap) {
        let forwarded = request.get("x-forwarded-for").cloned();
        headers.insert(RATE_DURATION, HeaderValue::from_static("1"));
        headers.insert(RATE_LIMIT, self.limit.clone());
        headers.insert(RATE_FORWARDED_FOR, forwarded.unwrap_or(HeaderValue::from_static("")));
        headers.insert(RATE_REMOTE_ADDR, self.remote.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;
    use std::sync::Arc;

    #[test]
    fn a_body_that_cannot_be_rendered_is_refused_in_the_agents_words() {
        let (config, task, slot) = (sample::config(), sample::task(1), sample::slot(1));
        let view = TaskView::new(Arc::new(config), Arc::new(task), Arc::new(slot));
        let text = |version, subject| match not_rendered(version, subject, &view, 0) {
            Answer::Refused(StatusCode::INTERNAL_SERVER_ERROR, text) => text,
            other => panic!("{other:?}"),
        };
        let arn = sample::arn(1);
        assert_eq!(
            text(Version::V3, Subject::Task),
            format!("Unable to generate metadata for task: '{arn}'")
        );
        assert_eq!(
            text(Version::V4, Subject::Task),
            format!("Unable to generate metadata for v4 task: '{arn}'")
        );
        let container = text(Version::V4, Subject::Container);
        assert_eq!(container, format!("Unable to generate metadata for container '{}'", view.docker_id(0)));
    }
}
