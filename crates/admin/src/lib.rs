//! What operators ask: the admin REST API on a unix socket.
//!
//! Reads snapshots, and tells the owners what operators want through their channels; it owns no state. What it cannot see (the
//! engine's and the ENI manager's handles, log files) is behind [`Backend`], which the agent implements.
//!
//! ```text
//!   CLI, curl ──unix socket──► routes ──reads──► watch<EngineSnapshot>, watch<EniSnapshot>
//!                                     ──mpsc<Assignment>──► engine
//!                                     ──Backend──► ENI manager (resize), engine (forget), log files
//! ```

mod error;
mod routes;
mod run;
mod serve;
pub mod view;

pub use error::{ApiError, ErrorBody};
pub use run::RunRequest;
pub use serve::{ServeError, bind, serve};

use async_trait::async_trait;
use berth_types::{
    Timestamp,
    assignment::Assignment,
    eni::{EniSnapshot, InstanceFacts},
    ids::{ClusterName, TaskArn},
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
    /// Version of the agent.
    pub version: &'static str,
    /// When the agent started.
    pub started_at: Timestamp,
    /// Gives the time: handlers do not read the clock themselves, so that tests can set it.
    pub now: fn() -> Timestamp,
}
