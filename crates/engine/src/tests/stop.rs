//! How tasks end, what they leave, and when they are forgotten.

use super::{
    fixtures::{after, arn, container, doing, side, task},
    harness::{Node, id_of},
};
use crate::RemoveError;
use berth_types::{
    assignment::AssignmentError,
    ports::{RuntimeState, Signal, Table},
    task::{ContainerStatus, DependsCondition, StopCode, TaskStatus},
};
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn a_stop_sends_the_signal_and_reports_the_exit_code() {
    let node = Node::start(1);
    node.run(task("t1", vec![container("web")])).await.unwrap();
    node.until_running(&arn("t1")).await;
    node.stop(&arn("t1")).await.unwrap();
    let over = node.until_over(&arn("t1")).await;
    assert_eq!((over.containers[0].exit_code, over.containers[0].reason.clone()), (Some(143), None));
    assert_eq!(
        (over.stopped_reason.as_deref(), over.stop_code),
        (Some("Task stopped by user"), Some(StopCode::UserInitiated))
    );
    assert!(over.stopped_at.is_some() && over.containers[0].finished_at.is_some());
    let after = node.until_task(&arn("t1"), "given back", |t| t.lease.is_none()).await;
    assert_eq!(after.last_status(), "STOPPED");
    assert_eq!(node.stop(&arn("ghost")).await, Err(AssignmentError::NoSuchTask(arn("ghost"))));
}

#[tokio::test(start_paused = true)]
async fn a_running_task_that_loses_its_slot_is_stopped_with_the_reason() {
    let node = Node::start(2);
    for id in ["t1", "t2"] {
        node.run(task(id, vec![container("web")])).await.unwrap();
        node.until_running(&arn(id)).await;
    }
    let slot = node.leases.held()[&arn("t1")].clone();
    node.leases.lose(&slot);
    let over = node.until_over(&arn("t1")).await;
    let reason = over.stopped_reason.as_deref().unwrap();
    assert!(reason.contains("is gone: its ENI was detached from outside"), "{reason}");
    assert_eq!((over.stop_code, over.containers[0].exit_code), (None, Some(143)));
    assert_eq!(node.snapshot().tasks[&arn("t2")].last_status(), "RUNNING");
}

