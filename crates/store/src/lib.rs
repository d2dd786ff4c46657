//! The journal on sled: intents and facts, versioned records.
//!
//! ```text
//!  owner loops ──commit, load──► SledJournal ──bounded queue──► writer thread ──► database (sled)
//!                                                                group commit: one flush for all waiting intents
//! ```
//!
//! sled is fast and survives SIGKILL once it was flushed, but it panics on some damage, deadlocks when flushes overlap and reads past
//! what it has lost. So it is kept on a short lead:
//!
//! * [`place`]: the directory with a lock and a header of our own, read before sled touches anything; what cannot be used is set aside.
//! * [`database`]: opens sled in a thread of its own, reads every record back and makes a trial write before anyone relies on it.
//! * [`frame`]: the bytes of a record, with a checksum over key and value; a sum over all records finds the ones that went missing.
//! * [`progress`]: how many commits were acknowledged, kept beside sled, which forgets the end of its log without a word.
//! * [`writer`]: the only thread that ever touches sled after that.
//!
//! What remains: a release build aborts on a panic inside sled. Two starts that died while opening make the third one set the journal
//! aside, so a damaged journal costs at most two restarts, never a crash loop. sled's flush reaches the page cache, not the platter: the
//! journal keeps its word when the process dies, not when the power does; after that the state is rebuilt from the world.

mod database;
mod frame;
mod header;
mod place;
mod progress;
mod report;
mod writer;

pub use report::{DamagedRecord, OpenReport, Outcome, SetAsideReason};
pub use writer::{MAX_COMMIT_BYTES, MAX_KEY_BYTES, MAX_RECORD_BYTES, MAX_RECORDS, MAX_WRITES};

use berth_types::{
    ids::InstanceId,
    ports::{Durability, Journal, JournalError, Record, Table, Write},
};
use database::OpenFailure;
use place::Place;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tracing::{error, info, warn};
use writer::Writer;

/// How long opening waits for another agent to let go of the journal: a dying agent gives up its lock in milliseconds once it is
/// reaped; ten seconds cover a machine under load.
const LOCK_DEADLINE: Duration = Duration::from_secs(10);

/// How long sled may take to open and be read: 10,000 records take 15 ms, so a thousand times that is a hang.
const OPEN_DEADLINE: Duration = Duration::from_secs(30);

/// The time limits of opening; tests use shorter ones.
#[derive(Debug, Clone, Copy)]
struct Deadlines {
    lock: Duration,
    open: Duration,
}

/// The journal of one agent on one instance. Dropping it waits for the writer to flush and let go of the directory.
#[derive(Debug)]
pub struct SledJournal {
    writer: Writer,
}

impl SledJournal {
    /// Opens the journal in the directory `path`, making it if it is not there. Blocks for milliseconds as a rule, and up to ten
    /// seconds while another process still holds the journal.
    ///
    /// A journal that is damaged, of another format or of another instance (a cloned disk) is renamed to `PATH.set-aside-TIME` and a fresh
    /// one is made; the report says so. With `instance` unknown the journal is taken as it is, and the caller compares
    /// [`OpenReport::instance_id`] once it knows who it is.
    pub fn open(path: &Path, instance: Option<&InstanceId>) -> Result<(Self, OpenReport), JournalError> {
        Self::open_within(path, instance, Deadlines { lock: LOCK_DEADLINE, open: OPEN_DEADLINE })
    }

    fn open_within(
        path: &Path,
        instance: Option<&InstanceId>,
        deadlines: Deadlines,
    ) -> Result<(Self, OpenReport), JournalError> {
        let place = Place::new(path)?;
        let lock = place.lock(deadlines.lock)?;
        let mut outcome = match place.judge(instance)? {
            Some(reason) => set_aside(&place, reason)?,
            None if place.is_new() => Outcome::Created,
            None => Outcome::Opened,
        };
        let (opened, header, aborted_opens) = loop {
            let header = place.prepare(instance)?;
            let aborted_opens = place.mark_opening()?;
            match database::open_guarded(place.dir(), deadlines) {
                Ok(opened) => break (opened, header, aborted_opens),
                // A journal that was made a moment ago and cannot be used is no old damage: the disk or the library is broken.
                Err(OpenFailure::Unusable(reason)) if matches!(outcome, Outcome::Opened) => {
                    outcome = set_aside(&place, reason)?;
                }
                Err(failure) => return Err(give_up(&place, failure)),
            }
        };
        place.unmark_opening()?;
        place.restrict_modes()?;
        let report = OpenReport {
            outcome,
            instance_id: header.instance_id,
            created_at: header.created_at,
            records: opened.records(),
            damaged: opened.damaged().to_vec(),
            aborted_opens,
        };
        log_report(path, &report);
        Ok((Self { writer: Writer::start(path.into(), opened, lock)? }, report))
    }
}

fn set_aside(place: &Place, reason: SetAsideReason) -> Result<Outcome, JournalError> {
    let to: PathBuf = place.set_aside()?;
    Ok(Outcome::SetAside { to, reason })
}

/// Leaves the marker so that the next start knows what happened, and says what to do now.
fn give_up(place: &Place, failure: OpenFailure) -> JournalError {
    match failure {
        OpenFailure::Unusable(reason) => {
            drop_marker(place);
            place.error("open", format!("a fresh journal cannot be used: {reason}"), None)
        }
        OpenFailure::Environment { what, source } => {
            drop_marker(place);
            place.error("open", what, Some(source))
        }
        // The stuck thread cannot be ended: the process has to go, and the next start sets the journal aside.
        OpenFailure::Hung(after) => {
            let cause = place.mark_given_up().err().map(|error| Box::new(error) as Box<_>);
            place.error(
                "open",
                format!("the database did not open within {after:?}; it is set aside at the next start"),
                cause,
            )
        }
    }
}

fn drop_marker(place: &Place) {
    if let Err(error) = place.unmark_opening() {
        warn!(error = %berth_types::Chain(&error), "the journal's opening marker stays behind");
    }
}

fn log_report(path: &Path, report: &OpenReport) {
    let (path, records) = (path.display(), report.records);
    if report.aborted_opens > 0 {
        warn!(%path, aborted_opens = report.aborted_opens, "earlier starts died while they opened the journal");
    }
    for record in &report.damaged {
        error!(%path, table = %record.table, key = %record.key, reason = %record.reason, kept = record.kept, "damaged record skipped");
    }
    match &report.outcome {
        Outcome::Created => info!(%path, "journal created"),
        Outcome::Opened => info!(%path, records, "journal opened"),
        Outcome::SetAside { to, reason } => {
            error!(%path, to = %to.display(), %reason, "journal set aside, state will be rebuilt from the world");
        }
    }
}

#[async_trait::async_trait]
impl Journal for SledJournal {
    async fn commit(&self, writes: Vec<Write>, durability: Durability) -> Result<(), JournalError> {
        self.writer.commit(writes, durability).await
    }

    async fn load(&self, table: Table) -> Result<Vec<(String, Record)>, JournalError> {
        self.writer.load(table).await
    }
}

#[cfg(test)]
mod tests;
