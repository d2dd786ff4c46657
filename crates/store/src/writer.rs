//! The one thread that touches sled once it is open, and the queue in front of it.
//!
//! It takes whatever has queued up, applies it commit by commit, answers the facts at once, flushes once and answers all intents: sixteen
//! waiting intents cost one flush. After an error from sled the database is closed and opened again at a later request, because sled
//! never forgets an error, while a full disk may have been emptied.

use crate::{
    Deadlines, LOCK_DEADLINE, OPEN_DEADLINE,
    database::{self, OpenFailure, Opened},
    place::PlaceLock,
};
use berth_types::ports::{Durability, JournalError, Record, Table, Write};
use std::{
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError},
    },
    thread,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

/// Commits that may wait: 120 tasks on the largest instance, each with a change of its own, of its lease, its ENI and a handful of
/// containers at the same moment. A full queue is answered with an error at once.
const QUEUE: usize = 1024;
/// Commits answered by one flush: bounds how long the first one waits.
const GROUP_MAX: usize = 256;
/// Facts that no intent carried to disk are flushed when the writer has been idle this long.
const IDLE_FLUSH: Duration = Duration::from_millis(500);
/// How long after a failure the database is left closed.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);
/// How long a closing journal waits for its writer: a flush takes milliseconds, and a wedged one must not keep the agent from ending.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);

/// Largest record: ECS allows 64 KiB for a task definition; a task's record holds that and its state.
pub const MAX_RECORD_BYTES: usize = 256 << 10;
/// Longest key: a task ARN is at most 400 bytes.
pub const MAX_KEY_BYTES: usize = 512;
/// Most writes in a commit.
pub const MAX_WRITES: usize = 512;
/// Most bytes in a commit.
pub const MAX_COMMIT_BYTES: usize = 4 << 20;
/// Most records: a hundred times what a full instance needs, so whoever gets here leaks records.
pub const MAX_RECORDS: usize = 100_000;

type Reply<T> = oneshot::Sender<Result<T, JournalError>>;

enum Request {
    Commit { writes: Vec<Write>, durability: Durability, reply: Reply<()> },
    Load { table: Table, reply: Reply<Vec<(String, Record)>> },
}

/// The handle to the writer thread.
#[derive(Debug)]
pub(crate) struct Writer {
    path: PathBuf,
    queue: Option<SyncSender<Request>>,
    /// In a mutex only because a receiver alone is not `Sync`; nothing but `drop` touches it.
    ended: Mutex<Receiver<()>>,
}

impl Writer {
    pub(crate) fn start(path: PathBuf, opened: Opened, lock: PlaceLock) -> Result<Self, JournalError> {
        let (queue, requests) = mpsc::sync_channel(QUEUE);
        let (done, ended) = mpsc::sync_channel(1);
        let worker = Worker {
            path: path.clone(),
            database: Some(opened),
            failed_at: None,
            generation: 0,
            dirty: false,
        };
        thread::Builder::new()
            .name("journal".into())
            .spawn(move || {
                worker.run(&requests);
                // After the database is closed, so that the next one to take the lock finds it free.
                drop(lock);
                // Nobody waits when the journal was leaked.
                let _nobody = done.send(());
            })
            .map_err(|error| {
                failure("open", &path, "cannot start its writer thread".into(), Some(error.into()))
            })?;
        Ok(Self { path, queue: Some(queue), ended: Mutex::new(ended) })
    }

    pub(crate) async fn commit(
        &self,
        writes: Vec<Write>,
        durability: Durability,
    ) -> Result<(), JournalError> {
        if let Some(reason) = too_much(&writes) {
            return Err(failure("write to", &self.path, reason, None));
        }
        self.ask("write to", |reply| Request::Commit { writes, durability, reply }).await
    }

    pub(crate) async fn load(&self, table: Table) -> Result<Vec<(String, Record)>, JournalError> {
        self.ask("read", |reply| Request::Load { table, reply }).await
    }

    async fn ask<T>(
        &self,
        op: &'static str,
        request: impl FnOnce(Reply<T>) -> Request,
    ) -> Result<T, JournalError> {
        let (reply, answer) = oneshot::channel();
        let ended = || failure(op, &self.path, "its writer thread has ended".into(), None);
        let queue = self.queue.as_ref().ok_or_else(ended)?;
        match queue.try_send(request(reply)) {
            Ok(()) => answer.await.map_err(|_| ended())?,
            Err(TrySendError::Full(_)) => {
                Err(failure(op, &self.path, format!("{QUEUE} requests are waiting already"), None))
            }
            Err(TrySendError::Disconnected(_)) => Err(ended()),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.queue.take());
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        match ended.recv_timeout(CLOSE_DEADLINE) {
            Err(RecvTimeoutError::Timeout) => {
                warn!(path = %self.path.display(), "the journal's writer does not end")
            }
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {}
        }
    }
}

fn failure(
    op: &'static str,
    path: &Path,
    reason: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
) -> JournalError {
    JournalError { op, path: path.into(), reason, source }
}

