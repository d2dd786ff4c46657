//! Watches the owners and writes down what happens.

use super::{
    EventLog,
    diff::{Look, diff},
};
use crate::{Admin, ControlPlane};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Between two looks: a comparison of a full instance takes some 100 microseconds, and a burst of changes must not be made of those.
const PACE: Duration = Duration::from_millis(20);

/// Writes down what happens until the shutdown.
pub(crate) async fn record(admin: Admin, log: EventLog, shutdown: CancellationToken) {
    let now = admin.now;
    let mut watches = Watches::new(admin);
    let mut before = watches.look();
    loop {
        tokio::select! {
            // All are cancel-safe: a change that was not taken is seen by the next look.
            () = watches.change() => {}
            () = shutdown.cancelled() => return,
        }
        let after = watches.look();
        log.add(now(), diff(&before, &after));
        before = after;
        tokio::select! {
            () = tokio::time::sleep(PACE) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

struct Watches {
    admin: Admin,
    /// Silent ones, when there is no control plane.
    cluster: watch::Receiver<Arc<berth_types::cluster::ClusterSnapshot>>,
    reports: watch::Receiver<Arc<berth_types::cluster::ReportsSnapshot>>,
}

impl Watches {
    fn new(admin: Admin) -> Self {
        let (cluster, reports) = match &admin.control_plane {
            Some(ControlPlane { cluster, reports, .. }) => (cluster.clone(), reports.clone()),
            None => (watch::channel(Arc::default()).1, watch::channel(Arc::default()).1),
        };
        Self { admin, cluster, reports }
    }

    fn look(&mut self) -> Look {
        Look {
            engine: Arc::clone(&self.admin.engine.borrow_and_update()),
            enis: Arc::clone(&self.admin.enis.borrow_and_update()),
            cluster: Arc::clone(&self.cluster.borrow_and_update()),
            reports: Arc::clone(&self.reports.borrow_and_update()),
            pulls: Arc::clone(&self.admin.pulls.borrow_and_update()),
        }
    }

    async fn change(&mut self) {
        tokio::select! {
            () = next(&mut self.admin.engine) => {}
            () = next(&mut self.admin.enis) => {}
            () = next(&mut self.cluster) => {}
            () = next(&mut self.reports) => {}
            () = next(&mut self.admin.pulls) => {}
        }
    }
}

/// An owner that is gone changes no more; that it is gone is not for this place to notice.
async fn next<T>(watch: &mut watch::Receiver<T>) {
    if watch.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
