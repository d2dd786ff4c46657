//! A cluster in trouble: agents are killed at any moment, ECS throttles, loses replies and goes away, EC2 fails, while tasks are run,
//! stopped and end by themselves. What ECS has been told is held against what happened. Seeded: `CRASH_SEED` and `CRASH_ROUNDS` repeat
//! or lengthen a run.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use common::{Dice, OneLab, busybox, cluster_lab, namespaces, setting};
use e2e::{
    boto::Boto,
    ecs::container_instance,
    lab::PATIENCE,
    process::{eventually, program, run},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs, path::PathBuf, process::Command, thread::sleep, time::Duration};

/// Tasks that are wanted at a time: what the two instances hold beside their primary ENIs, less one.
const PLACES: usize = 5;
/// What every container does: notes outside that it starts, works for a while, ends with a code.
const WORK: &str = "echo started >> /notes/$NUMBER; sleep $SECONDS_TO_WORK; exit $CODE";
/// Seconds of a task that is to go on.
const FOR_LONG: u64 = 1000;

/// A task that ECS has accepted.
#[derive(Debug, Clone)]
struct Known {
    number: u32,
    /// What it ends with by itself; `None`: it goes on.
    code: Option<u64>,
    /// It was asked to stop.
    stopped: bool,
}

impl Known {
    fn is_wanted(&self) -> bool {
        self.code.is_none() && !self.stopped
    }
}

struct Torture {
    lab: OneLab,
    boto: Boto,
    dice: Dice,
    tasks: BTreeMap<String, Known>,
    numbers: u32,
    notes: PathBuf,
    network: Value,
}

impl Torture {
    fn new(name: &str, seed: u64) -> Self {
        eprintln!("CRASH_SEED={seed}");
        let lab = cluster_lab(
            name,
            "BERTH_WARM_SLOTS=2\nBERTH_WARM_MAX=2\nBERTH_LINK_TIMEOUT=3s\nBERTH_AUDIT_INTERVAL=2s\nBERTH_POLL_MAX_INTERVAL=3s\n",
        );
        lab.agents.iter().for_each(|agent| drop(container_instance(agent).unwrap()));
        let notes = lab.settings.dir.join("notes");
        fs::create_dir_all(&notes).unwrap();
        let mut boto = lab.boto().unwrap();
        let mut definition = lab.in_registry(busybox("work", WORK)).unwrap();
        definition["volumes"] = json!([{"name": "notes", "host": {"sourcePath": notes}}]);
        definition["containerDefinitions"][0]["mountPoints"] =
            json!([{"sourceVolume": "notes", "containerPath": "/notes"}]);
        boto.call("ecs", "register_task_definition", &definition).unwrap();
        let subnets = boto.call("ec2", "describe_subnets", &json!({})).unwrap();
        let subnet =
            subnets["Subnets"].as_array().unwrap().iter().find(|s| s["AvailabilityZone"] == "us-west-2a");
        let network = json!({"awsvpcConfiguration": {"subnets": [subnet.unwrap()["SubnetId"]]}});
        Self { lab, boto, dice: Dice(seed), tasks: BTreeMap::new(), numbers: 0, notes, network }
    }

    /// How often the task's container was started.
    fn starts(&self, task: &Known) -> usize {
        let notes = self.notes.join(task.number.to_string());
        fs::read_to_string(notes).unwrap_or_default().lines().count()
    }

    fn launch(&mut self) {
        if self.tasks.values().filter(|t| t.is_wanted()).count() >= PLACES {
            return;
        }
        self.numbers += 1;
        let number = self.numbers;
        let code = (self.dice.roll(2) == 0).then(|| self.dice.roll(9));
        let seconds = code.map_or(FOR_LONG, |_| self.dice.roll(4));
        let environment = json!([
            {"name": "NUMBER", "value": number.to_string()},
            {"name": "SECONDS_TO_WORK", "value": seconds.to_string()},
            {"name": "CODE", "value": code.unwrap_or(0).to_string()},
        ]);
        let request = json!({
            "cluster": "demo", "taskDefinition": "work", "networkConfiguration": self.network,
            "overrides": {"containerOverrides": [{"name": "main", "environment": environment}]},
        });
        let answer = self.boto.call("ecs", "run_task", &request).unwrap();
        match answer["tasks"][0]["taskArn"].as_str() {
            Some(arn) => {
                eprintln!("  run {number} for {seconds} s, code {code:?}: {arn}");
                self.tasks.insert(arn.to_owned(), Known { number, code, stopped: false });
            }
            // Those that were stopped still have their ENIs, or an agent was away for too long.
            None => eprintln!("  not run: {}", answer["failures"]),
        }
    }

