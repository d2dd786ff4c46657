//! Whole runs in good weather: the warm pool, leases, releases, specs, resizing.

use super::world::{World, in_phase, needs, task};
use berth_testkit::{cloud, crash::Side};
use berth_types::{
    eni::EniPhase,
    lease::{LeaseError, LeaseNeeds},
    ports::{TAG_CLUSTER, TAG_CREATED, TAG_FAMILY, TAG_INSTANCE, TAG_INTENT, TAG_TASK},
};
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn the_pool_fills_to_its_target_with_tagged_and_flagged_enis() {
    let mut world = World::new(4);
    world.config.warm = 2;
    let running = world.start().await;
    let snapshot = running.rest(2, 0).await;
    world.check(&snapshot, 2);
    for eni in world.ours() {
        for key in [TAG_INSTANCE, TAG_CLUSTER, TAG_INTENT, TAG_CREATED] {
            assert!(eni.tags.contains_key(key), "{key}");
        }
        let (instance, token) = (&eni.tags[TAG_INSTANCE], &eni.tags[TAG_INTENT]);
        assert_eq!(eni.description, format!("berth:{instance}:{token}"));
        assert_ne!(eni.attachment.unwrap().device_index, 0);
    }
    assert_eq!(running.listeners.lock().unwrap().len(), 2);
    assert_eq!(snapshot.pool.problems, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_warm_lease_is_tagged_and_labelled_and_the_pool_fills_again_behind_it() {
    let world = World::new(4);
    let running = world.start().await;
    running.rest(1, 0).await;
    let lease = running.lease(&task(1)).await.unwrap();
    assert_eq!(running.handle.snapshot.borrow().slots[0].task, Some(task(1)), "published before the answer");
    assert_eq!(running.lease(&task(1)).await.unwrap(), lease, "asked twice, the same slot");
    let snapshot = running.rest(1, 1).await;
    world.check(&snapshot, 2);
    assert_eq!((snapshot.pool.leases_total, snapshot.pool.warm_leases_total), (1, 1));
    let eni = world.ours().into_iter().find(|eni| eni.id == lease.eni).unwrap();
    assert_eq!(eni.tags[TAG_TASK], task(1).to_string());
    assert_eq!(eni.tags[TAG_FAMILY], "web");
    let space = world.network.facts().slots.into_iter().find(|slot| slot.slot == lease.slot).unwrap();
    assert_eq!(space.links[0].alias, Some(format!("berth {}", task(1))));
}

#[tokio::test(start_paused = true)]
async fn warm_leases_and_releases_wait_for_no_port() {
    let mut world = World::new(4);
    world.config.warm = 2;
    let running = world.start().await;
    running.rest(2, 0).await;
    // From now on no call of any port is ever answered.
    world.crash.crash_after(0, Side::Before);
    let began = tokio::time::Instant::now();
    running.lease(&task(1)).await.unwrap();
    running.lease(&task(2)).await.unwrap();
    running.release(&task(1)).await;
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_returned_eni_rests_and_goes_into_a_fresh_namespace() {
    let mut world = World::new(2);
    world.config.cooldown = Duration::from_secs(30);
    let running = world.start().await;
    running.rest(1, 0).await;
    let first = running.lease(&task(1)).await.unwrap();
    running.release(&task(1)).await;
    assert!(running.handle.snapshot.borrow().slots.iter().all(|slot| slot.task.is_none()), "gone at once");
    let waiting = running.asks(&task(2), needs());
    running.reason("rests for another").await;
    let began = tokio::time::Instant::now();
    let second = waiting.await.unwrap().unwrap();
    assert!(began.elapsed() > Duration::from_secs(25), "{:?}", began.elapsed());
    assert_eq!(second.eni, first.eni);
    assert_ne!(second.slot, first.slot);
    let snapshot = running.rest(0, 1).await;
    world.check(&snapshot, 1);
}

#[tokio::test(start_paused = true)]
async fn an_eni_over_the_target_is_detached_and_deleted_after_its_task() {
    let world = World::new(4);
    let running = world.start().await;
    running.rest(1, 0).await;
    let lease = running.lease(&task(1)).await.unwrap();
    running.rest(1, 1).await;
    running.release(&task(1)).await;
    let snapshot = running.rest(1, 0).await;
    world.check(&snapshot, 1);
    assert!(world.ours().iter().all(|eni| eni.id != lease.eni));
    assert!(!running.listeners.lock().unwrap().contains_key(&lease.slot), "its listener is closed");
}

#[tokio::test(start_paused = true)]
async fn idle_slots_up_to_the_maximum_are_kept() {
    let mut world = World::new(4);
    world.config.warm_max = Some(3);
    let running = world.start().await;
    running.rest(1, 0).await;
    running.lease(&task(1)).await.unwrap();
    running.rest(1, 1).await;
    running.release(&task(1)).await;
    let snapshot = running.rest(2, 0).await;
    world.check(&snapshot, 2);
    assert_eq!(world.cloud.count("delete"), 0);
}

#[tokio::test(start_paused = true)]
async fn tasks_beyond_the_instances_enis_wait_in_order_with_a_reason() {
    let world = World::new(3);
    let running = world.start().await;
    running.rest(1, 0).await;
    running.lease(&task(1)).await.unwrap();
    running.lease(&task(2)).await.unwrap();
    let third = running.asks(&task(3), needs());
    let reason = running.reason("in use").await;
    assert_eq!(reason, "all 2 ENIs that m5.large can hold beside its primary are in use");
    let fourth = running.asks(&task(4), needs());
    running.until("two wait", |s| s.pool.waiting.len() == 2).await;
    running.release(&task(1)).await;
    third.await.unwrap().unwrap();
    assert!(!fourth.is_finished());
    running.release(&task(4)).await;
    assert_eq!(fourth.await.unwrap(), Err(LeaseError::Cancelled));
    let snapshot = running.rest(0, 2).await;
    world.check(&snapshot, 2);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_waits_too_long_hears_why() {
    let mut world = World::new(2);
    world.config.lease_timeout = Duration::from_secs(100);
    let running = world.start().await;
    running.rest(1, 0).await;
    running.lease(&task(1)).await.unwrap();
    let began = tokio::time::Instant::now();
    let error = running.lease(&task(2)).await.unwrap_err();
    assert!(began.elapsed() >= Duration::from_secs(100) && began.elapsed() < Duration::from_secs(101));
    assert_eq!(
        error.to_string(),
        "Timeout waiting for network interface provisioning to complete: \
         all 1 ENIs that m5.large can hold beside its primary are in use"
    );
}

#[tokio::test(start_paused = true)]
async fn a_waiting_task_whose_asker_went_away_is_forgotten() {
    let world = World::new(2);
    let running = world.start().await;
    running.rest(1, 0).await;
    running.lease(&task(1)).await.unwrap();
    let waiting = running.asks(&task(2), needs());
    running.until("it waits", |s| s.pool.waiting.len() == 1).await;
    waiting.abort();
    running.until("it is forgotten", |s| s.pool.waiting.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn another_subnet_gets_an_eni_to_order_and_a_warm_slot_makes_room_for_it() {
    let world = World::new(2);
    let running = world.start().await;
    running.rest(1, 0).await;
    let (subnet, groups) = (cloud::subnet(7), vec![cloud::group(9), cloud::group(8)]);
    let odd = LeaseNeeds { subnet: Some(subnet.clone()), security_groups: groups, ..needs() };
    let lease = running.handle.lease.lease(&task(1), odd, None).await.unwrap();
    assert_eq!(lease.subnet, subnet);
    assert_eq!(lease.security_groups, [cloud::group(8), cloud::group(9)]);
    running.release(&task(1)).await;
    // Nobody else wants such an ENI: it goes, and the pool takes its place.
    let snapshot = running.rest(1, 0).await;
    world.check(&snapshot, 1);
    assert_eq!(world.ours()[0].subnet, cloud::subnet(1));
}

#[tokio::test(start_paused = true)]
async fn a_warm_slot_gets_the_groups_of_a_task_by_one_call_and_no_eni_is_made() {
    let world = World::new(3);
    let running = world.start().await;
    running.rest(1, 0).await;
    let made = world.ours();
    let team = LeaseNeeds { security_groups: vec![cloud::group(9), cloud::group(8)], ..needs() };
    let began = tokio::time::Instant::now();
    let lease = running.handle.lease.lease(&task(1), team, None).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "one call: {:?}", began.elapsed());
    assert_eq!(lease.security_groups, [cloud::group(8), cloud::group(9)]);
    assert_eq!(lease.eni, made[0].id);
    let truth = world.ours().into_iter().find(|eni| eni.id == lease.eni).unwrap();
    assert_eq!(truth.security_groups, lease.security_groups);
    running.release(&task(1)).await;
    // The slot stays warm with the groups that it has: the next task of the team pays nothing, another one pays a call.
    let snapshot = running.rest(1, 0).await;
    world.check(&snapshot, 1);
    let other = running.lease(&task(2)).await.unwrap();
    let truth = world.ours().into_iter().find(|eni| eni.id == other.eni).unwrap();
    assert_eq!(truth.security_groups, cloud::instance(3).security_groups);
}

#[tokio::test(start_paused = true)]
async fn groups_that_ec2_does_not_let_be_changed_get_an_eni_to_order() {
    let world = World::new(3);
    let running = world.start().await;
    running.rest(1, 0).await;
    world.cloud.set(|knobs| knobs.regroup_refused = true);
    let team = LeaseNeeds { security_groups: vec![cloud::group(9)], ..needs() };
    let lease = running.handle.lease.lease(&task(1), team, None).await.unwrap();
    assert_eq!(lease.security_groups, [cloud::group(9)]);
    let truth = world.ours().into_iter().find(|eni| eni.id == lease.eni).unwrap();
    assert_eq!(truth.security_groups, lease.security_groups);
}

#[tokio::test(start_paused = true)]
async fn the_pool_can_be_resized_to_nothing_and_back() {
    let mut world = World::new(5);
    world.config.warm = 3;
    let running = world.start().await;
    running.rest(3, 0).await;
    running.handle.resize(0, None).unwrap();
    let began = tokio::time::Instant::now();
    running.until("no eni", |s| s.enis.is_empty()).await;
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "no rest for slots that nobody leased: {:?}",
        began.elapsed()
    );
    assert_eq!(world.ours(), Vec::new());
    running.handle.resize(4, Some(2)).unwrap();
    let snapshot = running.rest(2, 0).await;
    world.check(&snapshot, 2);
    assert_eq!(snapshot.pool.max_enis, 2);
}

#[tokio::test(start_paused = true)]
async fn no_more_than_two_namespaces_are_built_at_a_time() {
    let mut world = World::new(9);
    world.config.warm = 8;
    world.network.set(|knobs| knobs.build_delay = Duration::from_secs(3));
    let running = world.start().await;
    running.rest(8, 0).await;
    assert_eq!(world.network.calls().most_builds, 2);
}

#[tokio::test(start_paused = true)]
async fn a_dual_stack_eni_gets_the_routers_link_local_address() {
    let mut world = World::new(2);
    world.config.ipv6 = true;
    world.cloud.set(|knobs| knobs.dual_stack = true);
    let running = world.start().await;
    running.rest(1, 0).await;
    let lease = running.lease(&task(1)).await.unwrap();
    assert!(lease.subnet_ipv6.is_some());
    assert_eq!(lease.gateway_ipv4.to_string(), "10.0.0.1");
}

#[tokio::test(start_paused = true)]
async fn shutdown_leaves_slots_as_they_are() {
    let world = World::new(3);
    let running = world.start().await;
    running.rest(1, 0).await;
    let lease = running.lease(&task(1)).await.unwrap();
    running.rest(1, 1).await;
    running.shutdown.cancel();
    running.handle.lease.0.closed().await;
    assert_eq!(running.lease(&task(2)).await, Err(LeaseError::Stopped));
    let slots = world.network.facts().slots;
    assert_eq!(slots.len(), 2);
    assert!(slots.iter().any(|slot| slot.slot == lease.slot));
    let snapshot = running.handle.snapshot.borrow().clone();
    assert_eq!(in_phase(&snapshot, EniPhase::Leased), 1);
}
