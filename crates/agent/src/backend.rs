//! Joins the admin API to the owners' handles.

use async_trait::async_trait;
use berth_admin::{Backend, LogQuery, view::LogLine};
use berth_engine::EngineHandle;
use berth_eni::EniHandle;
use berth_types::{Chain, ids::TaskArn};
use std::path::Path;

/// The handles behind the API.
#[derive(Debug)]
pub(crate) struct Owners {
    pub(crate) enis: EniHandle,
    pub(crate) engine: EngineHandle,
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
}
