//! The latest events, and those who follow them.

use super::{Event, EventKind, News};
use berth_types::Timestamp;
use bytes::Bytes;
use futures::Stream;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};
use tokio_util::sync::CancellationToken;

/// Events that are kept: the launch of some 60 tasks, at about 8 events each. At 300 bytes an event, 150 KB.
const KEPT: usize = 512;

/// Events that a follower may be behind before it is cut off: as many as are kept, so that one that asks again misses none.
const LAG: usize = KEPT;

/// Followers at a time: people and a few collectors. Each costs a connection and, at most, a copy of the list of kept events.
pub(crate) const MAX_FOLLOWERS: usize = 16;

/// The events of this agent since its start.
#[derive(Debug, Clone)]
pub(crate) struct EventLog {
    kept: Arc<Mutex<Kept>>,
    live: broadcast::Sender<Arc<Event>>,
    followers: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Number of the latest event.
    latest: u64,
    events: VecDeque<Arc<Event>>,
}

impl EventLog {
    pub(crate) fn new() -> Self {
        Self {
            kept: Arc::default(),
            live: broadcast::Sender::new(LAG),
            followers: Arc::new(Semaphore::new(MAX_FOLLOWERS)),
        }
    }

    /// Numbers what happened, keeps it, and hands it on.
    pub(super) fn add(&self, at: Timestamp, news: Vec<News>) {
        let mut kept = self.kept();
        for news in news {
            kept.latest += 1;
            let event = Arc::new(Event { seq: kept.latest, at, news });
            if kept.events.len() == KEPT {
                kept.events.pop_front();
            }
            kept.events.push_back(Arc::clone(&event));
            // Under the lock, so that a new follower sees each event once: in the list or live. Without followers it fails, which is fine.
            self.live.send(event).ok();
        }
    }

    /// What is kept of the events after `after`; first, if some are missing, an event that says so.
    pub(crate) fn recent(&self, after: Option<u64>, now: Timestamp) -> VecDeque<Arc<Event>> {
        Self::since(&self.kept(), after, now)
    }

    /// The same, and all that happens from then on. `None`: there are as many followers as there may be.
    pub(crate) fn follow(
        &self,
        after: Option<u64>,
        now: fn() -> Timestamp,
        end: CancellationToken,
    ) -> Option<Follow> {
        let permit = Arc::clone(&self.followers).try_acquire_owned().ok()?;
        let kept = self.kept();
        let backlog = Self::since(&kept, after, now());
        let live = self.live.subscribe();
        let last = after.unwrap_or_default().min(kept.latest);
        Some(Follow { backlog, live: Some(live), last, now, end, _permit: permit })
    }

