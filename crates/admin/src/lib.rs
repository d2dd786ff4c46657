//! What operators ask: the admin REST API on a unix socket.
//!
//! Reads snapshots, and tells the owners what operators want through their channels; it owns no state. What it cannot see (the
//! engine's and the ENI manager's handles, log files) is behind [`Backend`], which the agent implements.
//!
//! ```text
//!   CLI, curl ──unix socket──► routes ──reads──► watch<EngineSnapshot>, watch<EniSnapshot>, watch<PullsSnapshot>
//!                                │    ──mpsc<Assignment>──► engine
//!                                │    ──Backend──► ENI manager (resize), engine (forget), containerd (images), log files
//!                                │    ──ClusterControl──► control plane (drain); watch<ClusterSnapshot>, watch<ReportsSnapshot>
//!                                └──events──► what all of these watches have shown lately, and show from now on
//! ```

mod error;
mod events;
mod routes;
mod run;
#[cfg(test)]
mod samples;
mod serve;
pub mod view;

pub use error::{ApiError, ErrorBody, Refusal};
pub use events::{Event, EventKind, News};
pub use run::RunRequest;
pub use serve::{ServeError, bind, serve};

use async_trait::async_trait;
use berth_types::{
    Timestamp,
    assignment::Assignment,
    cluster::{ClusterSnapshot, ReportsSnapshot},
    eni::{EniSnapshot, InstanceFacts},
    ids::{ClusterName, TaskArn},
    image::{ImageView, PullsSnapshot},
    task::EngineSnapshot,
};
use std::{path::Path, sync::Arc};
use tokio::sync::{mpsc, watch};

/// What the agent does for the API beyond snapshots and assignments.
#[async_trait]
pub trait Backend: std::fmt::Debug + Send + Sync + 'static {
    /// Changes how many slots the pool keeps warm, and how many ENIs it may hold. Until the agent restarts.
    async fn resize(&self, warm: Option<u32>, max: Option<u32>) -> Result<(), String>;
    /// Forgets a stopped task: its record, volumes and logs.
    async fn forget(&self, task: &TaskArn) -> Result<(), String>;
    /// Reads a log file, the rotated ones included.
    async fn logs(&self, file: &Path, query: LogQuery) -> Result<Vec<view::LogLine>, String>;
    /// Every image in the runtime's store.
    async fn images(&self) -> Result<Vec<ImageView>, Refusal>;
    /// Removes an image by its name; `false` if there is none. Refused while containers are made of it.
    async fn remove_image(&self, name: &str) -> Result<bool, Refusal>;
    /// The full form of an image reference, under which pulls are known: `web` is `docker.io/library/web:latest`.
    fn full_reference(&self, image: &str) -> String;
}

/// What operators can tell the control plane.
#[async_trait]
pub trait ClusterControl: std::fmt::Debug + Send + Sync + 'static {
    /// Asks for no new tasks, or for tasks again.
    async fn drain(&self, draining: bool) -> Result<(), Refusal>;
}

/// The control plane of a node that has one.
#[derive(Debug, Clone)]
pub struct ControlPlane {
    /// The registration.
    pub cluster: watch::Receiver<Arc<ClusterSnapshot>>,
    /// Reports that wait.
    pub reports: watch::Receiver<Arc<ReportsSnapshot>>,
    /// What it can be told.
    pub control: Arc<dyn ClusterControl>,
}

/// Which lines of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogQuery {
    /// At most so many, the newest.
    pub tail: usize,
    /// Only lines after this time.
    pub since: Option<Timestamp>,
    /// The container has ended: its last words may be on their way still, and are waited for.
    pub ended: bool,
}

/// Everything the API reads and writes.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Tasks.
    pub engine: watch::Receiver<Arc<EngineSnapshot>>,
    /// ENIs, slots, pool.
    pub enis: watch::Receiver<Arc<EniSnapshot>>,
    /// Pulls of images.
    pub pulls: watch::Receiver<Arc<PullsSnapshot>>,
    /// `None`: nobody but operators gives this node tasks.
    pub control_plane: Option<ControlPlane>,
    /// Where assignments go.
    pub assignments: mpsc::Sender<Assignment>,
    /// The rest.
    pub backend: Arc<dyn Backend>,
    /// The instance.
    pub instance: Arc<InstanceFacts>,
    /// The cluster as configured: a name or an ARN.
    pub cluster: String,
    /// The cluster's short name.
    pub cluster_name: ClusterName,
    /// Whether privileged containers may run here.
    pub privileged: bool,
    /// Version of the agent.
    pub version: &'static str,
    /// When the agent started.
    pub started_at: Timestamp,
    /// Gives the time: handlers do not read the clock themselves, so that tests can set it.
    pub now: fn() -> Timestamp,
}

/// The snapshots of now. Each is taken out of its watch at once: a reader that holds one back holds up its owner.
impl Admin {
    fn enis_now(&self) -> Arc<EniSnapshot> {
        Arc::clone(&self.enis.borrow())
    }

    fn pulls_now(&self) -> Arc<PullsSnapshot> {
        Arc::clone(&self.pulls.borrow())
    }

    fn cluster_now(&self) -> Arc<ClusterSnapshot> {
        self.control_plane.as_ref().map(|plane| Arc::clone(&plane.cluster.borrow())).unwrap_or_default()
    }

    fn reports_now(&self) -> Arc<ReportsSnapshot> {
        self.control_plane.as_ref().map(|plane| Arc::clone(&plane.reports.borrow())).unwrap_or_default()
    }
}
