//! Runs one op: a single, repeatable act on the world, and its result as an event. Nothing is decided here; an op that fails says so and
//! the planner decides whether it is tried again.

use crate::{
    door::Deps,
    op::{Done, Op, OpError, Outcome, Work},
    records::TaskRecord,
    volumes,
};
use berth_types::{
    ids::TaskArn,
    ports::{Durability, Table, Write},
};
use std::{collections::BTreeSet, time::Instant};

/// Records in one commit, and their bytes: half of what the journal takes. A machine that comes back from a reboot changes all of its
/// tasks at once.
const MAX_WRITES: usize = 256;
const MAX_COMMIT_BYTES: usize = 2 << 20;

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
    for portion in portions(writes) {
        deps.journal.commit(portion, durability).await.map_err(OpError::Journal)?;
    }
    Ok(())
}

/// Splits what the journal would not take at once. Records of tasks do not depend on each other, and those of a portion that was
/// committed before another failed are written again.
fn portions(writes: Vec<Write>) -> Vec<Vec<Write>> {
    let size = |write: &Write| match write {
        Write::Put { record, .. } => record.body.len(),
        Write::Delete { .. } => 0,
    };
    let mut portions: Vec<Vec<Write>> = Vec::new();
    let mut bytes = 0;
    for write in writes {
        let own = size(&write);
        match portions.last_mut() {
            Some(last) if last.len() < MAX_WRITES && bytes + own <= MAX_COMMIT_BYTES => {
                bytes += own;
                last.push(write);
            }
            Some(_) | None => {
                bytes = own;
                portions.push(vec![write]);
            }
        }
    }
    portions
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

#[cfg(test)]
mod tests {
    use super::*;
    use berth_types::ports::Record;

    #[test]
    fn a_commit_is_split_into_what_the_journal_takes() {
        let put = |bytes: usize| Write::Put {
            table: Table::Tasks,
            key: "t".to_owned(),
            record: Record { version: 1, body: vec![0; bytes] },
        };
        let many: Vec<Write> = (0..1000).map(|_| put(10)).collect();
        assert_eq!(portions(many).iter().map(Vec::len).collect::<Vec<_>>(), [256, 256, 256, 232]);
        let large: Vec<Write> = (0..5).map(|_| put(1 << 20)).collect();
        assert_eq!(portions(large).iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
        assert_eq!(portions(vec![put(3 << 20), put(1)]).len(), 2);
        assert!(portions(Vec::new()).is_empty());
    }
}
