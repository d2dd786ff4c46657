//! The door of the JSON APIs, with ECS behind it: `X-Amz-Target` names the operation, the body is its input.

use super::{MAX_BODY, Origin, ReplyLost, Service, TARGET, reply_with};
use crate::{
    ecs::{self, Call, error::ApiError},
    knobs::{Api, Verdict},
    sigv4::AuthError,
};
use bytes::Bytes;
use http::{Method, Response, StatusCode, header, request::Parts};
use http_body_util::Full;
use jiff::Timestamp;
use serde_json::Value;

/// The type of requests and replies.
const JSON: &str = "application/x-amz-json-1.1";
/// How the types of all versions of the protocol begin.
const ANY_JSON: &str = "application/x-amz-json";

/// Whether a request is meant for a JSON API, even if it fails to say for which operation.
pub(super) fn is_json(head: &Parts) -> bool {
    let kind = head.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    head.headers.contains_key(TARGET) || kind.is_some_and(|kind| kind.starts_with(ANY_JSON))
}

impl Service {
    /// One call of a JSON API.
    pub(super) async fn json(
        &self,
        origin: Origin,
        head: &Parts,
        body: Option<&[u8]>,
        id: &str,
    ) -> Result<Response<Full<Bytes>>, ReplyLost> {
        if self.lock().faults.is_ecs_away() {
            return Err(ReplyLost);
        }
        let Some(body) = body else {
            let message = format!("Request body is longer than {MAX_BODY} bytes");
            let error = ApiError::new("RequestEntityTooLargeException", message);
            return Ok(reply_with(error.status(), JSON, error.body(), id));
        };
        let (operation, reply) = self.json_call(origin, head, body, Timestamp::now());
        // After the act, as for EC2.
        self.dawdle(Api::Ecs).await;
        match reply {
            Ok(Some(output)) => {
                tracing::debug!(request = id, operation, "answered");
                Ok(reply_with(StatusCode::OK, JSON, output.to_string().into_bytes(), id))
            }
            Ok(None) => {
                tracing::info!(request = id, operation, "reply lost as told");
                Err(ReplyLost)
            }
            Err(error) => {
                tracing::debug!(request = id, operation, code = %error.code, message = error.message, "refused");
                Ok(reply_with(error.status(), JSON, error.body(), id))
            }
        }
    }

    /// The operation's name as far as it is known, and its output; `None` is a reply that is to be lost.
    fn json_call(
        &self,
        origin: Origin,
        head: &Parts,
        body: &[u8],
        now: Timestamp,
    ) -> (&'static str, Result<Option<Value>, ApiError>) {
        let inner = &mut *self.lock();
        let caller = self.authenticate(inner, head, body, "ecs", now).map_err(refused);
        let read = caller.and_then(|caller| Ok((caller, operation(head)?, input(body)?)));
        let (caller, operation, input) = match read {
            Ok(read) => read,
            Err(error) => return ("-", Err(error)),
        };
        let verdict = inner.faults.decide(Api::Ecs, operation);
        if let Verdict::Fail { code, message, acts: false } = verdict {
            return (operation, Err(ApiError::new(code, message)));
        }
        let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let mut call = Call {
            caller: &caller,
            inside: origin == Origin::Vpc,
            host: host.unwrap_or("localhost"),
            world: &mut inner.world,
            keys: &inner.keys,
            auth: self.config.auth,
            now,
        };
        let reply = inner.ecs.answer(operation, &input, &mut call);
        let reply = match verdict {
            Verdict::Answer => reply.map(Some),
            Verdict::LoseReply => Ok(None),
            Verdict::Fail { code, message, .. } => Err(ApiError::new(code, message)),
        };
        (operation, reply)
    }
}

fn operation(head: &Parts) -> Result<&'static str, ApiError> {
    let target = head.headers.get(TARGET).and_then(|target| target.to_str().ok()).unwrap_or_default();
    let found =
        if head.method == Method::POST && head.uri.path() == "/" { ecs::operation(target) } else { None };
    found.ok_or_else(ecs::unknown_operation)
}

/// No body is an empty object.
fn input(body: &[u8]) -> Result<Value, ApiError> {
    if body.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(body).map_err(|_| ApiError::serialization("The request body is not valid JSON."))
}

/// A caller who is not let in, in the words of the JSON APIs, which are not EC2's.
fn refused(error: AuthError) -> ApiError {
    let code = match &error {
        AuthError::Missing => "MissingAuthenticationTokenException",
        AuthError::Incomplete(_) => "IncompleteSignature",
        AuthError::UnknownKey | AuthError::BadToken => "UnrecognizedClientException",
        AuthError::Expired => "ExpiredTokenException",
        AuthError::Skewed(_) | AuthError::Scope(_) | AuthError::Mismatch => "InvalidSignatureException",
    };
    ApiError::new(code, error.to_string())
}
