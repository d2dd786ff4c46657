//! What the planner says, and in which order things may be done.

use super::*;
use crate::{
    machine::Goal,
    op::Outcome,
    stage::StopWish,
    tests::fixtures::{after, arn, at, config, container, rules, task},
};
use berth_types::{
    ids::TaskArn,
    lease::Lease,
    ports::ImageFacts,
    task::{DependsCondition, TaskSpec},
};
use std::{collections::BTreeSet, sync::Arc};

fn image() -> ImageFacts {
    ImageFacts {
        reference: "busybox".to_owned(),
        image_id: "sha256:1".to_owned(),
        digest: "sha256:2".to_owned(),
    }
}

fn lease() -> Lease {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let leases = berth_testkit::lease::FakeLeases::new(1);
    runtime.block_on(async { leases.connect().lease(&arn("t"), Default::default(), None).await }).unwrap()
}

/// A world in which everything is up and one task is recorded, changed as told.
fn world(spec: TaskSpec, change: impl FnOnce(&mut Task)) -> World {
    let mut world = World::new(rules());
    world.apply(Outcome::Looked { seq: 0, result: Ok(Vec::new()) }, at(0));
    world.apply(Outcome::Announced { result: Ok(()) }, at(0));
    let mut task = Task::new(Arc::new(spec));
    task.require();
    change(&mut task);
    let changes = task.ledger.changes;
    (task.ledger.saved, task.ledger.durable) = (changes, changes);
    world.insert(task);
    world
}

fn acts(world: &World, seconds: u64) -> Vec<Act> {
    let ops = plan(world, &config(), at(seconds)).ops;
    let act = |op: &Op| match op {
        Op::OfTask { act, .. } => Some(*act),
        Op::Commit { .. } | Op::Look { .. } | Op::Announce | Op::RemoveStray { .. } => None,
    };
    ops.iter().filter_map(act).collect()
}

fn pair() -> TaskSpec {
    task("t", vec![container("db"), after(container("app"), "db", DependsCondition::Start)])
}

#[test]
fn nothing_is_done_for_a_task_before_it_is_durable() {
    let world = world(pair(), |_| {});
    let mut fresh = world;
    fresh.tasks.values_mut().for_each(|t| t.ledger.durable = 0);
    assert_eq!(acts(&fresh, 0), []);
    let ops = plan(&fresh, &config(), at(0)).ops;
    assert!(
        matches!(&ops[..], [Op::Commit { durability: Durability::Intent, records, .. }] if records.len() == 1)
    );
}

#[test]
fn slot_and_images_are_asked_for_at_the_same_time() {
    let world = world(pair(), |_| {});
    assert_eq!(acts(&world, 0), [Act::Lease, Act::Image(0), Act::Image(1)]);
}

#[test]
fn what_is_under_way_is_not_asked_for_again() {
    let mut world = world(pair(), |_| {});
    let ops = plan(&world, &config(), at(0)).ops;
    world.begin(&ops, at(0));
    assert_eq!(acts(&world, 0), []);
}

#[test]
fn containers_are_made_when_the_record_names_the_slot_and_not_before() {
    let mut world = world(pair(), |task| {
        task.containers.iter_mut().for_each(|c| c.stage.pulled(image()));
        task.leased(lease(), std::time::Duration::ZERO);
    });
    assert_eq!(acts(&world, 0), [Act::Create(0), Act::Create(1)]);
    world.tasks.values_mut().for_each(|t| t.require());
    assert_eq!(acts(&world, 0), []);
}

#[test]
fn only_what_may_start_starts() {
    let mut world = world(pair(), |task| {
        task.leased(lease(), std::time::Duration::ZERO);
        task.containers.iter_mut().for_each(|c| c.stage.created(at(0).wall));
    });
    assert_eq!(acts(&world, 0), [Act::Start(0)]);
    world.tasks.values_mut().for_each(|t| t.containers[0].stage.started(1, at(0).wall));
    assert_eq!(acts(&world, 0), [Act::Start(1)]);
}

