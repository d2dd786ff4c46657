//! A container's life, step by step over containerd's API. Each step is repeatable: what is there already is taken over.
//!
//! ```text
//!  create   image, task's cgroup, snapshot, specification, container record
//!  start    snapshot's mounts, task (shim and runc create), Wait, start
//!  signal   kill
//!  remove   kill all, wait, task, record, snapshot
//! ```
//!
//! No lease guards a fresh snapshot until its container record refers to it: should containerd's garbage collector fall into those
//! two milliseconds, `start` finds the snapshot missing and prepares it again.

use crate::{
    Inner,
    cgroup::TaskLimits,
    client::QUERY_DEADLINE,
    error::{Fault, OrAbsent, Result, blocking, within},
    image::Image,
    logs, process, signal,
    spec::{self, Inputs},
    stored::{self, Runtime, Stored},
};
use berth_types::{
    Timestamp,
    ids::ContainerId,
    ports::{CreateContainer, Signal},
};
use containerd_client::{
    services::v1::{
        Container, CreateContainerRequest, CreateTaskRequest, DeleteContainerRequest, DeleteTaskRequest,
        GetContainerRequest, GetRequest, KillRequest, StartRequest, WaitRequest,
        snapshots::{MountsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest},
    },
    types::{
        Mount,
        v1::{Process, Status},
    },
};
use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};
use tokio::time::sleep;
use tonic::Code;

/// When an agent dies in the middle of a start, containerd undoes what that one had begun, which takes some hundred milliseconds: the
/// task and its directory are there and then not. So often is it tried again.
const CUT_OFF_TRIES: usize = 100;
/// Between two of those: 100 of them are ten seconds.
const CUT_OFF_PAUSE: Duration = Duration::from_millis(100);

/// Why a task did not start.
enum Start {
    /// A start that was cut off stands in the way, and is being undone.
    CutOff(Fault),
    Failed(Fault),
}

impl From<Fault> for Start {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault)
    }
}

impl Inner {
    pub(crate) async fn create(&self, container: &CreateContainer) -> Result<Timestamp> {
        let image = self.image_of(container).await?;
        let record = self.record(container, &image)?;
        let (cgroup, snapshot) = tokio::join!(self.ensure_cgroup(container), self.prepare(container, &image));
        let made = match (cgroup, snapshot) {
            (Ok(()), Ok(())) => self.put(record).await,
            (Err(fault), _) | (_, Err(fault)) => Err(fault),
        };
        match made {
            Err(fault) if fault.is_already_exists() => time_of(&self.get(&container.id).await?),
            Err(fault) => {
                self.drop_snapshot(&container.id).await;
                Err(fault)
            }
            Ok(record) => time_of(&record),
        }
    }

    /// The image that the task has asked for; brought again if it went meanwhile: a container may wait for hours for another of its
    /// task, and the disk may be full in between.
    async fn image_of(&self, container: &CreateContainer) -> Result<Arc<Image>> {
        let reference = &container.spec.image;
        let gone = match self.images.resolve(reference).await {
            Err(Fault::ImageNotFound(gone)) => gone,
            other => return other,
        };
        match self.images.bring(reference).await {
            Err(Fault::CannotResolve(why) | Fault::CannotPull(why)) => {
                Err(Fault::ImageNotFound(format!("{gone}; nor could it be pulled: {why}")))
            }
            other => other,
        }
    }

    fn record(&self, container: &CreateContainer, image: &Image) -> Result<Container> {
        let cgroups_path = self.cgroups.path_of(&container.task, &container.id);
        let spec = spec::build(&Inputs {
            container,
            image: &image.settings,
            passwd: &image.passwd,
            group: &image.group,
            host: &self.host,
            cgroups_path: &cgroups_path,
        })?;
        let stored = Stored::new(container, &image.chain, image.settings.stop_signal.as_deref())?;
        let runtime = Runtime { name: &self.config.runtime, systemd_cgroup: self.cgroups.is_systemd() };
        stored::record(container, &stored, &spec, self.client.snapshotter(), runtime)
    }

