//! Crashes at any moment: the real agent is killed while its pool fills and its tasks start, run and stop, EC2 misbehaves meanwhile, and
//! what it left is damaged before it starts again. Seeded: `CRASH_SEED` and `CRASH_ROUNDS` repeat or lengthen a run.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use common::{Dice, OneLab, busybox, in_namespace, lab, namespaces, setting, sleeper};
use e2e::{
    lab::{Agent, arn},
    leaks,
    process::{eventually, program, run},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(60);
/// Tasks that live at a time: what the instance type can hold beside its primary ENI.
const PLACES: usize = 3;

/// What is done to a dead agent's belongings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    None,
    /// Its journal is removed.
    Journal,
    /// Its slots' files are removed.
    Files,
    /// A warm slot's namespace is removed.
    Namespace,
}

/// A task that was accepted.
#[derive(Debug)]
struct Known {
    arn: String,
    family: String,
    /// Its process and that one's network namespace, once it was seen to run.
    process: Option<(u64, u64)>,
    /// It was told to stop.
    stopped: bool,
}

struct Torture {
    lab: OneLab,
    dice: Dice,
    tasks: Vec<Known>,
    launched: u32,
    /// Where every container notes its start.
    notes: PathBuf,
}

fn inode(pid: u64) -> Option<u64> {
    fs::metadata(format!("/proc/{pid}/ns/net")).ok().map(|m| m.ino())
}

fn pins(agent: &Agent) -> Vec<String> {
    let entries = fs::read_dir(agent.socket.with_file_name("bpf")).into_iter().flatten().flatten();
    entries.map(|e| e.path().display().to_string()).collect()
}

impl Torture {
    fn new(name: &str, seed: u64) -> Self {
        eprintln!("CRASH_SEED={seed}");
        let lab = lab(
            name,
            "BERTH_WARM_SLOTS=2\nBERTH_WARM_MAX=2\nBERTH_LINK_TIMEOUT=3s\nBERTH_AUDIT_INTERVAL=2s\n",
        );
        let notes = lab.settings.dir.join("notes");
        fs::create_dir_all(&notes).unwrap();
        Self { lab, dice: Dice(seed), tasks: Vec::new(), launched: 0, notes }
    }

    fn agent(&mut self) -> &mut Agent {
        &mut self.lab.agents[0]
    }

    /// A task whose container notes its start outside before it does anything else.
    fn definition(&self, family: &str) -> Value {
        let mut definition = busybox(family, &format!("echo started >> /notes/{family}; exec sleep 1000"));
        definition["volumes"] = json!([{"name": "notes", "host": {"sourcePath": self.notes}}]);
        definition["containerDefinitions"][0]["mountPoints"] =
            json!([{"sourceVolume": "notes", "containerPath": "/notes"}]);
        definition
    }

    fn starts(&self, family: &str) -> usize {
        fs::read_to_string(self.notes.join(family)).unwrap_or_default().lines().count()
    }

    fn launch(&mut self) {
        if self.tasks.iter().filter(|t| !t.stopped).count() >= PLACES {
            return;
        }
        self.launched += 1;
        let family = format!("t{}", self.launched);
        let file = self.agent().config.with_file_name("definition.json");
        fs::write(&file, self.definition(&family).to_string()).unwrap();
        let task = self.agent().json(&["run", &file.display().to_string(), "--detach"]).unwrap();
        let arn = arn(&task).unwrap().to_owned();
        self.tasks.push(Known { arn, family, process: None, stopped: false });
    }

    fn stop_one(&mut self) {
        let live = self.tasks.iter().filter(|t| !t.stopped).count() as u64;
        if live == 0 {
            return;
        }
        let at = usize::try_from(self.dice.roll(live)).unwrap();
        let task = self.tasks.iter_mut().filter(|t| !t.stopped).nth(at).unwrap();
        task.stopped = true;
        let arn = task.arn.clone();
        // The command waits for the end, which this agent may not live to see.
        let socket = self.agent().socket.clone();
        let mut stop = Command::new(program("berth").unwrap());
        let mut child = stop.args(["stop", &arn]).env("BERTH_ADMIN_SOCKET", socket).spawn().unwrap();
        std::thread::spawn(move || child.wait());
    }

