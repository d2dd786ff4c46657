//! Tasks of the control plane: how long they are kept, and pulls that do not hold up a stop.

use super::{
    fixtures::{arn, container, side, task},
    harness::Node,
};
use berth_types::{
    cluster::ReportsSnapshot,
    ids::TaskArn,
    ports::{ContainerErrorKind, Table},
    task::{ContainerSpec, Origin, StopCode, TaskSpec, TaskStatus},
};
use std::{sync::Arc, time::Duration};

/// The official agent's bound on waiting for an acknowledgement.
const THREE_DAYS: Duration = Duration::from_secs(72 * 3600);

fn of_control_plane(id: &str, containers: Vec<ContainerSpec>) -> TaskSpec {
    TaskSpec { origin: Origin::ControlPlane { attachment: None }, ..task(id, containers) }
}

fn put_on_record(node: &Node, tasks: &[TaskArn]) {
    let ended = tasks.iter().cloned().collect();
    node.reports.send_replace(Arc::new(ReportsSnapshot { ended, ..ReportsSnapshot::default() }));
}

async fn stopped(node: &Node, id: &str) {
    node.run(of_control_plane(id, vec![container("web")])).await.unwrap();
    node.until_running(&arn(id)).await;
    node.stop(&arn(id)).await.unwrap();
    node.until_over(&arn(id)).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_of_the_control_plane_stays_until_its_end_is_on_record() {
    let node = Node::start(1);
    stopped(&node, "t1").await;
    let logs = node.data.path().join("logs").join(arn("t1").id());
    std::fs::create_dir_all(&logs).unwrap();
    node.pass(Duration::from_secs(24 * 3600)).await;
    let kept = Arc::clone(&node.snapshot().tasks[&arn("t1")]);
    assert_eq!(kept.waiting.as_deref(), Some("its end to be put on record for the control plane"));
    assert!(!logs.exists(), "files do not wait for the report");
    assert!(!node.leases.held().contains_key(&arn("t1")), "the slot does not wait for the report");
    put_on_record(&node, &[arn("t2"), arn("t1")]);
    node.until("forgotten", |s| s.tasks.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_whose_end_is_on_record_is_kept_for_its_ordinary_time() {
    let node = Node::start(1);
    stopped(&node, "t1").await;
    put_on_record(&node, &[arn("t1")]);
    node.pass(node.config.cleanup_wait - Duration::from_secs(60)).await;
    assert!(node.snapshot().tasks.contains_key(&arn("t1")));
    node.pass(Duration::from_secs(120)).await;
    assert!(node.snapshot().tasks.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_removal_takes_effect_when_the_end_is_on_record() {
    let node = Node::start(1);
    stopped(&node, "t1").await;
    assert_eq!(node.handle.remove(&arn("t1")).await, Ok(()));
    node.pass(Duration::from_secs(600)).await;
    assert!(node.snapshot().tasks.contains_key(&arn("t1")));
    assert_eq!(node.handle.remove(&arn("t1")).await, Ok(()));
    put_on_record(&node, &[arn("t1")]);
    node.until("forgotten", |s| s.tasks.is_empty()).await;
    node.until_world("record deleted", || node.journal.records(Table::Tasks).is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_reporter_that_never_comes_is_waited_for_no_longer_than_three_days() {
    let mut node = Node::start(1);
    stopped(&node, "t1").await;
    node.pass(THREE_DAYS / 2).await;
    node.kill().await;
    node.start_again();
    node.until("taken over", |s| s.recovered).await;
    node.pass(THREE_DAYS / 2 - Duration::from_secs(60)).await;
    assert!(node.snapshot().tasks.contains_key(&arn("t1")));
    node.pass(Duration::from_secs(120)).await;
    assert!(node.snapshot().tasks.is_empty());
}

#[tokio::test(start_paused = true)]
async fn tasks_that_are_kept_for_the_reporter_leave_room_for_new_ones() {
    let node = Node::start_with(1, |config| config.max_tasks = 1);
    for id in ["t1", "t2", "t3"] {
        stopped(&node, id).await;
        assert_eq!(node.handle.remove(&arn(id)).await, Ok(()));
    }
    assert_eq!(node.snapshot().tasks.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_pull_under_way_is_shown_and_does_not_hold_up_a_stop() {
    let node = Node::start(1);
    node.containers.set_stalled("slow:1", true);
    let slow = |name: &str| ContainerSpec { image: "slow:1".to_owned(), ..container(name) };
    node.run(of_control_plane("t1", vec![slow("web"), container("own"), side(slow("log"))])).await.unwrap();
    let waits = "image slow:1 for containers web, log";
    node.until_task(&arn("t1"), "waits", |t| t.waiting.as_deref() == Some(waits)).await;
    node.pass(Duration::from_secs(3600)).await;
    let begun = tokio::time::Instant::now();
    node.stop(&arn("t1")).await.unwrap();
    let over = node.until_over(&arn("t1")).await;
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!((over.stop_code, over.started_at), (Some(StopCode::UserInitiated), None));
    put_on_record(&node, &[arn("t1")]);
    assert_eq!(node.handle.remove(&arn("t1")).await, Ok(()));
    node.until("forgotten although the registry still says nothing", |s| s.tasks.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn many_pulls_leave_the_runtime_to_other_tasks() {
    let node = Node::start(60);
    node.containers.set_stalled("slow:1", true);
    for number in 0..40 {
        let slow = ContainerSpec { image: "slow:1".to_owned(), ..container("web") };
        node.run(task(&format!("s{number}"), vec![slow])).await.unwrap();
    }
    node.run(task("t1", vec![container("web")])).await.unwrap();
    node.until_running(&arn("t1")).await;
    node.containers.set_image("slow:1", true);
    node.containers.set_stalled("slow:1", false);
    for number in 0..40 {
        node.until_running(&arn(&format!("s{number}"))).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_for_a_pull() {
    let mut node = Node::start(1);
    node.containers.set_stalled("slow:1", true);
    let slow = ContainerSpec { image: "slow:1".to_owned(), ..container("web") };
    node.run(task("t1", vec![slow])).await.unwrap();
    node.until_task(&arn("t1"), "waits", |t| t.lease.is_some()).await;
    let begun = tokio::time::Instant::now();
    node.shut_down().await;
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn an_image_that_cannot_be_resolved_ends_the_task_in_the_official_words() {
    let node = Node::start(1);
    node.containers
        .refuse_image("gone:1", ContainerErrorKind::CannotResolve("gone:1: manifest unknown".to_owned()));
    let gone = ContainerSpec { image: "gone:1".to_owned(), ..container("web") };
    node.run(task("t1", vec![gone])).await.unwrap();
    let over = node.until_task(&arn("t1"), "stopped", |t| t.known == TaskStatus::Stopped).await;
    let reason = "CannotPullImageManifestError: gone:1: manifest unknown";
    assert_eq!(
        (over.containers[0].reason.as_deref(), over.stopped_reason.as_deref()),
        (Some(reason), Some(reason))
    );
    assert_eq!(over.stop_code, Some(StopCode::TaskFailedToStart));
}

#[tokio::test(start_paused = true)]
async fn the_digest_that_a_reference_names_is_known_before_the_image_is_here() {
    let node = Node::start(1);
    let reference = format!("slow@sha256:{}", "0".repeat(64));
    node.containers.set_stalled(&reference, true);
    node.run(task("t1", vec![ContainerSpec { image: reference.clone(), ..container("web") }])).await.unwrap();
    let seen = node.until_task(&arn("t1"), "known", |_| true).await;
    assert_eq!(
        seen.containers[0].image_digest.as_deref(),
        reference.split_once('@').map(|(_, digest)| digest)
    );
}