    async fn put(&self, record: Container) -> Result<Container> {
        let request = self.client.ask(CreateContainerRequest { container: Some(record) });
        let reply =
            self.client.containers().create(request).await.map_err(Fault::rpc("create container record"))?;
        reply
            .into_inner()
            .container
            .ok_or_else(|| Fault::Broken("containerd answered without a container".into()))
    }

    async fn ensure_cgroup(&self, container: &CreateContainer) -> Result<()> {
        let (cgroups, task) = (self.cgroups.clone(), container.task.clone());
        let limits = TaskLimits { cpu: container.task_cpu, memory: container.task_memory };
        blocking(move || cgroups.ensure_task(&task, limits)).await
    }

    /// The container's own layer on the image; one that is there is kept.
    async fn prepare(&self, container: &CreateContainer, image: &Image) -> Result<()> {
        match self.prepare_on(&container.id, &image.chain).await {
            Err(fault) if fault.is_not_found() => {
                // The image was removed and imported again since it was resolved: its snapshot is made anew.
                self.images.forget(image);
                let fresh = self.images.resolve(&container.spec.image).await?;
                self.prepare_on(&container.id, &fresh.chain).await.map(drop)
            }
            other => other.map(drop),
        }
    }

    async fn prepare_on(&self, id: &ContainerId, parent: &str) -> Result<Option<Vec<Mount>>> {
        let request = self.client.ask(PrepareSnapshotRequest {
            snapshotter: self.client.snapshotter(),
            key: id.to_string(),
            parent: parent.to_owned(),
            labels: HashMap::new(),
        });
        match self.client.snapshots().prepare(request).await.map_err(Fault::rpc("prepare snapshot")) {
            Err(fault) if fault.is_already_exists() => Ok(None),
            other => other.map(|reply| Some(reply.into_inner().mounts)),
        }
    }

    /// After a create that failed. Only without a container record: a repeated create may fail while the container runs on this
    /// very snapshot. One that stays belongs to nobody and is collected.
    async fn drop_snapshot(&self, id: &ContainerId) {
        match self.get(id).await.or_absent() {
            Ok(None) => {}
            Ok(Some(_)) | Err(_) => return,
        }
        if let Err(fault) = self.remove_snapshot(id).await {
            tracing::debug!(container = id.short(), error = %fault, "snapshot left to the garbage collector");
        }
    }

    async fn get(&self, id: &ContainerId) -> Result<Container> {
        let request = self.client.ask(GetContainerRequest { id: id.to_string() });
        let reply =
            self.client.containers().get(request).await.map_err(Fault::rpc("get container record"))?;
        reply
            .into_inner()
            .container
            .ok_or_else(|| Fault::Broken("containerd answered without a container".into()))
    }

    pub(crate) async fn start(&self, id: &ContainerId) -> Result<(u32, Timestamp)> {
        let record = self.get(id).await?;
        let stored = stored::stored(&record)?;
        let mounts = self.mounts(id, &stored).await?;
        let stdio = self.stdio(&stored)?;
        if let Some(log) = &stored.log {
            let path = log.path.clone();
            blocking(move || logs::prepare_directory(&path)).await?;
        }
        let mut tries = 0;
        loop {
            tries += 1;
            match self.start_task(id, &mounts, &stdio, stored.terminal).await {
                Err(Start::CutOff(fault)) if tries < CUT_OFF_TRIES => {
                    tracing::debug!(container = id.short(), error = %fault, "a start that was cut off is being undone");
                    sleep(CUT_OFF_PAUSE).await;
                }
                Err(Start::CutOff(fault) | Start::Failed(fault)) => return Err(fault),
                Ok(started) => return Ok(started),
            }
        }
    }

