//! What happens to the state machine: ends of ops, sightings, wishes.

use crate::{failure::Failure, records::Memory};
use berth_types::{
    eni::{EniFacts, LinkTable, NetworkFacts, SlotFiles},
    ids::{ClientToken, NetnsId, SecurityGroupId, SlotId, TaskArn},
};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

/// A built slot as the op hands it on; the listener has gone to the metadata endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finished {
    pub(crate) netns: NetnsId,
    pub(crate) netns_path: PathBuf,
    pub(crate) files: SlotFiles,
    pub(crate) build_micros: u64,
}

/// What happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// The journal was read.
    Loaded(Result<Memory, Failure>),
    /// EC2 was described; `began` is the sequence number at which the call was made.
    CloudSeen {
        began: u64,
        result: Result<Vec<EniFacts>, Failure>,
    },
    /// The kernel was observed.
    NetworkSeen {
        began: u64,
        result: Result<NetworkFacts, Failure>,
    },
    /// Links of the agent's own namespace changed.
    Links(Arc<LinkTable>),
    Created {
        token: ClientToken,
        result: Result<Box<EniFacts>, Failure>,
    },
    Attached {
        token: ClientToken,
        result: Result<(), Failure>,
    },
    Flagged {
        token: ClientToken,
        result: Result<(), Failure>,
    },
    Built {
        token: ClientToken,
        slot: SlotId,
        result: Result<Box<Finished>, Failure>,
    },
    Regrouped {
        token: ClientToken,
        groups: Vec<SecurityGroupId>,
        result: Result<(), Failure>,
    },
    Labelled {
        token: ClientToken,
        task: TaskArn,
        result: Result<(), Failure>,
    },
    Tagged {
        token: ClientToken,
        tags: BTreeMap<String, String>,
        result: Result<(), Failure>,
    },
    TornDown {
        token: ClientToken,
        slot: SlotId,
        result: Result<(), Failure>,
    },
    OrphanTornDown {
        slot: SlotId,
        result: Result<(), Failure>,
    },
    Detached {
        token: ClientToken,
        result: Result<(), Failure>,
    },
    Deleted {
        token: ClientToken,
        result: Result<(), Failure>,
    },
    Recorded(Result<(), Failure>),
    /// The engine has asked for all that its tasks hold.
    Recovered,
    /// An operator wants another pool.
    Resized {
        warm: u32,
        max_enis: Option<u32>,
    },
    /// Look at everything now.
    Kicked,
    /// Nobody listens for this task's slot any more.
    Abandoned(TaskArn),
}
