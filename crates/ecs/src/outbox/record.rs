//! The outbox in the journal: one record for each task, under its ARN.

use super::{news::Told, queue::Queue};
use berth_types::{
    ids::{IdError, TaskArn},
    ports::{Record, Table, Write},
};
use serde::{Deserialize, Serialize};

/// The version that is written.
const VERSION: u16 = 1;

/// A record that cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    #[error("the record has version {0}, this agent reads up to {VERSION}")]
    Version(u16),
    #[error("the record is damaged")]
    Damaged(#[source] serde_json::Error),
    #[error("the record is not under a task's ARN")]
    Key(#[source] IdError),
    #[error("the record holds a report of task {0}")]
    Stranger(TaskArn),
}

/// Version 1: what the control plane has been told of a task, and the reports that it has not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TaskReports {
    /// Name or ARN.
    pub(super) cluster: String,
    pub(super) told: Told,
    pub(super) queue: Queue,
}

impl TaskReports {
    /// As a change to the journal.
    pub(super) fn write(&self, task: &TaskArn) -> Result<Write, serde_json::Error> {
        let record = Record { version: VERSION, body: serde_json::to_vec(self)? };
        Ok(Write::Put { table: Table::Reports, key: task.to_string(), record })
    }

    /// From the journal.
    pub(super) fn read(key: &str, record: &Record) -> Result<(TaskArn, Self), RecordError> {
        let task: TaskArn = key.parse().map_err(RecordError::Key)?;
        if record.version != VERSION {
            return Err(RecordError::Version(record.version));
        }
        let reports: Self = serde_json::from_slice(&record.body).map_err(RecordError::Damaged)?;
        match reports.queue.stranger(&task) {
            Some(stranger) => Err(RecordError::Stranger(stranger.clone())),
            None => Ok((task, reports)),
        }
    }
}
