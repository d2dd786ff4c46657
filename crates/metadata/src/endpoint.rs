//! One slot's endpoint: finds the task that may be answered through the slot's listener.
//!
//! It reads the two snapshots when a request comes, not when they are published, so an answer is never older than the request:
//! a container that the engine starts after publishing finds itself. What was found is kept until a snapshot changes, and the
//! rendered bodies until the task or the lease does. There is one such cache for each listener, so slots bound its size.

use crate::{config::MetadataConfig, documents::TaskView};
use berth_types::{eni::EniSnapshot, ids::SlotId, task::EngineSnapshot};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// Where snapshots come from.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    pub(crate) config: Arc<MetadataConfig>,
    pub(crate) engine: watch::Receiver<Arc<EngineSnapshot>>,
    pub(crate) enis: watch::Receiver<Arc<EniSnapshot>>,
}

/// The metadata endpoint of one slot.
#[derive(Debug)]
pub(crate) struct Endpoint {
    slot: SlotId,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    sources: Sources,
    /// The lease holder as of the snapshots seen last.
    view: Option<Arc<TaskView>>,
    /// Both owners have taken over what was there at start: an absent task is really absent.
    recovered: bool,
}

/// Who asks through this slot's listener.
#[derive(Debug)]
pub(crate) enum Caller {
    /// The lease holder.
    Task(Arc<TaskView>),
    /// Nobody leases the slot.
    Nobody,
    /// Not known yet: the agent has not recovered.
    Unsettled,
}

impl Endpoint {
    pub(crate) fn new(slot: SlotId, mut sources: Sources) -> Self {
        sources.engine.mark_changed();
        sources.enis.mark_changed();
        Self { slot, seen: Mutex::new(Seen { sources, view: None, recovered: false }) }
    }

    pub(crate) fn slot(&self) -> &SlotId {
        &self.slot
    }

    /// Who asks now. While the agent recovers, the request waits to know, because SDKs take a refusal as final.
    pub(crate) async fn settled_caller(&self) -> Caller {
        let (caller, sources) = self.look();
        let Some(sources) = sources else { return caller };
        let wait = sources.config.limits.recovery_wait;
        // Running out of time is the answer `Unsettled`.
        tokio::time::timeout(wait, self.settle(sources)).await.unwrap_or(Caller::Unsettled)
    }

    async fn settle(&self, mut sources: Sources) -> Caller {
        loop {
            // Both arms are cancel safe: a change stays unseen until `changed` has returned, and what it brought is read below.
            let alive = tokio::select! {
                alive = sources.engine.changed() => alive,
                alive = sources.enis.changed() => alive,
            };
            match self.look() {
                (Caller::Unsettled, _) if alive.is_ok() => {}
                (caller, _) => return caller,
            }
        }
    }

    /// The caller, and while that is unsettled the sources, marked with what has been seen.
    fn look(&self) -> (Caller, Option<Sources>) {
        // The state is whole between any two statements, so a panic elsewhere does not spoil it.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.is_stale() {
            seen.refresh(&self.slot);
        }
        match &seen.view {
            Some(view) => (Caller::Task(Arc::clone(view)), None),
            None if seen.recovered => (Caller::Nobody, None),
            None => (Caller::Unsettled, Some(seen.sources.clone())),
        }
    }
}

impl Seen {
    /// An owner that has gone does not tell whether its last snapshot was seen: look again.
    fn is_stale(&self) -> bool {
        self.sources.engine.has_changed().unwrap_or(true) || self.sources.enis.has_changed().unwrap_or(true)
    }

    fn refresh(&mut self, slot: &SlotId) {
        let enis = Arc::clone(&self.sources.enis.borrow_and_update());
        let engine = Arc::clone(&self.sources.engine.borrow_and_update());
        self.recovered = enis.recovered && engine.recovered;
        let leased = enis.slots.iter().find(|view| view.facts.slot == *slot);
        let held = leased.and_then(|view| Some((engine.tasks.get(view.task.as_ref()?)?, &view.facts)));
        self.view = held.map(|(task, facts)| match self.view.take() {
            Some(view) if view.is_of(task, facts) => view,
            _ => {
                Arc::new(TaskView::new(Arc::clone(&self.sources.config), Arc::clone(task), Arc::clone(facts)))
            }
        });
    }
}

#[cfg(test)]
mod tests;
