//! How tasks are found, run and stopped, and how rarely that is asked.

use super::{
    arn,
    rig::{Rig, snapshot, spec},
};
use crate::port::{Attachment, EcsErrorKind};
use berth_types::{
    cluster::InstanceStatus,
    ids::TaskArn,
    task::{Origin, StopCode, TaskStatus},
};
use proptest::prelude::*;
use std::sync::Arc;
use tokio::time::{Duration, Instant};

#[tokio::test(start_paused = true)]
async fn a_task_is_found_described_translated_and_handed_over_once() {
    let rig = Rig::started().await;
    let task = arn("1");
    rig.ecs.run(&task);
    {
        let mut world = rig.ecs.world();
        let task = world.tasks.get_mut(&task).unwrap();
        task.overrides = Some(r#"{"containerOverrides":[{"name":"app","command":["true"]}]}"#.into());
        task.attachment = Some(Attachment {
            id: "c0ffee00-1111-2222-3333-444455556666".into(),
            status: "PRECREATED".into(),
            details: vec![
                ("subnetId".into(), "subnet-0123456789abcdef0".into()),
                ("securityGroups".into(), "sg-11111111, sg-22222222".into()),
            ],
        });
    }
    rig.wait_engine("the task", |s| s.tasks.contains_key(&task)).await;
    rig.pass(120).await;
    let told = rig.told();
    assert_eq!(told.begun[&task], 1);
    let spec = &told.specs[&task];
    assert_eq!((spec.family.as_str(), spec.revision.as_str(), spec.cluster.as_str()), ("web", "1", "demo"));
    assert_eq!(spec.service_name.as_deref(), Some("front"));
    assert_eq!(spec.containers[0].command.as_deref(), Some(["true".to_owned()].as_slice()));
    assert_eq!(spec.network.subnet.as_ref().unwrap().as_str(), "subnet-0123456789abcdef0");
    assert_eq!(spec.network.security_groups.len(), 2);
    let attachment = "arn:aws:ecs:us-west-2:111122223333:attachment/c0ffee00-1111-2222-3333-444455556666";
    assert_eq!(spec.origin, Origin::ControlPlane { attachment: Some(attachment.into()) });
    assert_eq!(rig.ecs.calls("describe_tasks"), 1, "a known task is not described again");
}

#[tokio::test(start_paused = true)]
async fn an_idle_node_makes_one_listing_a_poll_and_few_polls() {
    let mut rig = Rig::started().await;
    rig.wait_for("polls", |s| s.polled_at.is_some()).await;
    rig.pass(120).await;
    let before = (rig.ecs.calls("list_tasks"), rig.ecs.world().calls.len());
    rig.pass(600).await;
    let listings = rig.ecs.calls("list_tasks") - before.0;
    let all = rig.ecs.world().calls.len() - before.1;
    assert!((110..=130).contains(&listings), "{listings} listings in ten minutes");
    assert!(all <= listings + 35, "{all} calls in ten minutes");
    assert_eq!(rig.ecs.calls("describe_tasks"), 0);
    assert!(rig.cluster.borrow().calls_last_minute <= 18, "{:?}", rig.cluster.borrow());
}

#[tokio::test(start_paused = true)]
async fn the_intervals_between_polls_are_as_configured() {
    let mut rig = Rig::new();
    (rig.config.poll_min, rig.config.poll_max) = (Duration::from_millis(500), Duration::from_secs(2));
    rig.start().await;
    rig.wait_for("polls", |s| s.polled_at.is_some()).await;
    rig.pass(60).await;
    let before = rig.ecs.calls("list_tasks");
    rig.pass(100).await;
    let listings = rig.ecs.calls("list_tasks") - before;
    assert!((40..=62).contains(&listings), "{listings} listings in a hundred seconds");
}

#[tokio::test(start_paused = true)]
async fn a_privileged_container_is_refused_where_that_is_switched_off() {
    let mut rig = Rig::new();
    rig.config.abilities.privileged = false;
    rig.start().await;
    let task = arn("1");
    rig.ecs.run(&task);
    for definition in rig.ecs.world().definitions.values_mut() {
        let mut json: serde_json::Value = serde_json::from_str(definition).unwrap();
        json["containerDefinitions"][0]["privileged"] = true.into();
        *definition = json.to_string();
    }
    let seen = rig.wait_for("the refusal", |s| !s.refused.is_empty()).await;
    assert!(seen.refused[0].reason.contains("containerDefinitions[0].privileged"), "{:?}", seen.refused);
    assert!(rig.told().begun.is_empty() && rig.refusals().contains_key(&task));
}

#[tokio::test(start_paused = true)]
async fn a_definition_is_fetched_once_for_all_its_tasks() {
    let rig = Rig::started().await;
    (0..30).for_each(|i| rig.ecs.run(&arn(&format!("t{i}"))));
    rig.wait_engine("all tasks", |s| s.tasks.len() == 30).await;
    assert_eq!(rig.ecs.calls("describe_task_definition"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stopped_task_is_stopped_with_the_control_planes_reason() {
    let rig = Rig::started().await;
    let task = arn("1");
    rig.ecs.run(&task);
    rig.wait_engine("the task", |s| s.tasks.contains_key(&task)).await;
    rig.ecs.stop(&task, "Scaling activity");
    rig.wait_engine("its end", |s| s.tasks[&task].desired == TaskStatus::Stopped).await;
    rig.pass(300).await;
    assert_eq!(rig.told().stopped, [(task, "Scaling activity".into(), StopCode::UserInitiated)]);
}

#[tokio::test(start_paused = true)]
async fn silence_stops_nothing() {
    let mut rig = Rig::started().await;
    let task = arn("1");
    rig.ecs.run(&task);
    rig.wait_engine("the task", |s| s.tasks.contains_key(&task)).await;
    rig.ecs.world().outage = true;
    rig.wait_for("a problem", |s| s.problem.is_some()).await;
    rig.pass(3600).await;
    assert!(rig.told().stopped.is_empty());
    let calls = rig.ecs.world().calls.len();
    assert!(calls < 350, "{calls} calls in an hour of outage");
    rig.ecs.world().outage = false;
    let begin = Instant::now();
    rig.wait_for("heard again", |s| s.problem.is_none()).await;
    assert!(begin.elapsed() < Duration::from_secs(20));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_missing_twice_is_stopped_and_once_is_not() {
    let rig = Rig::started().await;
    let task = arn("1");
    rig.ecs.run(&task);
    rig.wait_engine("the task", |s| s.tasks.contains_key(&task)).await;
    let gone = rig.ecs.world().tasks.remove(&task).unwrap();
    rig.pass(20).await;
    assert!(rig.ecs.calls("describe_tasks") >= 2);
    rig.ecs.world().tasks.insert(task.clone(), gone);
    rig.pass(300).await;
    assert!(rig.told().stopped.is_empty(), "it came back");
    rig.ecs.world().tasks.clear();
    rig.wait_engine("its end", |s| s.tasks[&task].desired == TaskStatus::Stopped).await;
    assert_eq!(rig.told().stopped[0].1, "Task is unknown to the control plane");
}

#[tokio::test(start_paused = true)]
async fn a_task_of_which_nothing_is_said_goes_on() {
    let rig = Rig::started().await;
    let task = arn("1");
    rig.ecs.run(&task);
    rig.wait_engine("the task", |s| s.tasks.contains_key(&task)).await;
    rig.ecs.world().half_answers = true;
    rig.ecs.world().tasks.clear();
    rig.pass(600).await;
    assert!(rig.ecs.calls("describe_tasks") > 10);
    assert!(rig.told().stopped.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_definition_that_cannot_be_had_delays_no_other_task() {
    let mut rig = Rig::started().await;
    let tasks = [arn("1"), arn("2"), arn("3")];
    rig.ecs.run(&tasks[0]);
    rig.wait_engine("the task", |s| s.tasks.contains_key(&tasks[0])).await;
    let nonsense = EcsErrorKind::Malformed("taskDefinition is missing".into());
    rig.ecs.world().refused.insert("describe_task_definition", nonsense);
    rig.ecs.run_family(&tasks[1], "other");
    rig.wait_for("a problem", |s| s.problem.as_ref().is_some_and(|p| p.contains("not as expected"))).await;
    rig.pass(600).await;
    let begin = Instant::now();
    rig.ecs.run(&tasks[2]);
    rig.wait_engine("the third task", |s| s.tasks.contains_key(&tasks[2])).await;
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    rig.ecs.world().refused.clear();
    rig.wait_engine("the second task", |s| s.tasks.contains_key(&tasks[1])).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_ended_here_is_not_run_again_while_it_is_still_listed() {
    let rig = Rig::started().await;
    let task = arn("1");
    rig.ecs.run(&task);
    rig.wait_engine("the task", |s| s.tasks.contains_key(&task)).await;
    // It ended, the engine forgot it, its report is on the way for a long time.
    rig.change(|s| s.tasks.clear());
    rig.pass(3600).await;
    assert_eq!(rig.told().begun[&task], 1);
}

#[tokio::test(start_paused = true)]
async fn what_the_outbox_holds_is_not_run_after_a_restart() {
    let mut rig = Rig::new();
    let (waiting, ended) = (arn("waiting"), arn("ended"));
    rig.ecs.run(&waiting);
    rig.ecs.run(&ended);
    rig.reports.send_modify(|reports| {
        let reports = Arc::make_mut(reports);
        reports.ended.insert(ended.clone());
        reports.waiting.push(berth_types::cluster::WaitingReports {
            task: waiting.clone(),
            reports: 1,
            since: berth_types::Timestamp::UNIX_EPOCH,
            attempts: 0,
            problem: None,
        });
    });
    rig.start().await;
    rig.wait_for("polls", |s| s.polled_at.is_some()).await;
    rig.pass(60).await;
    assert!(rig.told().begun.is_empty());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_for_before_the_engine_and_the_outbox_know_what_they_have() {
    let mut rig = Rig::new();
    rig.change(|s| s.recovered = false);
    rig.reports.send_replace(Arc::default());
    rig.start().await;
    rig.pass(60).await;
    assert_eq!((rig.ecs.calls("register"), rig.ecs.calls("list_tasks")), (1, 0));
    rig.change(|s| s.recovered = true);
    rig.pass(60).await;
    assert_eq!(rig.ecs.calls("list_tasks"), 0);
    rig.reports.send_modify(|reports| Arc::make_mut(reports).version = 1);
    rig.wait_for("polls", |s| s.polled_at.is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_cannot_run_here_is_refused_once_naming_every_field() {
    let mut rig = Rig::started().await;
    let task = arn("1");
    rig.ecs.world().definitions.insert(
        "arn:aws:ecs:us-west-2:111122223333:task-definition/bad:1".into(),
        r#"{"family":"bad","networkMode":"bridge","pidMode":"host","containerDefinitions":[{"name":"app","image":"x","memory":64}]}"#.into(),
    );
    rig.ecs.run_family(&task, "bad");
    let snapshot = rig.wait_for("refused", |s| !s.refused.is_empty()).await;
    let reason = &snapshot.refused[0].reason;
    assert!(reason.starts_with("UnrecognizedTaskError: "), "{reason}");
    assert!(reason.contains("networkMode") && reason.contains("pidMode"), "{reason}");
    rig.pass(300).await;
    assert_eq!(rig.refusals().get(&task), Some(reason));
    assert_eq!(rig.ecs.calls("describe_tasks"), 1);
    assert!(rig.told().begun.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_task_whose_definition_is_gone_is_refused_and_one_that_cannot_be_had_now_waits() {
    let rig = Rig::started().await;
    let (gone, later) = (arn("gone"), arn("later"));
    rig.ecs.run_family(&gone, "gone");
    rig.ecs.world().definitions.clear();
    rig.pass(30).await;
    assert!(rig.refusals()[&gone].contains("cannot be described"));
    rig.ecs.world().refused.insert("describe_task_definition", EcsErrorKind::Throttled("?".into()));
    rig.ecs.run(&later);
    rig.pass(300).await;
    assert!(!rig.refusals().contains_key(&later) && rig.told().begun.is_empty());
    rig.ecs.world().refused.clear();
    rig.wait_engine("the task", |s| s.tasks.contains_key(&later)).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_was_stopped_before_it_was_seen_is_reported_stopped() {
    let rig = Rig::started().await;
    let task = arn("1");
    rig.ecs.run(&task);
    rig.ecs.stop(&task, "changed my mind");
    rig.pass(60).await;
    assert_eq!(rig.refusals().get(&task).map(String::as_str), Some("changed my mind"));
    assert!(rig.told().begun.is_empty());
    assert!(rig.cluster.borrow().refused.is_empty(), "nothing was wrong with it");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_the_engine_has_no_room_for_waits_and_is_taken_later() {
    let mut rig = Rig::new();
    rig.told().full = true;
    rig.start().await;
    let task = arn("1");
    rig.ecs.run(&task);
    let told = rig.wait_for("a problem", |s| s.problem.is_some()).await;
    assert!(told.problem.as_ref().unwrap().contains("the engine holds 7 tasks already"));
    rig.pass(300).await;
    rig.told().full = false;
    rig.wait_engine("the task", |s| s.tasks.contains_key(&task)).await;
    rig.wait_for("no problem", |s| s.problem.is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn an_operators_task_is_none_of_the_control_planes_business() {
    let mut rig = Rig::new();
    let task = arn("mine");
    rig.change(|s| {
        s.tasks.insert(task.clone(), Arc::new(snapshot(spec(&task, Origin::Operator))));
    });
    rig.start().await;
    rig.wait_for("polls", |s| s.polled_at.is_some()).await;
    rig.pass(300).await;
    assert!(rig.told().stopped.is_empty());
    assert_eq!(rig.ecs.calls("describe_tasks"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_draining_node_goes_on_polling() {
    let mut rig = Rig::started().await;
    rig.wait_for("registered", |s| s.polled_at.is_some()).await;
    let instance = rig.cluster.borrow().container_instance_arn.clone().unwrap();
    rig.ecs.world().instances.insert(instance, "DRAINING");
    rig.poke.notify_one();
    rig.wait_for("draining", |s| s.status == InstanceStatus::Draining).await;
    let polls = rig.ecs.calls("list_tasks");
    rig.pass(60).await;
    assert!(rig.ecs.calls("list_tasks") > polls);
}

/// Calls of the poller in the worst minute.
fn worst_minute(rig: &Rig) -> usize {
    let calls = rig.ecs.world().calls.clone();
    let polling = |op: &&str| !matches!(*op, "register" | "submit");
    let times: Vec<Instant> = calls.iter().filter(|(_, op)| polling(op)).map(|(at, _)| *at).collect();
    let within = |begin: &Instant| {
        times.iter().filter(|at| **at >= *begin && **at < *begin + Duration::from_secs(60)).count()
    };
    times.iter().map(within).max().unwrap_or(0)
}

#[derive(Debug, Clone)]
enum Move {
    Run(u8),
    Stop(u8),
    Forget(u8),
    EngineForgets(u8),
    Outage(bool),
    Full(bool),
    Stale(bool),
    Restart,
    Poke,
}

fn moves() -> impl Strategy<Value = Vec<(u64, Move)>> {
    let one = prop_oneof![
        4 => any::<u8>().prop_map(Move::Run),
        3 => any::<u8>().prop_map(Move::Stop),
        1 => any::<u8>().prop_map(Move::Forget),
        1 => any::<u8>().prop_map(Move::EngineForgets),
        2 => any::<bool>().prop_map(Move::Outage),
        1 => any::<bool>().prop_map(Move::Full),
        1 => any::<bool>().prop_map(Move::Stale),
        1 => Just(Move::Restart),
        1 => Just(Move::Poke),
    ];
    prop::collection::vec((0u64..20, one), 1..60)
}

async fn play(rig: &mut Rig, step: Move) {
    let name = |n: u8| arn(&format!("t{}", n % 40));
    match step {
        Move::Run(n) if rig.ecs.world().tasks.contains_key(&name(n)) => {}
        Move::Run(n) => rig.ecs.run_family(&name(n), &format!("f{n}")),
        Move::Stop(n) if rig.ecs.world().tasks.contains_key(&name(n)) => rig.ecs.stop(&name(n), "enough"),
        Move::Stop(_) => {}
        Move::Forget(n) => drop(rig.ecs.world().tasks.remove(&name(n))),
        // The engine forgets a task that has ended, and only when the outbox has its end.
        Move::EngineForgets(n) => {
            let ended = |s: &berth_types::task::EngineSnapshot| {
                s.tasks.get(&name(n)).is_some_and(|t| t.known == TaskStatus::Stopped)
            };
            if ended(&rig.engine.borrow()) {
                rig.reports.send_modify(|r| {
                    Arc::make_mut(r).ended.insert(name(n));
                });
                rig.change(|s| drop(s.tasks.remove(&name(n))));
            }
        }
        Move::Outage(on) => rig.ecs.world().outage = on,
        Move::Full(on) => rig.told().full = on,
        Move::Stale(on) => {
            let mut world = rig.ecs.world();
            let old: Vec<TaskArn> = world
                .tasks
                .iter()
                .filter(|(_, t)| t.desired == "RUNNING")
                .map(|(arn, _)| arn.clone())
                .collect();
            world.stale = on.then_some(old);
        }
        Move::Restart => {
            rig.kill().await;
            rig.start().await;
        }
        Move::Poke => rig.poke.notify_one(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_no_task_runs_twice_and_the_cap_holds(steps in moves()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut rig = Rig::started().await;
            let mut forgotten = std::collections::BTreeSet::new();
            let mut restarted = false;
            for (pause, step) in steps {
                if let Move::Forget(n) = step {
                    forgotten.insert(arn(&format!("t{}", n % 40)));
                }
                restarted |= matches!(step, Move::Restart);
                play(&mut rig, step).await;
                rig.pass(pause).await;
            }
            {
                let mut world = rig.ecs.world();
                (world.outage, world.stale) = (false, None);
            }
            rig.told().full = false;
            rig.pass(400).await;
            for (task, begun) in &rig.told().begun {
                // A task that the control plane forgot and made again under the same name is another one to it; it is no case of ECS.
                prop_assert!(*begun == 1, "{task} was begun {begun} times");
            }
            for (task, reason, _) in &rig.told().stopped {
                prop_assert!(reason == "enough" || forgotten.contains(task), "{task} was stopped: {reason}");
            }
            let wanted = rig.ecs.world().tasks.clone();
            let is_due = |(arn, task): &(&TaskArn, &super::control::Task)| {
                task.desired == "RUNNING" && !forgotten.contains(*arn)
            };
            for (task, _) in wanted.iter().filter(is_due) {
                prop_assert!(rig.told().begun.contains_key(task), "{task} was never begun");
            }
            // A fresh start has a fresh bucket.
            let cap = if restarted { usize::MAX } else { 100 };
            prop_assert!(worst_minute(&rig) <= cap, "{} calls in a minute", worst_minute(&rig));
            Ok(())
        })?;
    }
}
