//! sled, opened with suspicion: in a thread of its own, under a deadline, every record read back, a trial write made.
//!
//! [`open_guarded`] hands the writer an [`Opened`]; nothing else in the crate names sled.

use crate::{
    Deadlines,
    frame::{self, Checksum, Total},
    progress::Progress,
    report::{DamagedRecord, SetAsideReason},
};
use berth_types::{
    Timestamp,
    ports::{Record, Table, Write},
};
use std::{
    collections::BTreeMap,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};
use tracing::error;

/// sled's page cache. The whole journal of a full instance is a few megabytes, read once at start; the default would be 1 GB.
const CACHE_BYTES: u64 = 4 << 20;
/// Damaged records kept for a post-mortem. More of them say no more.
const DAMAGED_KEPT: usize = 64;
/// How often sled's lock is tried again while threads of an earlier opening in this process wind down.
const LOCK_RETRY: Duration = Duration::from_millis(20);
/// Key of the sum over all records, before every table's letter.
const TOTAL_KEY: &[u8] = b"\0total";

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why sled could not be opened.
#[derive(Debug)]
pub(crate) enum OpenFailure {
    /// The files are at fault.
    Unusable(SetAsideReason),
    /// The machine is at fault: a full disk, missing rights. Setting the journal aside would not help.
    Environment { what: String, source: Source },
    /// sled has not come back.
    Hung(Duration),
}

/// An open database, and what is known of every record in it.
#[derive(Debug)]
pub(crate) struct Opened {
    db: sled::Db,
    records: sled::Tree,
    index: BTreeMap<Vec<u8>, Checksum>,
    total: Total,
    progress: Progress,
    damaged: Vec<DamagedRecord>,
}

/// Opens the database of the journal in this directory.
pub(crate) fn open_guarded(path: &Path, deadlines: Deadlines) -> Result<Opened, OpenFailure> {
    let began = Instant::now();
    loop {
        match open_in_thread(path, deadlines.open) {
            Err(OpenFailure::Environment { source, .. })
                if is_lock(&source) && began.elapsed() < deadlines.lock =>
            {
                thread::sleep(LOCK_RETRY);
            }
            done => return done,
        }
    }
}

/// sled names its lock in a message only.
fn is_lock(source: &Source) -> bool {
    source.to_string().contains("could not acquire lock")
}

fn open_in_thread(path: &Path, deadline: Duration) -> Result<Opened, OpenFailure> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let path: PathBuf = path.into();
    let thread = thread::Builder::new()
        .name("journal-open".into())
        .spawn(move || {
            // The other end is gone when the deadline has passed; there is nobody left to tell.
            let _gone = sender.send(open(&path));
        })
        .map_err(|error| OpenFailure::Environment {
            what: "cannot start a thread".into(),
            source: error.into(),
        })?;
    match receiver.recv_timeout(deadline) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => Err(OpenFailure::Hung(deadline)),
        // Only where panics unwind. A release build aborts, and the opening marker speaks at the next start.
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            let panic =
                thread.join().err().map_or_else(|| "no reason".into(), |panic| panic_text(panic.as_ref()));
            Err(damaged(format!("the database panicked: {panic}")))
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text =
        panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("without a message").chars().take(300).collect()
}

fn damaged(what: String) -> OpenFailure {
    OpenFailure::Unusable(SetAsideReason::Damaged(what))
}

/// Sorts sled's errors by who is at fault. A sector that cannot be read counts as damage: other sectors may do.
fn blame(error: sled::Error) -> OpenFailure {
    let environment = match &error {
        sled::Error::Io(io) => {
            io.to_string().contains("could not acquire lock")
                || matches!(
                    io.kind(),
                    ErrorKind::StorageFull
                        | ErrorKind::QuotaExceeded
                        | ErrorKind::PermissionDenied
                        | ErrorKind::ReadOnlyFilesystem
                        | ErrorKind::OutOfMemory
                )
                || matches!(io.raw_os_error(), Some(ENFILE | EMFILE))
        }
        _ => false,
    };
    if environment {
        OpenFailure::Environment { what: "the database cannot work".into(), source: error.into() }
    } else {
        damaged(error.to_string())
    }
}

/// Too many open files, on the machine and in the process; std has no kind for them.
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;

/// Where sled's files are in a journal's directory, and where the count of commits is.
fn database_dir(journal: &Path) -> PathBuf {
    journal.join("db")
}

/// See [`database_dir`].
pub(crate) fn progress_file(journal: &Path) -> PathBuf {
    journal.join("progress")
}

fn open(journal: &Path) -> Result<Opened, OpenFailure> {
    let progress = Progress::open(&progress_file(journal)).map_err(|error| blame(error.into()))?;
    let (progress, acknowledged) =
        progress.ok_or_else(|| damaged("its count of commits cannot be read".into()))?;
    let path = database_dir(journal);
    // A fresh Config each time: changing a clone of one panics inside sled. No flusher of sled's own: the writer decides when to flush.
    let config = sled::Config::new()
        .path(&path)
        .cache_capacity(CACHE_BYTES)
        .mode(sled::Mode::LowSpace)
        .flush_every_ms(None);
    let db = config.open().map_err(blame)?;
    let records = db.open_tree("records").map_err(blame)?;
    let mut opened = Opened {
        db,
        records,
        index: BTreeMap::new(),
        total: Total::default(),
        progress,
        damaged: Vec::new(),
    };
    let (bad, written) = opened.read_all().map_err(blame)?;
    let written = written.unwrap_or_default();
    if written.commits() < acknowledged {
        let lost = acknowledged - written.commits();
        return Err(damaged(format!("the last {lost} of {acknowledged} commits are missing")));
    }
    opened.total = opened.total.after(written.commits());
    // Damaged records change the sum; without one, a wrong sum means that records went missing whole.
    if bad.is_empty() && written != opened.total {
        return Err(damaged("records are missing or out of date".into()));
    }
    opened.put_away(bad).map_err(blame)?;
    opened.trial_write().map_err(blame)?;
    Ok(opened)
}

