//! Exits as they happen, on one bounded channel, from one task.
//!
//! ```text
//!  start ──watch queue──► Watcher ──one Wait for each running container──► containerd
//!                            └──ContainerEvent──► engine
//! ```
//!
//! An exit is learned from a Wait and not from containerd's event stream: a Wait on a process that has ended already answers at
//! once, so nothing is lost between two connections, while the stream forgets what nobody listened to. The stream is only held open
//! because it ends the moment that containerd goes. (Its call does not even return before the first event, which is why a filter
//! that matches nothing makes it a plain wire.)

use crate::{
    Inner,
    client::{Client, QUERY_DEADLINE},
    error::{Fault, Result, within},
    observe, process,
};
use berth_types::{
    Timestamp,
    ids::ContainerId,
    ports::{CONTAINER_EVENT_QUEUE, ContainerEvent},
};
use containerd_client::{
    services::v1::{SubscribeRequest, WaitRequest, WaitResponse},
    types::v1::Status,
};
use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
    time::sleep,
};

/// Starts that may wait for the watcher: as many as exits may wait for the engine.
pub(crate) const WATCH_QUEUE: usize = CONTAINER_EVENT_QUEUE;
/// First wait before trying to reach containerd again: its restart takes some hundred milliseconds.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Longest: what an operator who starts containerd again is ready to wait.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How often a silent containerd is asked whether it still answers; one that hangs does not close its socket.
const HEALTH_INTERVAL: Duration = Duration::from_secs(15);
/// No such topic exists.
const SILENT_FILTER: &str = "topic==\"/berth/none\"";

/// A process to wait for.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) id: ContainerId,
    pub(crate) pid: u32,
}

/// Runs until nobody listens any more.
pub(crate) async fn run(
    inner: Arc<Inner>,
    starts: mpsc::Receiver<Watch>,
    events: mpsc::Sender<ContainerEvent>,
) {
    Watcher { inner, starts, events, waits: JoinSet::new(), watched: HashMap::new(), resync: false }
        .run()
        .await;
}

type Waited = (ContainerId, std::result::Result<WaitResponse, tonic::Status>);

struct Watcher {
    inner: Arc<Inner>,
    starts: mpsc::Receiver<Watch>,
    events: mpsc::Sender<ContainerEvent>,
    waits: JoinSet<Waited>,
    /// Processes with a Wait under way, and where the kernel counts their memory kills.
    watched: HashMap<ContainerId, Option<PathBuf>>,
    /// A hint was dropped: `Resync` is owed.
    resync: bool,
}

impl Watcher {
    async fn run(mut self) {
        let mut backoff = BACKOFF_MIN;
        let mut told = false;
        while !self.events.is_closed() {
            match self.connect().await {
                Ok(()) => {
                    backoff = BACKOFF_MIN;
                    told = true;
                    tracing::info!("containerd answers");
                    self.follow().await;
                    tracing::warn!("containerd does not answer any more");
                }
                Err(fault) if told || backoff == BACKOFF_MIN => {
                    tracing::warn!(error = %fault, "containerd cannot be reached");
                }
                Err(fault) => tracing::debug!(error = %fault, "containerd cannot be reached"),
            }
            if told || backoff == BACKOFF_MIN {
                self.tell(ContainerEvent::Disconnected);
                told = false;
            }
            self.waits.abort_all();
            while self.waits.join_next().await.is_some() {}
            self.watched.clear();
            sleep(backoff).await;
            backoff = (backoff * 3 / 2).min(BACKOFF_MAX);
        }
    }

    /// Waits for everything that runs, then tells the engine to look.
    async fn connect(&mut self) -> Result<()> {
        let processes = within(QUERY_DEADLINE, observe::processes(&self.inner.client)).await?;
        for process in processes {
            let Ok(id) = process.id.parse() else { continue };
            // Not one that has ended: the look that follows finds it. One whose shim does not answer now may do so later.
            if process.status() != Status::Stopped {
                self.watch(Watch { id, pid: process.pid });
            }
        }
        self.resync = true;
        Ok(())
    }

