//! The node in its cluster.

use crate::{Admin, ApiError, view::ClusterView};
use axum::{Json, extract::State};
use berth_types::cluster::InstanceStatus;
use std::time::Duration;

/// How long the answer waits for the new status to be seen: the control plane is asked for it right after it took the call.
const SEEN_WITHIN: Duration = Duration::from_secs(5);

pub(super) async fn show(State(admin): State<Admin>) -> Json<ClusterView> {
    Json(ClusterView::new(&admin))
}

/// No new tasks for this instance; those it has keep running, unless their services move them.
pub(super) async fn drain(State(admin): State<Admin>) -> Result<Json<ClusterView>, ApiError> {
    set_draining(&admin, true).await
}

/// Tasks again.
pub(super) async fn activate(State(admin): State<Admin>) -> Result<Json<ClusterView>, ApiError> {
    set_draining(&admin, false).await
}

async fn set_draining(admin: &Admin, draining: bool) -> Result<Json<ClusterView>, ApiError> {
    let Some(plane) = &admin.control_plane else {
        return Err(ApiError::Conflict(
            "this node has no control plane: BERTH_CONTROL_PLANE is none, so nobody else gives it tasks"
                .into(),
        ));
    };
    plane.control.drain(draining).await?;
    let wanted = if draining { InstanceStatus::Draining } else { InstanceStatus::Active };
    let mut cluster = plane.cluster.clone();
    // The call was taken: if its effect is not seen in time, the answer shows what is seen, and that is all.
    tokio::time::timeout(SEEN_WITHIN, cluster.wait_for(|now| now.status == wanted)).await.ok();
    Ok(Json(ClusterView::new(admin)))
}
