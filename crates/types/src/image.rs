//! Images on their way: what operators see of pulls.

use crate::Timestamp;
use serde::{Deserialize, Serialize};

/// How far a pull is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PullStage {
    /// Waits until other pulls make room.
    Waiting,
    /// Asks the registry what the reference means.
    Resolving,
    /// Layers are on their way.
    Downloading,
    /// Layers become a root file system.
    Unpacking,
}

/// A pull under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PullView {
    /// What is pulled, in full: `registry/name:tag`.
    pub reference: String,
    /// How far it is.
    pub stage: PullStage,
    /// When it began.
    pub started_at: Timestamp,
    /// Layers and other blobs of the image, once the manifest is here.
    pub blobs: u32,
    /// Of these, how many are here.
    pub blobs_done: u32,
    /// Bytes of all blobs, once the manifest is here.
    pub bytes: u64,
    /// Of these, how many are here (those that were here before included).
    pub bytes_done: u64,
    /// Tries that failed and are repeated.
    pub failures: u32,
    /// What the last of them failed with.
    pub problem: Option<String>,
}

/// A pull that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PullEnd {
    /// What was pulled, in full.
    pub reference: String,
    /// When it began.
    pub started_at: Timestamp,
    /// When it was over.
    pub finished_at: Timestamp,
    /// Bytes that came over the network.
    pub bytes: u64,
    /// The manifest's (or index's) digest if it worked.
    pub digest: Option<String>,
    /// The reason if it did not.
    pub problem: Option<String>,
}

/// Pulls that are shown after their end: enough to look back on the start of an instance full of tasks.
pub const PULLS_REMEMBERED: usize = 32;

/// All pulls.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PullsSnapshot {
    /// Grows with each change.
    pub version: u64,
    /// Under way, oldest first.
    pub active: Vec<PullView>,
    /// Over, the latest last, at most [`PULLS_REMEMBERED`].
    pub ended: Vec<PullEnd>,
}

/// An image in the runtime's store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageView {
    /// Its name in the store.
    pub name: String,
    /// The manifest's (or index's) digest.
    pub digest: String,
    /// Bytes of its blobs in the store.
    pub bytes: u64,
    /// When this agent pulled it; `None` for one that was imported or that somebody else brought.
    pub pulled_at: Option<Timestamp>,
    /// When a task last asked for it.
    pub used_at: Option<Timestamp>,
    /// Containers that are made of it.
    pub containers: u32,
}
