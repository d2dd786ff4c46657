//! What is really there: our containers, their processes, and what the kernel counted for them.

use crate::{
    Inner,
    client::Client,
    error::{Fault, Result},
    process, stored,
};
use berth_types::{
    Timestamp,
    ids::ContainerId,
    ports::{ObservedContainer, RuntimeState},
};
use containerd_client::{
    services::v1::{Container, ListContainersRequest, ListTasksRequest},
    types::v1::{Process, Status},
};
use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

/// The first processes of all containers in our containerd namespace. Their `id` is the container's; `container_id` stays empty on
/// containerd 1.6.
pub(crate) async fn processes(client: &Client) -> Result<Vec<Process>> {
    let request = client.ask(ListTasksRequest { filter: String::new() });
    let reply = client.tasks().list(request).await.map_err(Fault::rpc("list tasks"))?;
    Ok(reply.into_inner().tasks)
}

impl Inner {
    pub(crate) async fn list(&self) -> Result<Vec<ObservedContainer>> {
        // Containers first: a task that starts between the two calls is then seen as running, never a running one as gone.
        let containers = self.containers().await?;
        let processes: HashMap<String, Process> =
            processes(&self.client).await?.into_iter().map(|p| (p.id.clone(), p)).collect();
        let observe = |container: Container| {
            let found = stored::found(&container)?;
            let id: ContainerId = container.id.parse().ok()?;
            let state = match processes.get(&container.id) {
                // A shim that cannot be asked is left out of the list; the kernel knows whether anything of the container lives.
                None if self.cgroups.is_populated(&found.task, &id) => RuntimeState::Unknown,
                None => RuntimeState::Created,
                Some(process) => {
                    state(process, || self.cgroups.oom_kills(&found.task, &id).unwrap_or_default())
                }
            };
            Some(ObservedContainer { id, task: found.task, name: found.name, state, record: found.record })
        };
        Ok(containers.into_iter().filter_map(observe).collect())
    }

    /// Streamed one by one: with their specifications 1000 of them do not fit into one message.
    async fn containers(&self) -> Result<Vec<Container>> {
        let filters = vec![format!("labels.\"{}\"", stored::LABEL_TASK)];
        let request = self.client.ask(ListContainersRequest { filters });
        let reply =
            self.client.containers().list_stream(request).await.map_err(Fault::rpc("list containers"))?;
        let mut stream = reply.into_inner();
        let mut all = Vec::new();
        while let Some(message) = stream.message().await.map_err(Fault::rpc("list containers"))? {
            all.extend(message.container.map(|mut container| {
                container.spec = None;
                container
            }));
        }
        Ok(all)
    }
}

fn state(process: &Process, oom_kills: impl FnOnce() -> u64) -> RuntimeState {
    match process.status() {
        Status::Created => RuntimeState::Created,
        // Its shim does not answer in time, as on a machine that is overloaded.
        Status::Unknown => RuntimeState::Unknown,
        Status::Running | Status::Paused | Status::Pausing => RuntimeState::Running { pid: process.pid },
        Status::Stopped => RuntimeState::Exited {
            code: process.exit_status,
            at: process::time(process.exited_at).unwrap_or_else(Timestamp::now),
            oom: process.exit_status != 0 && oom_kills() > 0,
        },
    }
}

/// Where the kernel counts the memory of a process that lives; `None` when it has gone.
pub(crate) fn memory_cgroup(pid: u32) -> Option<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path_of = |wanted: fn(&str) -> bool| {
        text.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            wanted(controllers).then_some(path)
        })
    };
    let place = |mount: &str, path: &str| Path::new(mount).join(path.trim_start_matches('/'));
    if let Some(path) = path_of(|controllers| controllers.split(',').any(|c| c == "memory")) {
        return Some(place("/sys/fs/cgroup/memory", path));
    }
    path_of(str::is_empty).map(|path| place("/sys/fs/cgroup", path))
}

/// Processes in this cgroup that the kernel killed for want of memory.
pub(crate) fn oom_kills(dir: &Path) -> u64 {
    let read = |file: &str| fs::read_to_string(dir.join(file)).ok();
    let text = read("memory.events").or_else(|| read("memory.oom_control")).unwrap_or_default();
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
    count.unwrap_or_default()
}
