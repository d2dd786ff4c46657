//! Random histories: tasks of random shape come, go and die in any order, with a runtime that comes and goes, slots that run out,
//! and deaths of the agent at random calls. Whatever happens: no process is started twice, nobody holds two slots, statuses go
//! forward only, what was accepted is not lost, and in the end everything can be stopped and given back.

use super::{
    fixtures::{after, arn, doing, side, task},
    harness::{Node, id_of},
};
use berth_testkit::crash::Side;
use berth_types::{
    ids::TaskArn,
    task::{ContainerStatus, DependsCondition, EngineSnapshot, TaskSpec, TaskStatus},
};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

const TASKS: usize = 4;
const SLOTS: u8 = 2;

#[derive(Debug, Clone)]
enum Step {
    Run(usize),
    Stop(usize),
    Exit(usize, usize, u32),
    Vanish(usize, usize),
    Runtime(bool),
    Deaf(bool),
    Slots,
    Journal(bool),
    Pass(u64),
    Death { calls: u64, after: bool, wipe: bool },
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..TASKS).prop_map(Step::Run),
        3 => (0..TASKS).prop_map(Step::Stop),
        3 => (0..TASKS, 0..3usize, 0..3u32).prop_map(|(t, c, code)| Step::Exit(t, c, code)),
        1 => (0..TASKS, 0..3usize).prop_map(|(t, c)| Step::Vanish(t, c)),
        2 => any::<bool>().prop_map(Step::Runtime),
        1 => any::<bool>().prop_map(Step::Deaf),
        1 => Just(Step::Slots),
        1 => any::<bool>().prop_map(Step::Journal),
        4 => (0..40_000u64).prop_map(Step::Pass),
        3 => (0..25u64, any::<bool>(), prop::bool::weighted(0.3)).prop_map(|(calls, after, wipe)| Step::Death { calls, after, wipe }),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..25)
}

/// A task of up to three containers with dependencies that go backwards only, so that some order exists.
fn shape() -> impl Strategy<Value = Vec<(usize, bool, Option<usize>)>> {
    prop::collection::vec((0..COMMANDS.len(), any::<bool>(), prop::option::of(0..3usize)), 1..4)
}

const COMMANDS: [&str; 6] = ["sleep", "exit 0", "exit 1", "stubborn", "refuse-create", "refuse-start"];
const CONDITIONS: [DependsCondition; 3] =
    [DependsCondition::Start, DependsCondition::Complete, DependsCondition::Success];

fn spec(number: usize, shape: &[(usize, bool, Option<usize>)]) -> TaskSpec {
    let containers = shape.iter().enumerate().map(|(i, (command, essential, condition))| {
        let own = doing(&format!("c{i}"), COMMANDS[*command]);
        let own = if *essential || i == 0 { own } else { side(own) };
        match condition {
            Some(condition) if i > 0 => after(own, &format!("c{}", i - 1), CONDITIONS[*condition]),
            Some(_) | None => own,
        }
    });
    task(&format!("t{number}"), containers.collect())
}

/// What was seen so far: nothing may be seen to go back.
#[derive(Default)]
struct Watcher {
    tasks: BTreeMap<TaskArn, TaskStatus>,
    containers: BTreeMap<(TaskArn, usize), ContainerStatus>,
    accepted: BTreeSet<TaskArn>,
    /// Run before the journal was lost: ECS never gives an old name to a new task.
    retired: BTreeSet<TaskArn>,
    asked: BTreeSet<TaskArn>,
}

impl Watcher {
    fn see(&mut self, now: &EngineSnapshot) {
        let mut slots = BTreeSet::new();
        for (arn, task) in &now.tasks {
            let before = self.tasks.insert(arn.clone(), task.known);
            assert!(before.is_none_or(|b| b <= task.known), "{arn} went from {before:?} to {}", task.known);
            for container in &task.containers {
                let before = self.containers.insert((arn.clone(), container.index), container.known);
                assert!(before.is_none_or(|b| b <= container.known), "{arn} {} went back", container.name);
            }
            if let Some(lease) = &task.lease {
                assert!(slots.insert(lease.slot.clone()), "slot {} is shown twice", lease.slot);
            }
        }
    }

    /// After a death facts that nothing had flushed may have to be learned again, so what is known may lag for a moment.
    fn forget(&mut self) {
        self.tasks.clear();
        self.containers.clear();
    }
}