    fn stop_one(&mut self) {
        let wanted: Vec<String> =
            self.tasks.iter().filter(|(_, t)| !t.stopped).map(|(arn, _)| arn.clone()).collect();
        if wanted.is_empty() {
            return;
        }
        let arn = self.dice.one_of(&wanted).clone();
        self.stop(&arn);
    }

    fn stop(&mut self, arn: &str) {
        let request = json!({"cluster": "demo", "task": arn, "reason": "enough"});
        self.boto.call("ecs", "stop_task", &request).unwrap();
        let task = self.tasks.get_mut(arn).unwrap();
        task.stopped = true;
        eprintln!("  stop {}", task.number);
    }

    fn misbehave(&mut self) {
        let faults: [&[&str]; 11] = [
            &["reset"],
            &["ecs.throttle=6"],
            &["lose-reply=SubmitTaskStateChange:2"],
            &["lose-reply=SubmitTaskStateChange:1", "lose-reply=AttachNetworkInterface:1"],
            &["lose-reply=RunTask:1", "lose-reply=RegisterContainerInstance:1"],
            &["fail=SubmitTaskStateChange:ServerException:4"],
            &["fail-after=SubmitTaskStateChange:ServerException:3"],
            &["fail=DescribeTasks:ServerException:2", "fail=DescribeTaskDefinition:ThrottlingException:2"],
            &["fail=ListTasks:ServerException:3", "throttle=4"],
            &["fail-after=*:InternalError:2"],
            &["ecs.call-ms=400", "lose-reply=*:2"],
        ];
        let fault = *self.dice.one_of(&faults);
        eprintln!("  faults: {fault:?}");
        self.lab.knob(&[&["reset", "ecs.call-ms=0"], fault].concat()).unwrap();
    }

    /// Kills an agent at a moment that is rolled, starts it again, sometimes with ECS away meanwhile.
    fn crash(&mut self) {
        let which = usize::try_from(self.dice.roll(2)).unwrap();
        let (before, after) = (self.dice.roll(1200), self.dice.roll(1500));
        let (gently, outage) = (self.dice.roll(4) == 0, self.dice.roll(3) == 0);
        eprintln!(
            "  after {before} ms: {} for agent {which}; outage: {outage}, then {after} ms",
            if gently { "SIGTERM" } else { "SIGKILL" }
        );
        if outage {
            self.lab.knob(&["ecs.outage=on"]).unwrap();
        }
        // Not waited for: the moment of the kill is what is rolled, and so is how long the outage goes on.
        sleep(Duration::from_millis(before));
        let agent = &mut self.lab.agents[which];
        if gently { agent.stop() } else { agent.kill() }.unwrap();
        agent.start().unwrap();
        if outage {
            sleep(Duration::from_millis(after));
            self.lab.knob(&["ecs.outage=off"]).unwrap();
        }
    }

    /// Tasks as ECS describes them.
    fn described(&mut self) -> BTreeMap<String, Value> {
        let arns: Vec<&String> = self.tasks.keys().collect();
        let mut all = BTreeMap::new();
        for some in arns.chunks(100) {
            let request = json!({"cluster": "demo", "tasks": some});
            let answer = self.boto.call("ecs", "describe_tasks", &request).unwrap();
            assert_eq!(answer["failures"], json!([]));
            let tasks = answer["tasks"].as_array().unwrap().iter();
            all.extend(tasks.map(|t| (t["taskArn"].as_str().unwrap().to_owned(), t.clone())));
        }
        all
    }

    /// Waits until ECS shows every task as it should be, and holds that against what happened.
    fn settle(&mut self) {
        self.lab.knob(&["reset", "ecs.call-ms=0"]).unwrap();
        let seen = eventually("all tasks to be as they should", PATIENCE, || {
            let seen = self.described();
            for (arn, task) in &self.tasks {
                let status = seen[arn]["lastStatus"].as_str().unwrap();
                assert!(!task.is_wanted() || status != "STOPPED", "{task:?} ended: {}", seen[arn]);
                let right = if task.is_wanted() { "RUNNING" } else { "STOPPED" };
                anyhow::ensure!(status == right, "{task:?} is {status}: {}", seen[arn]);
                // What a container does first comes a moment after its start.
                anyhow::ensure!(!task.is_wanted() || self.starts(task) > 0, "{task:?} does not work yet");
            }
            Ok(Some(seen))
        });
        let seen = seen.unwrap();
        for (arn, task) in &self.tasks {
            self.check(task, &seen[arn]);
            if task.is_wanted() {
                // The one that has it may have been started a moment ago.
                let what = format!("{task:?} to run on one agent");
                eventually(&what, PATIENCE, || {
                    let holders = self.lab.agents.iter().filter_map(|a| a.json(&["inspect", arn]).ok());
                    let holders: Vec<Value> = holders.collect();
                    assert!(holders.len() <= 1, "{task:?}: {holders:?}");
                    Ok(holders.iter().any(|h| h["lastStatus"] == "RUNNING").then_some(()))
                })
                .unwrap();
            }
        }
        self.check_histories();
    }

