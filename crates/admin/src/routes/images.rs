//! Images and pulls.

use crate::{Admin, ApiError, view::ImageList};
use axum::{
    Json,
    extract::{Query, State},
    http::StatusCode,
};
use berth_types::image::PullsSnapshot;
use serde::Deserialize;

pub(super) async fn list(State(admin): State<Admin>) -> Result<Json<ImageList>, ApiError> {
    let images = admin.backend.images().await?;
    Ok(Json(ImageList { images, pulls: (*admin.pulls_now()).clone() }))
}

pub(super) async fn pulls(State(admin): State<Admin>) -> Json<PullsSnapshot> {
    Json((*admin.pulls_now()).clone())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RemoveQuery {
    name: String,
}

pub(super) async fn remove(
    State(admin): State<Admin>,
    Query(query): Query<RemoveQuery>,
) -> Result<StatusCode, ApiError> {
    if admin.backend.remove_image(&query.name).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::NotFound(format!("there is no image `{}`; see /v1/images", query.name)))
    }
}
