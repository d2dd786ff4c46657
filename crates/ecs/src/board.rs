//! The cluster's snapshot, and the one hand that writes it: the loop that registers and polls.

use berth_types::cluster::{ClusterSnapshot, InstanceStatus, RefusedTask};
use std::sync::Arc;
use tokio::sync::watch;

/// Refused tasks that are shown: enough to see a definition that a service tries again and again.
const REFUSED: usize = 32;

/// Publishes the snapshot.
#[derive(Debug)]
pub(crate) struct Board(watch::Sender<Arc<ClusterSnapshot>>);

impl Board {
    pub(crate) fn new(cluster: &str, polls_per_minute: u32) -> (Self, watch::Receiver<Arc<ClusterSnapshot>>) {
        let first =
            ClusterSnapshot { cluster: cluster.to_owned(), polls_per_minute, ..ClusterSnapshot::default() };
        let (sender, receiver) = watch::channel(Arc::new(first));
        (Self(sender), receiver)
    }

    /// Changes the snapshot; readers wake only if that made a difference.
    pub(crate) fn update(&self, change: impl FnOnce(&mut ClusterSnapshot)) {
        self.0.send_if_modified(|current| {
            let mut next = ClusterSnapshot::clone(current);
            change(&mut next);
            if next == **current {
                return false;
            }
            next.version = current.version + 1;
            *current = Arc::new(next);
            true
        });
    }

    /// The instance's place in the cluster, as published.
    pub(crate) fn status(&self) -> InstanceStatus {
        self.0.borrow().status
    }

    /// Something is in the way, or nothing is any more.
    pub(crate) fn problem(&self, problem: Option<String>) {
        self.update(|snapshot| snapshot.problem = problem);
    }

    /// One more refused task.
    pub(crate) fn refused(&self, refused: RefusedTask) {
        self.update(|snapshot| {
            snapshot.refused.retain(|other| other.task != refused.task);
            snapshot.refused.push(refused);
            let excess = snapshot.refused.len().saturating_sub(REFUSED);
            snapshot.refused.drain(..excess);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_wake_for_changes_only() {
        let (board, mut reader) = Board::new("demo", 100);
        reader.mark_unchanged();
        board.problem(None);
        assert!(!reader.has_changed().unwrap());
        board.problem(Some("throttled".into()));
        assert!(reader.has_changed().unwrap());
        assert_eq!(reader.borrow_and_update().version, 1);
    }

    #[test]
    fn refused_tasks_are_bounded_and_the_latest_are_kept() {
        let (board, reader) = Board::new("demo", 100);
        for i in 0..100 {
            let task = format!("arn:aws:ecs:us-west-2:111122223333:task/demo/{i}").parse().unwrap();
            board.refused(RefusedTask { task, reason: "?".into() });
        }
        let snapshot = reader.borrow();
        assert_eq!(snapshot.refused.len(), REFUSED);
        assert_eq!(snapshot.refused.last().unwrap().task.id(), "99");
    }
}
