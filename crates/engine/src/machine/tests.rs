//! What events do to the state, without a loop.

use super::*;
use crate::{
    op::Work,
    plan,
    stage::End,
    tests::fixtures::{arn, at, config, container, doing, rules, side, task},
};
use berth_types::{
    Timestamp,
    ports::{Durability, ImageFacts, ObservedContainer, RuntimeState},
    task::TaskStatus,
};
use proptest::prelude::*;

fn image() -> ImageFacts {
    ImageFacts {
        reference: "busybox".to_owned(),
        image_id: "sha256:1".to_owned(),
        digest: "sha256:2".to_owned(),
    }
}

fn when(second: u64) -> Timestamp {
    at(second).wall
}

/// A world that has taken over an empty machine and holds one admitted task.
fn world_with(spec: TaskSpec) -> World {
    let mut world = World::new(rules());
    world.apply(Outcome::Looked { seq: 0, result: Ok(Vec::new()) }, at(0));
    world.apply(Outcome::Announced { result: Ok(()) }, at(0));
    world.admit(spec, at(0)).unwrap();
    record_all(&mut world);
    world
}

fn record_all(world: &mut World) {
    let marks = world.tasks.iter().map(|(arn, t)| (arn.clone(), t.ledger.changes)).collect();
    let forgotten = BTreeSet::new();
    world.apply(
        Outcome::Committed { durability: Durability::Intent, marks, forgotten, result: Ok(()) },
        at(0),
    );
}

fn done(world: &mut World, act: Act, result: Done) {
    world.apply(Outcome::OfTask { task: arn("t"), act, result: Ok(result) }, at(1));
}

/// A task whose only container runs.
fn running() -> World {
    let mut world = world_with(task("t", vec![container("web")]));
    done(&mut world, Act::Image(0), Done::Image(image()));
    done(&mut world, Act::Create(0), Done::Created(when(1)));
    done(&mut world, Act::Start(0), Done::Started { pid: 9, at: when(1) });
    assert_eq!(world.tasks[&arn("t")].known(), TaskStatus::Running);
    world
}

fn observed(world: &World, state: RuntimeState) -> ObservedContainer {
    let container = &world.tasks[&arn("t")].containers[0];
    ObservedContainer {
        id: container.id.clone(),
        task: arn("t"),
        name: "web".to_owned(),
        state,
        record: Vec::new(),
    }
}

#[test]
fn a_list_that_was_begun_before_a_start_does_not_take_it_back() {
    let mut world = running();
    let before = world.seq - 1;
    world.apply(Outcome::Looked { seq: before, result: Ok(Vec::new()) }, at(2));
    assert_eq!(world.tasks[&arn("t")].known(), TaskStatus::Running);
    let now = world.seq;
    world.apply(Outcome::Looked { seq: now, result: Ok(Vec::new()) }, at(2));
    assert!(matches!(
        world.tasks[&arn("t")].containers[0].stage,
        Stage::Ended { end: End::Vanished { .. }, .. }
    ));
}

#[test]
fn a_list_begun_before_the_runtime_was_lost_does_not_bring_it_back() {
    let mut world = running();
    world.runtime.look = Look::Running { stale: false };
    world.hint(ContainerEvent::Disconnected, at(2));
    let found = vec![observed(&world, RuntimeState::Running { pid: 9 })];
    let seq = world.seq;
    world.apply(Outcome::Looked { seq, result: Ok(found) }, at(2));
    assert!(!world.runtime.ok && world.runtime.look == Look::Needed);
}

#[test]
fn a_late_start_answer_does_not_revive_an_ended_container() {
    let mut world = world_with(task("t", vec![container("web")]));
    done(&mut world, Act::Image(0), Done::Image(image()));
    done(&mut world, Act::Create(0), Done::Created(when(1)));
    let id = world.tasks[&arn("t")].containers[0].id.clone();
    world.tasks.get_mut(&arn("t")).unwrap().busy.insert(Act::Start(0));
    world.hint(ContainerEvent::Exited { id, code: 3, at: when(2), oom: false }, at(2));
    done(&mut world, Act::Start(0), Done::Started { pid: 9, at: when(1) });
    let ended = &world.tasks[&arn("t")];
    assert_eq!(ended.known(), TaskStatus::Stopped);
    assert_eq!(ended.containers[0].stage.past().started_at, Some(when(1)));
}

