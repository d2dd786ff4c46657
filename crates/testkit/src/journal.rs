//! A journal in memory with the rules of the real one: intents survive the death of the program together with all that was
//! committed before them, facts that nothing has flushed do not. [`FakeJournal::lose_facts`] is that death.

use crate::crash::Crash;
use async_trait::async_trait;
use berth_types::ports::{Durability, Journal, JournalError, Record, Table, Write};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

type Tables = BTreeMap<(Table, String), Record>;

#[derive(Debug, Default)]
struct Disk {
    /// What a reader sees.
    live: Tables,
    /// What is left after death.
    flushed: Tables,
}

/// The journal.
#[derive(Debug, Default)]
pub struct FakeJournal {
    disk: Mutex<Disk>,
    crash: Arc<Crash>,
    broken: AtomicBool,
    commits: AtomicU64,
    intents: AtomicU64,
}

impl FakeJournal {
    /// An empty journal that dies with the others of this crash point.
    pub fn new(crash: Arc<Crash>) -> Self {
        Self { crash, ..Self::default() }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The program died: facts that were not flushed are gone.
    pub fn lose_facts(&self) {
        let mut disk = self.disk();
        disk.live = disk.flushed.clone();
    }

    /// Someone deleted the journal.
    pub fn wipe(&self) {
        *self.disk() = Disk::default();
    }

    /// While true, every operation fails as on a full disk.
    pub fn set_broken(&self, broken: bool) {
        self.broken.store(broken, Ordering::SeqCst);
    }

    /// Records of a table, by key.
    pub fn records(&self, table: Table) -> Vec<(String, Record)> {
        let disk = self.disk();
        disk.live.iter().filter(|((t, _), _)| *t == table).map(|((_, k), r)| (k.clone(), r.clone())).collect()
    }

    /// Whether a record would be there after death at this very moment.
    pub fn is_durable(&self, table: Table, key: &str) -> bool {
        self.disk().flushed.contains_key(&(table, key.to_owned()))
    }

    /// Puts a record as a former program would have left it.
    pub fn put(&self, table: Table, key: &str, record: Record) {
        let mut disk = self.disk();
        disk.live.insert((table, key.to_owned()), record.clone());
        disk.flushed.insert((table, key.to_owned()), record);
    }

    /// Commits so far, and how many of them were intents.
    pub fn commits(&self) -> (u64, u64) {
        (self.commits.load(Ordering::SeqCst), self.intents.load(Ordering::SeqCst))
    }

    fn check(&self, op: &'static str) -> Result<(), JournalError> {
        if self.broken.load(Ordering::SeqCst) {
            let reason = "no space left on device".to_owned();
            return Err(JournalError { op, path: PathBuf::from("/fake/journal"), reason, source: None });
        }
        Ok(())
    }
}

#[async_trait]
impl Journal for FakeJournal {
    async fn commit(&self, writes: Vec<Write>, durability: Durability) -> Result<(), JournalError> {
        let dies = self.crash.enter().await;
        self.check("write to")?;
        self.commits.fetch_add(1, Ordering::SeqCst);
        {
            let mut disk = self.disk();
            for write in writes {
                match write {
                    Write::Put { table, key, record } => drop(disk.live.insert((table, key), record)),
                    Write::Delete { table, key } => drop(disk.live.remove(&(table, key))),
                }
            }
            if durability == Durability::Intent {
                self.intents.fetch_add(1, Ordering::SeqCst);
                disk.flushed = disk.live.clone();
            }
        }
        self.crash.leave(dies).await;
        Ok(())
    }

    async fn load(&self, table: Table) -> Result<Vec<(String, Record)>, JournalError> {
        let dies = self.crash.enter().await;
        self.check("read")?;
        let records = self.records(table);
        self.crash.leave(dies).await;
        Ok(records)
    }
}
