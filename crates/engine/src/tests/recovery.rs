//! Starting again over what a former life has left, with and without its journal.

use super::{
    fixtures::{after, arn, container, doing, side, task},
    harness::{Node, id_of},
};
use berth_types::{
    assignment::AssignmentError,
    ports::{Record, RuntimeState, Table},
    task::{ContainerStatus, DependsCondition, StopCode, TaskStatus},
};
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn running_tasks_are_adopted_with_their_slots_and_never_touched() {
    for wipe in [false, true] {
        let mut node = Node::start(2);
        node.run(task("t1", vec![container("web"), side(doing("init", "exit 0"))])).await.unwrap();
        let before = node.until_running(&arn("t1")).await;
        node.kill().await;
        if wipe {
            node.journal.wipe();
        }
        node.start_again();
        let after = node
            .until_task(&arn("t1"), "adopted", |t| t.last_status() == "RUNNING" && t.lease.is_some())
            .await;
        assert_eq!(after.lease, before.lease);
        assert_eq!(after.spec, before.spec, "endpoint ids and all");
        assert_eq!(after.containers[0].pid, before.containers[0].pid);
        assert_eq!(after.containers[0].image_id, before.containers[0].image_id);
        assert_eq!(after.containers[1].exit_code, Some(0));
        node.until("recovered", |s| s.recovered).await;
        assert!(node.leases.is_recovered());
        let calls = node.containers.calls();
        assert_eq!((calls.create, calls.start, calls.signal, calls.remove), (2, 2, 0, 0));
        assert!(node.containers.violations().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn what_happened_while_the_agent_was_down_is_seen() {
    let mut node = Node::start(3);
    for id in ["t1", "t2", "t3"] {
        node.run(task(id, vec![container("web")])).await.unwrap();
        node.until_running(&arn(id)).await;
    }
    node.shut_down().await;
    node.containers.exit(&id_of(&arn("t1"), "web"), 4);
    node.containers.vanish(&id_of(&arn("t2"), "web"));
    let slot = node.leases.held()[&arn("t3")].clone();
    node.leases.lose(&slot);
    node.start_again();
    assert_eq!(node.until_over(&arn("t1")).await.containers[0].exit_code, Some(4));
    let vanished = node.until_over(&arn("t2")).await;
    assert!(vanished.containers[0].reason.as_ref().unwrap().starts_with("ContainerVanishedError"));
    assert_eq!(vanished.containers[0].exit_code, None);
    let lost = node.until_over(&arn("t3")).await;
    assert!(lost.stopped_reason.as_ref().unwrap().contains("is gone: its ENI was detached from outside"));
    assert_eq!((lost.stop_code, lost.containers[0].exit_code), (None, Some(143)));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_the_runtime_cannot_speak_for_is_not_given_up() {
    for wipe in [false, true] {
        let mut node = Node::start(2);
        node.run(task("t1", vec![container("web")])).await.unwrap();
        let before = node.until_running(&arn("t1")).await;
        let id = id_of(&arn("t1"), "web");
        node.containers.set_silent(&id, true);
        node.kill().await;
        if wipe {
            node.journal.wipe();
        }
        node.start_again();
        node.until("recovered", |s| s.recovered).await;
        node.pass(Duration::from_secs(600)).await;
        assert_ne!(node.snapshot().tasks[&arn("t1")].known, TaskStatus::Stopped);
        node.containers.set_silent(&id, false);
        let after = node.until_running(&arn("t1")).await;
        assert_eq!(after.containers[0].pid, before.containers[0].pid);
        // Silent once more, and then its end is heard of by looking alone.
        node.containers.set_silent(&id, true);
        node.containers.set_deaf(true);
        node.containers.exit(&id, 3);
        node.pass(Duration::from_secs(600)).await;
        assert_eq!(node.snapshot().tasks[&arn("t1")].last_status(), "RUNNING");
        node.containers.set_silent(&id, false);
        assert_eq!(node.until_over(&arn("t1")).await.containers[0].exit_code, Some(3));
        let calls = node.containers.calls();
        assert_eq!((calls.create, calls.signal), (1, 0));
        assert!(node.containers.violations().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_reboot_ends_every_task_and_starts_none_again() {
    let mut node = Node::start(1);
    node.run(task("t1", vec![container("web")])).await.unwrap();
    node.until_running(&arn("t1")).await;
    node.shut_down().await;
    node.containers.reboot();
    node.start_again();
    let over = node.until_over(&arn("t1")).await;
    assert_eq!(over.stop_code, Some(StopCode::EssentialContainerExited));
    assert_eq!(node.containers.calls().start, 1);
}

#[tokio::test(start_paused = true)]
async fn containerd_may_come_up_after_the_agent() {
    let mut node = Node::start(2);
    node.run(task("t1", vec![container("web")])).await.unwrap();
    node.until_running(&arn("t1")).await;
    node.shut_down().await;
    node.containers.set_down(true);
    node.start_again();
    let known = node.until_task(&arn("t1"), "leased from the journal", |t| t.lease.is_some()).await;
    assert_eq!(known.last_status(), "RUNNING");
    node.run(task("t2", vec![container("web")])).await.unwrap();
    node.pass(Duration::from_secs(120)).await;
    assert!(!node.snapshot().recovered && !node.leases.is_recovered());
    node.containers.set_down(false);
    node.until_running(&arn("t2")).await;
    assert_eq!(node.snapshot().tasks[&arn("t1")].last_status(), "RUNNING");
}

#[tokio::test(start_paused = true)]
async fn a_stop_goes_on_where_it_was_and_its_grace_does_not_begin_anew() {
    let mut node = Node::start(1);
    node.run(task("t1", vec![doing("web", "stubborn")])).await.unwrap();
    node.until_running(&arn("t1")).await;
    let begun = tokio::time::Instant::now();
    node.stop(&arn("t1")).await.unwrap();
    node.pass(Duration::from_secs(20)).await;
    node.shut_down().await;
    node.start_again();
    node.until_task(&arn("t1"), "stopped", |t| t.known == TaskStatus::Stopped).await;
    assert_eq!(begun.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn stopped_tasks_are_remembered_and_cleaned_up_in_time() {
    let mut node = Node::start_with(1, |config| config.cleanup_wait = Duration::from_secs(1000));
    node.run(task("t1", vec![doing("web", "exit 6")])).await.unwrap();
    node.until_over(&arn("t1")).await;
    node.until_task(&arn("t1"), "given back", |t| t.lease.is_none()).await;
    node.pass(Duration::from_secs(600)).await;
    node.shut_down().await;
    node.start_again();
    let known = node.until_task(&arn("t1"), "known", |_| true).await;
    assert_eq!((known.known, known.containers[0].exit_code), (TaskStatus::Stopped, Some(6)));
    let begun = tokio::time::Instant::now();
    node.until("cleaned up", |s| s.recovered && s.tasks.is_empty()).await;
    assert!((390..=401).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn containers_without_a_readable_record_are_removed_unless_they_run() {
    let mut node = Node::start(2);
    node.run(task("t1", vec![container("web")])).await.unwrap();
    node.run(task(
        "t2",
        vec![after(container("app"), "db", DependsCondition::Complete), side(container("db"))],
    ))
    .await
    .unwrap();
    node.until_running(&arn("t1")).await;
    node.until_task(&arn("t2"), "db runs", |t| t.containers[1].known == ContainerStatus::Running).await;
    node.kill().await;
    node.journal.wipe();
    for id in node.containers.ids() {
        node.containers.spoil_record(&id);
    }
    node.start_again();
    node.until("recovered", |s| s.recovered).await;
    node.until_world("the one that never ran is removed", || node.containers.ids().len() == 2).await;
    node.pass(Duration::from_secs(600)).await;
    for (task, name) in [("t1", "web"), ("t2", "db")] {
        assert!(matches!(
            node.containers.state_of(&id_of(&arn(task), name)),
            Some(RuntimeState::Running { .. })
        ));
    }
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_journal_record_is_made_good_by_the_containers() {
    let mut node = Node::start(1);
    node.run(task("t1", vec![container("web")])).await.unwrap();
    let before = node.until_running(&arn("t1")).await;
    node.kill().await;
    node.journal.put(
        Table::Tasks,
        arn("t1").as_str(),
        Record { version: 99, body: b"from the future".to_vec() },
    );
    node.journal.put(Table::Tasks, "rubbish", Record { version: 1, body: b"{}".to_vec() });
    node.start_again();
    let after = node.until_running(&arn("t1")).await;
    assert_eq!(after.spec, before.spec);
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_cannot_be_read_is_waited_for() {
    let mut node = Node::start(1);
    node.run(task("t1", vec![container("web")])).await.unwrap();
    node.until_running(&arn("t1")).await;
    node.shut_down().await;
    node.journal.set_broken(true);
    node.start_again();
    let refused = node.run(task("t2", vec![container("web")])).await;
    assert!(matches!(refused, Err(AssignmentError::NotRecorded(why)) if why.contains("cannot be read")));
    node.pass(Duration::from_secs(60)).await;
    assert!(node.snapshot().tasks.is_empty() && !node.leases.is_recovered());
    node.journal.set_broken(false);
    node.until_running(&arn("t1")).await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_writes_down_what_it_knows() {
    let mut node = Node::start(1);
    node.run(task("t1", vec![container("web")])).await.unwrap();
    node.until_running(&arn("t1")).await;
    node.shut_down().await;
    node.journal.lose_facts();
    node.containers.vanish(&id_of(&arn("t1"), "web"));
    node.start_again();
    let over = node.until_over(&arn("t1")).await;
    assert!(over.containers[0].reason.as_ref().unwrap().starts_with("ContainerVanishedError"));
    assert_eq!(node.containers.calls().create, 1, "a container that ran is not made again");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_for_slots_and_fails_nobody() {
    let mut node = Node::start(0);
    node.run(task("t1", vec![container("web")])).await.unwrap();
    node.until_world("asked", || node.leases.waiting() == [arn("t1")]).await;
    let begun = tokio::time::Instant::now();
    node.shut_down().await;
    assert!(begun.elapsed() < Duration::from_secs(1));
    node.leases.add_slots(1);
    node.start_again();
    node.until_running(&arn("t1")).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_could_not_be_recorded_and_came_again_survives_a_restart() {
    let mut node = Node::start(2);
    node.run(task("t0", vec![container("web")])).await.unwrap();
    node.until_running(&arn("t0")).await;
    node.containers.set_down(true);
    node.journal.set_broken(true);
    assert!(node.run(task("t1", vec![container("web")])).await.is_err());
    node.journal.set_broken(false);
    node.run(task("t1", vec![container("web")])).await.unwrap();
    node.until_task(&arn("t1"), "leased", |t| t.lease.is_some()).await;
    node.pass(Duration::from_secs(1)).await;
    node.shut_down().await;
    node.start_again();
    node.containers.set_down(false);
    node.until("taken over", |s| s.recovered && s.tasks.len() == 2).await;
}
