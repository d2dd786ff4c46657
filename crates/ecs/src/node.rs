//! The node as a member of its cluster: registers, then polls; registers again if the control plane forgets it.

use crate::{board::Board, pacing::Jitter, poller::Poller, registration::Registering};
use berth_types::{cluster::ReportsSnapshot, task::EngineSnapshot};
use std::sync::Arc;
use tokio::sync::watch;
use tracing::warn;

/// One loop: it alone writes the cluster's snapshot.
pub(crate) struct Node {
    pub(crate) registering: Registering,
    pub(crate) poller: Poller,
    pub(crate) board: Board,
    pub(crate) jitter: Jitter,
    /// From an earlier start.
    pub(crate) earlier: Option<String>,
    pub(crate) engine: watch::Receiver<Arc<EngineSnapshot>>,
    pub(crate) reports: watch::Receiver<Arc<ReportsSnapshot>>,
}

impl Node {
    /// Never ends by itself. May be dropped at any await: all that counts is in the journal or with the control plane.
    pub(crate) async fn run(mut self) {
        let earlier = self.earlier.take();
        // Known before anybody answers: metadata repeats it to the tasks that run.
        self.board.update(|snapshot| snapshot.container_instance_arn.clone_from(&earlier));
        let mut arn = self.registering.run(earlier, &self.board, &mut self.jitter).await;
        self.wait_for_memory().await;
        loop {
            self.poller.run(&arn, &self.board).await;
            warn!(
                instance = arn,
                "the control plane does not know the container instance; registering a new one"
            );
            arn = self.registering.run(None, &self.board, &mut self.jitter).await;
        }
    }

    /// What is listed can only be told from what has ended once the engine knows what it has, and the outbox what it holds: then
    /// an ended task is never run again.
    async fn wait_for_memory(&mut self) {
        // An error means that the owner is gone: the agent is going down.
        if self.engine.wait_for(|snapshot| snapshot.recovered).await.is_err() {
            std::future::pending::<()>().await;
        }
        if self.reports.wait_for(|snapshot| snapshot.version > 0).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
