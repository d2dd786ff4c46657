//! Random events against an EC2 with all its bad habits, deaths included; in the end everything agrees.

use super::world::{Running, World, task};
use berth_testkit::{
    cloud::{self, Link},
    crash::Side,
};
use berth_types::{
    ids::{EniId, SecurityGroupId, TaskArn},
    lease::{Lease, LeaseNeeds},
};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::task::JoinHandle;

/// Something that happens.
#[derive(Debug, Clone)]
enum Happening {
    Ask(u32),
    Release(u32),
    Pass(u64),
    Resize(u32),
    DetachFromOutside(usize),
    RemoveFromOutside(usize),
    Die { calls: u64, after: bool, journal: u8 },
    Throttle(u64),
    Lose(u64),
    Fail(u64),
    Lag(u64),
    Link(Option<u64>),
    Down(bool),
    FailBuilds(u32),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => (0..6u32).prop_map(Happening::Ask),
        4 => (0..6u32).prop_map(Happening::Release),
        6 => (0..40_000u64).prop_map(Happening::Pass),
        1 => (0..4u32).prop_map(Happening::Resize),
        1 => (0..4usize).prop_map(Happening::DetachFromOutside),
        1 => (0..4usize).prop_map(Happening::RemoveFromOutside),
        3 => (0..30u64, any::<bool>(), 0..3u8)
            .prop_map(|(calls, after, journal)| Happening::Die { calls, after, journal }),
        1 => (0..70u64).prop_map(Happening::Throttle),
        1 => (0..50u64).prop_map(Happening::Lose),
        1 => (0..50u64).prop_map(Happening::Fail),
        1 => (0..80u64).prop_map(Happening::Lag),
        1 => proptest::option::of(0..20_000u64).prop_map(Happening::Link),
        1 => any::<bool>().prop_map(Happening::Down),
        1 => (0..8u32).prop_map(Happening::FailBuilds),
    ]
}

/// Two teams' groups and the pool's, by the task's number.
fn wants(task: &TaskArn) -> LeaseNeeds {
    let security_groups = match task.as_str().bytes().last().map(|b| b % 3) {
        Some(0) => vec![cloud::group(8)],
        Some(1) => vec![cloud::group(9)],
        Some(_) | None => Vec::new(),
    };
    LeaseNeeds { security_groups, ..LeaseNeeds::default() }
}

fn groups_of(world: &World, task: &TaskArn) -> Vec<SecurityGroupId> {
    let wanted = wants(task).security_groups;
    if wanted.is_empty() { cloud::instance(world.max_enis).security_groups } else { wanted }
}

/// The engine of the test: who waits, who holds what.
struct Storm {
    world: World,
    running: Running,
    waiting: BTreeMap<TaskArn, JoinHandle<Result<Lease, berth_types::lease::LeaseError>>>,
    holds: BTreeMap<TaskArn, Lease>,
    /// ENIs that the storm detached or removed behind the manager's back.
    disturbed: BTreeSet<EniId>,
}

impl Storm {
    async fn new(seed: u64) -> Self {
        let mut world = World::new(4);
        world.config.cooldown = Duration::from_secs(5);
        world.config.link_timeout = Duration::from_secs(30);
        world.config.seed = seed;
        world.cloud.seed(seed);
        world.cloud.set(|knobs| knobs.young = Duration::from_secs(2));
        let running = world.start().await;
        Self { world, running, waiting: BTreeMap::new(), holds: BTreeMap::new(), disturbed: BTreeSet::new() }
    }

    /// Answers that have come: a task has a slot or gives up.
    async fn collect(&mut self) {
        let done: Vec<TaskArn> =
            self.waiting.iter().filter(|(_, w)| w.is_finished()).map(|(t, _)| t.clone()).collect();
        for task in done {
            let Ok(Ok(lease)) = self.waiting.remove(&task).unwrap().await else { continue };
            let twice =
                self.holds.values().find(|other| other.slot == lease.slot || other.ipv4 == lease.ipv4);
            assert!(twice.is_none(), "slot {} was leased twice", lease.slot);
            let truth = self.world.ours().into_iter().find(|eni| eni.id == lease.eni);
            let groups = truth.map(|eni| eni.security_groups);
            assert!(
                groups.is_none() || groups == Some(groups_of(&self.world, &task)),
                "{task} got {} with groups {groups:?}",
                lease.slot
            );
            self.world.cloud.guard(&lease.eni);
            self.holds.insert(task, lease);
        }
    }

    async fn pass(&mut self, time: Duration) {
        tokio::time::sleep(time).await;
        self.collect().await;
    }

    /// The program dies at the n-th call from now on, or of old age.
    async fn die(&mut self, calls: u64, side: Side, journal: u8) {
        self.world.crash.crash_after(calls, side);
        tokio::time::timeout(Duration::from_secs(20), self.world.crash.died()).await.ok();
        self.collect().await;
        // Tasks that were still waiting have started nothing: a new engine asks for them as for new ones.
        for (_, waiting) in std::mem::take(&mut self.waiting) {
            waiting.abort();
        }
        self.running = {
            let dead = std::mem::replace(&mut self.running, self.world.boot());
            drop(dead);
            // The first boot still meets dead ports: it is replaced once they answer again.
            self.world.crash.revive();
            match journal {
                0 => {}
                1 => self.world.journal.lose_facts(),
                _ => self.world.journal.wipe(),
            }
            self.world.boot()
        };
        for (task, lease) in self.holds.clone() {
            let door = self.running.handle.lease.clone();
            let slot = lease.slot.clone();
            let (held, again) = (lease.slot.clone(), task.clone());
            let asked =
                tokio::spawn(async move { door.lease(&again, LeaseNeeds::default(), Some(held)).await });
            // The weather may keep the answer away for long; an engine waits, and so does this one.
            match asked.await.unwrap() {
                Ok(lease) => assert_eq!(lease.slot, slot),
                Err(error) => {
                    assert!(self.disturbed.contains(&lease.eni), "{task} lost {slot} for no reason: {error}");
                    self.give_up(&task).await;
                }
            }
        }
        self.running.handle.lease.recovered().await.unwrap();
    }