#[test]
fn new_leases_wait_for_the_recovery_and_old_ones_do_not() {
    let mut world = world(pair(), |_| {});
    world.recovery = Recovery::Looking;
    assert_eq!(acts(&world, 0), [Act::Image(0), Act::Image(1)]);
    let held = lease().slot.clone();
    world.tasks.values_mut().for_each(|t| t.slot = Slot::Wanted { held: Some(held.clone()) });
    assert_eq!(acts(&world, 0), [Act::Lease, Act::Image(0), Act::Image(1)]);
    world.recovery = Recovery::Leases;
    assert!(!plan(&world, &config(), at(0)).ops.contains(&Op::Announce));
    world.tasks.values_mut().for_each(|t| t.slot = Slot::Held(lease()));
    assert!(plan(&world, &config(), at(0)).ops.contains(&Op::Announce));
}

#[test]
fn signals_go_to_dependants_first_and_sigkill_comes_when_the_grace_is_over() {
    let mut world = world(pair(), |task| {
        task.leased(lease(), std::time::Duration::ZERO);
        task.goal = Goal::Stop(StopWish { reason: "stop".to_owned(), code: None });
        task.containers.iter_mut().for_each(|c| c.stage.started(1, at(0).wall));
    });
    assert_eq!(acts(&world, 0), [Act::Signal(1)]);
    world.tasks.values_mut().for_each(|t| t.signalled(1, at(0), &rules()));
    assert_eq!(acts(&world, 29), []);
    assert_eq!(plan(&world, &config(), at(29)).wake, Some(at(30).tick));
    let ops = plan(&world, &config(), at(30)).ops;
    assert!(
        matches!(
            &ops[..],
            [Op::Commit { .. }, Op::OfTask { work: Work::Signal { signal: Signal::Kill, .. }, .. }]
        ),
        "{ops:?}"
    );
}

#[test]
fn a_runtime_that_is_down_is_only_looked_at() {
    let mut world = world(pair(), |task| task.leased(lease(), std::time::Duration::ZERO));
    world.runtime.ok = false;
    world.runtime.look = Look::Needed;
    assert_eq!(acts(&world, 0), []);
    assert_eq!(plan(&world, &config(), at(0)).ops, [Op::Look { seq: world.seq }]);
}

#[test]
fn containers_that_never_ran_are_removed_before_those_that_did() {
    let world = world(pair(), |task| {
        task.containers[0].stage.exited(0, at(1).wall, false);
        task.containers[1].stage.created(at(0).wall);
        task.stop("stop", None);
        task.settle(at(1));
    });
    assert_eq!(acts(&world, 1), [Act::Remove(1)]);
}

#[test]
fn calls_to_the_runtime_are_bounded_over_all_tasks_and_those_for_images_apart() {
    let mut world = world(pair(), |_| {});
    for number in 0..MAX_IMAGE_CALLS {
        let mut more = Task::new(Arc::new(task(&format!("t{number}"), vec![container("a"), container("b")])));
        more.require();
        more.ledger.durable = more.ledger.changes;
        if number < MAX_RUNTIME_CALLS {
            more.slot = Slot::Held(lease());
            more.containers.iter_mut().for_each(|c| c.stage.pulled(image()));
        }
        world.insert(more);
    }
    let count = |acts: Vec<Act>, of: fn(Act) -> bool| acts.into_iter().filter(|a| of(*a)).count();
    assert_eq!(count(acts(&world, 0), is_counted), MAX_RUNTIME_CALLS);
    assert_eq!(count(acts(&world, 0), is_image), MAX_IMAGE_CALLS);
    let ops = plan(&world, &config(), at(0)).ops;
    world.begin(&ops, at(0));
    assert_eq!(count(acts(&world, 0), |act| is_counted(act) || is_image(act)), 0);
}

#[test]
fn a_burst_of_tasks_shares_one_flush() {
    let mut world = World::new(rules());
    for number in 0..10 {
        world.admit(task(&format!("t{number}"), vec![container("a")]), at(0)).unwrap();
    }
    let ops = plan(&world, &config(), at(0)).ops;
    let commits: Vec<_> = ops.iter().filter(|op| matches!(op, Op::Commit { .. })).collect();
    assert!(matches!(&commits[..], [Op::Commit { records, .. }] if records.len() == 10));
    let forgotten: BTreeSet<TaskArn> = BTreeSet::new();
    assert!(matches!(commits[0], Op::Commit { forgotten: f, .. } if *f == forgotten));
}
