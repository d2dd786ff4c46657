//! What a reader of the events can rely on: whatever was skipped between two looks, the events lead to where things stand.

use super::*;
use crate::samples::{arn, at, pull, slot, snapshot, spec};
use berth_types::cluster::{InstanceStatus, RefusedTask, WaitingReports};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn recovered() -> Look {
    Look {
        engine: Arc::new(EngineSnapshot { recovered: true, runtime_ok: true, ..Default::default() }),
        enis: Arc::new(EniSnapshot { recovered: true, ..Default::default() }),
        ..Default::default()
    }
}

/// What can become of a task.
#[derive(Debug, Clone, Copy)]
enum Step {
    Lease,
    Start,
    Stop,
    End,
    Forget,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![Just(Step::Lease), Just(Step::Start), Just(Step::Stop), Just(Step::End), Just(Step::Forget)]
}

/// One step of one task, as an engine would publish it; a step that makes no sense is none.
fn advance(look: &Look, number: usize, step: Step) -> Look {
    let mut engine = (*look.engine).clone();
    let Some(old) = engine.tasks.get(&arn(number)) else {
        engine.tasks.insert(arn(number), Arc::new(snapshot(spec(number))));
        return Look { engine: Arc::new(engine), ..look.clone() };
    };
    let mut task = (**old).clone();
    let all = |task: &mut TaskSnapshot, status: ContainerStatus| {
        for container in &mut task.containers {
            container.known = status;
            container.started_at = task.started_at;
        }
    };
    match step {
        Step::Lease if task.known < TaskStatus::Running => task.lease = Some(slot(number).facts),
        Step::Start if task.lease.is_some() && task.desired == TaskStatus::Running => {
            (task.known, task.started_at, task.waiting) = (TaskStatus::Running, Some(at(1)), None);
            all(&mut task, ContainerStatus::Running);
        }
        Step::Stop => task.desired = TaskStatus::Stopped,
        Step::End if task.desired == TaskStatus::Stopped => {
            (task.known, task.lease, task.waiting) = (TaskStatus::Stopped, None, None);
            all(&mut task, ContainerStatus::Stopped);
        }
        Step::Forget if task.known == TaskStatus::Stopped => {
            engine.tasks.remove(&arn(number));
            return Look { engine: Arc::new(engine), ..look.clone() };
        }
        Step::Lease | Step::Start | Step::End | Step::Forget => return look.clone(),
    }
    engine.tasks.insert(arn(number), Arc::new(task));
    Look { engine: Arc::new(engine), ..look.clone() }
}

/// What a reader makes of the events of tasks.
#[derive(Debug, Default, PartialEq)]
struct Reader {
    tasks: BTreeMap<TaskArn, String>,
    containers: BTreeMap<(TaskArn, String), String>,
    leases: BTreeMap<TaskArn, String>,
}

impl Reader {
    fn read(&mut self, news: News) -> Result<(), TestCaseError> {
        let Some(task) = news.task.clone() else { return Ok(()) };
        match (news.kind, news.status) {
            (EventKind::Task, Some(status)) => {
                let before = self.tasks.insert(task, status.clone());
                prop_assert_ne!(before, Some(status), "the same status twice");
            }
            (EventKind::Container, Some(status)) => {
                let before = self.containers.insert((task, news.container.unwrap()), status.clone());
                prop_assert_ne!(before, Some(status), "the same status twice");
            }
            (EventKind::Lease, None) => {
                prop_assert!(self.leases.insert(task, news.slot.unwrap().to_string()).is_none());
            }
            (EventKind::Release, None) => prop_assert!(self.leases.remove(&task).is_some()),
            (EventKind::TaskForgotten, None) => {
                self.tasks.remove(&task);
                self.leases.remove(&task);
                self.containers.retain(|(owner, _), _| *owner != task);
            }
            (EventKind::TaskWaiting, None) => {}
            other => prop_assert!(false, "{other:?}"),
        }
        Ok(())
    }

    fn of(look: &Look) -> Self {
        let mut reader = Self::default();
        for (arn, task) in &look.engine.tasks {
            reader.tasks.insert(arn.clone(), task.last_status().into());
            for container in task.containers.iter().filter(|c| c.known != ContainerStatus::None) {
                reader
                    .containers
                    .insert((arn.clone(), container.name.clone()), container.known.as_str().into());
            }
            if let Some(lease) = &task.lease {
                reader.leases.insert(arn.clone(), lease.slot.to_string());
            }
        }
        reader
    }
}

proptest! {
    #[test]
    fn the_events_lead_to_where_every_task_stands(
        steps in proptest::collection::vec((0..6_usize, step(), any::<bool>()), 0..80),
    ) {
        let (mut reader, mut now) = (Reader::default(), recovered());
        let mut seen = now.clone();
        let mut gone = BTreeSet::new();
        for (number, step, looked) in steps {
            // ARNs are never given twice: a task that was forgotten does not come back.
            if gone.contains(&number) {
                continue;
            }
            let known = now.engine.tasks.contains_key(&arn(number));
            now = advance(&now, number, step);
            if known && !now.engine.tasks.contains_key(&arn(number)) {
                gone.insert(number);
            }
            if looked {
                for news in diff(&seen, &now) {
                    reader.read(news)?;
                }
                seen = now.clone();
                prop_assert_eq!(&reader, &Reader::of(&now));
            }
        }
    }
}

fn texts(before: &Look, after: &Look) -> Vec<(EventKind, String)> {
    diff(before, after).into_iter().map(|news| (news.kind, news.text)).collect()
}

