//! Restarts: what a former program left is taken over, with and without its journal.

use super::world::{Running, World, needs, task};
use berth_types::{
    ids::SlotId,
    lease::{Lease, LeaseError},
    ports::{Record, Table},
};
use std::time::Duration;

/// A world in which task 1 holds a slot and another slot is warm, after its manager has died.
async fn left_behind(max_enis: u32) -> (World, Lease, SlotId) {
    let world = World::new(max_enis);
    let running = world.start().await;
    running.rest(1, 0).await;
    let lease = running.lease(&task(1)).await.unwrap();
    let snapshot = running.rest(1, 1).await;
    let warm = snapshot.slots.iter().find(|slot| slot.task.is_none()).unwrap().facts.slot.clone();
    world.cloud.guard(&lease.eni);
    (world, lease, warm)
}

/// The slot is the same, its listener is bound anew, and it was never torn down.
async fn is_taken_over(running: &Running, world: &World, lease: &Lease) {
    let again = running.held(&task(1), &lease.slot).await.unwrap();
    assert_eq!((&again.slot, &again.eni, again.netns), (&lease.slot, &lease.eni, lease.netns));
    assert!(running.listeners.lock().unwrap().contains_key(&lease.slot));
    assert_eq!(world.network.calls().tear_down, 0);
}

#[tokio::test(start_paused = true)]
async fn a_lease_and_a_warm_slot_survive_a_restart_as_they_are() {
    let (world, lease, warm) = left_behind(3).await;
    let running = world.boot();
    is_taken_over(&running, &world, &lease).await;
    running.handle.lease.recovered().await.unwrap();
    let snapshot = running.rest(1, 1).await;
    world.check(&snapshot, 2);
    assert!(snapshot.slots.iter().any(|slot| slot.facts.slot == warm), "the journal proves that it is clean");
    assert_eq!(world.network.calls().tear_down, 0);
}

#[tokio::test(start_paused = true)]
async fn without_the_journal_leases_survive_and_other_slots_are_made_anew() {
    let (world, lease, warm) = left_behind(3).await;
    world.journal.wipe();
    let running = world.boot();
    is_taken_over(&running, &world, &lease).await;
    running.handle.lease.recovered().await.unwrap();
    let snapshot = running.rest(1, 1).await;
    world.check(&snapshot, 2);
    assert!(snapshot.slots.iter().all(|slot| slot.facts.slot != warm), "nothing proves that it is clean");
    assert_eq!(world.cloud.count("create"), 2, "its ENI stays");
}

#[tokio::test(start_paused = true)]
async fn leases_are_taken_over_while_ec2_is_down() {
    let (world, lease, _) = left_behind(3).await;
    world.cloud.set(|knobs| knobs.down = true);
    let running = world.boot();
    let began = tokio::time::Instant::now();
    is_taken_over(&running, &world, &lease).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    running.handle.lease.recovered().await.unwrap();
    // The warm slot is leased while EC2 is still down.
    running.until("the warm slot", |s| s.pool.warm == 1).await;
    running.lease(&task(2)).await.unwrap();
    world.cloud.set(|knobs| knobs.down = false);
    let snapshot = running.rest(0, 2).await;
    world.check(&snapshot, 2);
}

#[tokio::test(start_paused = true)]
async fn without_journal_and_ec2_a_running_tasks_slot_is_waited_for_and_not_given_up() {
    let (world, lease, _) = left_behind(3).await;
    world.journal.wipe();
    world.cloud.set(|knobs| knobs.down = true);
    let running = world.boot();
    let (door, slot) = (running.handle.lease.clone(), lease.slot.clone());
    let waiting = tokio::spawn(async move { door.lease(&task(1), needs(), Some(slot)).await });
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(!waiting.is_finished());
    world.cloud.set(|knobs| knobs.down = false);
    assert_eq!(waiting.await.unwrap().unwrap().slot, lease.slot);
}

#[tokio::test(start_paused = true)]
async fn nothing_found_at_start_is_leased_or_removed_before_the_engine_has_asked() {
    let (world, lease, _) = left_behind(3).await;
    world.journal.wipe();
    let running = world.boot();
    let other = running.asks(&task(9), needs());
    tokio::time::sleep(Duration::from_secs(170)).await;
    assert!(!other.is_finished());
    assert_eq!(world.network.calls().tear_down, 0);
    assert_eq!(running.held(&task(1), &lease.slot).await.unwrap().slot, lease.slot);
}

