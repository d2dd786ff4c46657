//! What a task's containers have written.

use super::tasks::find;
use crate::{
    Admin, ApiError, LogQuery,
    view::{LogLine, LogView},
};
use axum::{
    Json,
    extract::{Path, Query, State},
};
use berth_types::{Timestamp, task::ContainerStatus};
use serde::Deserialize;

/// Lines that a log request gets unless it asks for fewer; 1,000 lines of 16 KiB are the most one answer can hold.
const DEFAULT_TAIL: usize = 100;

/// Most lines of one answer.
const MAX_TAIL: usize = 1000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogsQuery {
    container: Option<String>,
    tail: Option<usize>,
    since: Option<Timestamp>,
}

pub(super) async fn show(
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
    let asked = query.tail.unwrap_or(DEFAULT_TAIL);
    let tail = asked.min(MAX_TAIL);
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
    // Fewer lines than the most are all there are: then nothing is missing.
    let cut = asked > MAX_TAIL && lines.len() == MAX_TAIL;
    let note = cut.then(|| {
        format!(
            "{asked} lines were asked for; these are the latest {MAX_TAIL}, the most that one answer holds"
        )
    });
    Ok(Json(LogView { lines, note }))
}