#[test]
fn a_task_that_came_and_went_between_two_looks_has_run() {
    let before = advance(&recovered(), 1, Step::Lease);
    let mut after = before.clone();
    for step in [Step::Lease, Step::Start, Step::Stop, Step::End] {
        after = advance(&after, 1, step);
    }
    let statuses: Vec<String> = diff(&before, &after)
        .into_iter()
        .filter(|news| news.kind == EventKind::Task)
        .filter_map(|news| news.status)
        .collect();
    assert_eq!(statuses, ["RUNNING", "STOPPED"]);
}

#[test]
fn what_was_found_at_the_start_is_one_event() {
    let mut before = recovered();
    before.engine = Arc::default();
    let after = advance(&advance(&recovered(), 1, Step::Lease), 2, Step::Lease);
    assert_eq!(texts(&before, &after), [(EventKind::Recovered, "2 tasks taken over".to_owned())]);
}

#[test]
fn a_task_that_waits_says_for_what_when_that_changes() {
    let before = advance(&recovered(), 1, Step::Lease);
    let full = |reason: &str| {
        let mut enis = (*before.enis).clone();
        let waiting = berth_types::eni::WaitingLease { task: arn(1), since: at(0), reason: reason.into() };
        enis.pool.waiting = vec![waiting];
        Look { enis: Arc::new(enis), ..before.clone() }
    };
    let (one, other) = (full("all ENIs are in use"), full("EC2 is throttling"));
    assert_eq!(
        texts(&before, &one),
        [(EventKind::TaskWaiting, "waits for a slot: all ENIs are in use".to_owned())]
    );
    assert_eq!(texts(&one, &full("all ENIs are in use")), []);
    assert_eq!(texts(&one, &other).len(), 1);
}

#[test]
fn slots_that_come_and_are_lost_are_told() {
    let with = |slot: SlotView| {
        let enis = EniSnapshot { recovered: true, slots: vec![slot], ..Default::default() };
        Look { enis: Arc::new(enis), ..recovered() }
    };
    let ready = texts(&recovered(), &with(slot(1)));
    let text = "slot 89abcdef-00000001 with eni-00000000000000001 is ready, built in 85 ms";
    assert_eq!(ready, [(EventKind::SlotReady, text.to_owned())]);
    let lost = with(SlotView { lost: Some("detached".into()), task: Some(arn(1)), ..slot(1) });
    let news = diff(&with(slot(1)), &lost);
    assert_eq!((news[0].kind, &news[0].task), (EventKind::SlotLost, &Some(arn(1))));
}

#[test]
fn a_pull_is_told_at_its_milestones_and_at_its_end() {
    let with = |active: Vec<PullView>, ended: Vec<PullEnd>| Look {
        pulls: Arc::new(PullsSnapshot { version: 0, active, ended }),
        ..recovered()
    };
    let first = pull("docker.io/library/web:1");
    let little = PullView { bytes_done: first.bytes_done + 1000, ..first.clone() };
    let more = PullView { bytes_done: first.bytes / 2, ..first.clone() };
    let look = |pull: &PullView| with(vec![pull.clone()], vec![]);
    assert_eq!(
        texts(&recovered(), &look(&first)),
        [(EventKind::Pull, "downloading 3/5 blobs, 12.3 of 40.1 MiB".to_owned())]
    );
    assert_eq!(texts(&look(&first), &look(&little)), []);
    assert_eq!(texts(&look(&first), &look(&more)).len(), 1);
    let end = PullEnd {
        reference: first.reference.clone(),
        started_at: at(0),
        finished_at: at(3),
        bytes: 7,
        digest: None,
        problem: Some("manifest unknown".into()),
    };
    let news = diff(&look(&more), &with(vec![], vec![end.clone()]));
    assert_eq!(
        (news[0].status.as_deref(), news[0].text.as_str()),
        (Some("FAILED"), "failed: manifest unknown")
    );
    assert_eq!(texts(&with(vec![], vec![end.clone()]), &with(vec![], vec![end])), []);
}

#[test]
fn the_control_plane_is_told_once_for_each_change() {
    let with = |change: fn(&mut ClusterSnapshot)| {
        let mut cluster = ClusterSnapshot { cluster: "demo".into(), ..Default::default() };
        change(&mut cluster);
        Look { cluster: Arc::new(cluster), ..recovered() }
    };
    let out = with(|c| c.problem = Some("no answer".into()));
    let active = with(|c| {
        (c.status, c.container_instance_arn) = (InstanceStatus::Active, Some("arn:i".into()));
    });
    assert_eq!(texts(&with(|_| {}), &out), [(EventKind::ControlPlane, "no answer".to_owned())]);
    assert_eq!(
        texts(&out, &active),
        [
            (EventKind::Instance, "arn:i is ACTIVE in cluster demo".to_owned()),
            (EventKind::ControlPlane, "the control plane answers".to_owned())
        ]
    );
    let refused = with(|c| c.refused.push(RefusedTask { task: arn(1), reason: "gpu".into() }));
    assert_eq!(texts(&with(|_| {}), &refused), [(EventKind::TaskRefused, "refused: gpu".to_owned())]);
}

#[test]
fn a_report_that_cannot_be_delivered_is_told_once() {
    let with = |problem: Option<&str>, attempts: u32| {
        let problem = problem.map(str::to_owned);
        let waiting = WaitingReports { task: arn(1), reports: 1, since: at(0), attempts, problem };
        let reports = ReportsSnapshot { waiting: vec![waiting], ..Default::default() };
        Look { reports: Arc::new(reports), ..recovered() }
    };
    assert_eq!(texts(&recovered(), &with(None, 0)), []);
    assert_eq!(texts(&with(None, 0), &with(Some("no answer"), 1)).len(), 1);
    assert_eq!(texts(&with(Some("no answer"), 1), &with(Some("throttled"), 2)), []);
}
