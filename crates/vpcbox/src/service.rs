//! The box's one shared state and the HTTP service on it.
//!
//! ```text
//!  connection ──► handle ──► /_vpcbox/...        operators, from the machine itself only (control.rs)
//!                   │  └───► X-Amz-Target: signature ──► fault? ──► Ecs::answer ──► Ecs, World        (json.rs)
//!                   └──────► signature ──► fault? ──► ec2::answer ──► World ──changed──► wiring.rs
//! ```
//!
//! World, ECS, faults and keys lie behind one mutex: a call decides and acts under it in one go, in memory, and nothing is awaited
//! meanwhile.

pub mod control;
mod json;
#[cfg(test)]
mod tests;

use crate::{
    config::Config,
    ec2::{self, error::ApiError, params::Params},
    ecs::Ecs,
    imds::{ImdsCredentials, ImdsInstance, ImdsView},
    keys::{Caller, Keys},
    knobs::{Api, Faults, Verdict},
    sigv4::{self, AuthError, Signed},
    world::{
        LinkView, StartError, World,
        ids::{AttachmentId, EniId},
    },
};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Body;
use jiff::Timestamp;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Largest request body. The longest sensible call, CreateTags on a thousand resources, takes a tenth of it.
pub const MAX_BODY: usize = 1024 * 1024;
/// Header by which the JSON APIs (ECS) name their operation.
const TARGET: &str = "x-amz-target";
/// Every reply carries its request's id in it.
const REQUEST_ID: &str = "x-amzn-requestid";

/// Where a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// On the machine's own listener: operators and tests.
    Machine,
    /// Inside an instance or the VPC: agents and tasks, who must not turn knobs.
    Vpc,
}

/// The reply is lost: the connection is to be closed as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the reply was lost, as told")]
pub struct ReplyLost;

/// The shared state.
#[derive(Debug)]
pub struct Service {
    config: Config,
    inner: Mutex<Inner>,
    /// Rung after every call that may have changed where links belong.
    changed: Notify,
}

#[derive(Debug)]
struct Inner {
    world: World,
    ecs: Ecs,
    faults: Faults,
    keys: Keys,
}

impl Service {
    /// The state at the beginning. Ids that it gives out follow from `seed`.
    pub fn new(config: Config, seed: &str, now: Timestamp) -> Result<Self, StartError> {
        let world = World::new(&config, seed, now)?;
        let keys = Keys::new(config.operator.clone());
        let ecs = Ecs::new(&config, seed);
        let inner = Inner { world, ecs, faults: Faults::default(), keys };
        Ok(Self { config, inner: Mutex::new(inner), changed: Notify::new() })
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// A panic under the lock leaves a world that is whole: every rule is checked before the first write.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The links that should be there now.
    pub fn links(&self) -> LinkView {
        self.lock().world.links(Timestamp::now())
    }

    /// No link of this attachment is left.
    pub fn link_gone(&self, eni: &EniId, attachment: &AttachmentId) {
        self.lock().world.link_gone(eni, attachment, Timestamp::now());
    }

    /// Waits until links may belong elsewhere. A ring that nobody waits for is kept.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Answers one request.
    pub async fn handle<B>(
        &self,
        origin: Origin,
        request: Request<B>,
    ) -> Result<Response<Full<Bytes>>, ReplyLost>
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        let id = uuid::Uuid::new_v4().to_string();
        let body = Limited::new(body, MAX_BODY).collect().await.map(|body| body.to_bytes()).ok();
        if json::is_json(&head) && !is_control(origin, &head) {
            return self.json(origin, &head, body.as_deref(), &id).await;
        }
        let Some(body) = body else {
            let error = ApiError::new("RequestEntityTooLarge", format!("At most {MAX_BODY} bytes"));
            return Ok(failure(&error, &id));
        };
        if is_control(origin, &head) {
            return Ok(self.control(&head.method, head.uri.path(), &body));
        }
        if head.uri.path() != "/" || !matches!(head.method, Method::GET | Method::POST) {
            let error = ApiError::new("InvalidAction", "The API is at /, by GET or POST.");
            return Ok(failure(&error, &id));
        }
        self.ec2(&head, &body, &id).await
    }

