//! Who is answered through which slot, as leases come and go.

use super::*;
use crate::{answer::Answer, route::Route, sample};
use berth_types::task::TaskSnapshot;
use proptest::prelude::*;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

struct World {
    engine: watch::Sender<Arc<EngineSnapshot>>,
    enis: watch::Sender<Arc<EniSnapshot>>,
    sources: Sources,
}

impl World {
    fn new(engine: Arc<EngineSnapshot>, enis: Arc<EniSnapshot>) -> Self {
        let (engine, engine_seen) = watch::channel(engine);
        let (enis, enis_seen) = watch::channel(enis);
        let config = Arc::new(sample::config());
        Self { engine, enis, sources: Sources { config, engine: engine_seen, enis: enis_seen } }
    }

    fn endpoint(&self, slot: u8) -> Endpoint {
        Endpoint::new(sample::slot_id(slot), self.sources.clone())
    }
}

fn holder(endpoint: &Endpoint) -> Option<Arc<TaskView>> {
    match endpoint.look().0 {
        Caller::Task(view) => Some(view),
        Caller::Nobody | Caller::Unsettled => None,
    }
}

#[test]
fn the_lease_holder_is_found_and_its_view_kept_while_nothing_of_it_changes() {
    let world = World::new(sample::engine([sample::task(1)]), sample::enis([(1, Some(1))]));
    let endpoint = world.endpoint(1);
    let before = holder(&endpoint).unwrap();
    assert_eq!(*before.arn(), sample::arn(1));
    // Another task comes; this one's snapshot is the same value.
    let mut next = EngineSnapshot::clone(&world.engine.borrow());
    next.tasks.insert(sample::arn(2), Arc::new(sample::task(2)));
    world.engine.send_replace(Arc::new(next));
    assert!(Arc::ptr_eq(&before, &holder(&endpoint).unwrap()), "nothing is rendered again");
    // This one changes.
    world.engine.send_replace(sample::engine([TaskSnapshot { version: 2, ..sample::task(1) }]));
    assert!(!Arc::ptr_eq(&before, &holder(&endpoint).unwrap()));
}

#[test]
fn a_released_slot_answers_for_nobody_at_once() {
    let world = World::new(sample::engine([sample::task(1), sample::task(2)]), sample::enis([(1, Some(1))]));
    let endpoint = world.endpoint(1);
    assert!(holder(&endpoint).is_some());
    world.enis.send_replace(sample::enis([(1, None)]));
    assert!(matches!(endpoint.look().0, Caller::Nobody));
    world.enis.send_replace(sample::enis([(1, Some(2))]));
    assert_eq!(*holder(&endpoint).unwrap().arn(), sample::arn(2));
    world.enis.send_replace(sample::enis([]));
    assert!(matches!(endpoint.look().0, Caller::Nobody), "the slot itself is gone");
}

#[test]
fn the_last_snapshots_of_owners_that_have_gone_still_count() {
    let world = World::new(sample::engine([sample::task(1)]), sample::enis([(1, None)]));
    let endpoint = world.endpoint(1);
    assert!(holder(&endpoint).is_none());
    world.enis.send_replace(sample::enis([(1, Some(1))]));
    drop((world.enis, world.engine));
    assert!(holder(&endpoint).is_some());
}

/// Two owners that have not recovered, and requests that wait this long for them.
fn unrecovered(wait: Duration) -> World {
    let mut world = World::new(Arc::default(), Arc::default());
    Arc::make_mut(&mut world.sources.config).limits.recovery_wait = wait;
    world
}

#[tokio::test]
async fn a_request_before_recovery_waits_for_its_task() {
    let world = unrecovered(Duration::from_secs(60));
    let endpoint = Arc::new(world.endpoint(1));
    let asking = tokio::spawn({
        let endpoint = Arc::clone(&endpoint);
        async move { endpoint.settled_caller().await }
    });
    tokio::task::yield_now().await;
    world.engine.send_replace(sample::engine([sample::task(1)]));
    tokio::task::yield_now().await;
    assert!(!asking.is_finished(), "the lease is not known yet");
    world.enis.send_replace(sample::enis([(1, Some(1))]));
    assert!(matches!(asking.await.unwrap(), Caller::Task(_)));
}

#[tokio::test]
async fn a_request_before_recovery_is_put_off_after_its_wait_and_when_the_owners_are_gone() {
    let wait = Duration::from_millis(20);
    let world = unrecovered(wait);
    let start = Instant::now();
    assert!(matches!(world.endpoint(1).settled_caller().await, Caller::Unsettled));
    assert!(start.elapsed() >= wait);
    let world = unrecovered(Duration::from_secs(60));
    let endpoint = world.endpoint(1);
    drop((world.engine, world.enis));
    // Nothing can change any more: this does not wait.
    assert!(matches!(endpoint.settled_caller().await, Caller::Unsettled));
    assert!(start.elapsed() < Duration::from_secs(30));
}

/// A step of the world: slot `.0` is leased by task `.1`, or by nobody.
fn steps() -> impl Strategy<Value = Vec<(u8, Option<u8>)>> {
    prop::collection::vec((0..4u8, prop::option::of(0..4u8)), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_request_through_a_slot_shows_another_tasks_data(steps in steps(), known in prop::collection::vec(any::<bool>(), 4)) {
        let tasks = (0..4).filter(|&n| known[usize::from(n)]).map(sample::task);
        let mut leases = [None; 4];
        let published = |leases: &[Option<u8>; 4]| sample::enis((0..4).map(|s| (s, leases[usize::from(s)])));
        let world = World::new(sample::engine(tasks), published(&leases));
        let endpoints: Vec<_> = (0..4).map(|s| world.endpoint(s)).collect();
        for (slot, task) in steps {
            leases[usize::from(slot)] = task;
            world.enis.send_replace(published(&leases));
            for (slot, endpoint) in endpoints.iter().enumerate() {
                let view = holder(endpoint);
                let lawful = leases[slot].filter(|&n| known[usize::from(n)]);
                for (asked, path) in (0..4).flat_map(|n| paths(n).map(|path| (n, path))) {
                    let answer = Answer::to(Route::of(&path), view.as_deref());
                    prop_assert_eq!(matches!(answer, Answer::Ok(_)), lawful == Some(asked), "{}", path);
                    check_nothing_foreign(&answer, lawful, asked)?;
                }
            }
        }
    }
}

fn paths(task: u8) -> [String; 6] {
    let (app, sidecar) = (sample::endpoint_id(task, 0), sample::endpoint_id(task, 1));
    [
        format!("/v4/{app}"),
        format!("/v4/{sidecar}/task"),
        format!("/v4/{app}/task"),
        format!("/v3/{sidecar}"),
        format!("/v3/{app}"),
        format!("/v3/{app}/task"),
    ]
}

/// ARNs and endpoint ids of other tasks are nowhere, but for the id that the caller itself has sent.
fn check_nothing_foreign(answer: &Answer, lawful: Option<u8>, asked: u8) -> Result<(), TestCaseError> {
    let text = match answer {
        Answer::Ok(body) => String::from_utf8(body.to_vec()).unwrap(),
        Answer::Refused(_, text) => text.clone(),
        other => return Err(TestCaseError::fail(format!("{other:?}"))),
    };
    for other in (0..4).filter(|&n| Some(n) != lawful) {
        prop_assert!(!text.contains(sample::arn(other).as_str()), "{text}");
        for container in 0..2 {
            let foreign = text.contains(sample::endpoint_id(other, container).as_str());
            prop_assert!(!foreign || (other == asked && !matches!(answer, Answer::Ok(_))), "{text}");
        }
    }
    Ok(())
}
