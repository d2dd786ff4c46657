//! The outbox at work: order, outages, deaths, refusals.

use super::fixtures::{
    ATTACHMENT, Desk, Mood, arn, assigned, exited, leased, pulled, running, stopped, task_news,
};
use crate::{
    outbox::{RefuseError, gate, world::MAX_SENDING},
    port::News,
};
use berth_testkit::crash::Side;
use berth_types::{
    ids::TaskArn,
    ports::{Record, Table},
    task::{Origin, StopCode, TaskSnapshot, TaskSpec},
};
use std::{sync::Arc, time::Duration};

const MINUTE: Duration = Duration::from_secs(60);

fn over(id: &str) -> TaskSnapshot {
    stopped(running(pulled(leased(assigned(id)))), Some(StopCode::EssentialContainerExited))
}

#[tokio::test(start_paused = true)]
async fn a_life_is_reported_in_order_and_its_record_goes_with_the_task() {
    let mut desk = Desk::start();
    let t = arn("t");
    for step in
        [leased as fn(TaskSnapshot) -> TaskSnapshot, |t| pulled(leased(t)), |t| running(pulled(leased(t)))]
    {
        desk.show(step(assigned("t")));
        desk.pass(Duration::from_secs(1)).await;
    }
    assert_eq!(desk.control.words(&t), ["ATTACHED", "PENDING", "RUNNING"]);
    assert_eq!(desk.control.taken(&t)[0].news, News::Attached { attachment: ATTACHMENT.to_owned() });
    desk.show(over("t"));
    desk.until_told(&t).await;
    assert_eq!(desk.control.words(&t), ["ATTACHED", "PENDING", "RUNNING", "STOPPED"]);
    desk.pass(MINUTE * 10).await;
    assert!(desk.reports.borrow().ended.contains(&t), "the engine has not forgotten it yet");
    desk.forget(&t);
    desk.pass(MINUTE / 2).await;
    assert_eq!(desk.records(), 1, "the engine's own record may still come back");
    desk.until("forgotten", |r| r.ended.is_empty()).await;
    desk.pass(Duration::from_secs(1)).await;
    assert_eq!((desk.records(), desk.control.words(&t).len()), (0, 4));
}

#[tokio::test(start_paused = true)]
async fn a_report_under_way_is_not_overtaken() {
    let mut desk = Desk::start();
    desk.show(leased(assigned("t")));
    desk.pass(Duration::from_secs(1)).await;
    desk.control.set_latency(Duration::from_secs(2));
    desk.show(pulled(leased(assigned("t"))));
    desk.pass(Duration::from_secs(1)).await;
    desk.show(over("t"));
    desk.until_told(&arn("t")).await;
    assert_eq!(desk.control.words(&arn("t")), ["ATTACHED", "PENDING", "RUNNING", "STOPPED"]);
}

#[tokio::test(start_paused = true)]
async fn that_the_journal_has_been_read_is_shown_even_if_it_holds_nothing() {
    let mut desk = Desk::start();
    desk.journal.set_broken(true);
    desk.pass(MINUTE).await;
    assert_eq!(desk.reports.borrow().version, 0);
    desk.journal.set_broken(false);
    desk.until("read", |r| r.version > 0).await;
}

