//! The routes, one function each.

use crate::{
    Admin, ApiError, LogQuery,
    error::parse_body,
    run,
    view::{
        EniList, HealthView, InstanceView, LogLine, LogView, Pool, ResizeRequest, RunView, SlotList,
        TaskList, TaskView,
    },
};
use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, Query, State},
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use berth_types::{
    Timestamp,
    assignment::Assignment,
    task::{ContainerStatus, StopCode, TaskSnapshot, TaskStatus},
};
use serde::Deserialize;
use std::{sync::Arc, time::Duration};
use tokio::sync::oneshot;

/// Largest request body: a task definition of 64 KiB, its JSON re-escaped, and room.
const MAX_BODY: usize = 256 * 1024;

/// Lines that a log request gets unless it asks for fewer; 1,000 lines of 16 KiB are the most one answer can hold.
const DEFAULT_TAIL: usize = 100;

/// Most lines of one answer.
const MAX_TAIL: usize = 1000;

/// Longest that a request may wait for a task's state.
const MAX_WAIT: Duration = Duration::from_secs(300);

/// All routes.
pub(crate) fn router(admin: Admin) -> Router {
    Router::new()
        .route("/v1/instance", get(instance))
        .route("/v1/health", get(health))
        .route("/v1/tasks", get(list_tasks).post(run_task))
        .route("/v1/tasks/{id}", get(get_task).delete(forget_task))
        .route("/v1/tasks/{id}/stop", post(stop_task))
        .route("/v1/tasks/{id}/logs", get(task_logs))
        .route("/v1/enis", get(enis))
        .route("/v1/slots", get(slots))
        .route("/v1/pool", get(pool).put(resize_pool))
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(axum::middleware::map_response(json_rejection))
        .with_state(admin)
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
        "there is no route {}; expected one of /v1/instance, /v1/health, /v1/tasks, /v1/enis, /v1/slots, /v1/pool",
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

fn view(admin: &Admin, task: &TaskSnapshot) -> TaskView {
    TaskView::new(task, &admin.enis.borrow())
}

async fn list_tasks(State(admin): State<Admin>) -> Json<TaskList> {
    let mut tasks: Vec<TaskView> = admin.engine.borrow().tasks.values().map(|t| view(&admin, t)).collect();
    tasks.sort_by(|a, b| a.created_at.cmp(&b.created_at).then_with(|| a.task_arn.cmp(&b.task_arn)));
    Json(TaskList { tasks })
}

async fn run_task(State(admin): State<Admin>, body: Bytes) -> Result<(StatusCode, Json<RunView>), ApiError> {
    let spec = run::spec(&admin, &body)?;
    let task = spec.arn.clone();
    let (reply, answer) = oneshot::channel();
    run::assign(&admin, Assignment::Run { spec: Box::new(spec), reply }, answer).await?;
    Ok((StatusCode::CREATED, Json(RunView { task })))
}

/// The task whose ARN is `id`, or whose id begins with it.
fn find(admin: &Admin, id: &str) -> Result<Arc<TaskSnapshot>, ApiError> {
    let engine = admin.engine.borrow();
    if let Some(task) = id.parse().ok().and_then(|arn| engine.tasks.get(&arn)) {
        return Ok(Arc::clone(task));
    }
    let mut found = engine.tasks.values().filter(|t| !id.is_empty() && t.spec.arn.id().starts_with(id));
    match (found.next(), found.next()) {
        (Some(task), None) => Ok(Arc::clone(task)),
        (Some(_), Some(_)) => {
            Err(ApiError::Conflict(format!("several tasks begin with `{id}`; give more of the id")))
        }
        _ => Err(ApiError::NotFound(format!(
            "there is no task `{id}`; expected a task's id, the beginning of one, or an ARN"
        ))),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WaitQuery {
    /// Answer only when the task is RUNNING (or beyond) or STOPPED.
    wait: Option<String>,
    /// Seconds.
    timeout: Option<u64>,
}

async fn get_task(
    State(admin): State<Admin>,
    Path(id): Path<String>,
    Query(query): Query<WaitQuery>,
) -> Result<Json<TaskView>, ApiError> {
    let task = find(&admin, &id)?;
    let Some(wanted) = query.wait else { return Ok(Json(view(&admin, &task))) };
    let reached: fn(&TaskSnapshot) -> bool = match wanted.as_str() {
        "RUNNING" => |t| t.known >= TaskStatus::Running,
        "STOPPED" => |t| t.known == TaskStatus::Stopped,
        other => {
            return Err(ApiError::BadRequest(format!("wait: is `{other}`; expected RUNNING or STOPPED")));
        }
    };
    let arn = task.spec.arn.clone();
    let mut engine = admin.engine.clone();
    let wait = Duration::from_secs(query.timeout.unwrap_or(60)).min(MAX_WAIT);
    // When the time is over, or the task was forgotten meanwhile, the last known state is the answer: the caller sees its status.
    let settled =
        tokio::time::timeout(wait, engine.wait_for(|s| s.tasks.get(&arn).is_none_or(|t| reached(t)))).await;
    let last = match settled {
        Ok(Ok(snapshot)) => snapshot.tasks.get(&arn).map(Arc::clone),
        Ok(Err(_)) | Err(_) => admin.engine.borrow().tasks.get(&arn).map(Arc::clone),
    };
    Ok(Json(view(&admin, &last.unwrap_or(task))))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct StopRequest {
    reason: Option<String>,
}

/// The ECS API's own limit of a stop reason.
const MAX_REASON: usize = 1024;

async fn stop_task(
    State(admin): State<Admin>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<TaskView>, ApiError> {
    let request: StopRequest = if body.is_empty() { StopRequest::default() } else { parse_body(&body)? };
    let reason = request.reason.unwrap_or_else(|| "Task stopped by operator".into());
    if reason.len() > MAX_REASON {
        return Err(ApiError::BadRequest(format!(
            "reason: is {} bytes long; expected at most {MAX_REASON}",
            reason.len()
        )));
    }
    let task = find(&admin, &id)?.spec.arn.clone();
    let (reply, answer) = oneshot::channel();
    let stop = Assignment::Stop { task: task.clone(), reason, code: StopCode::UserInitiated, reply };
    run::assign(&admin, stop, answer).await?;
    Ok(Json(view(&admin, &*find(&admin, task.as_str())?)))
}

async fn forget_task(State(admin): State<Admin>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    let task = find(&admin, &id)?;
    if task.known != TaskStatus::Stopped {
        return Err(ApiError::Conflict(format!(
            "task {} is {}; stop it first",
            task.spec.arn.id(),
            task.last_status()
        )));
    }
    admin.backend.forget(&task.spec.arn).await.map_err(ApiError::Conflict)?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogsQuery {
    container: Option<String>,
    tail: Option<usize>,
    since: Option<Timestamp>,
}

async fn task_logs(
    State(admin): State<Admin>,
    Path(id): Path<String>,
    Query(query): Query<LogsQuery>,
) -> Result<Json<LogView>, ApiError> {
    let task = find(&admin, &id)?;
    let wanted: Vec<_> =
        task.containers.iter().filter(|c| query.container.as_ref().is_none_or(|n| *n == c.name)).collect();
    if let (Some(name), true) = (&query.container, wanted.is_empty()) {
        let names: Vec<&str> = task.containers.iter().map(|c| c.name.as_str()).collect();
        return Err(ApiError::NotFound(format!(
            "the task has no container `{name}`; expected one of {}",
            names.join(", ")
        )));
    }
    let tail = query.tail.unwrap_or(DEFAULT_TAIL).min(MAX_TAIL);
    let mut lines: Vec<LogLine> = Vec::new();
    for container in wanted {
        let Some(path) = &container.log_path else { continue };
        let ended = container.known == ContainerStatus::Stopped;
        let read = admin
            .backend
            .logs(path, LogQuery { tail, since: query.since, ended })
            .await
            .map_err(ApiError::Internal)?;
        lines.extend(read.into_iter().map(|line| LogLine { container: container.name.clone(), ..line }));
    }
    lines.sort_by_key(|line| line.time);
    let surplus = lines.len().saturating_sub(tail);
    lines.drain(..surplus);
    Ok(Json(LogView { lines }))
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