    /// Passes hints on until the connection is lost or nobody listens.
    async fn follow(&mut self) {
        let mut lost = Box::pin(lost(self.inner.client.clone()));
        let events = self.events.clone();
        loop {
            let resync = self.resync;
            // Every arm is cancel-safe: a queue, a join set, a permit not yet used, a future that is kept.
            tokio::select! {
                start = self.starts.recv() => match start {
                    Some(watch) => self.watch(watch),
                    None => return,
                },
                Some(done) = self.waits.join_next(), if !self.waits.is_empty() => {
                    if !self.ended(done) { return }
                }
                permit = events.reserve(), if resync => {
                    let Ok(permit) = permit else { return };
                    permit.send(ContainerEvent::Resync);
                    self.resync = false;
                }
                () = &mut lost => return,
                () = events.closed() => return,
            }
        }
    }

    fn watch(&mut self, watch: Watch) {
        if self.watched.contains_key(&watch.id) {
            return;
        }
        self.watched.insert(watch.id.clone(), observe::memory_cgroup(watch.pid));
        let client = self.inner.client.clone();
        self.waits.spawn(async move {
            let request =
                client.ask(WaitRequest { container_id: watch.id.to_string(), exec_id: String::new() });
            // No deadline: it lasts as long as the container, and ends with the connection.
            let reply = client.tasks().wait(request).await;
            (watch.id, reply.map(tonic::Response::into_inner))
        });
    }

    /// Takes the answer of a Wait; false when it says that the connection is lost.
    fn ended(&mut self, done: std::result::Result<Waited, JoinError>) -> bool {
        let Ok((id, reply)) = done else {
            self.resync = true;
            return true;
        };
        let cgroup = self.watched.remove(&id).flatten();
        match reply {
            Ok(exit) => {
                let code = exit.exit_status;
                let at = process::time(exit.exited_at).unwrap_or_else(Timestamp::now);
                let oom = code != 0 && cgroup.is_some_and(|dir| observe::oom_kills(&dir) > 0);
                tracing::debug!(container = id.short(), code, oom, "container ended");
                self.tell(ContainerEvent::Exited { id, code, at, oom });
                true
            }
            Err(status) if crate::error::lost_connection(&status) => false,
            Err(status) => {
                // Removed under us, most likely: the engine looks for itself.
                tracing::debug!(
                    container = id.short(),
                    error = status.message(),
                    "wait ended without an exit"
                );
                self.resync = true;
                true
            }
        }
    }

    fn tell(&mut self, event: ContainerEvent) {
        if self.events.try_send(event).is_err() {
            self.resync = true;
        }
    }
}

/// Ends when containerd is gone or hangs.
async fn lost(client: Client) {
    tokio::select! {
        () = closed(&client) => {}
        () = silent(&client) => {}
    }
}

/// Ends with the connection: see the head of this file.
async fn closed(client: &Client) {
    let request = client.ask(SubscribeRequest { filters: vec![SILENT_FILTER.to_owned()] });
    if let Ok(reply) = client.events().subscribe(request).await {
        let mut stream = reply.into_inner();
        while let Ok(Some(_)) = stream.message().await {}
    }
}

/// Ends when a question is not answered in time.
async fn silent(client: &Client) {
    loop {
        sleep(HEALTH_INTERVAL).await;
        let version = async { client.version().version(client.ask(())).await.map_err(Fault::rpc("version")) };
        if within(QUERY_DEADLINE, version).await.is_err() {
            return;
        }
    }
}

impl Inner {
    /// Has the process waited for. Nobody may be listening (a command that only imports), and a full queue is a lost hint.
    pub(crate) fn watch(&self, id: &ContainerId, pid: u32) {
        if self.starts.try_send(Watch { id: id.clone(), pid }).is_err() {
            tracing::debug!(container = id.short(), "exit will be seen at the next look only");
        }
    }
}