#[test]
fn a_lease_that_comes_behind_its_release_is_given_back_again() {
    let mut world = world_with(task("t", vec![container("web")]));
    world.request_stop(&arn("t"), "stop".to_owned(), StopCode::UserInitiated).unwrap();
    record_all(&mut world);
    record_all(&mut world);
    let release = [Op::OfTask { task: arn("t"), act: Act::Release, work: Work::Release }];
    world.begin(&release, at(2));
    let lease = lease();
    done(&mut world, Act::Lease, Done::Leased { lease, waited: Duration::ZERO });
    done(&mut world, Act::Release, Done::Nothing);
    let Life::Stopped { rest, .. } = world.tasks[&arn("t")].life else { panic!("live") };
    assert_eq!(rest, Rest::Slot);
    world.begin(&release, at(2));
    done(&mut world, Act::Release, Done::Nothing);
    assert!(world.tasks[&arn("t")].awaits_cleanup().is_some());
}

fn lease() -> Lease {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let leases = berth_testkit::lease::FakeLeases::new(1);
    runtime.block_on(async { leases.connect().lease(&arn("t"), Default::default(), None).await }).unwrap()
}

#[test]
fn only_so_many_stopped_tasks_are_kept_and_the_oldest_go_first() {
    let mut world = World::new(rules());
    for number in 0..MAX_STOPPED + 3 {
        let mut over = Task::new(Arc::new(task(&format!("t{number}"), vec![container("web")])));
        over.life = Life::Stopped { at: when(number as u64), rest: Rest::Files { due: at(100_000).tick } };
        world.insert(over);
    }
    world.bound_stopped(at(5));
    world.bound_stopped(at(5));
    let early: Vec<_> = world
        .tasks
        .values()
        .filter(|t| t.awaits_cleanup().is_some_and(|(_, due)| due <= at(5).tick))
        .collect();
    assert_eq!(early.len(), 3);
    assert!(early.iter().all(|t| t.awaits_cleanup().unwrap().0 <= when(2)));
}

#[test]
fn a_stop_counts_only_when_it_is_durable() {
    let mut world = running();
    world.request_stop(&arn("t"), "stop".to_owned(), StopCode::UserInitiated).unwrap();
    assert!(!world.tasks[&arn("t")].is_stopping());
    record_all(&mut world);
    assert!(world.tasks[&arn("t")].is_stopping());
}

/// An event that some loop might see, however late, doubled or senseless.
#[derive(Debug, Clone)]
enum Any {
    Image(usize, bool),
    Create(usize, bool),
    Start(usize, bool),
    Signal(usize, bool),
    Exit(usize, u32),
    Remove(usize),
    Shared,
    Release,
    Leased,
    Stop,
    Look(Vec<u8>, bool),
    Lost,
}

fn any_event() -> impl Strategy<Value = Any> {
    let of =
        |f: fn(usize, bool) -> Any| (0..3usize, prop::bool::weighted(0.8)).prop_map(move |(i, ok)| f(i, ok));
    prop_oneof![
        3 => of(Any::Image), 3 => of(Any::Create), 3 => of(Any::Start), 1 => of(Any::Signal),
        2 => (0..3usize, 0..3u32).prop_map(|(i, code)| Any::Exit(i, code)),
        1 => (0..3usize).prop_map(Any::Remove),
        1 => Just(Any::Shared), 1 => Just(Any::Release), 1 => Just(Any::Leased), 1 => Just(Any::Stop), 1 => Just(Any::Lost),
        2 => (prop::collection::vec(0..4u8, 3), any::<bool>()).prop_map(|(states, fresh)| Any::Look(states, fresh)),
    ]
}

