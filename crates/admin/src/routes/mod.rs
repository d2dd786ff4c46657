//! The routes, one function each: here those of the node, in the modules those of its tasks, images, cluster and events.

mod cluster;
mod events;
mod images;
mod logs;
mod tasks;

use crate::{
    Admin, ApiError,
    error::parse_body,
    events::EventLog,
    view::{EniList, HealthView, InstanceView, Pool, ResizeRequest, SlotList},
};
use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRef, State},
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use berth_types::task::TaskStatus;
use tokio_util::sync::CancellationToken;

/// Largest request body: a task definition of 64 KiB, its JSON re-escaped, and room.
const MAX_BODY: usize = 256 * 1024;

/// What the routes have: all of them the agent's parts, that of events its log and the end as well.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    pub(crate) admin: Admin,
    pub(crate) events: EventLog,
    pub(crate) shutdown: CancellationToken,
}

impl FromRef<Api> for Admin {
    fn from_ref(api: &Api) -> Self {
        api.admin.clone()
    }
}

/// All routes.
pub(crate) fn router(api: Api) -> Router {
    Router::new()
        .route("/v1/instance", get(instance))
        .route("/v1/health", get(health))
        .route("/v1/cluster", get(cluster::show))
        .route("/v1/drain", post(cluster::drain))
        .route("/v1/activate", post(cluster::activate))
        .route("/v1/tasks", get(tasks::list).post(tasks::run))
        .route("/v1/tasks/{id}", get(tasks::show).delete(tasks::forget))
        .route("/v1/tasks/{id}/stop", post(tasks::stop))
        .route("/v1/tasks/{id}/logs", get(logs::show))
        .route("/v1/enis", get(enis))
        .route("/v1/slots", get(slots))
        .route("/v1/pool", get(pool).put(resize_pool))
        .route("/v1/images", get(images::list).delete(images::remove))
        .route("/v1/pulls", get(images::pulls))
        .route("/v1/events", get(events::show))
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(axum::middleware::map_response(json_rejection))
        .with_state(api)
}

/// The framework refuses bodies and queries in plain text (too large, a parameter's type); give those the form of all other errors.
async fn json_rejection(response: Response) -> Response {
    let is_json = response.headers().get(http::header::CONTENT_TYPE).is_some_and(|t| t == "application/json");
    let (status, bad) = (response.status(), response.status().is_client_error());
    if !bad || is_json {
        return response;
    }
    let text = axum::body::to_bytes(response.into_body(), MAX_BODY).await.unwrap_or_default();
    let message = if status == StatusCode::PAYLOAD_TOO_LARGE {
        format!("request body: is longer than {MAX_BODY} bytes; expected at most those")
    } else {
        String::from_utf8_lossy(&text).into_owned()
    };
    let mut answer = ApiError::BadRequest(message).into_response();
    *answer.status_mut() = status;
    answer
}

async fn not_found(uri: Uri) -> ApiError {
    ApiError::NotFound(format!(
        "there is no route {}; expected one of /v1/instance, /v1/health, /v1/cluster, /v1/drain, /v1/activate, /v1/tasks, \
         /v1/enis, /v1/slots, /v1/pool, /v1/images, /v1/pulls, /v1/events",
        uri.path()
    ))
}

async fn wrong_method(method: http::Method, uri: Uri) -> ApiError {
    ApiError::MethodNotAllowed(format!("{method} is not for {}", uri.path()))
}

async fn instance(State(admin): State<Admin>) -> Json<InstanceView> {
    let engine = admin.engine.borrow();
    Json(InstanceView {
        instance: (*admin.instance).clone(),
        cluster: admin.cluster.clone(),
        agent_version: admin.version.into(),
        started_at: admin.started_at,
        running_tasks: engine.tasks.values().filter(|t| t.known != TaskStatus::Stopped).count(),
        tasks: engine.tasks.len(),
    })
}

async fn health(State(admin): State<Admin>) -> Response {
    let view = HealthView::new(&admin);
    let status = if view.healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(view)).into_response()
}

async fn enis(State(admin): State<Admin>) -> Json<EniList> {
    Json(EniList { enis: admin.enis.borrow().enis.clone() })
}

async fn slots(State(admin): State<Admin>) -> Json<SlotList> {
    Json(SlotList { slots: admin.enis.borrow().slots.clone() })
}

async fn pool(State(admin): State<Admin>) -> Json<Pool> {
    Json(admin.enis.borrow().pool.clone())
}

async fn resize_pool(State(admin): State<Admin>, body: Bytes) -> Result<Json<Pool>, ApiError> {
    let request: ResizeRequest = parse_body(&body)?;
    if request.warm.is_none() && request.max.is_none() {
        return Err(ApiError::BadRequest("request body: is empty; expected `warm`, `max` or both".into()));
    }
    admin.backend.resize(request.warm, request.max).await.map_err(ApiError::Unavailable)?;
    Ok(Json(admin.enis.borrow().pool.clone()))
}
