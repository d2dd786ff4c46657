//! What the manager keeps in the journal: one record for each ENI by client token, one for each lease by task.
//!
//! The journal is a cache plus intents. A record that cannot be read is logged and left out; what it spoke of is found again in
//! EC2 (by tags) and in the kernel (by MAC and alias).

use berth_types::{
    Timestamp,
    eni::{CreateEni, EniFacts},
    ids::{AttachmentId, ClientToken, EniId, InstanceId, SlotId, TaskArn},
    ports::{Record, TAG_INSTANCE, Table, Write},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;

/// Version that is written. Older ones keep their decoder in [`decode`].
const VERSION: u16 = 1;

/// Which way the ENI is going.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Course {
    /// It is to be used.
    Keep,
    /// It is being detached and deleted.
    Remove,
}

/// A slot as the journal remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SlotRecord {
    /// Which.
    pub(crate) slot: SlotId,
    /// Whether a task ever leased it: one that was never leased is clean.
    pub(crate) used: bool,
}

/// An ENI of the pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EniRecord {
    /// What it was (or is to be) created with; repeated word for word, or EC2 refuses the token.
    pub(crate) request: CreateEni,
    /// When that was decided.
    pub(crate) created_at: Timestamp,
    /// Which way it goes.
    pub(crate) course: Course,
    /// What EC2 said of it last; absent while the create call has not answered.
    pub(crate) facts: Option<EniFacts>,
    /// Device index, reserved or in use.
    pub(crate) device_index: Option<u32>,
    /// Its attachment, once known.
    pub(crate) attachment: Option<AttachmentId>,
    /// Its slot.
    pub(crate) slot: Option<SlotRecord>,
    /// When it last got other groups, or was about to.
    #[serde(default)]
    pub(crate) regrouped_at: Option<Timestamp>,
    /// Tags that were set for a task.
    pub(crate) task_tags: Vec<String>,
}

/// A lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaseRecord {
    /// Who holds it.
    pub(crate) task: TaskArn,
    /// The slot.
    pub(crate) slot: SlotId,
    /// Its ENI.
    pub(crate) eni: EniId,
    /// Tags of the ENI while it is held.
    pub(crate) tags: BTreeMap<String, String>,
}

/// All that the journal remembers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Memory {
    /// By client token.
    pub(crate) enis: BTreeMap<ClientToken, EniRecord>,
    /// By task.
    pub(crate) leases: BTreeMap<TaskArn, LeaseRecord>,
}

/// A record that was not understood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    /// Written by a newer agent.
    #[error("record {key} has version {version}, this agent reads up to {VERSION}")]
    Version {
        /// Its key.
        key: String,
        /// Its version.
        version: u16,
    },
    /// Not what its version promises.
    #[error("decode record {key}")]
    Body {
        /// Its key.
        key: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

/// Reads a record's body.
pub(crate) fn decode<T: DeserializeOwned>(key: &str, record: &Record) -> Result<T, RecordError> {
    match record.version {
        1 => serde_json::from_slice(&record.body)
            .map_err(|source| RecordError::Body { key: key.to_owned(), source }),
        version => Err(RecordError::Version { key: key.to_owned(), version }),
    }
}

/// Sets a record. A body that does not serialise (no type here can fail to) would be written empty and read as damaged.
fn put<T: Serialize>(table: Table, key: &str, value: &T) -> Write {
    let body = serde_json::to_vec(value).unwrap_or_default();
    Write::Put { table, key: key.to_owned(), record: Record { version: VERSION, body } }
}

/// Sets or removes an ENI's record.
pub(crate) fn write_eni(token: &ClientToken, record: Option<&EniRecord>) -> Write {
    let key = token.as_str();
    record.map_or_else(
        || Write::Delete { table: Table::Enis, key: key.to_owned() },
        |r| put(Table::Enis, key, r),
    )
}

/// Sets or removes a lease's record.
pub(crate) fn write_lease(task: &TaskArn, record: Option<&LeaseRecord>) -> Write {
    let key = task.as_str();
    record.map_or_else(
        || Write::Delete { table: Table::Leases, key: key.to_owned() },
        |r| put(Table::Leases, key, r),
    )
}

/// Reads all records of this instance; what cannot be read or belongs to another instance is logged and left out.
pub(crate) fn read(
    instance: &InstanceId,
    enis: Vec<(String, Record)>,
    leases: Vec<(String, Record)>,
) -> Memory {
    let mut memory = Memory::default();
    for (key, record) in enis {
        match decode::<EniRecord>(&key, &record) {
            Ok(r) if r.request.tags.get(TAG_INSTANCE).map(String::as_str) != Some(instance.as_str()) => {
                tracing::warn!(key, "eni record of another instance ignored");
            }
            Ok(r) if r.request.token.as_str() != key => {
                tracing::warn!(key, "eni record under a wrong key ignored")
            }
            Ok(r) => drop(memory.enis.insert(r.request.token.clone(), r)),
            Err(error) => tracing::warn!(key, error = %berth_types::Chain(&error), "eni record ignored"),
        }
    }
    for (key, record) in leases {
        match decode::<LeaseRecord>(&key, &record) {
            Ok(r) => drop(memory.leases.insert(r.task.clone(), r)),
            Err(error) => tracing::warn!(key, error = %berth_types::Chain(&error), "lease record ignored"),
        }
    }
    memory
}
