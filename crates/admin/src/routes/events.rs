//! What happens, as lines of JSON: one object a line, so that a reader needs no framing of its own.

use super::Api;
use crate::{
    ApiError,
    events::{MAX_FOLLOWERS, line},
};
use axum::{
    body::Body,
    extract::{Query, State},
    http::{HeaderValue, header},
    response::Response,
};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    /// Go on with what happens, until the client leaves.
    #[serde(default)]
    follow: bool,
    /// Only events after this one.
    after: Option<u64>,
}

pub(super) async fn show(
    State(Api { admin, events, shutdown }): State<Api>,
    Query(query): Query<EventsQuery>,
) -> Result<Response, ApiError> {
    let body = if query.follow {
        let follow = events.follow(query.after, admin.now, shutdown).ok_or_else(|| {
            ApiError::Unavailable(format!(
                "{MAX_FOLLOWERS} clients follow the events already, the most there may be"
            ))
        })?;
        Body::from_stream(follow.lines())
    } else {
        let kept = events.recent(query.after, (admin.now)());
        let lines: Result<Vec<_>, _> = kept.iter().map(|event| line(event)).collect();
        Body::from(lines.map_err(|e| ApiError::Internal(e.to_string()))?.concat())
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    Ok(response)
}
