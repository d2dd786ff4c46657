//! What the whole-program tests share.

#![allow(dead_code, reason = "each test program uses a part of it")]

use e2e::{
    image,
    lab::{Agent, Lab, Settings},
    process,
};
use nix::fcntl::{Flock, FlockArg};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    ops::{Deref, DerefMut},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Labs are brought up one at a time: two cores hold one containerd, one box and two agents well, and no more.
static ONE_LAB: Mutex<()> = Mutex::new(());

/// The right to have a lab, on this machine.
#[derive(Debug)]
pub(crate) struct Single {
    // Let go of by the kernel when this process dies, however it dies.
    _machine: Flock<File>,
    _process: MutexGuard<'static, ()>,
}

/// Waits for the right to have a lab.
pub(crate) fn single() -> Single {
    let process = ONE_LAB.lock().unwrap_or_else(PoisonError::into_inner);
    let file = File::create(std::env::temp_dir().join("berth-e2e.lock")).unwrap();
    let machine = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| e).unwrap();
    Single { _machine: machine, _process: process }
}

/// A lab and the right to have it.
pub(crate) struct OneLab {
    lab: Lab,
    // Dropped after the lab.
    _single: Single,
}

impl Deref for OneLab {
    type Target = Lab;
    fn deref(&self) -> &Lab {
        &self.lab
    }
}

impl DerefMut for OneLab {
    fn deref_mut(&mut self) -> &mut Lab {
        &mut self.lab
    }
}

/// A lab of this name with warm pools; `agent` are more lines for the agents' settings.
pub(crate) fn lab(name: &str, agent: &str) -> OneLab {
    let single = single();
    OneLab { lab: lab_with(&single, name, agent), _single: single }
}

/// As [`lab`], for a test that keeps the right itself.
pub(crate) fn lab_with(_single: &Single, name: &str, agent: &str) -> Lab {
    assert!(
        nix::unistd::geteuid().is_root(),
        "these tests make namespaces and containers: expected to run as root"
    );
    // Not under target/: containerd's socket must fit into 107 bytes.
    let mut settings =
        Settings::new(std::env::temp_dir().join(format!("berth-e2e-{name}")), &format!("bt-{name}"));
    settings.agent += agent;
    Lab::start(settings).unwrap()
}

/// A lab whose tasks come from its cluster, and their image from its registry.
pub(crate) fn cluster_lab(name: &str, agent: &str) -> OneLab {
    let single = single();
    let mut settings =
        Settings::new(std::env::temp_dir().join(format!("berth-e2e-{name}")), &format!("bt-{name}"));
    (settings.registry, settings.agent) = (true, settings.agent + agent);
    OneLab { lab: Lab::start(settings).unwrap(), _single: single }
}

/// A task of one container that runs a line of shell.
pub(crate) fn busybox(family: &str, line: &str) -> Value {
    json!({
        "family": family,
        "networkMode": "awsvpc",
        "containerDefinitions": [{"name": "main", "image": image::IMAGE, "memory": 64, "entryPoint": ["sh", "-c"], "command": [line], "stopTimeout": 1}]
    })
}

/// A task that does nothing for long.
pub(crate) fn sleeper(family: &str) -> Value {
    busybox(family, "exec sleep 1000")
}

/// Fetches a URL from within a task's namespace, with its containers' own wget.
pub(crate) fn in_namespace(task: &Value, url: &str) -> anyhow::Result<String> {
    let namespace = task["network"]["netnsPath"].as_str().unwrap();
    process::run(
        Command::new("nsenter")
            .arg(format!("--net={namespace}"))
            .args(["timeout", "5", "busybox", "wget", "-q", "-O", "-", url]),
    )
}

/// A generator small enough to need no crate (SplitMix64).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    pub(crate) fn one_of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        let at = self.roll(list.len() as u64);
        &list[usize::try_from(at).unwrap()]
    }
}

/// A number from the environment.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Namespaces of this agent's slots, by name.
pub(crate) fn namespaces(agent: &Agent) -> Vec<String> {
    let tag = format!("berth-{}-", &agent.instance_id[agent.instance_id.len() - 8..]);
    let entries = fs::read_dir("/run/netns").unwrap().flatten();
    entries.map(|e| e.file_name().into_string().unwrap()).filter(|n| n.starts_with(&tag)).collect()
}