    fn misbehave(&mut self) {
        let faults: [&[&str]; 9] = [
            &["reset"],
            &["throttle=4"],
            &["lose-reply=*:2"],
            &["lose-reply=CreateNetworkInterface:1", "lose-reply=AttachNetworkInterface:1"],
            &["fail=*:InternalError:3"],
            &["fail-after=*:InternalError:2"],
            &["fail-after=AttachNetworkInterface:InternalError:1", "read-lag-ms=700"],
            &["fail=*:Unavailable:6"],
            &["read-lag-ms=1500"],
        ];
        let fault = *self.dice.one_of(&faults);
        eprintln!("  ec2: {fault:?}");
        self.lab.knob(&[&["reset"], fault].concat()).unwrap();
    }

    /// Running tasks' processes as they were, whatever the agent does or does not.
    fn assert_untouched(&self) {
        for task in self.tasks.iter().filter(|t| !t.stopped) {
            if let Some((pid, netns)) = task.process {
                assert_eq!(inode(pid), Some(netns), "the process of {task:?} ended or moved");
            }
        }
    }

    /// Kills the agent, does the harm, starts it again, and holds it to what was.
    fn crash(&mut self, harm: Harm, gently: bool) {
        let pause = self.dice.roll(700);
        eprintln!("  after {pause} ms: {}, then {harm:?}", if gently { "SIGTERM" } else { "SIGKILL" });
        // Not waited for: the moment of the kill is what is rolled.
        std::thread::sleep(Duration::from_millis(pause));
        let agent = self.agent();
        let warm: Vec<String> = match agent.json(&["slots"]) {
            Ok(list) => list["slots"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|s| s["task"].is_null())
                .map(|s| {
                    Path::new(s["netns_path"].as_str().unwrap())
                        .file_name()
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .to_owned()
                })
                .collect(),
            Err(_) => Vec::new(),
        };
        let done = if gently { agent.stop() } else { agent.kill() };
        done.unwrap();
        match harm {
            Harm::None => {}
            Harm::Journal => fs::remove_dir_all(agent.data_dir.join("journal")).unwrap(),
            Harm::Files => drop(fs::remove_dir_all(agent.socket.with_file_name("slots"))),
            Harm::Namespace => {
                // One that was leased since is not warm any more.
                let used: Vec<u64> =
                    self.tasks.iter().filter_map(|t| t.process).map(|(_, netns)| netns).collect();
                if let Some(name) = warm.first()
                    && !used.contains(
                        &fs::metadata(format!("/run/netns/{name}")).map(|m| m.ino()).unwrap_or_default(),
                    )
                    && !self.tasks.iter().any(|t| t.process.is_none() && !t.stopped)
                {
                    run(Command::new("ip").args(["netns", "del", name])).unwrap();
                }
            }
        }
        self.assert_untouched();
        self.agent().start().unwrap();
        if harm == Harm::Journal {
            self.recovered();
            // What only the journal knew is gone: tasks without a container, and wishes to stop.
            let Self { lab, tasks, .. } = self;
            tasks.retain_mut(|task| {
                let known = lab.agents[0].json(&["inspect", &task.arn]);
                let lives = known.as_ref().is_ok_and(|t| t["lastStatus"] != "STOPPED");
                task.stopped &= !(lives && known.is_ok_and(|t| t["desiredStatus"] == "RUNNING"));
                task.process.is_some() && !task.stopped || lives
            });
        }
    }

    fn recovered(&mut self) {
        let recovered =
            |agent: &Agent| Ok(agent.json(&["status"])?["health"]["recovered"].as_bool().filter(|r| *r));
        self.agent().wait("all to be taken over", recovered).unwrap();
    }

