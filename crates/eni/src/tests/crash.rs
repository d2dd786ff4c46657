//! The program dies at every single call of a port, before and after its effect, and is started again: with its journal, with
//! a journal that lost the facts which were not flushed, and without a journal. EC2, kernel and books come to agree, nothing
//! leaks, and no task loses its slot.

use super::world::{Running, World, task};
use berth_testkit::crash::Side;
use berth_types::lease::Lease;
use std::time::Duration;

/// What is left of the journal after death.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Left {
    All,
    Flushed,
    Nothing,
}

/// What the engine remembers of its tasks: the slots that they were given.
#[derive(Default)]
struct Engine {
    first: Option<Lease>,
    second: Option<Lease>,
}

/// A life with every kind of act in it: fill, lease, refill, release, cool down, give back.
async fn live(running: &Running, world: &World, engine: &mut Engine) {
    running.until("a warm slot", |s| s.pool.warm == 1).await;
    let lease = running.lease(&task(1)).await.unwrap();
    world.cloud.guard(&lease.eni);
    engine.first = Some(lease);
    running.until("another one", |s| s.pool.warm == 1).await;
    let lease = running.lease(&task(2)).await.unwrap();
    world.cloud.guard(&lease.eni);
    engine.second = Some(lease);
    if let Some(lease) = engine.first.take() {
        world.cloud.unguard(&lease.eni);
    }
    running.release(&task(1)).await;
    running.until("a warm slot again", |s| s.pool.warm == 1).await;
    // One idle slot may stay, so this one is detached and deleted after its rest.
    running.handle.resize(0, None).unwrap();
    running.until("an empty pool", |s| s.enis.len() == 1).await;
    running.handle.resize(1, None).unwrap();
    running.until("a full pool", |s| s.pool.warm == 1).await;
}

/// Lives until death or to the end; answers whether it died.
async fn live_and_die(world: &World, engine: &mut Engine) -> bool {
    let running = world.start().await;
    tokio::select! {
        () = world.crash.died() => true,
        () = live(&running, world, engine) => false,
    }
}

/// A new program, whose engine asks for what its tasks hold.
async fn rise(world: &World, engine: &Engine) {
    let running = world.boot();
    let mut leased = 0;
    for (number, lease) in [(1, &engine.first), (2, &engine.second)] {
        if let Some(lease) = lease {
            let again = running.held(&task(number), &lease.slot).await.unwrap();
            assert_eq!((&again.slot, again.netns), (&lease.slot, lease.netns));
            leased += 1;
        }
    }
    running.handle.lease.recovered().await.unwrap();
    let snapshot = running.rest(1, leased).await;
    world.check(&snapshot, 1 + leased as usize);
}

async fn die_everywhere(left: Left, side: Side) {
    for call in 0.. {
        let mut world = World::new(4);
        world.config.cooldown = Duration::from_secs(3);
        world.crash.crash_after(call, side);
        let mut engine = Engine::default();
        if !live_and_die(&world, &mut engine).await {
            assert!(call > 40, "only {call} calls were made");
            return;
        }
        world.crash.revive();
        match left {
            Left::All => {}
            Left::Flushed => world.journal.lose_facts(),
            Left::Nothing => world.journal.wipe(),
        }
        rise(&world, &engine).await;
    }
}

#[tokio::test(start_paused = true)]
async fn death_before_any_call_with_the_whole_journal_leaks_nothing() {
    die_everywhere(Left::All, Side::Before).await;
}

#[tokio::test(start_paused = true)]
async fn death_after_any_call_with_the_whole_journal_leaks_nothing() {
    die_everywhere(Left::All, Side::After).await;
}

#[tokio::test(start_paused = true)]
async fn death_before_any_call_with_lost_facts_leaks_nothing() {
    die_everywhere(Left::Flushed, Side::Before).await;
}

#[tokio::test(start_paused = true)]
async fn death_after_any_call_with_lost_facts_leaks_nothing() {
    die_everywhere(Left::Flushed, Side::After).await;
}

#[tokio::test(start_paused = true)]
async fn death_before_any_call_without_a_journal_leaks_nothing() {
    die_everywhere(Left::Nothing, Side::Before).await;
}

#[tokio::test(start_paused = true)]
async fn death_after_any_call_without_a_journal_leaks_nothing() {
    die_everywhere(Left::Nothing, Side::After).await;
}
