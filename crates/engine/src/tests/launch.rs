//! From the assignment to RUNNING, and what can be in the way.

use super::{
    fixtures::{after, arn, container, doing, side, task},
    harness::{Node, id_of},
};
use berth_types::{
    assignment::AssignmentError,
    lease::LeaseError,
    ports::{RuntimeState, Table},
    task::{ContainerStatus, DependsCondition, MountPoint, StopCode, TaskStatus, VolumeSpec},
};
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn a_task_runs_in_its_slot_with_names_labels_and_metadata_urls() {
    let node = Node::start(1);
    let spec = task("t1", vec![container("web")]);
    let endpoint = spec.containers[0].endpoint_id.clone();
    node.run(spec).await.unwrap();
    let running = node.until_running(&arn("t1")).await;

    let lease = running.lease.clone().unwrap();
    assert_eq!(node.leases.held()[&arn("t1")], lease.slot);
    assert_eq!(node.leases.needs_of(&arn("t1")).unwrap().tags["berth:task-family"], "web");
    let made = node.containers.request_of(&id_of(&arn("t1"), "web")).unwrap();
    assert_eq!(
        (made.netns_path.clone(), made.hostname.clone()),
        (lease.netns_path.clone(), lease.private_dns_name.clone())
    );
    assert_eq!(made.labels["com.amazonaws.ecs.container-name"], "web");
    let url = format!("http://169.254.170.2/v4/{endpoint}");
    assert!(made.injected_environment.contains(&("ECS_CONTAINER_METADATA_URI_V4".to_owned(), url)));
    let view = &running.containers[0];
    assert_eq!((view.known, view.id.clone()), (ContainerStatus::Running, Some(id_of(&arn("t1"), "web"))));
    assert!(view.pid.is_some() && view.image_id.is_some() && running.started_at.is_some());
    assert!(running.pull_started_at.is_some() && running.pull_stopped_at.is_some());
    assert_eq!(running.waiting, None);
}

#[tokio::test(start_paused = true)]
async fn metadata_can_answer_before_the_first_container_is_made() {
    let node = Node::start(1);
    node.containers.set_latency(Duration::from_millis(20));
    node.run(task("t1", vec![container("web")])).await.unwrap();
    let leased = node.until_task(&arn("t1"), "leased", |t| t.lease.is_some()).await;
    assert_eq!(leased.containers[0].id, Some(id_of(&arn("t1"), "web")));
    assert!(leased.known < TaskStatus::Created && node.containers.ids().is_empty());
    node.until_running(&arn("t1")).await;
}

