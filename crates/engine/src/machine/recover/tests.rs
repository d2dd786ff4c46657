//! What is concluded from what a former life has left.

use super::*;
use crate::{
    backoff::Tick,
    tests::fixtures::{after, arn, at, container, rules, task},
};
use berth_types::{ids::ContainerId, ports::Write, task::DependsCondition};
use std::{sync::Arc, time::Duration};

fn pair() -> Task {
    let mut pair = Task::new(Arc::new(task(
        "t",
        vec![container("a"), after(container("b"), "a", DependsCondition::Start)],
    )));
    pair.slot = Slot::Wanted { held: Some("0badcafe-00000001".parse().unwrap()) };
    pair.ledger.changes = 4;
    pair
}

fn found(of: &Task, index: usize, changes: u64, state: RuntimeState) -> ObservedContainer {
    let name = of.containers[index].spec.name.clone();
    let mut record = TaskRecord::with_container(of, index, at(3).wall);
    record.changes = changes;
    let id = ContainerId::derive(&arn("t"), &name, 0);
    ObservedContainer { id, task: arn("t"), name, state, record: record.to_bytes().unwrap() }
}

#[test]
fn a_task_comes_back_from_its_containers_with_slot_spec_and_times() {
    let before = pair();
    let a = found(&before, 0, 5, RuntimeState::Running { pid: 1 });
    let b = found(&before, 1, 4, RuntimeState::Created);
    let task = from_containers(&[&b, &a], at(9), &rules()).unwrap();
    assert_eq!((&task.spec, &task.slot, task.ledger.changes), (&before.spec, &before.slot, 6));
    assert!(task.containers.iter().all(|c| c.stage.past().created_at == Some(at(3).wall)));
    assert!(!task.ledger.is_settled(), "the new journal must have it before anything is done");
}

#[test]
fn a_container_that_was_not_made_yet_is_made_only_if_the_task_is_not_over() {
    let before = pair();
    let exited = RuntimeState::Exited { code: 0, at: at(4).wall, oom: false };
    let table = [(RuntimeState::Created, false), (RuntimeState::Running { pid: 1 }, false), (exited, true)];
    for (state, over) in table {
        let a = found(&before, 0, 5, state.clone());
        let task = from_containers(&[&a], at(9), &rules()).unwrap();
        assert_eq!(task.containers[1].stage.has_ended(), over, "{state:?}");
    }
}

#[test]
fn rubbish_beside_a_good_record_does_no_harm_and_alone_is_an_error() {
    let good = found(&pair(), 0, 5, RuntimeState::Created);
    let mut bad = found(&pair(), 1, 9, RuntimeState::Created);
    bad.record = b"{".to_vec();
    assert!(from_containers(&[&bad, &good], at(9), &rules()).is_ok());
    assert!(matches!(from_containers(&[&bad], at(9), &rules()), Err(RecordError::Damaged(_))));
}

#[test]
fn nothing_is_concluded_from_a_record_before_the_runtime_was_asked() {
    let mut before = pair();
    before.stop("stop", None);
    let Write::Put { key, record, .. } = TaskRecord::of(&before).write().unwrap() else {
        panic!("not a put")
    };
    let tasks = from_journal(vec![(key, record)], at(0), &rules());
    assert!(tasks[0].unseen && tasks[0].is_stopping() && !tasks[0].containers[0].stage.has_ended());
}

#[test]
fn deadlines_go_on_where_they_were() {
    let mut before = pair();
    before.containers[0].stage.started(1, at(100).wall);
    before.containers[0].stage.signalled(at(100).wall);
    let Write::Put { key, record, .. } = TaskRecord::of(&before).write().unwrap() else {
        panic!("not a put")
    };
    let now = Now { wall: at(110).wall, tick: Tick::ZERO };
    let tasks = from_journal(vec![(key, record)], now, &rules());
    assert_eq!(tasks[0].containers[0].kill_at, Duration::from_secs(20));
}