#[tokio::test(start_paused = true)]
async fn leases_that_nobody_asked_for_again_are_over() {
    let (world, lease, _) = left_behind(3).await;
    world.cloud.unguard(&lease.eni);
    let running = world.start().await;
    let snapshot = running.rest(1, 0).await;
    world.check(&snapshot, 1);
    assert_eq!(world.journal.records(Table::Leases), Vec::new());
    assert!(snapshot.slots.iter().all(|slot| slot.facts.slot != lease.slot));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_asks_without_naming_its_slot_gets_the_one_that_it_held() {
    let (world, lease, _) = left_behind(3).await;
    let running = world.boot();
    assert_eq!(running.lease(&task(1)).await.unwrap().slot, lease.slot);
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_does_not_exist_is_lost() {
    let (world, lease, _) = left_behind(3).await;
    world.cloud.unguard(&lease.eni);
    world.network.reboot();
    let running = world.boot();
    let error = running.held(&task(1), &lease.slot).await.unwrap_err();
    assert!(matches!(&error, LeaseError::Lost { slot, .. } if *slot == lease.slot), "{error}");
    running.handle.lease.recovered().await.unwrap();
    let snapshot = running.rest(1, 0).await;
    world.check(&snapshot, 1);
}

#[tokio::test(start_paused = true)]
async fn a_slot_whose_eni_was_removed_meanwhile_is_lost_and_its_namespace_goes() {
    let (world, lease, _) = left_behind(3).await;
    world.cloud.unguard(&lease.eni);
    world.cloud.remove_from_outside(&lease.eni);
    let running = world.boot();
    let error = running.held(&task(1), &lease.slot).await.unwrap_err();
    assert!(matches!(&error, LeaseError::Lost { .. }), "{error}");
    running.handle.lease.recovered().await.unwrap();
    let snapshot = running.rest(1, 0).await;
    world.check(&snapshot, 1);
}

#[tokio::test(start_paused = true)]
async fn namespaces_without_an_eni_and_files_without_a_namespace_are_removed() {
    let world = World::new(3);
    let instance = berth_testkit::cloud::instance(3).instance_id;
    world.network.leave_plain_file(&SlotId::random(&instance));
    let running = world.start().await;
    let snapshot = running.rest(1, 0).await;
    world.check(&snapshot, 1);
}

#[tokio::test(start_paused = true)]
async fn leftover_enis_are_used_as_far_as_needed_and_the_rest_deleted_at_the_second_sighting() {
    let world = World::new(4);
    world.cloud.add_leftover(&world.tags("11111111"));
    world.cloud.add_leftover(&world.tags("22222222"));
    let running = world.start().await;
    let snapshot = running.rest(1, 0).await;
    world.check(&snapshot, 1);
    assert_eq!((world.cloud.count("create"), world.cloud.count("delete")), (0, 1));
    let calls = world.cloud.calls();
    let deleted = calls.iter().position(|call| call.op == "delete").unwrap();
    assert!(calls[..deleted].iter().filter(|call| call.op == "describe").count() >= 2);
}

#[tokio::test(start_paused = true)]
async fn records_that_cannot_be_read_are_left_out() {
    let (world, lease, _) = left_behind(3).await;
    for (number, body) in [&b"{}"[..], b"", b"\xff\xfe", b"[1,2,3]"].into_iter().enumerate() {
        world.journal.put(Table::Enis, &format!("bad{number}"), Record { version: 1, body: body.to_vec() });
        world.journal.put(Table::Leases, &format!("bad{number}"), Record { version: 9, body: body.to_vec() });
    }
    let running = world.boot();
    is_taken_over(&running, &world, &lease).await;
}

#[tokio::test(start_paused = true)]
async fn records_of_another_instance_are_not_acted_on() {
    let (world, lease, _) = left_behind(3).await;
    world.cloud.unguard(&lease.eni);
    let records = world.journal.records(Table::Enis);
    let clone = World::new(3);
    for (key, record) in records {
        let body = String::from_utf8(record.body).unwrap().replace("i-0a110001", "i-0a110002");
        clone.journal.put(Table::Enis, &key, Record { version: record.version, body: body.into_bytes() });
    }
    let running = clone.start().await;
    let snapshot = running.rest(1, 0).await;
    clone.check(&snapshot, 1);
    assert_eq!(clone.cloud.count("delete") + clone.cloud.count("detach"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_release_before_recovery_frees_the_slot() {
    let (world, lease, _) = left_behind(3).await;
    world.cloud.unguard(&lease.eni);
    let running = world.boot();
    running.until("its slot", |s| s.slots.iter().any(|slot| slot.facts.slot == lease.slot)).await;
    running.release(&task(1)).await;
    running.until("its end", |s| s.slots.iter().all(|slot| slot.facts.slot != lease.slot)).await;
}