    async fn start_task(
        &self,
        id: &ContainerId,
        rootfs: &[Mount],
        stdio: &str,
        terminal: bool,
    ) -> std::result::Result<(u32, Timestamp), Start> {
        let request = self.client.ask(CreateTaskRequest {
            container_id: id.to_string(),
            rootfs: rootfs.to_vec(),
            stdout: stdio.to_owned(),
            // A terminal has one stream.
            stderr: if terminal { String::new() } else { stdio.to_owned() },
            terminal,
            ..CreateTaskRequest::default()
        });
        let (pid, found) = match self.client.tasks().create(request).await.map_err(Fault::rpc("create task"))
        {
            Ok(reply) => (reply.into_inner().pid, false),
            Err(fault) if fault.is_already_exists() => {
                // Made by a start that was cut off: it stands where that one stopped, unless it is on its way out.
                let Some(process) = self.process(id).await.or_absent()? else {
                    return Err(Start::CutOff(fault));
                };
                match process.status() {
                    Status::Created => (process.pid, true),
                    Status::Unknown => return Err(Start::CutOff(Fault::NoAnswer)),
                    Status::Running | Status::Stopped | Status::Paused | Status::Pausing => {
                        self.watch(id, process.pid);
                        let started = process::started_at(process.pid);
                        return Ok((process.pid, started.unwrap_or_else(Timestamp::now)));
                    }
                }
            }
            Err(fault) if is_bundle_in_the_way(&fault, id) => return Err(Start::CutOff(fault)),
            Err(fault) => return Err(fault.into()),
        };
        // Before the start, so that the exit of the shortest program is not missed.
        self.watch(id, pid);
        let request = self.client.ask(StartRequest { container_id: id.to_string(), exec_id: String::new() });
        match self.client.tasks().start(request).await.map_err(Fault::rpc("start task")) {
            Ok(reply) => Ok((reply.into_inner().pid, Timestamp::now())),
            Err(fault) => {
                match self.process(id).await.or_absent() {
                    Ok(Some(process)) if process.status() == Status::Running => {
                        return Ok((pid, process::started_at(pid).unwrap_or_else(Timestamp::now)));
                    }
                    Ok(None) if found => return Err(Start::CutOff(fault)),
                    Ok(_) | Err(_) => {}
                }
                self.drop_task(id).await;
                Err(fault.into())
            }
        }
    }

    async fn mounts(&self, id: &ContainerId, stored: &Stored) -> Result<Vec<Mount>> {
        let ask =
            || self.client.ask(MountsRequest { snapshotter: self.client.snapshotter(), key: id.to_string() });
        let reply = self
            .client
            .snapshots()
            .mounts(ask())
            .await
            .map_err(Fault::rpc("get mounts of snapshot"))
            .or_absent()?;
        if let Some(reply) = reply {
            return Ok(reply.into_inner().mounts);
        }
        if let Some(mounts) = self.prepare_on(id, &stored.parent).await? {
            return Ok(mounts);
        }
        let reply =
            self.client.snapshots().mounts(ask()).await.map_err(Fault::rpc("get mounts of snapshot"))?;
        Ok(reply.into_inner().mounts)
    }

    /// The logger as the shim is told to run it; empty for no output at all.
    fn stdio(&self, stored: &Stored) -> Result<String> {
        let Some(log) = &stored.log else { return Ok(String::new()) };
        let logger = &self.config.logger;
        if !Path::new(logger).is_file() {
            // The shim would only say that something went wrong.
            return Err(Fault::Broken(format!("the logger {} is not there", logger.display())));
        }
        Ok(logs::uri(logger, log))
    }

    /// After a start that failed: a task that was made but does not run is of no use.
    async fn drop_task(&self, id: &ContainerId) {
        let dropped = async {
            self.kill(id, signal::KILL, true).await?;
            self.wait(id).await?;
            self.delete_task(id).await
        };
        if let Err(fault) = within(QUERY_DEADLINE, dropped).await {
            tracing::warn!(container = id.short(), error = %fault, "task of a failed start left behind");
        }
    }

