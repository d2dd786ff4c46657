//! What is told of a task, and what is not.

use super::fixtures::{assigned, exited, leased, pulled, running, second, stopped, task_news, word};
use crate::{
    outbox::{
        news::{self, Told},
        queue::{Kind, MAX_QUEUE, Queue, Queued},
    },
    port::{News, Report},
};
use berth_types::task::{Origin, StopCode, TaskSnapshot, TaskSpec, TaskStatus};
use std::sync::Arc;

fn tell(told: &mut Told, task: &TaskSnapshot) -> Vec<Report> {
    let news = news::derive(told, task, false, second(20));
    news.into_iter().map(|q| q.report).collect()
}

fn words(reports: &[Report]) -> Vec<&str> {
    reports.iter().map(word).collect()
}

#[test]
fn an_ordinary_life_is_told_step_by_step_and_each_step_once() {
    let mut told = Told::default();
    let task = assigned("t");
    assert!(tell(&mut told, &task).is_empty());
    let task = leased(task);
    assert_eq!(words(&tell(&mut told, &task)), ["ATTACHED"]);
    let task = pulled(task);
    let news = tell(&mut told, &task);
    assert_eq!(words(&news), ["PENDING"]);
    let app = &task_news(&news[0]).containers[0];
    assert_eq!((app.status.as_str(), app.image_digest.as_deref()), ("PENDING", Some("sha256:of-app")));
    assert_eq!(app.runtime_id, None, "there is no container yet");
    let task = running(task);
    let news = tell(&mut told, &task);
    assert_eq!(words(&news), ["RUNNING"]);
    assert_eq!((news[0].at, task_news(&news[0]).pull_stopped_at), (second(5), Some(second(2))));
    assert!(task_news(&news[0]).containers[0].runtime_id.is_some());
    let task = exited(task, 1, 3);
    let news = tell(&mut told, &task);
    assert_eq!(words(&news), ["RUNNING"]);
    let side = &task_news(&news[0]).containers[..];
    assert_eq!((side.len(), side[0].name.as_str(), side[0].exit_code), (1, "side", Some(3)));
    let task = stopped(task, Some(StopCode::EssentialContainerExited));
    let news = tell(&mut told, &task);
    assert_eq!(words(&news), ["STOPPED"]);
    assert_eq!(
        (task_news(&news[0]).containers.len(), task_news(&news[0]).execution_stopped_at),
        (2, Some(second(9)))
    );
    assert!(tell(&mut told, &task).is_empty());
}

#[test]
fn a_life_of_which_only_the_end_is_seen_is_told_whole() {
    let end = exited(running(pulled(leased(assigned("t")))), 0, 1);
    let end = stopped(end, Some(StopCode::EssentialContainerExited));
    let news = tell(&mut Told::default(), &end);
    assert_eq!(words(&news), ["ATTACHED", "RUNNING", "STOPPED"]);
    let ran = task_news(&news[1]);
    assert!(ran.containers.iter().all(|c| c.status == "RUNNING" && c.exit_code.is_none()));
    assert_eq!(ran.execution_stopped_at, None);
}

#[test]
fn a_task_that_never_had_a_slot_is_neither_attached_nor_running() {
    let news = tell(&mut Told::default(), &stopped(assigned("t"), Some(StopCode::TaskFailedToStart)));
    assert_eq!(words(&news), ["STOPPED"]);
    assert_eq!(task_news(&news[0]).containers[0].exit_code, None);
}

#[test]
fn a_task_without_an_attachment_is_not_attached() {
    let mut task = leased(assigned("t"));
    let spec = TaskSpec { origin: Origin::ControlPlane { attachment: None }, ..(*task.spec).clone() };
    task.spec = Arc::new(spec);
    assert!(tell(&mut Told::default(), &task).is_empty());
}

#[test]
fn only_the_engines_own_reasons_are_told() {
    for (code, expected) in [
        (Some(StopCode::EssentialContainerExited), ""),
        (Some(StopCode::UserInitiated), ""),
        (Some(StopCode::ServiceSchedulerInitiated), ""),
        (Some(StopCode::OperatorInitiated), "Task stopped by operator: because of something"),
        (Some(StopCode::TaskFailedToStart), "because of something"),
        (None, "because of something"),
    ] {
        let news = tell(&mut Told::default(), &stopped(leased(assigned("t")), code));
        assert_eq!(task_news(&news[1]).reason, expected, "{code:?}");
    }
}

#[test]
fn reasons_are_cut_between_characters() {
    let mut task = stopped(leased(assigned("t")), Some(StopCode::TaskFailedToStart));
    task.stopped_reason = Some("\u{2019}".repeat(3000));
    task.containers[0].reason = Some(format!("a\u{0}b\nc{}", "x".repeat(3000)));
    let news = tell(&mut Told::default(), &task);
    let told = task_news(&news[1]);
    assert_eq!(told.reason.chars().count(), 1024);
    let reason = told.containers[0].reason.as_deref().unwrap();
    assert!(reason.starts_with("a\u{fffd}b\nc") && reason.chars().count() == 1024, "{reason}");
}

