//! Random lives of tasks, of which the outbox sees random parts, under a control plane of random moods and deaths of the agent at
//! random calls: in the end everything has been told, in order, and whole.

use super::fixtures::{Desk, Mood, arn, assigned, exited, leased, pulled, running, stopped, word};
use crate::{
    outbox::{
        news::{self, Phase, Told},
        queue::Queue,
        record::TaskReports,
    },
    port::Report,
};
use berth_testkit::crash::Side;
use berth_types::{
    Timestamp,
    ports::{Record, Write},
    task::{StopCode, TaskSnapshot, TaskStatus},
};
use proptest::prelude::*;
use std::time::Duration;

const TASKS: usize = 3;

/// How far a task gets before it ends.
#[derive(Debug, Clone, Copy)]
enum Reach {
    Slotless,
    Unpulled,
    Unstarted,
    Ran { side_ends: bool },
}

/// All that the engine would show of a task, in order.
fn life(id: &str, reach: Reach) -> Vec<TaskSnapshot> {
    let waiting = TaskSnapshot { waiting: Some("a network interface".to_owned()), ..assigned(id) };
    let mut shown = vec![assigned(id), waiting];
    let code = match reach {
        Reach::Ran { .. } => StopCode::EssentialContainerExited,
        Reach::Slotless | Reach::Unpulled | Reach::Unstarted => StopCode::TaskFailedToStart,
    };
    if !matches!(reach, Reach::Slotless) {
        shown.push(leased(assigned(id)));
    }
    if matches!(reach, Reach::Unstarted | Reach::Ran { .. }) {
        shown.push(pulled(leased(assigned(id))));
    }
    if let Reach::Ran { side_ends } = reach {
        let runs = running(pulled(leased(assigned(id))));
        shown.push(runs.clone());
        if side_ends {
            shown.push(exited(runs, 1, 0));
        }
    }
    let last = shown.last().cloned().unwrap_or_else(|| assigned(id));
    shown.push(TaskSnapshot { desired: TaskStatus::Stopped, stop_code: Some(code), ..last.clone() });
    shown.push(stopped(last, Some(code)));
    shown
}

#[derive(Debug, Clone)]
enum Step {
    /// The engine shows a later state of the task, having skipped so many.
    Advance(usize, usize),
    Mood(Mood),
    Journal(bool),
    /// How long the control plane takes for an answer.
    Latency(u64),
    Pass(u64),
    Death {
        calls: u64,
        after: bool,
    },
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let moods = [Mood::Well, Mood::Out, Mood::Throttling, Mood::Losing, Mood::Forbidding];
    let step = prop_oneof![
        8 => (0..TASKS, 0..4usize).prop_map(|(task, skip)| Step::Advance(task, skip)),
        4 => prop::sample::select(moods.to_vec()).prop_map(Step::Mood),
        1 => any::<bool>().prop_map(Step::Journal),
        2 => (1..5000u64).prop_map(Step::Latency),
        3 => (0..2_000u64).prop_map(Step::Pass),
        3 => (0..30_000u64).prop_map(Step::Pass),
        2 => (0..12u64, any::<bool>()).prop_map(|(calls, after)| Step::Death { calls, after }),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..40)
}

fn reaches() -> impl Strategy<Value = Vec<Reach>> {
    let reach = prop_oneof![
        1 => Just(Reach::Slotless),
        1 => Just(Reach::Unpulled),
        1 => Just(Reach::Unstarted),
        4 => any::<bool>().prop_map(|side_ends| Reach::Ran { side_ends }),
    ];
    prop::collection::vec(reach, TASKS)
}