#[tokio::test(start_paused = true)]
async fn an_assignment_is_answered_when_its_record_is_durable_and_runs_once() {
    let node = Node::start(2);
    let spec = task("t1", vec![container("web")]);
    node.run(spec.clone()).await.unwrap();
    assert!(node.journal.is_durable(Table::Tasks, arn("t1").as_str()));
    node.run(spec).await.unwrap();
    node.until_running(&arn("t1")).await;
    assert_eq!((node.containers.calls().create, node.leases.held().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_launch_flushes_the_journal_twice() {
    let node = Node::start(1);
    node.run(task("t1", vec![container("a"), container("b")])).await.unwrap();
    node.until_running(&arn("t1")).await;
    assert_eq!(node.journal.commits().1, 2, "the admission and the intent that names the slot");
}

#[tokio::test(start_paused = true)]
async fn independent_containers_are_made_and_started_side_by_side() {
    let node = Node::start(1);
    node.until("recovered", |s| s.recovered).await;
    node.containers.set_latency(Duration::from_secs(1));
    let begun = tokio::time::Instant::now();
    node.run(task("t1", (0..8).map(|i| container(&format!("c{i}"))).collect())).await.unwrap();
    node.until_running(&arn("t1")).await;
    assert!(
        begun.elapsed() < Duration::from_millis(3100),
        "image, create and start take one call each: {:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn containers_start_in_the_order_of_their_dependencies() {
    let node = Node::start(1);
    let spec = task(
        "t1",
        vec![
            after(container("app"), "init", DependsCondition::Success),
            after(container("proxy"), "app", DependsCondition::Start),
            side(container("init")),
        ],
    );
    node.run(spec).await.unwrap();
    let waits = node
        .until_task(&arn("t1"), "waiting for init", |t| t.containers[2].known == ContainerStatus::Running)
        .await;
    assert!(
        waits.waiting.clone().unwrap().contains("container init to end with SUCCESS, for container app"),
        "{:?}",
        waits.waiting
    );
    node.containers.exit(&id_of(&arn("t1"), "init"), 0);
    let running = node.until_running(&arn("t1")).await;
    assert_eq!(node.containers.started(), ["init", "app", "proxy"]);
    assert_eq!(
        (running.containers[2].known, running.containers[2].exit_code),
        (ContainerStatus::Stopped, Some(0))
    );
}

#[tokio::test(start_paused = true)]
async fn a_dependency_that_fails_ends_its_dependants_with_143() {
    let node = Node::start(1);
    let spec = task(
        "t1",
        vec![after(container("app"), "init", DependsCondition::Success), side(doing("init", "exit 3"))],
    );
    node.run(spec).await.unwrap();
    let over = node.until_over(&arn("t1")).await;
    assert_eq!((over.containers[0].exit_code, over.containers[1].exit_code), (Some(143), Some(3)));
    let reason = over.containers[0].reason.clone().unwrap();
    assert!(reason.starts_with("CannotStartContainerError: dependency graph: "), "{reason}");
    assert_eq!(
        (over.stopped_reason.clone(), over.stop_code),
        (Some(reason), Some(StopCode::TaskFailedToStart))
    );
    assert_eq!(node.containers.started(), ["init"]);
}

#[tokio::test(start_paused = true)]
async fn a_dependency_that_takes_longer_than_its_start_timeout_is_given_up() {
    let node = Node::start(1);
    let mut init = side(container("init"));
    init.start_timeout = Some(20);
    node.run(task("t1", vec![after(container("app"), "init", DependsCondition::Complete), init]))
        .await
        .unwrap();
    let begun =
        node.until_task(&arn("t1"), "init", |t| t.containers[1].known == ContainerStatus::Running).await;
    let over = node.until_over(&arn("t1")).await;
    let waited = over.containers[0].reason.as_ref().unwrap().contains("timed out");
    assert!(waited && begun.containers[0].known == ContainerStatus::Created, "{over:?}");
    let span = over.stopped_at.unwrap().duration_since(begun.containers[1].started_at.unwrap()).as_secs();
    assert!((20..22).contains(&span), "{span}");
}

#[tokio::test(start_paused = true)]
async fn a_graph_without_an_order_stops_the_task_before_anything_is_made() {
    let node = Node::start(1);
    let circle = vec![
        after(container("a"), "b", DependsCondition::Start),
        after(container("b"), "a", DependsCondition::Start),
    ];
    node.run(task("t1", circle)).await.unwrap();
    node.run(task("t2", vec![after(container("a"), "ghost", DependsCondition::Start)])).await.unwrap();
    for id in ["t1", "t2"] {
        let over = node.until_over(&arn(id)).await;
        let reason = over.stopped_reason.clone().unwrap();
        assert!(
            reason.starts_with("TaskDependencyError: Task dependencies cannot be resolved, taskArn: arn:aws"),
            "{reason}"
        );
        assert_eq!(over.stop_code, Some(StopCode::TaskFailedToStart));
    }
    assert_eq!(node.containers.calls().create, 0);
}

#[tokio::test(start_paused = true)]
async fn a_missing_image_stops_the_task_and_names_the_reference() {
    let node = Node::start(1);
    let mut broken = side(container("side"));
    broken.image = "nope:1".to_owned();
    node.run(task("t1", vec![container("web"), broken])).await.unwrap();
    let over = node.until_over(&arn("t1")).await;
    let reason = over.stopped_reason.clone().unwrap();
    assert!(
        reason.starts_with("CannotPullContainerError: The task can\u{2019}t pull the image.")
            && reason.contains("nope:1")
    );
    assert_eq!(
        (over.containers[1].reason.clone(), over.stop_code),
        (Some(reason), Some(StopCode::TaskFailedToStart))
    );
    assert_eq!((over.containers[0].exit_code, node.containers.calls().create), (None, 0));
}

#[tokio::test(start_paused = true)]
async fn a_container_that_cannot_be_made_or_started_fails_the_task_only_when_it_is_essential() {
    let node = Node::start(3);
    node.run(task("t1", vec![doing("web", "refuse-create"), container("other")])).await.unwrap();
    node.run(task("t2", vec![doing("web", "refuse-start")])).await.unwrap();
    node.run(task("t3", vec![container("web"), side(doing("extra", "refuse-start"))])).await.unwrap();
    let reasons = [
        ("t1", "CannotCreateContainerError: create container"),
        ("t2", "CannotStartContainerError: start container"),
    ];
    for (id, reason) in reasons {
        let over = node.until_over(&arn(id)).await;
        assert!(over.stopped_reason.as_ref().unwrap().starts_with(reason), "{:?}", over.stopped_reason);
        assert_eq!(over.stop_code, Some(StopCode::TaskFailedToStart));
    }
    let running = node.until_running(&arn("t3")).await;
    assert!(running.containers[1].reason.as_ref().unwrap().starts_with("CannotStartContainerError: "));
    node.until_world("what failed is removed at once", || node.containers.ids().len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_waits_for_a_slot_and_a_refusal_is_its_reason() {
    let node = Node::start(0);
    node.run(task("t1", vec![container("web")])).await.unwrap();
    let waits =
        node.until_task(&arn("t1"), "asked", |t| t.waiting.as_deref() == Some("a network interface")).await;
    assert_eq!(waits.last_status(), "PROVISIONING");
    node.until_world("asked", || node.leases.waiting() == [arn("t1")]).await;
    let reason = "no free address in subnet-1".to_owned();
    node.leases.set_refusal(Some(LeaseError::TimedOut { reason }));
    let over = node.until_over(&arn("t1")).await;
    let expected =
        "Timeout waiting for network interface provisioning to complete: no free address in subnet-1";
    assert_eq!(
        (over.stopped_reason.as_deref(), over.stop_code),
        (Some(expected), Some(StopCode::TaskFailedToStart))
    );
}

#[tokio::test(start_paused = true)]
async fn a_launch_waits_while_containerd_is_down() {
    let node = Node::start(1);
    node.until("recovered", |s| s.recovered).await;
    node.containers.set_down(true);
    node.until("seen", |s| !s.runtime_ok).await;
    node.run(task("t1", vec![container("web")])).await.unwrap();
    let waits = node.until_task(&arn("t1"), "waiting", |t| t.lease.is_some() && t.waiting.is_some()).await;
    assert!(waits.waiting.clone().unwrap().contains("containerd"), "{:?}", waits.waiting);
    node.pass(Duration::from_secs(600)).await;
    assert_eq!(node.snapshot().tasks[&arn("t1")].desired, TaskStatus::Running);
    node.containers.set_down(false);
    node.until_running(&arn("t1")).await;
}

#[tokio::test(start_paused = true)]
async fn an_assignment_that_cannot_be_recorded_is_refused_and_leaves_nothing() {
    let node = Node::start(1);
    node.until("recovered", |s| s.recovered).await;
    node.journal.set_broken(true);
    let refused = node.run(task("t1", vec![container("web")])).await;
    assert!(matches!(refused, Err(AssignmentError::NotRecorded(why)) if why.contains("no space left")));
    node.until("forgotten", |s| s.tasks.is_empty()).await;
    node.journal.set_broken(false);
    node.run(task("t1", vec![container("web")])).await.unwrap();
    node.until_running(&arn("t1")).await;
    node.journal.set_broken(true);
    assert!(matches!(node.stop(&arn("t1")).await, Err(AssignmentError::NotRecorded(_))));
    assert_eq!(node.snapshot().tasks[&arn("t1")].desired, TaskStatus::Running);
    assert!(matches!(
        node.containers.state_of(&id_of(&arn("t1"), "web")),
        Some(RuntimeState::Running { .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn more_tasks_than_the_limit_are_refused() {
    let node = Node::start_with(2, |config| config.max_tasks = 2);
    for id in ["t1", "t2"] {
        node.run(task(id, vec![container("web")])).await.unwrap();
    }
    assert_eq!(node.run(task("t3", vec![container("web")])).await, Err(AssignmentError::TooManyTasks(2)));
    node.stop(&arn("t1")).await.unwrap();
    node.until_over(&arn("t1")).await;
    node.run(task("t3", vec![container("web")])).await.unwrap();
    node.until_running(&arn("t3")).await;
}

#[tokio::test(start_paused = true)]
async fn volumes_are_there_before_the_container_and_go_with_the_task() {
    let node = Node::start(1);
    let host = node.data.path().join("host/deep");
    let mut web = container("web");
    for (volume, path) in [("scratch", "/scratch"), ("host", "/host")] {
        web.mount_points.push(MountPoint {
            volume: volume.to_owned(),
            path: path.to_owned(),
            read_only: volume == "host",
        });
    }
    let mut spec = task("t1", vec![web]);
    spec.volumes.push(VolumeSpec { name: "scratch".to_owned(), host_path: None });
    spec.volumes.push(VolumeSpec { name: "host".to_owned(), host_path: Some(host.clone()) });
    node.run(spec).await.unwrap();
    node.until_running(&arn("t1")).await;
    let made = node.containers.request_of(&id_of(&arn("t1"), "web")).unwrap();
    let scratch = made.volumes[0].0.source.clone();
    assert_eq!(scratch, node.data.path().join("volumes/t1/scratch"));
    assert!(scratch.is_dir() && host.is_dir() && !made.volumes[0].1 && made.volumes[1].1);

    node.stop(&arn("t1")).await.unwrap();
    node.until_over(&arn("t1")).await;
    assert!(scratch.is_dir(), "volumes stay until the clean-up");
    node.handle.remove(&arn("t1")).await.unwrap();
    node.until("forgotten", |s| s.tasks.is_empty()).await;
    assert!(!scratch.exists() && host.is_dir());
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_cannot_be_had_stops_the_task() {
    let node = Node::start(2);
    let mut web = container("web");
    web.mount_points.push(MountPoint { volume: "ghost".to_owned(), path: "/x".to_owned(), read_only: false });
    node.run(task("t1", vec![web])).await.unwrap();
    let mut climbing = task("t2", vec![container("web")]);
    climbing.volumes.push(VolumeSpec { name: "v".to_owned(), host_path: Some("/srv/../etc".into()) });
    node.run(climbing).await.unwrap();
    for (id, text) in [("t1", "ghost"), ("t2", "/srv/../etc")] {
        let over = node.until_over(&arn(id)).await;
        let reason = over.stopped_reason.clone().unwrap();
        assert!(reason.starts_with("CannotCreateVolumeError: ") && reason.contains(text), "{reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_tasks_shares_flushes_and_all_of_it_runs() {
    const BURST: usize = 200;
    let node = Node::start(u8::try_from(BURST).unwrap());
    node.until("recovered", |s| s.recovered).await;
    node.containers.set_latency(Duration::from_millis(10));
    let runs =
        (0..BURST).map(|i| node.run(task(&format!("t{i}"), vec![container("web"), container("side")])));
    assert!(futures::future::join_all(runs).await.iter().all(Result::is_ok));
    node.until("all run", |s| s.tasks.values().filter(|t| t.last_status() == "RUNNING").count() == BURST)
        .await;
    let intents = node.journal.commits().1;
    assert!(intents < 100, "{intents} flushes for {BURST} tasks");
}