    async fn process(&self, id: &ContainerId) -> Result<Process> {
        let request = self.client.ask(GetRequest { container_id: id.to_string(), exec_id: String::new() });
        let reply = self.client.tasks().get(request).await.map_err(Fault::rpc("get task"))?;
        reply
            .into_inner()
            .process
            .ok_or_else(|| Fault::Broken("containerd answered without a process".into()))
    }

    pub(crate) async fn signal(&self, id: &ContainerId, signal: Signal) -> Result<()> {
        match signal {
            Signal::Kill => self.kill(id, signal::KILL, true).await,
            Signal::Stop => match self.get(id).await.or_absent()? {
                Some(record) => self.kill(id, stored::stored(&record)?.stop_signal, false).await,
                None => Ok(()),
            },
        }
    }

    async fn kill(&self, id: &ContainerId, number: u32, all: bool) -> Result<()> {
        let request =
            KillRequest { container_id: id.to_string(), exec_id: String::new(), signal: number, all };
        match self.client.tasks().kill(self.client.ask(request)).await.map_err(Fault::rpc("kill task")) {
            Err(fault) if fault.is_not_found() => Ok(()),
            // "process already finished" and "container not running" come as one or the other, by version.
            Err(Fault::Rpc { status, .. }) if has_ended(&status) => Ok(()),
            other => other.map(drop),
        }
    }

    async fn wait(&self, id: &ContainerId) -> Result<()> {
        let request = self.client.ask(WaitRequest { container_id: id.to_string(), exec_id: String::new() });
        self.client.tasks().wait(request).await.map_err(Fault::rpc("wait for task")).or_absent().map(drop)
    }

    async fn delete_task(&self, id: &ContainerId) -> Result<()> {
        let request = self.client.ask(DeleteTaskRequest { container_id: id.to_string() });
        self.client.tasks().delete(request).await.map_err(Fault::rpc("delete task")).or_absent().map(drop)
    }

    async fn remove_snapshot(&self, id: &ContainerId) -> Result<()> {
        let request = RemoveSnapshotRequest { snapshotter: self.client.snapshotter(), key: id.to_string() };
        let reply = self.client.snapshots().remove(self.client.ask(request)).await;
        reply.map_err(Fault::rpc("remove snapshot")).or_absent().map(drop)
    }

    pub(crate) async fn remove(&self, id: &ContainerId) -> Result<()> {
        if let Some(process) = self.process(id).await.or_absent()? {
            // A task that was made and never started has no exit to wait for until it is killed.
            if process.status() != Status::Stopped {
                self.kill(id, signal::KILL, true).await?;
                self.wait(id).await?;
            }
            self.delete_task(id).await?;
        }
        let request = self.client.ask(DeleteContainerRequest { id: id.to_string() });
        self.client
            .containers()
            .delete(request)
            .await
            .map_err(Fault::rpc("delete container record"))
            .or_absent()?;
        self.remove_snapshot(id).await
    }
}

/// Whether a task was not made because the directory of another one with this id has not gone yet, or went under the new one's shim.
fn is_bundle_in_the_way(fault: &Fault, id: &ContainerId) -> bool {
    let Fault::Rpc { status, .. } = fault else { return false };
    let text = status.message();
    text.contains(&format!("/{id}: file exists")) || text.contains("getwd: no such file or directory")
}

fn has_ended(status: &tonic::Status) -> bool {
    let text = status.message();
    matches!(status.code(), Code::FailedPrecondition | Code::Unknown)
        && (text.contains("already finished")
            || text.contains("not running")
            || text.contains("no such process"))
}

fn time_of(record: &Container) -> Result<Timestamp> {
    Ok(process::time(record.created_at).unwrap_or_else(Timestamp::now))
}
