//! kill -9 at every call that the engine makes, before its effect and after it, and a new life over what is left: with its journal
//! and without. The whole life of a task is walked: launch, an ending side container, stop, tear-down.

use super::{
    fixtures::{after, container, side, task},
    harness::{Node, id_of},
};
use berth_testkit::crash::Side;
use berth_types::{
    ids::EndpointId,
    task::{DependsCondition, StopCode, TaskSpec, TaskStatus},
};

/// More calls than a life makes; the walk must end before.
const MANY: u64 = 200;

fn spec() -> TaskSpec {
    let app = after(container("app"), "init", DependsCondition::Success);
    task("t1", vec![app, side(container("init")), container("proxy")])
}

/// Plays a life to its end, from wherever it is.
async fn play(node: &Node, spec: &TaskSpec) {
    // The assignment is given again until it is answered, as ECS does.
    if !node.snapshot().tasks.contains_key(&spec.arn) {
        node.run(spec.clone()).await.unwrap();
    }
    node.until_task(&spec.arn, "init runs or has run", |t| {
        t.containers[1].started_at.is_some() || t.known == TaskStatus::Stopped
    })
    .await;
    node.containers.exit(&id_of(&spec.arn, "init"), 0);
    node.until_task(&spec.arn, "runs", |t| t.known >= TaskStatus::Running && t.known != TaskStatus::None)
        .await;
    node.stop(&spec.arn).await.unwrap();
    node.until_over(&spec.arn).await;
    node.until_task(&spec.arn, "given back", |t| t.lease.is_none()).await;
}

/// One life with a death at the `calls`-th call. Answers whether that call was reached.
async fn die_at(calls: u64, end: Side, wipe: bool) -> bool {
    let mut node = Node::start(1);
    let spec = spec();
    let endpoints: Vec<EndpointId> = spec.containers.iter().map(|c| c.endpoint_id.clone()).collect();
    node.crash.crash_after(calls, end);
    let crash = node.crash.clone();
    let survived = tokio::select! {
        biased;
        () = crash.died() => false,
        () = play(&node, &spec) => true,
    };
    if survived {
        return false;
    }
    let published = node.snapshot();
    node.kill().await;
    if wipe {
        node.journal.wipe();
    }
    node.start_again();
    node.until("recovered", |s| s.recovered).await;
    if let (Some(before), Some(after)) =
        (published.tasks.get(&spec.arn), node.snapshot().tasks.get(&spec.arn))
    {
        let kept: Vec<EndpointId> = after.spec.containers.iter().map(|c| c.endpoint_id.clone()).collect();
        assert_eq!(kept, endpoints, "metadata URLs must keep working");
        assert!(
            wipe || after.stop_code.is_some() || before.stop_code != Some(StopCode::UserInitiated),
            "a stop was forgotten"
        );
    }
    // A task that ended just then may be known to nobody any more; then it is not there at all, and given again it would be new.
    let had_ended = published.tasks.get(&spec.arn).is_some_and(|t| t.known == TaskStatus::Stopped);
    if node.snapshot().tasks.contains_key(&spec.arn) || !had_ended {
        play(&node, &spec).await;
    }
    node.until_world("nothing is left", || node.containers.ids().is_empty() && node.leases.held().is_empty())
        .await;
    assert_eq!(
        node.containers.violations(),
        Vec::<String>::new(),
        "died at call {calls}, {end:?}, journal wiped: {wipe}"
    );
    true
}

async fn walk(end: Side, wipe: bool) {
    let mut calls = 0;
    while die_at(calls, end, wipe).await {
        calls += 1;
        assert!(calls < MANY, "the life never ends");
    }
    assert!(calls > 15, "the walk covered {calls} calls only");
}

#[tokio::test(start_paused = true)]
async fn death_before_any_call_loses_and_doubles_nothing() {
    walk(Side::Before, false).await;
}

#[tokio::test(start_paused = true)]
async fn death_after_any_call_loses_and_doubles_nothing() {
    walk(Side::After, false).await;
}

#[tokio::test(start_paused = true)]
async fn death_before_any_call_and_a_lost_journal_double_nothing() {
    walk(Side::Before, true).await;
}

#[tokio::test(start_paused = true)]
async fn death_after_any_call_and_a_lost_journal_double_nothing() {
    walk(Side::After, true).await;
}