async fn play(steps: Vec<Step>, reaches: &[Reach]) {
    let mut desk = Desk::start();
    let lives: Vec<_> = reaches.iter().enumerate().map(|(n, r)| life(&format!("t{n}"), *r)).collect();
    let mut places = [0; TASKS];
    let mut repeats = false;
    for step in steps {
        match step {
            Step::Advance(task, skip) => {
                places[task] = (places[task] + skip).min(lives[task].len() - 1);
                desk.show(lives[task][places[task]].clone());
            }
            Step::Mood(mood) => {
                repeats |= mood == Mood::Losing;
                desk.control.set(mood);
            }
            Step::Journal(broken) => desk.journal.set_broken(broken),
            Step::Latency(millis) => desk.control.set_latency(Duration::from_millis(millis)),
            Step::Pass(millis) => desk.pass(Duration::from_millis(millis)).await,
            Step::Death { calls, after } => {
                repeats = true;
                desk.crash.crash_after(calls, if after { Side::After } else { Side::Before });
                desk.pass(Duration::from_secs(3)).await;
                desk.kill().await;
                desk.start_again();
            }
            Step::Restart => {
                // With a journal that takes nothing, or a control plane that takes for ever, this is a death.
                repeats = true;
                desk.shut_down().await;
                desk.start_again();
            }
        }
    }
    desk.control.set(Mood::Well);
    desk.journal.set_broken(false);
    for (task, life) in lives.iter().enumerate() {
        places[task] = life.len() - 1;
        desk.show(life[places[task]].clone());
    }
    for task in 0..TASKS {
        desk.until_told(&arn(&format!("t{task}"))).await;
    }
    for (task, reach) in reaches.iter().enumerate() {
        check(&desk.control.taken(&arn(&format!("t{task}"))), *reach, repeats);
        desk.forget(&arn(&format!("t{task}")));
    }
    desk.until("forgotten", |r| r.ended.is_empty()).await;
    desk.pass(Duration::from_secs(120)).await;
    assert_eq!(desk.records(), 0);
    desk.shut_down().await;
}

fn check(taken: &[Report], reach: Reach, repeats: bool) {
    let rank = |report: &Report| match word(report) {
        "ATTACHED" => 1,
        "PENDING" => 2,
        "RUNNING" => 3,
        _ => 4,
    };
    let words: Vec<&str> = taken.iter().map(word).collect();
    let mut furthest = 0;
    for (place, report) in taken.iter().enumerate() {
        let again = taken[..place].contains(report);
        assert!(repeats || !again, "told twice without a reason: {words:?}");
        assert!(!again || taken[place - 1] == *report, "told again after something newer: {words:?}");
        // What a task waits for may be told before its ENI is there.
        if !again && word(report) != "ATTACHED" {
            assert!(rank(report) >= furthest, "{words:?}");
            furthest = rank(report);
        }
    }
    assert_eq!(words.last(), Some(&"STOPPED"), "{words:?}");
    let ends: Vec<_> = taken.iter().filter(|r| word(r) == "STOPPED").collect();
    assert!(ends.iter().all(|end| *end == ends[0]), "{ends:?}");
    let first = |wanted: &str| words.iter().position(|w| *w == wanted);
    assert_eq!(first("ATTACHED").is_some(), !matches!(reach, Reach::Slotless), "{words:?}");
    assert_eq!(first("RUNNING").is_some(), matches!(reach, Reach::Ran { .. }), "{words:?}");
    assert!(first("RUNNING").is_none_or(|runs| first("ATTACHED") < Some(runs)), "{words:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn every_life_is_told_in_order_and_whole(steps in steps(), reaches in reaches()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(play(steps, &reaches));
    }
}

proptest! {
    /// A record is read back as it was written, and anything else is an error.
    #[test]
    fn no_bytes_make_the_reader_of_records_panic(version in 0..3u16, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        drop(TaskReports::read(arn("t").as_str(), &Record { version, body: bytes }));
        let stranger = TaskReports::read("not an arn", &Record { version: 1, body: Vec::new() });
        prop_assert!(stranger.is_err());
    }
}

#[test]
fn a_record_is_of_the_task_that_it_is_found_under() {
    let told = Told { phase: Phase::Pending, ..Told::default() };
    let mut reports = TaskReports { cluster: "demo".to_owned(), told, queue: Queue::default() };
    for queued in news::derive(&mut reports.told, &stopped(assigned("t"), None), false, Timestamp::UNIX_EPOCH)
    {
        reports.queue.push(queued, 0);
    }
    let Write::Put { key, record, .. } = reports.write(&arn("t")).unwrap() else { panic!("a record is put") };
    assert_eq!(TaskReports::read(&key, &record).unwrap(), (arn("t"), reports));
    assert!(TaskReports::read(arn("u").as_str(), &record).is_err());
}
