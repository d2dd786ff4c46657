//! What the engine is configured with. Read by `names` (environment, paths) and the machine (its [`Rules`]).

use berth_types::Timestamp;
use std::{path::PathBuf, time::Duration};

/// Tasks that are not yet done with their slot. An instance holds at most 120 ENIs, so this is a fuse against a control plane
/// that runs wild, far above what any instance serves; it is also what the promises on memory and restart are measured with.
pub const MAX_TASKS: usize = 1024;

/// Stopped tasks that stay visible until their clean-up. Past this the oldest is cleaned up early: at one short task a second the
/// default wait of three hours would otherwise hold ten thousand.
pub const MAX_STOPPED: usize = 512;

/// Where the engine reads the time of day. Deadlines do not come from here: they are counted by a clock that never jumps.
pub type Clock = fn() -> Timestamp;

/// Settings of the engine.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Goes into the tasks' environment as AWS_REGION and AWS_DEFAULT_REGION.
    pub region: String,
    /// Between the stop signal and SIGKILL, unless the container says otherwise (ECS_CONTAINER_STOP_TIMEOUT).
    pub stop_timeout: Duration,
    /// How long a stopped task stays visible and keeps its volumes and logs (ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION).
    pub cleanup_wait: Duration,
    /// Volumes lie under `DATA/volumes/TASK/NAME`, logs under `DATA/logs/TASK/CONTAINER`.
    pub data_dir: PathBuf,
    /// Tasks that may hold or want a slot at a time.
    pub max_tasks: usize,
    /// More variables for every container; the task's own of the same name win.
    pub environment: Vec<(String, String)>,
    /// The time of day.
    pub clock: Clock,
}

impl EngineConfig {
    /// The official agent's defaults.
    pub fn new(region: impl Into<String>, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            region: region.into(),
            stop_timeout: Duration::from_secs(30),
            cleanup_wait: Duration::from_secs(3 * 60 * 60),
            data_dir: data_dir.into(),
            max_tasks: MAX_TASKS,
            environment: Vec::new(),
            clock: Timestamp::now,
        }
    }

    pub(crate) fn rules(&self) -> Rules {
        Rules { stop_timeout: self.stop_timeout, cleanup_wait: self.cleanup_wait, max_tasks: self.max_tasks }
    }
}

/// The part of the settings that decisions depend on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) stop_timeout: Duration,
    pub(crate) cleanup_wait: Duration,
    pub(crate) max_tasks: usize,
}
