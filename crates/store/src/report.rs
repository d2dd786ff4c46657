//! What opening the journal found, for the log, the operator and the recovery that follows.

use berth_types::{Timestamp, ids::InstanceId};
use std::path::PathBuf;

/// What [`crate::SledJournal::open`] found.
#[derive(Debug, Clone)]
pub struct OpenReport {
    /// Whether there was a journal, and whether it could be used.
    pub outcome: Outcome,
    /// The instance that the journal belongs to, `None` when it was made before the agent knew.
    pub instance_id: Option<InstanceId>,
    /// When the journal was made.
    pub created_at: Timestamp,
    /// Good records.
    pub records: usize,
    /// Records that were skipped. They are kept in the journal for a post-mortem, out of the way.
    pub damaged: Vec<DamagedRecord>,
    /// Earlier starts that died while they opened this journal.
    pub aborted_opens: u32,
}

/// Whether there was a journal, and whether it could be used.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// There was none.
    Created,
    /// It was opened as it is.
    Opened,
    /// It could not be used; a fresh one stands in its place.
    SetAside {
        /// Where the old one lies.
        to: PathBuf,
        /// Why.
        reason: SetAsideReason,
    },
}

/// Why a journal was set aside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetAsideReason {
    /// It is of another instance: the disk was cloned. Acting on it would touch the other instance's ENIs.
    #[error("it belongs to instance {journal}, this is {ours}")]
    ForeignInstance {
        /// Whose it is.
        journal: InstanceId,
        /// Who we are.
        ours: InstanceId,
    },
    /// A later agent wrote it.
    #[error("its format is {found}, this agent knows formats up to {known}")]
    UnknownFormat {
        /// What its header says.
        found: u32,
        /// The newest that this agent reads.
        known: u32,
    },
    /// The bytes are not what was written.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// The agent died each time it tried.
    #[error("{0} starts died while they opened it")]
    AbortedOpens(u32),
}

/// A record whose bytes are not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedRecord {
    /// Its table's name.
    pub table: String,
    /// Its key, made printable.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
    /// Whether a copy was kept; there is room for a few only.
    pub kept: bool,
}