    /// What ECS shows of a task that is where it should be.
    fn check(&self, task: &Known, seen: &Value) {
        let starts = self.starts(task);
        assert!(starts <= 1, "{task:?} was started {starts} times");
        let exit = &seen["containers"][0]["exitCode"];
        if task.is_wanted() {
            assert_eq!((starts, exit), (1, &Value::Null), "{task:?}: {seen}");
            return;
        }
        // One that was stopped may have been stopped before, while or after it worked.
        match task.code {
            Some(code) if !task.stopped => assert_eq!((starts, exit), (1, &json!(code)), "{task:?}: {seen}"),
            code => {
                let own = code.is_some_and(|code| exit == &json!(code));
                let stopped = [json!(137), json!(143)].contains(exit);
                assert!(own || stopped || starts == 0, "{task:?} started {starts} times: {seen}");
            }
        }
        assert!(starts == 0 || seen["startedAt"].is_number(), "{task:?} ran: {seen}");
    }

    /// The reports that ECS took of each task.
    fn check_histories(&self) {
        let name = &self.lab.settings.name;
        let status = run(Command::new(program("vpcbox").unwrap()).args(["status", "--json", "--name", name]));
        let status: Value = serde_json::from_str(&status.unwrap()).unwrap();
        let tasks = status["ecs"]["tasks"].as_array().expect("the box's status has tasks of ECS");
        for (arn, task) in &self.tasks {
            let shown = tasks.iter().find(|t| t["arn"] == arn.as_str());
            let shown = shown.unwrap_or_else(|| panic!("{arn} is not in {status}"));
            let reports = shown["reports"].as_array().expect("a task's reports");
            let steps: Vec<Step> = reports.iter().map(Step::of).collect();
            assert!(
                steps.is_sorted_by_key(|s| s.rank()),
                "reports of {task:?} are out of order: {reports:#?}"
            );
            let has = |step| steps.contains(&step);
            let ran = self.starts(task) == 1;
            assert!(!ran || has(Step::Attached) && has(Step::Running), "{task:?} ran: {reports:#?}");
            // ECS ends a task that no agent has taken by itself.
            let ended = usize::from(!task.is_wanted() && !steps.is_empty());
            let ends = steps.iter().filter(|s| **s == Step::Stopped).count();
            assert_eq!(ends, ended, "{task:?}: {reports:#?}");
        }
    }

    /// Stops everything; nothing may be left.
    fn end(mut self) {
        let wanted: Vec<String> =
            self.tasks.iter().filter(|(_, t)| t.is_wanted()).map(|(arn, _)| arn.clone()).collect();
        for arn in wanted {
            self.stop(&arn);
        }
        self.settle();
        for agent in &mut self.lab.agents {
            agent.drain().unwrap();
        }
        for agent in &self.lab.agents {
            assert_eq!(agent.enis_in_ec2().unwrap(), Vec::<Value>::new());
            assert_eq!(namespaces(agent), Vec::<String>::new());
            let status = agent.json(&["status"]).unwrap();
            assert_eq!(status["cluster"]["reports"], json!([]), "{status}");
        }
        self.lab.stop().unwrap();
    }

    fn run(mut self, rounds: u64) {
        for round in 0..rounds {
            eprintln!("round {round}");
            self.misbehave();
            for _ in 0..2 + self.dice.roll(3) {
                if self.dice.roll(4) == 0 { self.stop_one() } else { self.launch() }
            }
            self.crash();
            if self.dice.roll(3) == 0 {
                self.crash();
            }
            if self.dice.roll(4) == 0 {
                self.settle();
            }
        }
        self.settle();
        self.end();
    }
}

/// What a report says of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Pending,
    Attached,
    Running,
    Stopped,
}

impl Step {
    fn of(report: &Value) -> Self {
        match report["status"].as_str() {
            Some("RUNNING") => Self::Running,
            Some("STOPPED") => Self::Stopped,
            _ if report["attachment"].is_null() => Self::Pending,
            _ => Self::Attached,
        }
    }

    /// What a task waits for may be told before it has its ENI and after.
    fn rank(self) -> u8 {
        match self {
            Self::Pending | Self::Attached => 0,
            Self::Running => 1,
            Self::Stopped => 2,
        }
    }
}

#[test]
fn whatever_befalls_agents_and_ecs_every_task_is_told_of_in_order_and_as_it_was() {
    Torture::new("storm", setting("CRASH_SEED", 1)).run(setting("CRASH_ROUNDS", 4));
}