#[test]
fn an_end_before_the_start_was_told_comes_with_the_start() {
    let task = exited(running(pulled(leased(assigned("t")))), 1, 0);
    let mut told = Told::default();
    let news = tell(&mut told, &task);
    assert_eq!(words(&news), ["ATTACHED", "RUNNING"]);
    let side = &task_news(&news[1]).containers[1];
    assert_eq!((side.status.as_str(), side.exit_code), ("STOPPED", Some(0)));
    assert!(tell(&mut told, &task).is_empty());
}

#[test]
fn ends_of_containers_of_a_task_that_is_to_stop_come_with_its_own() {
    let mut told = Told::default();
    let task = running(pulled(leased(assigned("t"))));
    tell(&mut told, &task);
    let mut task = exited(task, 1, 0);
    task.desired = TaskStatus::Stopped;
    assert!(tell(&mut told, &task).is_empty());
}

#[test]
fn what_a_task_waits_for_is_told_when_it_is_time_and_when_it_is_new() {
    let mut told = Told::default();
    let mut task = assigned("t");
    task.waiting = Some("a network interface".to_owned());
    assert!(tell(&mut told, &task).is_empty());
    let wait = |told: &mut Told, task: &TaskSnapshot| news::derive(told, task, true, second(20)).len();
    let news = news::derive(&mut told, &task, true, second(20));
    assert_eq!(news.len(), 1);
    let reason = task_news(&news[0].report).containers[0].reason.as_deref();
    assert_eq!(reason, Some("Waiting for a network interface"));
    assert_eq!(wait(&mut told, &task), 0);
    for number in 0..40 {
        task.waiting = Some(format!("reason {number}"));
        wait(&mut told, &task);
    }
    assert_eq!(told.waits, 20, "a task that waits for something else each time");
    let mut stopping = task;
    stopping.desired = TaskStatus::Stopped;
    assert_eq!(told.new_wait(&stopping), None);
}

fn queued(kind: Kind, names: &[&str]) -> Queued {
    let task = exited(running(assigned("t")), 1, 0);
    let mut told = Told { attached: true, phase: news::Phase::Running, ..Told::default() };
    let mut report = news::derive(&mut told, &task, false, second(0)).remove(0).report;
    if let News::Task(news) = &mut report.news {
        let one = news.containers[0].clone();
        news.containers = names
            .iter()
            .map(|n| crate::port::ContainerNews { name: (*n).to_owned(), ..one.clone() })
            .collect();
    }
    Queued { kind, report, change: 1 }
}

fn kinds(queue: &Queue) -> Vec<Kind> {
    let mut queue = queue.clone();
    let mut kinds = Vec::new();
    while let Some(next) = queue.next() {
        kinds.push(next.kind);
        queue.pop();
    }
    kinds
}

#[test]
fn later_reports_overtake_those_that_they_repeat_but_never_one_under_way() {
    let mut queue = Queue::default();
    queue.push(queued(Kind::Pending, &[]), 0);
    queue.push(queued(Kind::Pending, &[]), 1);
    queue.push(queued(Kind::Pending, &[]), 1);
    assert_eq!(kinds(&queue), [Kind::Pending, Kind::Pending]);
    queue.push(queued(Kind::Running, &[]), 1);
    assert_eq!(kinds(&queue), [Kind::Pending, Kind::Running]);
    queue.push(queued(Kind::Containers, &["a"]), 1);
    queue.push(queued(Kind::Containers, &["b"]), 1);
    assert_eq!(kinds(&queue), [Kind::Pending, Kind::Running, Kind::Containers]);
    queue.pop();
    queue.pop();
    let batch = task_news(&queue.next().unwrap().report);
    assert_eq!(batch.containers.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    queue.push(queued(Kind::Containers, &["c"]), 1);
    assert_eq!(queue.len(), 2, "the first batch is under way");
    queue.push(queued(Kind::Stopped, &[]), 1);
    assert_eq!(kinds(&queue), [Kind::Containers, Kind::Stopped]);
}

#[test]
fn a_queue_that_is_full_gives_up_what_is_only_in_between() {
    let mut queue = Queue::default();
    queue.push(queued(Kind::Containers, &["a"]), 0);
    for _ in 0..MAX_QUEUE - 1 {
        queue.push(queued(Kind::Running, &[]), 0);
    }
    queue.push(queued(Kind::Stopped, &[]), 0);
    assert!(queue.len() <= MAX_QUEUE && !kinds(&queue).contains(&Kind::Containers));
    assert_eq!(kinds(&queue).last(), Some(&Kind::Stopped));
}
