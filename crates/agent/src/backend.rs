//! Joins the admin API to the owners' handles.

use async_trait::async_trait;
use berth_admin::{Backend, ClusterControl, LogQuery, Refusal, view::LogLine};
use berth_containerd::Containerd;
use berth_ecs::{DrainError, EcsHandle};
use berth_engine::EngineHandle;
use berth_eni::EniHandle;
use berth_types::{Chain, Class, ids::TaskArn, image::ImageView, ports::ContainerError};
use std::path::Path;

/// The handles behind the API.
#[derive(Debug)]
pub(crate) struct Owners {
    pub(crate) enis: EniHandle,
    pub(crate) engine: EngineHandle,
    pub(crate) containerd: Containerd,
}

#[async_trait]
impl Backend for Owners {
    async fn resize(&self, warm: Option<u32>, max: Option<u32>) -> Result<(), String> {
        let warm = warm.unwrap_or_else(|| self.enis.snapshot.borrow().pool.warm_target);
        self.enis.resize(warm, max).map_err(|e| Chain(&e).to_string())
    }

    async fn forget(&self, task: &TaskArn) -> Result<(), String> {
        self.engine.remove(task).await.map_err(|e| Chain(&e).to_string())
    }

    async fn logs(&self, file: &Path, query: LogQuery) -> Result<Vec<LogLine>, String> {
        let file = file.to_owned();
        // Files of up to a hundred megabytes: not on a runtime worker.
        let read = tokio::task::spawn_blocking(move || {
            if query.ended {
                berth_containerd::logs::await_end(&file);
            }
            berth_containerd::logs::read(&file, query.tail, query.since)
        })
        .await;
        let lines = read.map_err(|e| e.to_string())?.map_err(|e| Chain(&e).to_string())?;
        let line = |l: berth_containerd::logs::LogLine| LogLine {
            time: l.time,
            stream: l.stream.to_string(),
            log: l.log,
            container: String::new(),
        };
        Ok(lines.into_iter().map(line).collect())
    }

    async fn images(&self) -> Result<Vec<ImageView>, Refusal> {
        self.containerd.images().await.map_err(|e| runtime_refusal(&e))
    }

    /// First the very name, as lists show it, then what a task definition may mean by it.
    async fn remove_image(&self, name: &str) -> Result<bool, Refusal> {
        if self.containerd.remove_image(name).await.map_err(|e| runtime_refusal(&e))? {
            return Ok(true);
        }
        let full = self.full_reference(name);
        if full == name {
            return Ok(false);
        }
        self.containerd.remove_image(&full).await.map_err(|e| runtime_refusal(&e))
    }

    fn full_reference(&self, image: &str) -> String {
        berth_containerd::normalize(image)
    }
}

/// The registration's handle, as the API wants it.
#[derive(Debug)]
pub(crate) struct Plane(pub(crate) EcsHandle);

#[async_trait]
impl ClusterControl for Plane {
    async fn drain(&self, draining: bool) -> Result<(), Refusal> {
        self.0.drain(draining).await.map_err(|error| match &error {
            // It registers by itself as soon as it can.
            DrainError::NotRegistered => refusal(Class::Retry, &error),
            DrainError::ControlPlane(cause) => refusal(cause.class(), &error),
        })
    }
}

fn runtime_refusal(error: &ContainerError) -> Refusal {
    refusal(error.class(), error)
}

fn refusal(class: Class, error: &(dyn std::error::Error + 'static)) -> Refusal {
    let reason = Chain(error).to_string();
    match class {
        Class::Retry | Class::RetryAfter(_) => Refusal::Unavailable(reason),
        Class::Permanent | Class::Bug => Refusal::Conflict(reason),
    }
}