async fn play(mut steps: Vec<Step>, specs: Vec<TaskSpec>) {
    // A container that someone removes while the agent is dead, before the journal has flushed that it was made, cannot be told
    // from one that was never made.
    if steps.iter().any(|s| matches!(s, Step::Death { .. })) {
        steps.retain(|s| !matches!(s, Step::Vanish(..)));
    }
    let mut node = Node::start(SLOTS);
    let mut watcher = Watcher::default();
    let mut stops: BTreeSet<TaskArn> = BTreeSet::new();
    for step in steps {
        perform(&mut node, &mut watcher, &mut stops, &specs, step).await;
        watcher.see(&node.snapshot());
    }
    heal(&mut node).await;
    node.pass(Duration::from_secs(3600)).await;
    watcher.see(&node.snapshot());
    settled(&node, &watcher, &stops);
    // Everything that is left can be stopped and given back.
    for arn in node.snapshot().tasks.keys() {
        node.stop(arn).await.unwrap();
    }
    node.pass(Duration::from_secs(3600)).await;
    let end = node.snapshot();
    assert!(end.tasks.values().all(|t| t.known == TaskStatus::Stopped && t.lease.is_none()), "{end:#?}");
    assert!(
        node.containers.ids().is_empty() && node.leases.held().is_empty() && node.leases.waiting().is_empty()
    );
    assert_eq!(node.containers.violations(), Vec::<String>::new());
}

async fn perform(
    node: &mut Node,
    watcher: &mut Watcher,
    stops: &mut BTreeSet<TaskArn>,
    specs: &[TaskSpec],
    step: Step,
) {
    match step {
        Step::Run(number) => {
            let spec = specs[number].clone();
            if watcher.retired.contains(&spec.arn) {
                return;
            }
            watcher.asked.insert(spec.arn.clone());
            if answered(node, node.run(spec.clone())).await {
                watcher.accepted.insert(spec.arn);
            }
        }
        Step::Stop(number) => {
            let arn = specs[number].arn.clone();
            if answered(node, node.stop(&arn)).await {
                stops.insert(arn);
            }
        }
        Step::Exit(number, container, code) => {
            node.containers.exit(&id_of(&specs[number].arn, &format!("c{container}")), code);
        }
        Step::Vanish(number, container) => {
            node.containers.vanish(&id_of(&specs[number].arn, &format!("c{container}")))
        }
        Step::Runtime(down) => node.containers.set_down(down),
        Step::Deaf(deaf) => node.containers.set_deaf(deaf),
        Step::Slots => node.leases.add_slots(1),
        Step::Journal(broken) => node.journal.set_broken(broken),
        Step::Pass(millis) => node.pass(Duration::from_millis(millis)).await,
        Step::Death { calls, after, wipe } => {
            node.crash.crash_after(calls, if after { Side::After } else { Side::Before });
            let crash = node.crash.clone();
            // Not every history has so many calls left; then death comes at a quiet moment.
            let died = tokio::time::timeout(Duration::from_secs(400), crash.died());
            drop(died.await);
            node.kill().await;
            if wipe {
                node.journal.wipe();
                // What only the journal knew is gone with it; what has containers is not.
                watcher.retired.append(&mut watcher.asked);
                watcher.accepted.clear();
                stops.clear();
            }
            watcher.forget();
            node.start_again();
        }
        Step::Restart => {
            node.shut_down().await;
            node.start_again();
        }
    }
}

/// Whether an assignment was answered with yes, within a time.
async fn answered<E>(node: &Node, assignment: impl Future<Output = Result<(), E>>) -> bool {
    let patience = Duration::from_secs(if node.crash.is_dead() { 0 } else { 10 });
    tokio::time::timeout(patience, assignment).await.is_ok_and(|answer| answer.is_ok())
}

async fn heal(node: &mut Node) {
    node.containers.set_down(false);
    node.containers.set_deaf(false);
    node.journal.set_broken(false);
    node.leases.add_slots(u8::try_from(TASKS).unwrap());
    node.until("recovered", |s| s.recovered).await;
}

/// An hour after the last trouble nothing is on its way any more.
fn settled(node: &Node, watcher: &Watcher, stops: &BTreeSet<TaskArn>) {
    let now = node.snapshot();
    let held = node.leases.held();
    for arn in &watcher.accepted {
        assert!(now.tasks.contains_key(arn), "{arn} was accepted and is lost");
    }
    for (arn, task) in &now.tasks {
        assert!(!stops.contains(arn) || task.known == TaskStatus::Stopped, "{arn} was to stop: {task:#?}");
        match task.last_status() {
            "STOPPED" => {
                assert!(!held.contains_key(arn) && task.stopped_reason.is_some(), "{arn} holds on: {task:#?}")
            }
            "RUNNING" => assert_eq!(Some(&task.lease.as_ref().unwrap().slot), held.get(arn)),
            // A container may wait for one that runs on, and that is how it was asked for.
            "PENDING" => assert!(task.waiting.is_some() && held.contains_key(arn), "{arn} hangs: {task:#?}"),
            other => panic!("{arn} hangs in {other}: {task:#?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 400, ..ProptestConfig::default() })]
    #[test]
    fn no_history_loses_doubles_or_keeps_anything(steps in steps(), shapes in prop::collection::vec(shape(), TASKS)) {
        let specs = shapes.iter().enumerate().map(|(number, shape)| spec(number, shape)).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(play(steps, specs));
    }
}

#[test]
fn task_names_of_the_histories_differ() {
    assert_ne!(arn("t0"), arn("t1"));
}
