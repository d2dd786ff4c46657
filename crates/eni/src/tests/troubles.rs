//! Whole runs in bad weather: links that never come, subnets that are full, refusals, throttling, hands from outside.

use super::world::{World, needs, task};
use berth_testkit::cloud::{self, Link};
use berth_types::{
    eni::EniPhase,
    lease::{LeaseError, LeaseNeeds},
    ports::CloudErrorKind,
};
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn an_eni_whose_link_never_shows_up_is_given_back_and_the_next_one_serves() {
    let mut world = World::new(3);
    world.config.warm = 0;
    world.cloud.set(|knobs| knobs.link = Link::Never(1));
    let running = world.start().await;
    let waiting = running.asks(&task(1), needs());
    running.reason("waiting for the link of eni-").await;
    waiting.await.unwrap().unwrap();
    let snapshot = running.rest(0, 1).await;
    world.check(&snapshot, 1);
    assert_eq!(world.cloud.count("delete"), 1);
    assert_eq!(snapshot.pool.problems, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn links_that_never_show_up_slow_the_fill_down_and_people_are_told() {
    let mut world = World::new(3);
    world.cloud.set(|knobs| knobs.link = Link::Never(u32::MAX));
    world.config.lease_timeout = Duration::from_secs(1800);
    let running = world.start().await;
    let waiting = running.asks(&task(1), needs());
    let told =
        running.until("a problem", |s| s.pool.problems.iter().any(|p| p.contains("3 ENIs in a row"))).await;
    assert!(told.pool.problems[0].contains("did not show up within 60 s"), "{:?}", told.pool.problems);
    let error = waiting.await.unwrap().unwrap_err();
    assert!(matches!(error, LeaseError::TimedOut { .. }), "{error}");
    tokio::time::sleep(Duration::from_secs(6 * 3600)).await;
    let creates = world.cloud.count("create");
    assert!(creates < 150, "{creates} ENIs in 6.5 hours: one in 2.5 minutes at most");
    world.cloud.set(|knobs| knobs.link = Link::After(Duration::from_secs(1)));
    let snapshot = running.rest(1, 0).await;
    world.check(&snapshot, 1);
    assert_eq!(snapshot.pool.problems, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn what_ec2_refuses_fails_at_once_with_its_words_and_is_not_repeated_hot() {
    let world = World::new(3);
    world.cloud.set(|knobs| {
        knobs
            .refused
            .insert("create", CloudErrorKind::Unauthorized("UnauthorizedOperation: no policy".to_owned()));
    });
    let running = world.start().await;
    let error = running.lease(&task(1)).await.unwrap_err();
    assert!(
        matches!(&error, LeaseError::Failed { reason } if reason.contains("UnauthorizedOperation")),
        "{error}"
    );
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(world.cloud.count("create") < 60, "{}", world.cloud.count("create"));
    assert!(running.handle.snapshot.borrow().pool.problems[0].starts_with("EC2 refuses: "));
    world.cloud.set(|knobs| knobs.refused.clear());
    running.handle.kick().unwrap();
    let began = tokio::time::Instant::now();
    running.until("a warm slot", |s| s.pool.warm == 1).await;
    assert!(began.elapsed() < Duration::from_secs(10), "a kick tries again at once");
}

#[tokio::test(start_paused = true)]
async fn a_refused_attach_fails_the_task_and_keeps_the_eni_out_of_use() {
    let world = World::new(3);
    world.cloud.set(|knobs| {
        knobs.refused.insert("attach", CloudErrorKind::Refused("OperationNotPermitted".to_owned()));
    });
    let running = world.start().await;
    let error = running.lease(&task(1)).await.unwrap_err();
    assert!(matches!(error, LeaseError::Failed { .. }), "{error}");
    running.until("a quarantine", |s| s.enis.iter().any(|eni| eni.phase == EniPhase::Quarantined)).await;
    world.cloud.set(|knobs| knobs.refused.clear());
    let snapshot = running.rest(1, 0).await;
    world.check(&snapshot, 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_subnet_is_passed_over_for_the_next_one() {
    let mut world = World::new(3);
    world.config.subnets = vec![cloud::subnet(1), cloud::subnet(2)];
    world.cloud.set(|knobs| knobs.free_addresses = [(cloud::subnet(1), 0)].into());
    let running = world.start().await;
    let lease = running.lease(&task(1)).await.unwrap();
    assert_eq!(lease.subnet, cloud::subnet(2));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_waits_for_an_address_is_told_so_and_served_when_there_is_one() {
    let mut world = World::new(3);
    world.config.warm = 0;
    world.cloud.set(|knobs| knobs.free_addresses = [(cloud::subnet(1), 0)].into());
    let running = world.start().await;
    let waiting = running.asks(&task(1), needs());
    assert_eq!(running.reason("no free").await, "no free address in subnet-00000001");
    tokio::time::sleep(Duration::from_secs(90)).await;
    assert_eq!(world.cloud.count("create"), 1, "the cool-down of a full subnet is kept");
    world.cloud.set(|knobs| knobs.free_addresses.clear());
    waiting.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn enis_of_others_are_not_touched_and_count_against_the_instance() {
    let mut world = World::new(4);
    world.config.warm = 5;
    let foreign = world.cloud.add_foreign(1);
    let running = world.start().await;
    let snapshot = running.rest(2, 0).await;
    world.check(&snapshot, 2);
    assert_eq!(snapshot.pool.max_enis, 2);
    let indexes: Vec<_> = snapshot.enis.iter().filter_map(|eni| eni.device_index).collect();
    assert_eq!(indexes.iter().collect::<std::collections::BTreeSet<_>>(), [2, 3].iter().collect());
    assert!(world.cloud.truth().iter().any(|eni| eni.id == foreign && eni.attachment.is_some()));
    running.lease(&task(1)).await.unwrap();
    running.lease(&task(2)).await.unwrap();
    let waiting = running.asks(&task(3), LeaseNeeds::default());
    assert!(running.reason("in use").await.ends_with("2 by the pool, 1 by others"));
    waiting.abort();
}

#[tokio::test(start_paused = true)]
async fn a_warm_eni_that_someone_detached_comes_back_into_the_pool() {
    let world = World::new(3);
    let running = world.start().await;
    let before = running.rest(1, 0).await;
    world.cloud.detach_from_outside(before.enis[0].id.as_ref().unwrap());
    running.until("the loss", |s| s.slots.is_empty()).await;
    let snapshot = running.rest(1, 0).await;
    world.check(&snapshot, 1);
    assert_ne!(snapshot.slots[0].facts.slot, before.slots[0].facts.slot);
}

#[tokio::test(start_paused = true)]
async fn a_leased_eni_that_someone_removed_is_reported_and_replaced() {
    let world = World::new(2);
    let running = world.start().await;
    running.rest(1, 0).await;
    let lease = running.lease(&task(1)).await.unwrap();
    running.rest(0, 1).await;
    world.cloud.remove_from_outside(&lease.eni);
    let seen = running
        .until("the loss", |s| s.enis.iter().any(|eni| eni.task.is_some() && eni.error.is_some()))
        .await;
    assert_eq!(seen.pool.leased, 1);
    let error = running.lease(&task(1)).await.unwrap_err();
    assert!(matches!(&error, LeaseError::Lost { slot, .. } if *slot == lease.slot), "{error}");
    // It holds no place on the instance any more.
    running.until("another slot", |s| s.pool.warm == 1).await;
    running.release(&task(1)).await;
    let snapshot = running.rest(1, 0).await;
    world.check(&snapshot, 1);
}

#[tokio::test(start_paused = true)]
async fn a_removed_namespace_is_noticed_and_a_warm_slot_made_anew() {
    let world = World::new(2);
    let running = world.start().await;
    let before = running.rest(1, 0).await;
    world.network.destroy(&before.slots[0].facts.slot);
    running.until("the loss", |s| s.slots.is_empty()).await;
    let snapshot = running.rest(1, 0).await;
    world.check(&snapshot, 1);
    assert_eq!(snapshot.enis[0].id, before.enis[0].id, "the ENI stays");
}

#[tokio::test(start_paused = true)]
async fn builds_that_fail_are_tried_again_and_given_up_after_a_few() {
    let world = World::new(2);
    world.network.set(|knobs| knobs.failing_builds = 8);
    let running = world.start().await;
    let snapshot = running.rest(1, 0).await;
    world.check(&snapshot, 1);
    assert_eq!(world.cloud.count("create"), 2, "five tries on the first ENI, then another one");
}

#[tokio::test(start_paused = true)]
async fn throttling_slows_the_pool_and_not_the_release() {
    let mut world = World::new(6);
    world.config.warm = 4;
    world.cloud.set(|knobs| knobs.throttled_percent = 60);
    let running = world.start().await;
    running.until("a slot", |s| s.pool.warm > 0).await;
    running.lease(&task(1)).await.unwrap();
    let began = tokio::time::Instant::now();
    running.release(&task(1)).await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    running.rest(4, 0).await;
    world.cloud.set(|knobs| knobs.throttled_percent = 0);
    tokio::time::sleep(Duration::from_secs(130)).await;
    let snapshot = running.rest(4, 0).await;
    world.check(&snapshot, 4);
}

#[tokio::test(start_paused = true)]
async fn calls_stay_within_the_budget_while_ec2_is_down_for_a_day() {
    let mut world = World::new(6);
    world.config.warm = 4;
    let running = world.start().await;
    running.rest(4, 0).await;
    world.cloud.set(|knobs| knobs.down = true);
    let before = world.cloud.calls().len();
    let leases: Vec<_> = (1..=4).map(|n| running.asks(&task(n), needs())).collect();
    for lease in leases {
        lease.await.unwrap().expect("warm slots are leased without EC2");
    }
    running.release(&task(1)).await;
    tokio::time::sleep(Duration::from_secs(86_400)).await;
    let calls = world.cloud.calls().len() - before;
    assert!(calls < 30_000, "{calls} calls in a day: one in 3 s at most");
    world.cloud.set(|knobs| knobs.down = false);
    let snapshot = running.rest(2, 3).await;
    world.check(&snapshot, 5);
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_cannot_be_written_stops_acts_on_ec2_and_not_leases() {
    let world = World::new(4);
    let running = world.start().await;
    running.rest(1, 0).await;
    world.journal.set_broken(true);
    let creates = world.cloud.count("create");
    running.lease(&task(1)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(world.cloud.count("create"), creates, "no call without its intent");
    world.journal.set_broken(false);
    let snapshot = running.rest(1, 1).await;
    world.check(&snapshot, 2);
}