#[tokio::test(start_paused = true)]
async fn a_stubborn_process_is_killed_after_its_own_grace() {
    let node = Node::start(2);
    let mut short = doing("web", "stubborn");
    short.stop_timeout = Some(5);
    node.run(task("t1", vec![short])).await.unwrap();
    node.run(task("t2", vec![doing("web", "stubborn")])).await.unwrap();
    for (id, grace) in [("t1", 5), ("t2", 30)] {
        node.until_running(&arn(id)).await;
        let begun = tokio::time::Instant::now();
        node.stop(&arn(id)).await.unwrap();
        let over = node.until_task(&arn(id), "stopped", |t| t.known == TaskStatus::Stopped).await;
        assert_eq!(over.containers[0].exit_code, Some(137));
        assert_eq!(begun.elapsed().as_secs(), grace);
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_survives_sigkill_ends_its_task_but_keeps_its_slot() {
    let node = Node::start(1);
    node.run(task("t1", vec![doing("web", "immortal")])).await.unwrap();
    node.until_running(&arn("t1")).await;
    node.stop(&arn("t1")).await.unwrap();
    let over = node.until_task(&arn("t1"), "stopped", |t| t.known == TaskStatus::Stopped).await;
    assert!(over.containers[0].reason.as_ref().unwrap().starts_with("CannotStopContainerError: "));
    node.pass(Duration::from_secs(3600)).await;
    assert!(node.leases.held().contains_key(&arn("t1")), "a process still lives in the slot");
    assert_eq!(node.handle.remove(&arn("t1")).await, Ok(()));
    assert!(node.snapshot().tasks.contains_key(&arn("t1")), "forgotten while its process lives");
    node.containers.vanish(&id_of(&arn("t1"), "web"));
    node.until("forgotten", |s| s.tasks.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn dependants_are_stopped_before_what_they_depend_on() {
    let node = Node::start(1);
    let spec = task(
        "t1",
        vec![
            container("db"),
            after(doing("app", "stubborn"), "db", DependsCondition::Start),
            after(container("proxy"), "app", DependsCondition::Start),
        ],
    );
    node.run(spec).await.unwrap();
    node.until_running(&arn("t1")).await;
    node.stop(&arn("t1")).await.unwrap();
    node.until_over(&arn("t1")).await;
    assert_eq!(node.containers.stopped(), ["proxy", "app", "db"]);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_an_essential_container_is_the_end_of_the_task() {
    let node = Node::start(1);
    node.run(task("t1", vec![container("web"), side(container("extra"))])).await.unwrap();
    node.until_running(&arn("t1")).await;
    assert!(node.containers.exit(&id_of(&arn("t1"), "extra"), 9));
    let still = node.until_task(&arn("t1"), "extra ended", |t| t.containers[1].exit_code == Some(9)).await;
    assert_eq!(still.last_status(), "RUNNING");
    assert!(node.containers.exit(&id_of(&arn("t1"), "web"), 3));
    let over = node.until_over(&arn("t1")).await;
    assert_eq!(over.stopped_reason.as_deref(), Some("Essential container in task exited"));
    assert_eq!(over.stop_code, Some(StopCode::EssentialContainerExited));
    assert_eq!(over.execution_stopped_at, over.containers[0].finished_at);
    assert_eq!(over.containers[0].exit_code, Some(3));
}

#[tokio::test(start_paused = true)]
async fn a_process_faster_than_the_answer_to_its_start_is_reported_whole() {
    let node = Node::start(2);
    node.run(task("t1", vec![doing("web", "exit 7")])).await.unwrap();
    node.run(task("t2", vec![doing("web", "oom")])).await.unwrap();
    let over = node.until_over(&arn("t1")).await;
    assert_eq!(over.containers[0].exit_code, Some(7));
    assert!(over.containers[0].started_at.is_some() && over.started_at.is_some());
    let oom = node.until_over(&arn("t2")).await;
    assert_eq!(
        oom.containers[0].reason.as_deref(),
        Some("OutOfMemoryError: Container killed due to memory usage")
    );
}

#[tokio::test(start_paused = true)]
async fn a_task_stopped_while_it_waits_for_its_slot_is_stopped_and_released() {
    let node = Node::start(0);
    node.run(task("t1", vec![container("web")])).await.unwrap();
    node.until_world("asked", || node.leases.waiting() == [arn("t1")]).await;
    node.stop(&arn("t1")).await.unwrap();
    let over = node.until_over(&arn("t1")).await;
    assert_eq!((over.stop_code, over.containers[0].exit_code), (Some(StopCode::UserInitiated), None));
    node.until_world("no longer waiting", || node.leases.waiting().is_empty()).await;
    node.leases.add_slots(1);
    node.pass(Duration::from_secs(60)).await;
    assert!(node.leases.held().is_empty());
}

#[tokio::test(start_paused = true)]
async fn tasks_run_on_while_containerd_is_down_and_their_ends_are_heard_later() {
    let node = Node::start(2);
    for id in ["t1", "t2"] {
        node.run(task(id, vec![container("web")])).await.unwrap();
        node.until_running(&arn(id)).await;
    }
    node.containers.set_down(true);
    node.until("seen", |s| !s.runtime_ok).await;
    node.containers.exit(&id_of(&arn("t1"), "web"), 5);
    node.stop(&arn("t2")).await.unwrap();
    node.pass(Duration::from_secs(300)).await;
    let now = node.snapshot();
    assert_eq!(now.tasks[&arn("t1")].last_status(), "RUNNING");
    assert_eq!(now.tasks[&arn("t2")].last_status(), "STOPPING");
    node.containers.set_down(false);
    assert_eq!(node.until_over(&arn("t1")).await.containers[0].exit_code, Some(5));
    node.until_over(&arn("t2")).await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_exit_event_is_made_good_by_the_audit() {
    let node = Node::start(2);
    for id in ["t1", "t2"] {
        node.run(task(id, vec![container("web")])).await.unwrap();
        node.until_running(&arn(id)).await;
    }
    node.containers.set_deaf(true);
    node.containers.exit(&id_of(&arn("t1"), "web"), 5);
    node.containers.vanish(&id_of(&arn("t2"), "web"));
    assert_eq!(node.until_over(&arn("t1")).await.containers[0].exit_code, Some(5));
    let vanished = node.until_over(&arn("t2")).await;
    let reason = vanished.containers[0].reason.as_deref();
    assert_eq!(reason, Some("ContainerVanishedError: No container matching saved ID found"));
}

#[tokio::test(start_paused = true)]
async fn a_lost_exit_event_does_not_keep_a_stop_from_ending() {
    let node = Node::start(1);
    node.run(task("t1", vec![container("web")])).await.unwrap();
    node.until_running(&arn("t1")).await;
    node.containers.set_deaf(true);
    node.stop(&arn("t1")).await.unwrap();
    let over = node.until_over(&arn("t1")).await;
    assert_eq!(over.containers[0].exit_code, Some(143));
}

#[tokio::test(start_paused = true)]
async fn stopped_tasks_stay_visible_until_their_cleanup() {
    let node = Node::start_with(1, |config| config.cleanup_wait = Duration::from_secs(600));
    node.run(task("t1", vec![doing("web", "exit 0")])).await.unwrap();
    node.until_over(&arn("t1")).await;
    let log = node.data.path().join("logs/t1/web/web.log");
    std::fs::create_dir_all(log.parent().unwrap()).unwrap();
    std::fs::write(&log, "line").unwrap();
    node.pass(Duration::from_secs(590)).await;
    assert!(node.snapshot().tasks.contains_key(&arn("t1")) && log.exists());
    node.until("cleaned up", |s| s.tasks.is_empty()).await;
    assert!(!log.exists());
    node.until_world("its record goes too", || node.journal.records(Table::Tasks).is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn only_stopped_tasks_can_be_removed() {
    let node = Node::start(1);
    node.run(task("t1", vec![container("web")])).await.unwrap();
    let running = node.until_running(&arn("t1")).await;
    assert_eq!(running.containers[0].known, ContainerStatus::Running);
    assert_eq!(node.handle.remove(&arn("t1")).await, Err(RemoveError::NotStopped(arn("t1"))));
    assert_eq!(node.handle.remove(&arn("ghost")).await, Err(RemoveError::NoSuchTask(arn("ghost"))));
    assert_eq!(node.containers.signals_of(&id_of(&arn("t1"), "web")), Vec::<Signal>::new());
    assert!(matches!(
        node.containers.state_of(&id_of(&arn("t1"), "web")),
        Some(RuntimeState::Running { .. })
    ));
}