/// Key, value and what is wrong with it.
type BadRecord = (sled::IVec, sled::IVec, frame::FrameError);

impl Opened {
    pub(crate) fn records(&self) -> usize {
        self.index.len()
    }

    pub(crate) fn damaged(&self) -> &[DamagedRecord] {
        &self.damaged
    }

    /// Reads every record. Answers the bad ones and the sum as it was written.
    fn read_all(&mut self) -> sled::Result<(Vec<BadRecord>, Option<Total>)> {
        let (mut bad, mut written) = (Vec::new(), None);
        for entry in self.records.iter() {
            let (key, value) = entry?;
            if &key[..] == TOTAL_KEY {
                written = Total::from_bytes(&value);
                continue;
            }
            match frame::decode(&key, &value) {
                Ok((_, sum)) => {
                    self.total.add(sum);
                    self.index.insert(key.to_vec(), sum);
                }
                Err(error) => bad.push((key, value, error)),
            }
        }
        Ok((bad, written))
    }

    /// Moves damaged records out of the way of the good ones: copy first, then remove, so that a crash between the two repeats it.
    fn put_away(&mut self, bad: Vec<BadRecord>) -> sled::Result<()> {
        if bad.is_empty() {
            return Ok(());
        }
        let kept = self.db.open_tree("damaged")?;
        let mut room = DAMAGED_KEPT.saturating_sub(kept.len());
        let mut batch = sled::Batch::default();
        for (key, value, reason) in bad {
            let keep = room > 0;
            if keep {
                kept.insert(&key, value)?;
                room -= 1;
            }
            batch.remove(&key);
            self.damaged.push(DamagedRecord {
                table: frame::table_name(key.first().copied()),
                key: String::from_utf8_lossy(key.get(1..).unwrap_or_default()).into_owned(),
                reason: reason.to_string(),
                kept: keep,
            });
        }
        batch.insert(TOTAL_KEY, &self.total.to_bytes());
        self.records.apply_batch(batch)
    }

    /// What would take the process down at the first commit had better do it now, while the opening marker stands.
    fn trial_write(&self) -> sled::Result<()> {
        let meta = self.db.open_tree("meta")?;
        meta.insert("opened-at", Timestamp::now().to_string().as_bytes())?;
        self.flush()
    }

    /// How many records there would be after these writes.
    pub(crate) fn records_after(&self, writes: &[Write]) -> usize {
        let puts = writes.iter().filter(|write| match write {
            Write::Put { table, key, .. } => !self.index.contains_key(&frame::full_key(*table, key)),
            Write::Delete { .. } => false,
        });
        self.index.len() + puts.count()
    }

    /// Applies all writes or none: one batch, which sled recovers whole or not at all.
    pub(crate) fn apply(&mut self, writes: &[Write]) -> sled::Result<()> {
        let (mut batch, mut total) = (sled::Batch::default(), self.total.next());
        let mut changes: BTreeMap<Vec<u8>, Option<Checksum>> = BTreeMap::new();
        for write in writes {
            let (key, new) = match write {
                Write::Put { table, key, record } => {
                    let key = frame::full_key(*table, key);
                    let (value, sum) = frame::encode(&key, record);
                    batch.insert(&key[..], value);
                    (key, Some(sum))
                }
                Write::Delete { table, key } => {
                    let key = frame::full_key(*table, key);
                    batch.remove(&key[..]);
                    (key, None)
                }
            };
            // An earlier write of the same commit comes before what the index knows.
            let old = changes.get(&key).copied().unwrap_or_else(|| self.index.get(&key).copied());
            old.into_iter().for_each(|sum| total.remove(sum));
            new.into_iter().for_each(|sum| total.add(sum));
            changes.insert(key, new);
        }
        batch.insert(TOTAL_KEY, &total.to_bytes());
        self.records.apply_batch(batch)?;
        self.total = total;
        for (key, change) in changes {
            match change {
                Some(sum) => self.index.insert(key, sum),
                None => self.index.remove(&key),
            };
        }
        Ok(())
    }

    /// Everything applied so far leaves the process. Blocks; never from two threads, and never `flush_async`, which deadlocks.
    pub(crate) fn flush(&self) -> sled::Result<()> {
        self.db.flush()?;
        Ok(self.progress.write(self.total.commits())?)
    }

    /// All good records of a table.
    pub(crate) fn load(&self, table: Table) -> sled::Result<Vec<(String, Record)>> {
        let mut found = Vec::new();
        for entry in self.records.scan_prefix([frame::table_letter(table)]) {
            let (key, value) = entry?;
            // Every record was good when the journal was opened.
            match frame::decode(&key, &value) {
                Ok((record, _)) => found.push((String::from_utf8_lossy(&key[1..]).into_owned(), record)),
                Err(reason) => {
                    error!(?table, key = %String::from_utf8_lossy(&key[1..]), %reason, "damaged record skipped");
                }
            }
        }
        Ok(found)
    }
}
