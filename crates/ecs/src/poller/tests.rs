//! The pure parts by tables and by chance.

use super::{
    definitions::Definitions,
    translate::{stop_code, translate},
    watcher::{Decision, MISSING_PAUSE, View, Watcher},
};
use crate::{
    config::EcsConfig,
    port::{Attachment, DescribedTask},
    tests::{arn, definition},
};
use berth_testkit::samples;
use berth_types::{
    Timestamp,
    cluster::ReportsSnapshot,
    ids::TaskArn,
    task::{EngineSnapshot, Origin, StopCode, TaskSnapshot, TaskSpec, TaskStatus},
};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

fn described(task: &TaskArn, desired: &str, last: &str) -> DescribedTask {
    DescribedTask {
        arn: task.clone(),
        cluster_arn: String::new(),
        definition_arn: "arn:aws:ecs:us-west-2:111122223333:task-definition/web:7".into(),
        desired_status: desired.into(),
        last_status: last.into(),
        group: None,
        launch_type: None,
        stopped_reason: None,
        stop_code: None,
        created_at: None,
        overrides: None,
        attachment: None,
        containers: Vec::new(),
    }
}

fn translated(described: &DescribedTask, json: &str) -> Result<TaskSpec, String> {
    let definition = Definitions::default().insert("d", json.as_bytes());
    translate(described, definition, "demo", &EcsConfig::new("demo").abilities, Timestamp::UNIX_EPOCH)
}

#[test]
fn the_revision_is_the_definitions_and_the_cluster_is_as_configured() {
    let spec = translated(&described(&arn("1"), "RUNNING", "PENDING"), &definition("web")).unwrap();
    assert_eq!(
        (spec.revision.as_str(), spec.cluster.as_str(), spec.launch_type.as_str()),
        ("7", "demo", "EC2")
    );
    assert_eq!(spec.service_name, None);
    assert_eq!(spec.origin, Origin::ControlPlane { attachment: None });
}

#[test]
fn only_an_attachment_that_waits_is_announced() {
    let mut task = described(&arn("1"), "RUNNING", "PENDING");
    let origin = |task: &DescribedTask| translated(task, &definition("web")).unwrap().origin;
    for (id, status, announced) in
        [("a-1", "PRECREATED", true), ("a-1", "ATTACHED", false), ("", "PRECREATED", false)]
    {
        task.attachment = Some(Attachment { id: id.into(), status: status.into(), details: Vec::new() });
        let expected = announced.then(|| "arn:aws:ecs:us-west-2:111122223333:attachment/a-1".to_owned());
        assert_eq!(origin(&task), Origin::ControlPlane { attachment: expected });
    }
}