#[tokio::test(start_paused = true)]
async fn tasks_of_operators_are_nobodys_business() {
    let desk = Desk::start();
    let mut task = over("t");
    task.spec = Arc::new(TaskSpec { origin: Origin::Operator, ..(*task.spec).clone() });
    desk.show(task);
    desk.pass(MINUTE).await;
    assert!(desk.control.calls().is_empty() && desk.reports.borrow().ended.is_empty());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_that_is_not_durable() {
    let mut desk = Desk::start();
    // The journal has been read by then.
    desk.pass(Duration::from_secs(1)).await;
    desk.journal.set_broken(true);
    desk.show(over("t"));
    desk.pass(MINUTE).await;
    assert!(desk.control.calls().is_empty() && desk.reports.borrow().ended.is_empty());
    desk.journal.set_broken(false);
    desk.until_told(&arn("t")).await;
    assert_eq!(desk.control.words(&arn("t")), ["ATTACHED", "RUNNING", "STOPPED"]);
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_minutes_is_probed_softly_and_everything_arrives_after_it() {
    let mut desk = Desk::start();
    desk.control.set(Mood::Out);
    let ids: Vec<String> = (0..500).map(|n| format!("t{n}")).collect();
    for id in &ids {
        desk.show(leased(assigned(id)));
    }
    desk.pass(MINUTE).await;
    for id in &ids {
        desk.show(over(id));
    }
    desk.until("all ends recorded", |r| r.ended.len() == 500 && r.waiting.len() == 500).await;
    desk.pass(MINUTE * 9).await;
    // One at a time, every five seconds in the end: as if there were one task.
    let knocks = desk.control.calls().len();
    assert!(knocks < MAX_SENDING + 160, "{knocks} calls in ten minutes of outage");
    assert!(desk.reports.borrow().waiting.iter().any(|w| w.problem.is_some() && w.attempts > 0));
    let end = tokio::time::Instant::now();
    desk.control.set(Mood::Well);
    desk.until("all told", |r| r.waiting.is_empty()).await;
    // 1500 reports at ten a second, and a probe that was due within seconds.
    assert!(end.elapsed() < MINUTE * 4, "{:?}", end.elapsed());
    for id in &ids {
        assert_eq!(desk.control.words(&arn(id)), ["ATTACHED", "RUNNING", "STOPPED"]);
    }
    assert!(desk.control.most() <= MAX_SENDING);
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_no_task_sits_out_a_back_off_of_its_own() {
    for (mood, others_hear, seconds) in
        [(Mood::Out, false, 10), (Mood::Throttling, true, 4), (Mood::Forbidding, true, 4)]
    {
        let mut desk = Desk::start();
        desk.control.set(mood);
        for n in 0..8 {
            desk.show(over(&format!("t{n}")));
        }
        // Long enough for each of them to have been the probe many times.
        desk.pass(MINUTE * 20).await;
        assert!(desk.reports.borrow().waiting.iter().all(|w| w.attempts > 0));
        desk.control.set(Mood::Well);
        if others_hear {
            desk.heard.notify_one();
        }
        let end = tokio::time::Instant::now();
        desk.until("all told", |r| r.waiting.is_empty()).await;
        assert!(end.elapsed() < Duration::from_secs(seconds), "{:?}", end.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn throttling_slows_all_tasks_down_together() {
    let mut desk = Desk::start();
    desk.control.set(Mood::Throttling);
    for n in 0..50 {
        desk.show(over(&format!("t{n}")));
    }
    desk.pass(MINUTE).await;
    assert!(desk.control.calls().len() < MAX_SENDING + 20);
    desk.control.set(Mood::Well);
    desk.until("all told", |r| r.waiting.is_empty() && r.ended.len() == 50).await;
}

#[tokio::test(start_paused = true)]
async fn missing_rights_are_shown_and_asked_about_once_a_minute() {
    let mut desk = Desk::start();
    desk.control.set(Mood::Forbidding);
    desk.show(over("t"));
    desk.show(over("u"));
    desk.pass(MINUTE * 10).await;
    let calls = desk.control.calls().len();
    assert!((5..=16).contains(&calls), "{calls} calls in ten minutes");
    assert!(
        desk.reports
            .borrow()
            .waiting
            .iter()
            .any(|w| w.problem.as_ref().is_some_and(|p| p.contains("not authorized")))
    );
    desk.control.set(Mood::Well);
    desk.until_told(&arn("t")).await;
    desk.until_told(&arn("u")).await;
}

#[tokio::test(start_paused = true)]
async fn a_report_that_the_control_plane_calls_invalid_does_not_hold_up_the_next() {
    let mut desk = Desk::start();
    desk.control.call_invalid(&arn("bad"));
    desk.show(over("bad"));
    desk.show(over("good"));
    desk.until_told(&arn("bad")).await;
    desk.until_told(&arn("good")).await;
    assert!(desk.control.taken(&arn("bad")).is_empty());
    assert_eq!(desk.control.words(&arn("good")), ["ATTACHED", "RUNNING", "STOPPED"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_is_not_sent_again_after_a_shutdown() {
    let mut desk = Desk::start();
    desk.control.set_latency(Duration::from_secs(2));
    desk.show(running(pulled(leased(assigned("t")))));
    desk.pass(Duration::from_secs(3)).await;
    desk.shut_down().await;
    desk.start_again();
    desk.show(over("t"));
    desk.until_told(&arn("t")).await;
    assert_eq!(desk.control.words(&arn("t")), ["ATTACHED", "RUNNING", "STOPPED"]);
}

#[tokio::test(start_paused = true)]
async fn a_death_at_any_call_loses_no_report() {
    for side in [Side::Before, Side::After] {
        for calls in 0..14 {
            let mut desk = Desk::start();
            desk.crash.crash_after(calls, side);
            desk.show(leased(assigned("t")));
            desk.pass(Duration::from_secs(1)).await;
            desk.show(over("t"));
            desk.pass(Duration::from_secs(5)).await;
            desk.kill().await;
            desk.start_again();
            desk.until_told(&arn("t")).await;
            let mut words = desk.control.words(&arn("t"));
            assert_eq!(words.last().map(String::as_str), Some("STOPPED"), "{calls} {side:?}");
            words.sort();
            words.dedup();
            assert_eq!(words, ["ATTACHED", "RUNNING", "STOPPED"], "{calls} {side:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_durable_when_it_is_answered_and_reported_once() {
    let mut desk = Desk::start();
    desk.control.set(Mood::Out);
    let reason = "UnrecognizedTaskError: pidMode is not supported".to_owned();
    let refuse = |handle: super::super::RefuseHandle, reason: String| async move {
        handle.refuse(arn("bad"), "demo", reason, vec!["app".to_owned()]).await
    };
    assert_eq!(refuse(desk.refuse.clone(), reason.clone()).await, Ok(()));
    assert!(desk.journal.is_durable(Table::Reports, arn("bad").as_str()));
    assert_eq!(refuse(desk.refuse.clone(), "again".to_owned()).await, Ok(()));
    desk.kill().await;
    desk.start_again();
    desk.until("loaded", |r| r.ended.contains(&arn("bad"))).await;
    assert_eq!(refuse(desk.refuse.clone(), "again".to_owned()).await, Ok(()));
    desk.control.set(Mood::Well);
    desk.until("told and forgotten", |r| r.waiting.is_empty() && r.ended.is_empty()).await;
    let taken = desk.control.taken(&arn("bad"));
    assert_eq!((taken.len(), task_news(&taken[0]).reason.as_str()), (1, reason.as_str()));
    assert_eq!(task_news(&taken[0]).containers[0].status, "STOPPED");
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_cannot_be_read_yet_refuses_nothing() {
    let mut desk = Desk::start();
    desk.journal.set_broken(true);
    let lost = desk.refuse.refuse(arn("u"), "demo", "no".to_owned(), Vec::new()).await;
    assert!(matches!(lost, Err(RefuseError::NotRecorded(_))), "{lost:?}");
    desk.show(over("t"));
    desk.pass(MINUTE).await;
    desk.journal.set_broken(false);
    desk.until_told(&arn("t")).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_the_engine_has_cannot_be_refused_and_a_broken_journal_refuses_nothing() {
    let desk = Desk::start();
    desk.show(leased(assigned("t")));
    desk.pass(Duration::from_secs(1)).await;
    let known = desk.refuse.refuse(arn("t"), "demo", "no".to_owned(), Vec::new()).await;
    assert_eq!(known, Err(RefuseError::Known(arn("t"))));
    desk.journal.set_broken(true);
    let lost = desk.refuse.refuse(arn("u"), "demo", "no".to_owned(), Vec::new()).await;
    assert!(matches!(lost, Err(RefuseError::NotRecorded(_))), "{lost:?}");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_the_engine_has_lost_gets_an_end() {
    let mut desk = Desk::start();
    desk.show(running(pulled(leased(assigned("t")))));
    desk.pass(Duration::from_secs(1)).await;
    desk.forget(&arn("t"));
    desk.until_told(&arn("t")).await;
    let taken = desk.control.taken(&arn("t"));
    assert!(task_news(taken.last().unwrap()).reason.contains("has lost this task"));
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_has_not_recovered_has_lost_nothing() {
    let mut desk = Desk::start();
    desk.show(running(pulled(leased(assigned("t")))));
    desk.pass(Duration::from_secs(1)).await;
    desk.kill().await;
    let shown = Arc::clone(&desk.engine.borrow());
    desk.engine.send_replace(Arc::default());
    desk.start_again();
    desk.pass(MINUTE * 5).await;
    desk.engine.send_replace(shown);
    desk.show(over("t"));
    desk.until_told(&arn("t")).await;
    let words = desk.control.words(&arn("t"));
    assert_eq!(words.iter().filter(|w| *w == "STOPPED").count(), 1, "{words:?}");
}

#[tokio::test(start_paused = true)]
async fn a_damaged_record_is_replaced_by_what_the_engine_shows() {
    let mut desk = Desk::start();
    desk.kill().await;
    for (id, version) in [("t", 1), ("u", 1), ("v", 9)] {
        desk.journal.put(Table::Reports, arn(id).as_str(), Record { version, body: b"{".to_vec() });
    }
    desk.start_again();
    desk.show(over("t"));
    desk.until_told(&arn("t")).await;
    assert_eq!(desk.control.words(&arn("t")), ["ATTACHED", "RUNNING", "STOPPED"]);
    let left: Vec<String> = desk.journal.records(Table::Reports).into_iter().map(|(key, _)| key).collect();
    assert_eq!(left, [arn("t").to_string(), arn("v").to_string()], "a newer agent's record is left alone");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_waits_says_for_what_after_ten_seconds_and_then_every_half_minute_at_most() {
    let desk = Desk::start();
    let wait = |what: &str| desk.show(TaskSnapshot { waiting: Some(what.to_owned()), ..assigned("t") });
    wait("a network interface");
    desk.pass(Duration::from_secs(9)).await;
    assert!(desk.control.calls().is_empty());
    desk.pass(Duration::from_secs(2)).await;
    assert_eq!(desk.control.words(&arn("t")), ["PENDING"]);
    wait("something else");
    desk.pass(Duration::from_secs(25)).await;
    wait("a third thing");
    desk.pass(Duration::from_secs(6)).await;
    let reasons: Vec<_> = desk
        .control
        .taken(&arn("t"))
        .iter()
        .map(|r| task_news(r).containers[0].reason.clone().unwrap_or_default())
        .collect();
    assert_eq!(reasons, ["Waiting for a network interface", "Waiting for a third thing"]);
    desk.pass(MINUTE * 10).await;
    assert_eq!(desk.control.calls().len(), 2, "nothing new is nothing to tell");
}

#[tokio::test(start_paused = true)]
async fn ends_of_containers_in_an_outage_are_told_together() {
    let mut desk = Desk::start();
    let mut task = running(pulled(leased(assigned("t"))));
    task.containers.push(task.containers[1].clone());
    task.containers[2].name = "third".to_owned();
    desk.show(task.clone());
    desk.pass(Duration::from_secs(1)).await;
    desk.control.set(Mood::Out);
    desk.show(exited(task.clone(), 1, 0));
    desk.pass(MINUTE).await;
    desk.show(exited(exited(task, 1, 0), 2, 4));
    desk.pass(MINUTE).await;
    desk.control.set(Mood::Well);
    desk.until("told", |r| r.waiting.is_empty()).await;
    let taken = desk.control.taken(&arn("t"));
    let last = task_news(taken.last().unwrap());
    assert_eq!((last.status.as_str(), last.containers.len(), taken.len()), ("RUNNING", 2, 3));
}

#[tokio::test(start_paused = true)]
async fn a_full_instance_is_told_within_a_minute() {
    let mut desk = Desk::start();
    desk.control.set_latency(Duration::from_millis(100));
    let begun = tokio::time::Instant::now();
    for n in 0..120 {
        desk.show(running(pulled(leased(assigned(&format!("t{n}"))))));
    }
    let running: Vec<TaskArn> = (0..120).map(|n| arn(&format!("t{n}"))).collect();
    desk.pass(Duration::from_millis(1)).await;
    desk.until("told", |r| r.waiting.is_empty()).await;
    assert!(begun.elapsed() < MINUTE, "{:?}", begun.elapsed());
    assert!(running.iter().all(|t| desk.control.words(t) == ["ATTACHED", "RUNNING"]));
    assert!(gate::backoff(1) >= Duration::from_secs(1));
}