    /// Waits until every task is where it should be; a task that ran never shows as anything but running.
    fn settle(&mut self) {
        self.recovered();
        let Self { lab, tasks, .. } = self;
        for task in tasks.iter_mut().filter(|t| !t.stopped) {
            let ran = task.process.is_some();
            let view = lab.agents[0]
                .wait(&format!("{} to run", task.family), |agent| {
                    let view = agent.json(&["inspect", &task.arn])?;
                    let status = view["lastStatus"].as_str().unwrap_or_default();
                    assert!(status != "STOPPED" && (!ran || status == "RUNNING"), "{task:?} is {view}");
                    Ok(Some(view.clone()).filter(|v| v["lastStatus"] == "RUNNING" && !v["network"].is_null()))
                })
                .unwrap();
            let pid = view["containers"][0]["pid"].as_u64().unwrap();
            let netns = inode(pid).unwrap_or_else(|| panic!("no process {pid} of {task:?}: {view}"));
            let before = *task.process.get_or_insert((pid, netns));
            assert_eq!(before, (pid, netns), "{task:?} became {view}");
            let path = format!(
                "http://169.254.170.2{}/task",
                view["containers"][0]["metadataPath"].as_str().unwrap()
            );
            let body =
                eventually("metadata to answer", PATIENCE, || Ok(in_namespace(&view, &path).ok())).unwrap();
            let own: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(own["TaskARN"], task.arn.as_str());
        }
        self.assert_untouched();
        for task in self.tasks.iter().filter(|t| t.process.is_some()) {
            assert_eq!(self.starts(&task.family), 1, "{task:?} was not started exactly once");
        }
    }

    /// Waits until the pool rests: a namespace for each lease and each warm slot and no other, and the ENIs to them.
    fn rest(&mut self) {
        self.lab.knob(&["reset"]).unwrap();
        let lab = &self.lab;
        let agent = &lab.agents[0];
        eventually("the pool to rest", PATIENCE, || {
            let pool = agent.json(&["pool"])?;
            let count = |key: &str| pool[key].as_u64().unwrap_or(u64::MAX);
            let busy = ["filling", "recycling", "removing"].iter().any(|key| count(key) > 0);
            let slots = count("leased") + count("warm");
            let there = (namespaces(agent).len() as u64, agent.enis_in_ec2().unwrap().len() as u64);
            if busy || there != (slots, slots) {
                anyhow::bail!("{pool} with namespaces and ENIs {there:?}: {}", agent.json(&["enis"])?);
            }
            Ok(Some(()))
        })
        .unwrap();
    }

    /// Stops everything; nothing may be left.
    fn end(mut self) {
        self.lab.knob(&["reset"]).unwrap();
        self.agent().drain().unwrap();
        assert_eq!(self.lab.agents[0].enis_in_ec2().unwrap(), Vec::<Value>::new());
        let agent = &self.lab.agents[0];
        assert_eq!(namespaces(agent), Vec::<String>::new());
        assert_eq!(pins(agent), Vec::<String>::new());
        let left = leaks::Belongings::observe(&self.lab.settings).unwrap();
        assert!(left.cgroups.iter().all(|c| !c.contains('-')), "{:?}", left.cgroups);
        let shims: Vec<&String> = left
            .processes
            .iter()
            .filter(|p| p.contains("containerd-shim") || p.contains("berth-logger"))
            .collect();
        assert!(shims.is_empty(), "{shims:?}");
        for task in 1..=self.launched {
            assert!(self.starts(&format!("t{task}")) <= 1, "t{task} was started twice");
        }
        self.lab.stop().unwrap();
    }

