//! One op: a single, repeatable act on the world, and its result as an event. Nothing is decided here; an op that fails says so and
//! the planner decides whether it is tried again.

use crate::{
    engine::Deps,
    machine::Act,
    records::TaskRecord,
    volumes::{self, VolumeError},
};
use berth_types::{
    Class, Timestamp,
    ids::{ContainerId, SlotId, TaskArn},
    lease::{Lease, LeaseError, LeaseNeeds},
    ports::{
        ContainerError, CreateContainer, Durability, ImageFacts, JournalError, ObservedContainer, Signal,
        Table, Write,
    },
};
use std::{
    collections::BTreeSet,
    path::PathBuf,
    time::{Duration, Instant},
};

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
            Self::Volume(_) => Class::Permanent,
            Self::Journal(error) => error.class(),
            Self::Encode { .. } => Class::Bug,
        }
    }
}

/// Runs one op.
pub(crate) async fn run(op: Op, deps: Deps) -> Outcome {
    match op {
        Op::Commit { records, forgotten, durability } => {
            let marks = records.iter().map(|r| (r.spec.arn.clone(), r.changes)).collect();
            let result = commit(&records, &forgotten, durability, &deps).await;
            Outcome::Committed { durability, marks, forgotten, result }
        }
        Op::Look { seq } => {
            Outcome::Looked { seq, result: deps.containers.list().await.map_err(OpError::Runtime) }
        }
        Op::Announce => Outcome::Announced { result: deps.leases.recovered().await },
        Op::RemoveStray { id } => {
            let result = deps.containers.remove(&id).await.map_err(OpError::Runtime);
            Outcome::StrayRemoved { id, result }
        }
        Op::OfTask { task, act, work } => {
            let result = of_task(&task, work, &deps).await;
            Outcome::OfTask { task, act, result }
        }
    }
}

async fn commit(
    records: &[TaskRecord],
    forgotten: &BTreeSet<TaskArn>,
    durability: Durability,
    deps: &Deps,
) -> Result<(), OpError> {
    let mut writes: Vec<Write> =
        forgotten.iter().map(|arn| Write::Delete { table: Table::Tasks, key: arn.to_string() }).collect();
    for record in records {
        let encode = |source| OpError::Encode { task: record.spec.arn.clone(), source };
        writes.push(record.write().map_err(encode)?);
    }
    deps.journal.commit(writes, durability).await.map_err(OpError::Journal)
}

async fn of_task(task: &TaskArn, work: Work, deps: &Deps) -> Result<Done, OpError> {
    let runtime = &deps.containers;
    let nothing = |()| Done::Nothing;
    match work {
        Work::Lease { needs, held } => {
            let asked = Instant::now();
            let lease = deps.leases.lease(task, needs, held).await.map_err(OpError::Lease)?;
            Ok(Done::Leased { lease, waited: asked.elapsed() })
        }
        Work::Volumes { wanted } => volumes::make(wanted).await.map(nothing).map_err(OpError::Volume),
        Work::Image { reference } => {
            runtime.image(&reference).await.map(Done::Image).map_err(OpError::Runtime)
        }
        Work::Create { mut container, record } => {
            container.record =
                record.to_bytes().map_err(|source| OpError::Encode { task: task.clone(), source })?;
            runtime.create(&container).await.map(Done::Created).map_err(OpError::Runtime)
        }
        Work::Start { id } => {
            runtime.start(&id).await.map(|(pid, at)| Done::Started { pid, at }).map_err(OpError::Runtime)
        }
        Work::Signal { id, signal } => {
            runtime.signal(&id, signal).await.map(nothing).map_err(OpError::Runtime)
        }
        Work::Remove { id } => runtime.remove(&id).await.map(nothing).map_err(OpError::Runtime),
        Work::RemoveShared => runtime.remove_task(task).await.map(nothing).map_err(OpError::Runtime),
        Work::Release => deps.leases.release(task).await.map(nothing).map_err(OpError::Lease),
        Work::CleanUp { directories } => {
            volumes::remove(directories).await.map(nothing).map_err(OpError::Volume)
        }
    }
}