/// Why a commit is refused for its size.
fn too_much(writes: &[Write]) -> Option<String> {
    if writes.len() > MAX_WRITES {
        return Some(format!("{} writes in one commit, the limit is {MAX_WRITES}", writes.len()));
    }
    let mut sum = 0;
    for write in writes {
        let (key, body) = match write {
            Write::Put { key, record, .. } => (key, record.body.len()),
            Write::Delete { key, .. } => (key, 0),
        };
        if key.is_empty() || key.len() > MAX_KEY_BYTES {
            return Some(format!("a key of {} bytes, allowed are 1 to {MAX_KEY_BYTES}", key.len()));
        }
        if body > MAX_RECORD_BYTES {
            return Some(format!("the record `{key}` has {body} bytes, the limit is {MAX_RECORD_BYTES}"));
        }
        sum += key.len() + body;
    }
    (sum > MAX_COMMIT_BYTES).then(|| format!("{sum} bytes in one commit, the limit is {MAX_COMMIT_BYTES}"))
}

struct Worker {
    path: PathBuf,
    /// `None` after a failure, until it is opened again.
    database: Option<Opened>,
    failed_at: Option<Instant>,
    /// Counts failures: what was applied before one may be lost, so a later flush does not vouch for it.
    generation: u64,
    /// Facts have been applied since the last flush.
    dirty: bool,
}

impl Worker {
    fn run(mut self, requests: &Receiver<Request>) {
        loop {
            let next = if self.dirty {
                requests.recv_timeout(IDLE_FLUSH)
            } else {
                requests.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            match next {
                Ok(first) => {
                    let group = std::iter::once(first).chain(requests.try_iter()).take(GROUP_MAX);
                    self.serve(group);
                }
                Err(RecvTimeoutError::Timeout) => self.flush_facts(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.flush_facts();
    }

    fn flush_facts(&mut self) {
        if self.dirty
            && let Err(error) = self.flush()
        {
            error!(error = %berth_types::Chain(&error), "facts have not reached the journal");
        }
    }

    /// Serves a group of requests in order, with one flush for all its intents.
    fn serve(&mut self, group: impl Iterator<Item = Request>) {
        let mut waiting: Vec<(u64, Reply<()>)> = Vec::new();
        for request in group {
            match request {
                Request::Load { table, reply } => {
                    let loaded = self.with("read", |database| database.load(table));
                    answer(reply, loaded);
                }
                Request::Commit { writes, durability, reply } => match (self.apply(&writes), durability) {
                    (Ok(()), Durability::Intent) => waiting.push((self.generation, reply)),
                    (done, _) => answer(reply, done),
                },
            }
        }
        if waiting.is_empty() {
            return;
        }
        let vouched = self.generation;
        let flushed = self.flush().map_err(|error| berth_types::Chain(&error).to_string());
        for (generation, reply) in waiting {
            if generation != vouched {
                answer(
                    reply,
                    Err(failure(
                        "write to",
                        &self.path,
                        "the database failed before it was flushed".into(),
                        None,
                    )),
                );
                continue;
            }
            // Whether the bytes are on disk is not known; every intent is repeatable, so its owner writes it again.
            answer(reply, flushed.clone().map_err(|reason| failure("write to", &self.path, reason, None)));
        }
    }

    fn apply(&mut self, writes: &[Write]) -> Result<(), JournalError> {
        if writes.is_empty() {
            return Ok(());
        }
        let after = self.with("write to", |database| Ok(database.records_after(writes)))?;
        if after > MAX_RECORDS {
            return Err(failure(
                "write to",
                &self.path,
                format!("{after} records, the limit is {MAX_RECORDS}"),
                None,
            ));
        }
        self.with("write to", |database| database.apply(writes))?;
        self.dirty = true;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), JournalError> {
        let flushed = self.with("flush", |database| database.flush());
        self.dirty = false;
        flushed
    }

    /// Runs something on the database; on an error closes it.
    fn with<T>(
        &mut self,
        op: &'static str,
        act: impl FnOnce(&mut Opened) -> sled::Result<T>,
    ) -> Result<T, JournalError> {
        if self.database.is_none() {
            self.reopen(op)?;
        }
        let Some(database) = &mut self.database else {
            return Err(failure(op, &self.path, "it is closed".into(), None));
        };
        act(database).map_err(|error| {
            self.database = None;
            self.failed_at = Some(Instant::now());
            self.generation += 1;
            failure(op, &self.path, "the database failed".into(), Some(error.into()))
        })
    }

    fn reopen(&mut self, op: &'static str) -> Result<(), JournalError> {
        if self.failed_at.is_some_and(|at| at.elapsed() < REOPEN_PAUSE) {
            return Err(failure(op, &self.path, "it failed a moment ago and is closed".into(), None));
        }
        let deadlines = Deadlines { lock: LOCK_DEADLINE.min(REOPEN_PAUSE), open: OPEN_DEADLINE };
        match database::open_guarded(&self.path, deadlines) {
            Ok(opened) => {
                info!(path = %self.path.display(), records = opened.records(), "journal opened again after a failure");
                self.database = Some(opened);
                self.failed_at = None;
                Ok(())
            }
            Err(problem) => {
                self.failed_at = Some(Instant::now());
                let (reason, source) = match problem {
                    OpenFailure::Unusable(reason) => {
                        (format!("{reason}; restart the agent to set it aside"), None)
                    }
                    OpenFailure::Environment { what, source } => (what, Some(source)),
                    OpenFailure::Hung(after) => (format!("the database did not open within {after:?}"), None),
                };
                Err(failure("open", &self.path, reason, source))
            }
        }
    }
}

/// The asker may have gone away: its writes stand all the same.
fn answer<T>(reply: Reply<T>, result: Result<T, JournalError>) {
    let _gone = reply.send(result);
}