    fn since(kept: &Kept, after: Option<u64>, now: Timestamp) -> VecDeque<Arc<Event>> {
        // A number from before the agent's restart is larger than any of now: that reader has seen none of these.
        let after = after.filter(|after| *after <= kept.latest);
        let first = kept.events.front().map_or(kept.latest + 1, |event| event.seq);
        let mut events: VecDeque<_> =
            kept.events.iter().filter(|event| after.is_none_or(|after| event.seq > after)).cloned().collect();
        let missing = after.map_or(0, |after| first.saturating_sub(after + 1));
        if missing > 0 {
            let text = format!("{missing} events are no longer kept");
            events.push_front(note(first - 1, now, EventKind::Missed, text));
        }
        events
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn note(seq: u64, at: Timestamp, kind: EventKind, text: impl Into<String>) -> Arc<Event> {
    Arc::new(Event { seq, at, news: News::new(kind, text) })
}

/// One follower.
#[derive(Debug)]
pub(crate) struct Follow {
    backlog: VecDeque<Arc<Event>>,
    /// `None` when the last word has been said.
    live: Option<broadcast::Receiver<Arc<Event>>>,
    /// The number to ask again with.
    last: u64,
    now: fn() -> Timestamp,
    end: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl Follow {
    /// The next event; `None` after the last one.
    pub(crate) async fn next(&mut self) -> Option<Arc<Event>> {
        if let Some(event) = self.backlog.pop_front() {
            self.last = event.seq;
            return Some(event);
        }
        let live = self.live.as_mut()?;
        let received = tokio::select! {
            // Cancel-safe: an event that was not taken is still there for the next recv.
            received = live.recv() => Some(received),
            () = self.end.cancelled() => None,
        };
        let why = match received {
            Some(Ok(event)) => {
                self.last = event.seq;
                return Some(event);
            }
            Some(Err(broadcast::error::RecvError::Lagged(missed))) => {
                format!("this client is {missed} events too slow; ask again with after={}", self.last)
            }
            Some(Err(broadcast::error::RecvError::Closed)) | None => "the agent is going down".to_owned(),
        };
        self.live = None;
        Some(note(self.last, (self.now)(), EventKind::End, why))
    }

    /// The events as lines of JSON.
    pub(crate) fn lines(self) -> impl Stream<Item = Result<Bytes, serde_json::Error>> {
        futures::stream::unfold(self, |mut follow| async move {
            let event = follow.next().await?;
            Some((line(&event), follow))
        })
    }
}

/// One event as a line of JSON.
pub(crate) fn line(event: &Event) -> Result<Bytes, serde_json::Error> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    Ok(line.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    fn add(log: &EventLog, count: usize) {
        for _ in 0..count {
            log.add(now(), vec![News::new(EventKind::Task, "x")]);
        }
    }

    fn seqs(events: &VecDeque<Arc<Event>>) -> Vec<u64> {
        events.iter().map(|event| event.seq).collect()
    }

    #[test]
    fn the_latest_events_are_kept_and_a_gap_is_named() {
        let log = EventLog::new();
        add(&log, 3);
        assert_eq!(seqs(&log.recent(None, now())), [1, 2, 3]);
        assert_eq!(seqs(&log.recent(Some(2), now())), [3]);
        assert_eq!(seqs(&log.recent(Some(99), now())), [1, 2, 3], "a number of the agent before");
        add(&log, KEPT);
        let events = log.recent(Some(1), now());
        assert_eq!((events[0].news.kind, events[0].seq), (EventKind::Missed, 3));
        assert!(events[0].news.text.starts_with("2 events"), "{}", events[0].news.text);
        assert_eq!((events.len(), events[1].seq), (KEPT + 1, 4));
    }

    #[tokio::test]
    async fn a_follower_sees_each_event_once_and_hears_of_the_end() {
        let (log, end) = (EventLog::new(), CancellationToken::new());
        add(&log, 2);
        let mut follow = log.follow(None, now, end.clone()).unwrap();
        add(&log, 2);
        for seq in 1..=4 {
            assert_eq!(follow.next().await.unwrap().seq, seq);
        }
        end.cancel();
        let last = follow.next().await.unwrap();
        assert_eq!((last.news.kind, last.seq), (EventKind::End, 4));
        assert!(follow.next().await.is_none());
    }

    #[tokio::test]
    async fn a_slow_follower_is_cut_off_and_told_how_to_go_on() {
        let log = EventLog::new();
        let mut follow = log.follow(None, now, CancellationToken::new()).unwrap();
        add(&log, 1);
        assert_eq!(follow.next().await.unwrap().seq, 1);
        add(&log, LAG + 5);
        let last = follow.next().await.unwrap();
        assert_eq!(last.news.kind, EventKind::End);
        assert!(last.news.text.contains("5 events too slow; ask again with after=1"), "{}", last.news.text);
        assert!(follow.next().await.is_none());
    }

    #[tokio::test]
    async fn followers_are_counted() {
        let log = EventLog::new();
        let mut all: Vec<_> =
            (0..MAX_FOLLOWERS).map(|_| log.follow(None, now, CancellationToken::new()).unwrap()).collect();
        assert!(log.follow(None, now, CancellationToken::new()).is_none());
        all.pop();
        assert!(log.follow(None, now, CancellationToken::new()).is_some());
    }
}