    async fn give_up(&mut self, task: &TaskArn) {
        if let Some(lease) = self.holds.remove(task) {
            self.world.cloud.unguard(&lease.eni);
        }
        self.running.handle.lease.release(task).await.unwrap();
    }

    fn victim(&self, at: usize) -> Option<EniId> {
        self.world.ours().get(at).map(|eni| eni.id.clone())
    }

    async fn happen(&mut self, happening: Happening) {
        let cloud = &self.world.cloud;
        match happening {
            Happening::Ask(number) => {
                let task = task(number);
                if !self.holds.contains_key(&task) && !self.waiting.contains_key(&task) {
                    let asks = self.running.asks(&task, wants(&task));
                    self.waiting.insert(task, asks);
                }
            }
            Happening::Release(number) => {
                self.collect().await;
                self.waiting.remove(&task(number));
                self.give_up(&task(number)).await;
            }
            Happening::Pass(milliseconds) => self.pass(Duration::from_millis(milliseconds)).await,
            Happening::Resize(warm) => self.running.handle.resize(warm, None).unwrap(),
            Happening::DetachFromOutside(at) => {
                if let Some(eni) = self.victim(at) {
                    self.world.cloud.detach_from_outside(&eni);
                    self.disturbed.insert(eni);
                }
            }
            Happening::RemoveFromOutside(at) => {
                if let Some(eni) = self.victim(at) {
                    self.world.cloud.remove_from_outside(&eni);
                    self.disturbed.insert(eni);
                }
            }
            Happening::Die { calls, after, journal } => {
                let side = if after { Side::After } else { Side::Before };
                // Without EC2 and journal nothing can be taken over, and an engine would wait as long as it takes.
                self.world.cloud.set(|knobs| knobs.down = false);
                self.die(calls, side, journal).await;
            }
            Happening::Throttle(percent) => cloud.set(|knobs| knobs.throttled_percent = percent),
            Happening::Lose(percent) => cloud.set(|knobs| knobs.lost_percent = percent),
            Happening::Fail(percent) => cloud.set(|knobs| knobs.failed_percent = percent),
            Happening::Lag(percent) => cloud.set(|knobs| knobs.stale_percent = percent),
            Happening::Link(None) => cloud.set(|knobs| knobs.link = Link::Never(2)),
            Happening::Link(Some(ms)) => {
                cloud.set(|knobs| knobs.link = Link::After(Duration::from_millis(ms)))
            }
            Happening::Down(down) => cloud.set(|knobs| knobs.down = down),
            Happening::FailBuilds(builds) => self.world.network.set(|knobs| knobs.failing_builds = builds),
        }
        self.collect().await;
        self.check();
    }

    /// Whatever happens, tasks keep what they hold: the same namespace with the same link in it.
    fn check(&self) {
        self.world.check_always();
        let spaces = self.world.network.facts().slots;
        for (task, lease) in self.holds.iter().filter(|(_, lease)| !self.disturbed.contains(&lease.eni)) {
            let space = spaces.iter().find(|space| space.slot == lease.slot);
            let space = space.unwrap_or_else(|| panic!("the namespace of {task} was removed"));
            assert_eq!(space.netns, Some(lease.netns));
            assert!(space.links.iter().any(|link| link.mac == lease.mac), "the link of {task} was moved");
        }
    }

    /// The weather clears; what tasks lost is released; all comes to rest.
    async fn end(mut self) {
        self.world.cloud.set(|knobs| {
            *knobs = berth_testkit::cloud::CloudKnobs { call_delay: knobs.call_delay, ..Default::default() };
        });
        self.world.network.set(|knobs| knobs.failing_builds = 0);
        self.running.handle.resize(1, None).unwrap();
        for (_, waiting) in std::mem::take(&mut self.waiting) {
            waiting.abort();
        }
        for number in 0..6 {
            self.give_up(&task(number)).await;
        }
        self.running.handle.kick().unwrap();
        let snapshot = self.running.rest(1, 0).await;
        self.world.check(&snapshot, 1);
        // What the storm did last may be noticed only now; after this nothing is left to do.
        tokio::time::sleep(Duration::from_secs(200)).await;
        self.rate();
    }

    /// No more calls than the budget gives: its burst for each life of the program, then its rate.
    fn rate(&self) {
        let calls = self.world.cloud.calls();
        let (Some(first), Some(last)) = (calls.first(), calls.last()) else { return };
        let seconds = last.at.duration_since(first.at).as_secs() + 1;
        let lives = 40;
        let most = seconds * crate::config::BUDGET_RATE + lives * crate::config::BUDGET_BURST;
        assert!((calls.len() as u64) < most, "{} calls in {seconds} s", calls.len());
        // At rest there are audits only.
        let quiet =
            calls.iter().rev().take_while(|call| last.at.duration_since(call.at) < Duration::from_secs(100));
        assert!(quiet.count() < 5, "hot loop at rest");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn after_any_storm_books_ec2_and_kernel_agree(
        seed: u64,
        happenings in proptest::collection::vec(happening(), 0..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut storm = Storm::new(seed).await;
            for happening in happenings {
                storm.happen(happening).await;
            }
            storm.end().await;
        });
    }
}