fn throw(world: &mut World, event: Any, lease: &Lease, now: Now) {
    let refused = || {
        let kind = ContainerErrorKind::Runtime("refused".to_owned());
        OpError::Runtime(ContainerError { op: "do", target: "it".to_owned(), kind, source: None })
    };
    let (act, result) = match event {
        Any::Image(i, ok) => (Act::Image(i), if ok { Ok(Done::Image(image())) } else { Err(refused()) }),
        Any::Create(i, ok) => (Act::Create(i), if ok { Ok(Done::Created(now.wall)) } else { Err(refused()) }),
        Any::Start(i, ok) => {
            (Act::Start(i), if ok { Ok(Done::Started { pid: 1, at: now.wall }) } else { Err(refused()) })
        }
        Any::Signal(i, ok) => (Act::Signal(i), if ok { Ok(Done::Nothing) } else { Err(refused()) }),
        Any::Remove(i) => (Act::Remove(i), Ok(Done::Nothing)),
        Any::Shared => (Act::RemoveShared, Ok(Done::Nothing)),
        Any::Release => (Act::Release, Ok(Done::Nothing)),
        Any::Leased => (Act::Lease, Ok(Done::Leased { lease: lease.clone(), waited: Duration::ZERO })),
        Any::Lost => return world.hint(ContainerEvent::Disconnected, now),
        Any::Stop => {
            world.request_stop(&arn("t"), "stop".to_owned(), StopCode::UserInitiated).unwrap();
            return record_all(world);
        }
        Any::Exit(i, code) => {
            let id = ContainerId::derive(&arn("t"), &format!("c{i}"), 0);
            return world.hint(ContainerEvent::Exited { id, code, at: now.wall, oom: false }, now);
        }
        Any::Look(states, fresh) => {
            let found = states.iter().enumerate().filter_map(|(i, state)| {
                let state = match state {
                    0 => return None,
                    1 => RuntimeState::Created,
                    2 => RuntimeState::Running { pid: 1 },
                    _ => RuntimeState::Exited { code: 1, at: now.wall, oom: false },
                };
                let name = format!("c{i}");
                let id = ContainerId::derive(&arn("t"), &name, 0);
                Some(ObservedContainer { id, task: arn("t"), name, state, record: Vec::new() })
            });
            let seq = if fresh { world.seq } else { 0 };
            drop(world.apply(Outcome::Looked { seq, result: Ok(found.collect()) }, now));
            return;
        }
    };
    world.apply(Outcome::OfTask { task: arn("t"), act, result }, now);
}

proptest! {
    #[test]
    fn no_event_takes_a_status_back_or_brings_the_planner_to_a_senseless_act(events in prop::collection::vec(any_event(), 1..60)) {
        let lease = lease();
        let mut world = world_with(task("t", vec![container("c0"), side(container("c1")), side(doing("c2", "x"))]));
        let mut before = (TaskStatus::None, vec![berth_types::task::ContainerStatus::None; 3], false);
        for (second, event) in events.into_iter().enumerate() {
            let now = at(second as u64);
            throw(&mut world, event, &lease, now);
            let task = &world.tasks[&arn("t")];
            let statuses: Vec<_> = task.containers.iter().map(|c| c.stage.status()).collect();
            prop_assert!(task.known() >= before.0);
            prop_assert!(statuses.iter().zip(&before.1).all(|(now, was)| now >= was));
            prop_assert!(task.is_stopping() || !before.2);
            prop_assert_eq!(task.known() == TaskStatus::Stopped, task.containers.iter().all(|c| c.stage.has_ended()));
            before = (task.known(), statuses, task.is_stopping());
            for op in plan::plan(&world, &config(), now).ops {
                let Op::OfTask { act, .. } = op else { continue };
                match act {
                    Act::Create(_) | Act::Start(_) | Act::Image(_) | Act::Volumes => prop_assert!(!world.tasks[&arn("t")].is_stopping()),
                    Act::Signal(i) => prop_assert_eq!(before.1[i], berth_types::task::ContainerStatus::Running),
                    Act::Remove(i) => prop_assert!(world.tasks[&arn("t")].containers[i].stage.has_ended()),
                    Act::RemoveShared | Act::Release | Act::CleanUp => prop_assert_eq!(before.0, TaskStatus::Stopped),
                    Act::Lease => {}
                }
            }
        }
    }
}
