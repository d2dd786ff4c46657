//! What operators see of pulls: each pull holds a [`Ticket`] and tells it how far it is; the [`Board`] publishes all of them.

use berth_types::{
    Timestamp,
    image::{PULLS_REMEMBERED, PullEnd, PullStage, PullView, PullsSnapshot},
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// Bytes that arrive are told this often; everything else at once.
const TELL_EVERY: Duration = Duration::from_millis(250);

/// All pulls, under way and over.
#[derive(Debug)]
pub(super) struct Board {
    state: Mutex<State>,
    snapshot: watch::Sender<Arc<PullsSnapshot>>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    version: u64,
    /// By number, so the oldest first.
    active: BTreeMap<u64, Entry>,
    ended: VecDeque<PullEnd>,
}

#[derive(Debug)]
struct Entry {
    view: PullView,
    /// Bytes that are here of each blob.
    here: Vec<u64>,
    /// Bytes that came over the network, those of failed tries included.
    network: u64,
    told: Instant,
}

impl Board {
    pub(super) fn new() -> Arc<Self> {
        let snapshot = watch::Sender::new(Arc::default());
        Arc::new(Self { state: Mutex::default(), snapshot })
    }

    pub(super) fn watch(&self) -> watch::Receiver<Arc<PullsSnapshot>> {
        self.snapshot.subscribe()
    }

    pub(super) fn begin(self: &Arc<Self>, reference: &str) -> Ticket {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        let view = PullView {
            reference: reference.to_owned(),
            stage: PullStage::Resolving,
            started_at: Timestamp::now(),
            blobs: 0,
            blobs_done: 0,
            bytes: 0,
            bytes_done: 0,
            failures: 0,
            problem: None,
        };
        state.active.insert(number, Entry { view, here: Vec::new(), network: 0, told: Instant::now() });
        self.publish(&mut state);
        Ticket { board: self.clone(), number }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Under the lock, so that versions are published in their order.
    fn publish(&self, state: &mut State) {
        state.version += 1;
        self.snapshot.send_replace(Arc::new(PullsSnapshot {
            version: state.version,
            active: state.active.values().map(|entry| entry.view.clone()).collect(),
            ended: state.ended.iter().cloned().collect(),
        }));
    }
}

/// A pull under way; one that is dropped without an end was given up by all who wanted it.
#[derive(Debug)]
pub(super) struct Ticket {
    board: Arc<Board>,
    number: u64,
}

impl Ticket {
    fn change(&self, change: impl FnOnce(&mut Entry) -> bool) {
        let mut state = self.board.lock();
        if state.active.get_mut(&self.number).is_some_and(change) {
            self.board.publish(&mut state);
        }
    }

    pub(super) fn stage(&self, stage: PullStage) {
        self.change(|entry| {
            let changed = entry.view.stage != stage;
            entry.view.stage = stage;
            changed
        });
    }

    /// The manifest is here: these are the sizes of the blobs.
    pub(super) fn sized(&self, sizes: &[u64]) {
        self.change(|entry| {
            entry.here = vec![0; sizes.len()];
            entry.view.blobs = u32::try_from(sizes.len()).unwrap_or(u32::MAX);
            entry.view.bytes = sizes.iter().fold(0, |sum, size| sum.saturating_add(*size));
            true
        });
    }

    /// So much of a blob is here now, `new` of it from the network.
    pub(super) fn bytes(&self, blob: usize, here: u64, new: u64) {
        self.change(|entry| {
            entry.network += new;
            entry.set(blob, here);
            let now = Instant::now();
            let due = now >= entry.told + TELL_EVERY;
            if due {
                entry.told = now;
            }
            due
        });
    }

    /// All of a blob is here.
    pub(super) fn done(&self, blob: usize, size: u64) {
        self.change(|entry| {
            entry.set(blob, size);
            entry.view.blobs_done += 1;
            true
        });
    }

    /// A try failed and is repeated.
    pub(super) fn failed(&self, problem: String) {
        self.change(|entry| {
            entry.view.failures += 1;
            entry.view.problem = Some(problem);
            true
        });
    }

    /// It is over. One that found nothing to bring is not worth remembering: with the default behaviour every launch has one.
    pub(super) fn end(self, result: Result<&str, String>) {
        let mut state = self.board.lock();
        let Some(entry) = state.active.remove(&self.number) else { return };
        if result.is_err() || entry.network > 0 {
            if state.ended.len() == PULLS_REMEMBERED {
                state.ended.pop_front();
            }
            state.ended.push_back(PullEnd {
                reference: entry.view.reference,
                started_at: entry.view.started_at,
                finished_at: Timestamp::now(),
                bytes: entry.network,
                digest: result.as_ref().ok().map(|digest| (*digest).to_owned()),
                problem: result.err(),
            });
        }
        self.board.publish(&mut state);
    }
}

impl Entry {
    fn set(&mut self, blob: usize, here: u64) {
        if let Some(count) = self.here.get_mut(blob) {
            *count = here;
            self.view.bytes_done = self.here.iter().fold(0, |sum, here| sum.saturating_add(*here));
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.board.lock();
        if state.active.remove(&self.number).is_some() {
            self.board.publish(&mut state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pull_is_seen_from_begin_to_end() {
        let board = Board::new();
        let watch = board.watch();
        let ticket = board.begin("docker.io/library/web:1");
        ticket.sized(&[10, 5]);
        ticket.stage(PullStage::Downloading);
        ticket.done(0, 10);
        tokio::time::advance(TELL_EVERY).await;
        ticket.bytes(1, 3, 3);
        ticket.failed("connection reset".into());
        let seen = watch.borrow().active[0].clone();
        assert_eq!((seen.blobs, seen.blobs_done, seen.bytes, seen.bytes_done), (2, 1, 15, 13));
        assert_eq!((seen.stage, seen.failures), (PullStage::Downloading, 1));
        ticket.end(Ok("sha256:00"));
        let seen = watch.borrow().clone();
        assert!(seen.active.is_empty());
        assert_eq!((seen.ended[0].bytes, seen.ended[0].digest.as_deref()), (3, Some("sha256:00")));
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_are_told_four_times_a_second_at_most() {
        let board = Board::new();
        let mut watch = board.watch();
        let ticket = board.begin("web");
        ticket.sized(&[1000]);
        watch.mark_unchanged();
        for here in 1..=100 {
            ticket.bytes(0, here, 1);
        }
        assert!(!watch.has_changed().unwrap());
        tokio::time::advance(TELL_EVERY).await;
        ticket.bytes(0, 101, 1);
        assert!(watch.has_changed().unwrap());
        assert_eq!(watch.borrow().active[0].bytes_done, 101);
    }

    #[tokio::test]
    async fn what_found_nothing_to_bring_and_what_was_given_up_is_not_remembered() {
        let board = Board::new();
        board.begin("same").end(Ok("sha256:00"));
        drop(board.begin("given up"));
        assert!(board.watch().borrow().ended.is_empty() && board.watch().borrow().active.is_empty());
        for n in 0..=PULLS_REMEMBERED {
            board.begin(&n.to_string()).end(Err("denied".into()));
        }
        let ended = board.watch().borrow().ended.clone();
        assert_eq!((ended.len(), ended[0].reference.as_str()), (PULLS_REMEMBERED, "1"));
    }
}