#[test]
fn what_cannot_be_read_is_refused_by_its_name() {
    let ok = described(&arn("1"), "RUNNING", "PENDING");
    let with = |details: &str, value: &str| DescribedTask {
        attachment: Some(Attachment {
            id: "a".into(),
            status: "PRECREATED".into(),
            details: vec![(details.into(), value.into())],
        }),
        ..ok.clone()
    };
    let overridden = |json: &str| DescribedTask { overrides: Some(json.into()), ..ok.clone() };
    let good = definition("web");
    let table = [
        (with("subnetId", "nonsense"), good.as_str(), "subnetId"),
        (with("securityGroups", "sg-11111111,nonsense"), good.as_str(), "securityGroups"),
        (overridden("[]"), good.as_str(), "overrides"),
        (
            overridden(r#"{"containerOverrides":[{"name":"nobody"}]}"#),
            good.as_str(),
            "overrides.containerOverrides[0].name",
        ),
        (ok.clone(), "{", "taskDefinition"),
    ];
    for (task, json, field) in table {
        let reason = translated(&task, json).unwrap_err();
        assert!(
            reason.starts_with("UnrecognizedTaskError: Error loading task - ") && reason.contains(field),
            "{reason}"
        );
        assert!(reason.chars().count() <= 1024);
    }
}

#[test]
fn unknown_stop_codes_are_somebodys_wish() {
    assert_eq!(stop_code(Some("ServiceSchedulerInitiated")), StopCode::ServiceSchedulerInitiated);
    assert_eq!(stop_code(Some("Brandnew")), StopCode::UserInitiated);
    assert_eq!(stop_code(None), StopCode::UserInitiated);
}

fn running(task: &TaskArn) -> Arc<TaskSnapshot> {
    let spec = translated(&described(task, "RUNNING", "PENDING"), &definition("web")).unwrap();
    Arc::new(TaskSnapshot { known: TaskStatus::Running, containers: Vec::new(), ..samples::taken(spec) })
}

/// One step of a made-up history. What is listed and described is chosen freely: true, stale, or contradictory.
#[derive(Debug, Clone)]
struct Step {
    pause: u64,
    listed: BTreeSet<u8>,
    /// Tasks that are absent from the answer, and the words of those that are not.
    absent: BTreeSet<u8>,
    stopped: BTreeSet<u8>,
    /// The control plane does not answer the description.
    silent: bool,
    /// The engine does not take what it is given.
    busy: bool,
    /// Tasks that end in the engine, and tasks it forgets after their end.
    ends: BTreeSet<u8>,
    forgets: BTreeSet<u8>,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let set = || prop::collection::btree_set(0u8..6, 0..6);
    let step = (0u64..40, set(), set(), set(), any::<bool>(), any::<bool>(), set(), set()).prop_map(
        |(pause, listed, absent, stopped, silent, busy, ends, forgets)| Step {
            pause,
            listed,
            absent,
            stopped,
            silent,
            busy,
            ends,
            forgets,
        },
    );
    prop::collection::vec(step, 1..40)
}

#[derive(Default)]
struct Model {
    watcher: Watcher,
    engine: EngineSnapshot,
    reports: ReportsSnapshot,
    begun: BTreeSet<TaskArn>,
    /// When a task of the engine was first said to be missing since it was last seen.
    missing: BTreeMap<TaskArn, Duration>,
    now: Duration,
}

impl Model {
    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let name = |n: &u8| arn(&n.to_string());
        self.now += Duration::from_secs(step.pause);
        self.end(step);
        let listed: Vec<TaskArn> = step.listed.iter().map(name).collect();
        for task in &listed {
            self.missing.remove(task);
        }
        let view = View { engine: &self.engine, reports: &self.reports };
        let asked = self.watcher.listed(&listed, view, self.now);
        if step.silent {
            return Ok(());
        }
        let absent: BTreeSet<TaskArn> = step.absent.iter().map(name).collect();
        let stopped: BTreeSet<TaskArn> = step.stopped.iter().map(name).collect();
        let answer: Vec<DescribedTask> = asked
            .iter()
            .filter(|task| !absent.contains(task))
            .map(|task| {
                described(task, if stopped.contains(task) { "STOPPED" } else { "RUNNING" }, "PENDING")
            })
            .collect();
        let decisions = self.watcher.described(&asked, answer, view, self.now);
        for decision in decisions {
            self.check(&decision, &absent, &stopped)?;
            if !step.busy {
                self.take(decision);
            }
        }
        for task in &asked {
            if absent.contains(task) {
                self.missing.entry(task.clone()).or_insert(self.now);
            } else {
                self.missing.remove(task);
            }
        }
        Ok(())
    }

    fn check(
        &self,
        decision: &Decision,
        absent: &BTreeSet<TaskArn>,
        stopped: &BTreeSet<TaskArn>,
    ) -> Result<(), TestCaseError> {
        match decision {
            Decision::Run(task) => {
                prop_assert!(!self.begun.contains(&task.arn), "{} again", task.arn);
                prop_assert!(!stopped.contains(&task.arn));
            }
            Decision::NeverStarted(task) => {
                prop_assert!(stopped.contains(&task.arn) && !self.begun.contains(&task.arn));
            }
            Decision::Stop { task, .. } if stopped.contains(task) && !absent.contains(task) => {}
            Decision::Stop { task, .. } => {
                let since = self.missing.get(task);
                prop_assert!(absent.contains(task), "{task} is there and wanted");
                prop_assert!(
                    since.is_some_and(|since| *since + MISSING_PAUSE <= self.now),
                    "{task}: {since:?}"
                );
            }
        }
        Ok(())
    }

    fn take(&mut self, decision: Decision) {
        match decision {
            Decision::Run(task) => {
                self.watcher.settled(&task.arn);
                self.begun.insert(task.arn.clone());
                self.engine.tasks.insert(task.arn.clone(), running(&task.arn));
            }
            Decision::NeverStarted(task) => {
                self.watcher.settled(&task.arn);
                self.begun.insert(task.arn.clone());
            }
            Decision::Stop { task, .. } => self.ended(&task),
        }
    }

    fn ended(&mut self, task: &TaskArn) {
        if let Some(found) = self.engine.tasks.get_mut(task) {
            let found = Arc::make_mut(found);
            (found.desired, found.known) = (TaskStatus::Stopped, TaskStatus::Stopped);
            self.missing.remove(task);
        }
    }

    fn end(&mut self, step: &Step) {
        for n in &step.ends {
            self.ended(&arn(&n.to_string()));
        }
        for n in &step.forgets {
            let task = arn(&n.to_string());
            if self.engine.tasks.get(&task).is_some_and(|t| t.known == TaskStatus::Stopped) {
                self.engine.tasks.remove(&task);
            }
        }
    }
}

proptest! {
    #[test]
    fn no_history_runs_a_task_twice_or_stops_one_for_silence(steps in steps()) {
        let mut model = Model::default();
        for step in &steps {
            model.step(step)?;
        }
    }

    #[test]
    fn no_text_of_overrides_or_details_makes_the_translator_panic(text in "\\PC*", subnet in "\\PC*", groups in "\\PC*") {
        let mut task = described(&arn("1"), "RUNNING", "PENDING");
        task.overrides = Some(text.clone().into_bytes());
        task.attachment = Some(Attachment {
            id: text.clone(),
            status: text.clone(),
            details: vec![("subnetId".into(), subnet), ("securityGroups".into(), groups)],
        });
        drop(translated(&task, &text));
    }
}