    /// One call of the EC2 API.
    async fn ec2(&self, head: &Parts, body: &[u8], id: &str) -> Result<Response<Full<Bytes>>, ReplyLost> {
        let (action, reply) = self.call(head, body, id, Timestamp::now());
        self.changed.notify_one();
        // After the act: a client that gives up waiting must not be able to conclude that nothing was done.
        self.dawdle(Api::Ec2).await;
        match reply {
            Ok(Some(body)) => {
                tracing::debug!(request = id, action, "answered");
                Ok(reply_with(StatusCode::OK, "text/xml;charset=UTF-8", body, id))
            }
            Ok(None) => {
                tracing::info!(request = id, action, "reply lost as told");
                Err(ReplyLost)
            }
            Err(error) => {
                tracing::debug!(request = id, action, code = %error.code, message = error.message, "refused");
                Ok(failure(&error, id))
            }
        }
    }

    /// Takes as much longer as the knobs say.
    async fn dawdle(&self, api: Api) {
        let delay = self.lock().faults.call_delay(api);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
    }

    /// The action's name as far as it is known, and its reply; `None` is a reply that is to be lost.
    fn call(
        &self,
        head: &Parts,
        body: &[u8],
        id: &str,
        now: Timestamp,
    ) -> (&'static str, Result<Option<Vec<u8>>, ApiError>) {
        let inner = &mut *self.lock();
        let caller = self.authenticate(inner, head, body, "ec2", now);
        let caller = caller.map_err(|error| ApiError::new(error.code(), error.to_string()));
        let named = caller.and_then(|_caller| {
            let query = head.uri.query().unwrap_or_default().as_bytes();
            let mut params = Params::parse(if head.method == Method::GET { query } else { body })?;
            Ok((ec2::action(&mut params)?, params))
        });
        let (action, params) = match named {
            Ok(named) => named,
            Err(error) => return ("-", Err(error)),
        };
        let verdict = inner.faults.decide(Api::Ec2, action);
        if let Verdict::Fail { code, message, acts: false } = verdict {
            return (action, Err(ApiError::new(code, message)));
        }
        let reply = ec2::answer(action, params, &mut inner.world, now, id);
        let reply = match verdict {
            Verdict::Answer => reply.map(Some),
            Verdict::LoseReply => Ok(None),
            Verdict::Fail { code, message, .. } => Err(ApiError::new(code, message)),
        };
        (action, reply)
    }

    fn authenticate(
        &self,
        inner: &Inner,
        head: &Parts,
        body: &[u8],
        service: &str,
        now: Timestamp,
    ) -> Result<Caller, AuthError> {
        if !self.config.auth {
            return Ok(Caller::Operator);
        }
        let signed = Signed {
            method: head.method.as_str(),
            path: head.uri.path(),
            query: head.uri.query().unwrap_or_default(),
            headers: &head.headers,
            body,
        };
        sigv4::verify(&signed, &inner.keys, &self.config.region, service, now)
    }
}

impl ImdsView for Service {
    fn instance(&self, id: &str) -> Option<ImdsInstance> {
        self.lock().world.imds_instance(id, Timestamp::now())
    }

    fn issue_credentials(&self, instance: &str) -> Option<ImdsCredentials> {
        let now = Timestamp::now();
        let inner = &mut *self.lock();
        inner.world.imds_instance(instance, now)?.role?;
        Some(inner.keys.issue(instance, now))
    }

    fn seal(&self, document: &str) -> String {
        self.lock().keys.seal(document)
    }
}

/// Whether it is an operator's, who turns knobs.
fn is_control(origin: Origin, head: &Parts) -> bool {
    origin == Origin::Machine && head.uri.path().starts_with(control::PREFIX)
}

fn failure(error: &ApiError, id: &str) -> Response<Full<Bytes>> {
    reply_with(error.status(), "text/xml;charset=UTF-8", error.body(id), id)
}

fn reply_with(status: StatusCode, kind: &'static str, body: Vec<u8>, id: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Ok(id) = HeaderValue::from_str(id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}