    fn run(mut self, rounds: u64) {
        for round in 0..rounds {
            eprintln!("round {round}: {:?}", self.tasks);
            self.misbehave();
            match self.dice.roll(4) {
                0 | 1 => self.launch(),
                2 => self.stop_one(),
                _ => {
                    self.stop_one();
                    self.launch();
                }
            }
            let harm =
                *self.dice.one_of(&[Harm::None, Harm::None, Harm::Journal, Harm::Files, Harm::Namespace]);
            let gently = self.dice.roll(4) == 0;
            self.crash(harm, gently);
            if self.dice.roll(3) == 0 {
                // Once more while it is still taking over.
                self.crash(Harm::None, false);
            }
            self.settle();
            if self.dice.roll(3) == 0 {
                self.rest();
            }
        }
        self.rest();
        self.end();
    }
}

#[test]
fn an_agent_killed_at_any_moment_loses_and_doubles_nothing() {
    Torture::new("torture", setting("CRASH_SEED", 1)).run(setting("CRASH_ROUNDS", 4));
}

#[test]
fn a_task_whose_slot_is_taken_away_is_stopped_with_the_reason() {
    let mut lab = lab("pulled", "BERTH_AUDIT_INTERVAL=1s\nBERTH_LINK_TIMEOUT=2s\n");
    let (task, _) = lab.agents[0].run(&sleeper("pulled")).unwrap();
    let (other, _) = lab.agents[0].run(&sleeper("other")).unwrap();
    lab.knob(&[&format!("pull={}", task["network"]["eni"].as_str().unwrap())]).unwrap();
    let agent = &mut lab.agents[0];
    let end = agent
        .wait("the end", |a| Ok(Some(a.inspect(&task)?).filter(|t| t["lastStatus"] == "STOPPED")))
        .unwrap();
    let reason = end["stoppedReason"].as_str().unwrap();
    assert!(
        reason.contains(task["network"]["slot"].as_str().unwrap()) && reason.contains("link"),
        "{reason}"
    );
    assert_eq!(agent.inspect(&other).unwrap()["lastStatus"], "RUNNING");
    agent.drain().unwrap();
    assert_eq!(namespaces(agent), Vec::<String>::new());
}

#[test]
fn a_task_whose_shim_does_not_answer_is_never_reported_as_stopped() {
    let mut lab = lab("shim", "");
    let agent = &mut lab.agents[0];
    let (task, _) = agent.run(&sleeper("hung")).unwrap();
    let pid = task["containers"][0]["pid"].as_u64().unwrap();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let shim = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap();
    for wipe in [false, true] {
        agent.kill().unwrap();
        if wipe {
            fs::remove_dir_all(agent.data_dir.join("journal")).unwrap();
        }
        kill(Pid::from_raw(shim), Signal::SIGSTOP).unwrap();
        agent.start().unwrap();
        let recovered =
            |agent: &Agent| Ok(agent.json(&["status"])?["health"]["recovered"].as_bool().filter(|r| *r));
        agent.wait("all to be taken over", recovered).unwrap();
        let view = agent.inspect(&task).unwrap();
        kill(Pid::from_raw(shim), Signal::SIGCONT).unwrap();
        assert_ne!(view["lastStatus"], "STOPPED", "{view}");
        let back = agent
            .wait("the task to run", |a| Ok(Some(a.inspect(&task)?).filter(|t| t["lastStatus"] == "RUNNING")))
            .unwrap();
        assert_eq!(back["containers"][0]["pid"], json!(pid));
    }
}

#[test]
fn a_second_agent_is_turned_away_and_the_first_does_not_notice() {
    let mut lab = lab("twice", "");
    let (task, _) = lab.agents[0].run(&sleeper("steady")).unwrap();
    let agent = &mut lab.agents[0];
    let first = agent.process.take().unwrap();
    agent.start().unwrap();
    let mut second = agent.process.replace(first).unwrap();
    let code = eventually("the second agent to end", PATIENCE, || Ok(second.ended())).unwrap();
    assert_ne!(code, 0);
    let agent = &mut lab.agents[0];
    assert_eq!(agent.inspect(&task).unwrap()["lastStatus"], "RUNNING");
    let path = format!("http://169.254.170.2{}", task["containers"][0]["metadataPath"].as_str().unwrap());
    in_namespace(&task, &path).unwrap();
}
