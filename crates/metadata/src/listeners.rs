//! The listeners: opens and closes them as the ENI manager says, accepts connections, and ends them.
//!
//! ```text
//!  mpsc<ListenerChange> ──► run loop ──► one accept task for each slot ──► one task for each connection
//!                             │  close: stop, wait for all of the slot's tasks, answer `done`
//! ```
//!
//! A socket pins its namespace, and with it the ENI's link, so `done` is answered only when the slot's tasks have ended and
//! their descriptors with them.

use crate::{
    config::MetadataLimits,
    connection::{self, Ends},
    endpoint::{Endpoint, Sources},
};
use berth_types::{ids::SlotId, lease::ListenerChange};
use std::{collections::HashMap, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// After a failed accept: the usual cause is want of descriptors, and trying at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections of each listener that do not count against the total: however many others' callers hold, each task gets through.
const RESERVE: usize = 1;

/// All listeners, by slot. Its size is bounded by the slots that an instance can hold.
#[derive(Debug)]
pub(crate) struct Listeners {
    sources: Sources,
    total: Arc<Semaphore>,
    /// See [`Ends::gently`].
    gently: CancellationToken,
    slots: HashMap<SlotId, Serving>,
}

/// What serves one slot.
#[derive(Debug)]
struct Serving {
    stop: CancellationToken,
    /// The accept task and the connections, those of a replaced listener included.
    tasks: TaskTracker,
}

impl Listeners {
    pub(crate) fn new(sources: Sources) -> Self {
        let total = Arc::new(Semaphore::new(sources.config.limits.connections_total));
        Self { sources, total, gently: CancellationToken::new(), slots: HashMap::new() }
    }

    /// Takes changes until `shutdown`, then lets responses under way go out and closes everything.
    pub(crate) async fn run(
        mut self,
        mut changes: mpsc::Receiver<ListenerChange>,
        shutdown: CancellationToken,
    ) {
        loop {
            // `recv` is cancel safe: a change that is not returned stays queued.
            let change = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                change = changes.recv() => change,
            };
            let Some(change) = change else { break };
            self.apply(change).await;
        }
        // Without an ENI manager no listener comes or goes any more; tasks still ask until the agent goes down.
        shutdown.cancelled().await;
        self.shut_down().await;
    }

    async fn apply(&mut self, change: ListenerChange) {
        match change {
            ListenerChange::Open { slot, listener } => self.open(slot, listener),
            ListenerChange::Close { slot, done } => {
                self.close(&slot).await;
                // The sender may have gone down meanwhile; the listener is closed all the same.
                done.send(()).ok();
            }
        }
    }

    fn open(&mut self, slot: SlotId, listener: std::net::TcpListener) {
        let listener = match listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener)) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%slot, %error, "metadata listener not usable");
                return;
            }
        };
        let stop = CancellationToken::new();
        // A replaced listener's tasks stay in the slot's tracker: a later close waits for them too.
        let tasks = match self.slots.get(&slot) {
            Some(replaced) => {
                replaced.stop.cancel();
                replaced.tasks.clone()
            }
            None => TaskTracker::new(),
        };
        let door = Door {
            listener,
            limits: self.sources.config.limits,
            total: Arc::clone(&self.total),
            endpoint: Arc::new(Endpoint::new(slot.clone(), self.sources.clone())),
            ends: Ends { stop: stop.clone(), gently: self.gently.clone() },
            tasks: tasks.clone(),
        };
        tasks.spawn(door.serve());
        tracing::debug!(%slot, "metadata listener opened");
        self.slots.insert(slot, Serving { stop, tasks });
    }

    /// Waits in the loop, so that the order of changes is the order of their effects. The tasks only have to be polled once to
    /// end.
    async fn close(&mut self, slot: &SlotId) {
        let Some(serving) = self.slots.remove(slot) else { return };
        serving.stop.cancel();
        serving.tasks.close();
        serving.tasks.wait().await;
        tracing::debug!(%slot, "metadata listener closed");
    }

    async fn shut_down(self) {
        self.gently.cancel();
        for serving in self.slots.values() {
            serving.stop.cancel();
            serving.tasks.close();
        }
        // Each connection bounds its own end.
        for serving in self.slots.values() {
            serving.tasks.wait().await;
        }
    }
}

/// The accept side of one listener.
#[derive(Debug)]
struct Door {
    listener: TcpListener,
    limits: MetadataLimits,
    total: Arc<Semaphore>,
    endpoint: Arc<Endpoint>,
    ends: Ends,
    tasks: TaskTracker,
}

/// A connection, with its share of both limits.
struct Admitted {
    stream: TcpStream,
    peer: SocketAddr,
    permits: [OwnedSemaphorePermit; 2],
}

impl Door {
    async fn serve(self) {
        let own = Arc::new(Semaphore::new(self.limits.connections_per_listener));
        let reserve = Arc::new(Semaphore::new(RESERVE));
        loop {
            // All arms are cancel safe, and those that lose are not needed again.
            let admitted = tokio::select! {
                biased;
                () = self.ends.stop.cancelled() => return,
                admitted = self.admit(&own, &reserve) => admitted,
            };
            let Some(Admitted { stream, peer, permits }) = admitted else { return };
            let endpoint = Arc::clone(&self.endpoint);
            self.tasks.spawn(connection::serve(
                stream,
                peer,
                endpoint,
                self.limits,
                self.ends.clone(),
                permits,
            ));
        }
    }

    /// The next connection. Permits come first: a caller over a limit waits in the kernel's queue and costs nothing.
    async fn admit(&self, own: &Arc<Semaphore>, reserve: &Arc<Semaphore>) -> Option<Admitted> {
        // None of the semaphores is ever closed.
        let own = Arc::clone(own).acquire_owned().await.ok()?;
        // Cancel safe: the arm that loses gives up its place in that queue.
        let share = tokio::select! {
            biased;
            share = Arc::clone(reserve).acquire_owned() => share.ok()?,
            share = Arc::clone(&self.total).acquire_owned() => share.ok()?,
        };
        let (stream, peer) = self.accept().await;
        // Without it the kernel may hold back the end of an answer; with it failing, answers are late, not wrong.
        stream.set_nodelay(true).ok();
        Some(Admitted { stream, peer, permits: [own, share] })
    }

    async fn accept(&self) -> (TcpStream, SocketAddr) {
        let mut failed_before = false;
        loop {
            match self.listener.accept().await {
                Ok(accepted) => return accepted,
                // The client went away while it waited.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    let slot = self.endpoint.slot();
                    if failed_before {
                        tracing::debug!(%slot, %error, "metadata accept failed again");
                    } else {
                        tracing::warn!(%slot, %error, "metadata accept failed");
                    }
                    failed_before = true;
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}
