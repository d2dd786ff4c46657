//! The engine's records: one for each task in the journal, and the same with each container, so that a lost journal can be
//! rebuilt from the runtime. Both carry a version; a version that is no longer written keeps its decoder here.

use crate::stage::{Stage, StopWish, Times};
use berth_types::{
    Timestamp,
    ids::SlotId,
    ports::{Record, Table, Write},
    task::TaskSpec,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The version that is written.
pub(crate) const VERSION: u16 = 1;

/// A record that cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("the record has version {0}, this agent reads up to {VERSION}")]
    Version(u16),
    #[error("the record is damaged")]
    Damaged(#[source] serde_json::Error),
    #[error("the record is of task {found}, not of the one it was found with")]
    Stranger { found: String },
    #[error("the record holds {found} containers for {expected} in the definition")]
    Containers { found: usize, expected: usize },
}

/// Version 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TaskRecord {
    pub(crate) spec: Arc<TaskSpec>,
    /// Counts changes of the task: of two records the one with more is the newer.
    pub(crate) changes: u64,
    pub(crate) stop: Option<StopWish>,
    /// The slot that the containers are made in.
    pub(crate) slot: Option<SlotId>,
    /// In the order of the definition.
    pub(crate) stages: Vec<Stage>,
    pub(crate) times: Times,
    pub(crate) stopped: Option<Stopped>,
}

/// A task's end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stopped {
    pub(crate) at: Timestamp,
    /// What is left to do; all of it is repeatable, so a record that lags costs nothing.
    pub(crate) left: Left,
}

/// See [`Rest`](crate::machine::Rest).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Left {
    Containers,
    Shared,
    Slot,
    Files,
}

/// How a record travels with a container: no journal says its version.
#[derive(Serialize, Deserialize)]
struct Envelope {
    version: u16,
    record: serde_json::Value,
}

impl TaskRecord {
    /// As a change to the journal.
    pub(crate) fn write(&self) -> Result<Write, serde_json::Error> {
        let record = Record { version: VERSION, body: serde_json::to_vec(self)? };
        Ok(Write::Put { table: Table::Tasks, key: self.spec.arn.to_string(), record })
    }

    /// From the journal.
    pub(crate) fn read(key: &str, record: &Record) -> Result<Self, RecordError> {
        match record.version {
            VERSION => {
                serde_json::from_slice::<Self>(&record.body).map_err(RecordError::Damaged)?.checked(key)
            }
            other => Err(RecordError::Version(other)),
        }
    }

    /// As bytes that travel with a container.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&Envelope { version: VERSION, record: serde_json::to_value(self)? })
    }

    /// From bytes that travelled with a container of this task.
    pub(crate) fn from_bytes(task: &str, bytes: &[u8]) -> Result<Self, RecordError> {
        let envelope: Envelope = serde_json::from_slice(bytes).map_err(RecordError::Damaged)?;
        match envelope.version {
            VERSION => {
                serde_json::from_value::<Self>(envelope.record).map_err(RecordError::Damaged)?.checked(task)
            }
            other => Err(RecordError::Version(other)),
        }
    }

    fn checked(self, task: &str) -> Result<Self, RecordError> {
        if self.spec.arn.as_str() != task {
            return Err(RecordError::Stranger { found: self.spec.arn.to_string() });
        }
        let (found, expected) = (self.stages.len(), self.spec.containers.len());
        if found != expected || expected == 0 {
            return Err(RecordError::Containers { found, expected });
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests;
