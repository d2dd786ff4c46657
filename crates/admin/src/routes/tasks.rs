//! Tasks: listed, run, looked at, waited for, stopped, forgotten.

use crate::{
    Admin, ApiError,
    error::parse_body,
    run,
    view::{Around, RunView, TaskList, TaskView},
};
use axum::{
    Json,
    body::Bytes,
    extract::{Path, Query, State},
    http::StatusCode,
};
use berth_types::{
    assignment::Assignment,
    task::{STOPPED_BY_OPERATOR, StopCode, TaskSnapshot, TaskStatus},
};
use serde::Deserialize;
use std::{sync::Arc, time::Duration};
use tokio::sync::oneshot;

/// Longest that a request may wait for a task's state.
const MAX_WAIT: Duration = Duration::from_secs(300);

fn view(admin: &Admin, task: &TaskSnapshot) -> TaskView {
    let (reports, enis, pulls) = (admin.reports_now(), admin.enis_now(), admin.pulls_now());
    TaskView::new(task, &Around::new(&enis, &reports, &pulls, &*admin.backend))
}

pub(super) async fn list(State(admin): State<Admin>) -> Json<TaskList> {
    // One snapshot after the other: two held at once would make their owners wait for each other's readers.
    let engine = Arc::clone(&admin.engine.borrow());
    let (reports, enis, pulls) = (admin.reports_now(), admin.enis_now(), admin.pulls_now());
    let around = Around::new(&enis, &reports, &pulls, &*admin.backend);
    let mut tasks: Vec<TaskView> = engine.tasks.values().map(|task| TaskView::new(task, &around)).collect();
    tasks.sort_by(|a, b| a.created_at.cmp(&b.created_at).then_with(|| a.task_arn.cmp(&b.task_arn)));
    Json(TaskList { tasks })
}

pub(super) async fn run(
    State(admin): State<Admin>,
    body: Bytes,
) -> Result<(StatusCode, Json<RunView>), ApiError> {
    let spec = run::spec(&admin, &body)?;
    let task = spec.arn.clone();
    let (reply, answer) = oneshot::channel();
    run::assign(&admin, Assignment::Run { spec: Box::new(spec), reply }, answer).await?;
    Ok((StatusCode::CREATED, Json(RunView { task })))
}

/// The task whose ARN is `id`, or whose id begins with it.
pub(super) fn find(admin: &Admin, id: &str) -> Result<Arc<TaskSnapshot>, ApiError> {
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
pub(super) struct WaitQuery {
    /// Answer only when the task is RUNNING (or beyond) or STOPPED.
    wait: Option<String>,
    /// Seconds.
    timeout: Option<u64>,
}

pub(super) async fn show(
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

pub(super) async fn stop(
    State(admin): State<Admin>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<TaskView>, ApiError> {
    let request: StopRequest = if body.is_empty() { StopRequest::default() } else { parse_body(&body)? };
    let reason = request.reason.unwrap_or_else(|| STOPPED_BY_OPERATOR.into());
    if reason.len() > MAX_REASON {
        return Err(ApiError::BadRequest(format!(
            "reason: is {} bytes long; expected at most {MAX_REASON}",
            reason.len()
        )));
    }
    let task = find(&admin, &id)?.spec.arn.clone();
    let (reply, answer) = oneshot::channel();
    let stop = Assignment::Stop { task: task.clone(), reason, code: StopCode::OperatorInitiated, reply };
    run::assign(&admin, stop, answer).await?;
    Ok(Json(view(&admin, &*find(&admin, task.as_str())?)))
}

pub(super) async fn forget(
    State(admin): State<Admin>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
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
