//! Ops as values: what is to be done, and what came of it. `ops` runs them, `plan` names them, `machine` takes their results.

use crate::{
    records::TaskRecord,
    volumes::{self, VolumeError},
};
use berth_types::{
    Class, Timestamp,
    ids::{ContainerId, SlotId, TaskArn},
    lease::{Lease, LeaseError, LeaseNeeds},
    ports::{
        ContainerError, CreateContainer, Durability, ImageFacts, JournalError, ObservedContainer, Signal,
    },
};
use std::{collections::BTreeSet, path::PathBuf, time::Duration};

/// An act on the world for one task; at most one of each is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Act {
    Lease,
    Volumes,
    Image(usize),
    Create(usize),
    Start(usize),
    Signal(usize),
    Remove(usize),
    RemoveShared,
    Release,
    CleanUp,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Op {
    /// Write these records and delete those of forgotten tasks.
    Commit { records: Vec<TaskRecord>, forgotten: BTreeSet<TaskArn>, durability: Durability },
    /// List all containers; `seq` is the event count at this moment.
    Look { seq: u64 },
    /// Tell the ENI manager that all slots of former leases were asked for.
    Announce,
    /// Remove a container that belongs to no task.
    RemoveStray { id: ContainerId },
    /// Something for one task; at most one of each [`Act`] is under way.
    OfTask { task: TaskArn, act: Act, work: Work },
}

/// The work of an op for one task.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Work {
    Lease {
        needs: LeaseNeeds,
        held: Option<SlotId>,
    },
    /// `Err` is why the definition cannot have its volumes; it is reported where every other failure is.
    Volumes {
        wanted: Result<Vec<volumes::Wanted>, volumes::DefinitionError>,
    },
    Image {
        reference: String,
    },
    Create {
        container: Box<CreateContainer>,
        record: Box<TaskRecord>,
    },
    Start {
        id: ContainerId,
    },
    Signal {
        id: ContainerId,
        signal: Signal,
    },
    Remove {
        id: ContainerId,
    },
    RemoveShared,
    Release,
    CleanUp {
        directories: Vec<PathBuf>,
    },
}

/// What came of an op.
#[derive(Debug)]
pub(crate) enum Outcome {
    Committed {
        durability: Durability,
        marks: Vec<(TaskArn, u64)>,
        forgotten: BTreeSet<TaskArn>,
        result: Result<(), OpError>,
    },
    Looked {
        seq: u64,
        result: Result<Vec<ObservedContainer>, OpError>,
    },
    Announced {
        result: Result<(), LeaseError>,
    },
    StrayRemoved {
        id: ContainerId,
        result: Result<(), OpError>,
    },
    OfTask {
        task: TaskArn,
        act: Act,
        result: Result<Done, OpError>,
    },
}

/// What an op for one task brought.
#[derive(Debug)]
pub(crate) enum Done {
    Nothing,
    Leased {
        lease: Lease,
        /// From the request to the answer.
        waited: Duration,
    },
    Image(ImageFacts),
    Created(Timestamp),
    Started {
        pid: u32,
        at: Timestamp,
    },
}

/// An op that failed. The port's error says what was tried and on what.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpError {
    #[error(transparent)]
    Runtime(ContainerError),
    #[error(transparent)]
    Lease(LeaseError),
    #[error(transparent)]
    Volume(VolumeError),
    #[error(transparent)]
    Journal(JournalError),
    /// Cut off by the engine itself.
    #[error("no longer wanted")]
    Unwanted,
    #[error("encode the record of task {task}")]
    Encode {
        task: TaskArn,
        #[source]
        source: serde_json::Error,
    },
}

impl OpError {
    /// Whether trying again can help.
    pub(crate) fn class(&self) -> Class {
        match self {
            Self::Runtime(error) => error.class(),
            Self::Lease(error) => error.class(),
            Self::Volume(_) | Self::Unwanted => Class::Permanent,
            Self::Journal(error) => error.class(),
            Self::Encode { .. } => Class::Bug,
        }
    }
}
