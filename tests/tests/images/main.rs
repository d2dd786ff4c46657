//! Images through the whole agent: a registry with credentials, tags that move, a registry that is slow, lies or is gone, and clean-up.
//!
//! Tasks are given by operators, which is the same path from the engine on and quicker than the AWS CLI.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;
mod proxy;

use common::{OneLab, busybox, cluster_lab, sleeper};
use e2e::{
    image::{Image, digest},
    lab::{Agent, PATIENCE, arn},
    process::{Process, eventually, run},
};
use proxy::Proxy;
use serde_json::{Value, json};
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

/// The router's address, where the lab's registry is, and where others can be.
const ROUTER: &str = "10.0.1.1";
/// As `htpasswd -B` writes it: the only form that the registry reads.
const HTPASSWD: &str = "berth:$2y$05$abcdefghijklmnopqrstuutHR3lsNaqBpRzCnJGGOO3BKD67dHxtu\n";
const USER: &str = "berth";
const PASSWORD: &str = "harbour-pilot";

/// The definition with this image in all its containers.
fn of(mut definition: Value, image: &str) -> Value {
    for container in definition["containerDefinitions"].as_array_mut().unwrap() {
        container["image"] = json!(image);
    }
    definition
}

/// Hands a task in and does not wait for it.
fn begin(agent: &Agent, definition: &Value) -> String {
    let file = agent.config.with_file_name("begun.json");
    fs::write(&file, definition.to_string()).unwrap();
    let task = agent.json(&["run", "--detach", &file.display().to_string()]).unwrap();
    arn(&task).unwrap().to_owned()
}

fn until(agent: &mut Agent, task: &str, status: &str) -> Value {
    agent
        .wait(status, |a| Ok(Some(a.json(&["inspect", task])?).filter(|t| t["lastStatus"] == status)))
        .unwrap()
}

/// Runs a task until it runs, or to the failure of its launch; its digest or its reason.
fn try_run(agent: &mut Agent, image: &str) -> Result<String, String> {
    let task = begin(agent, &of(sleeper("try"), image));
    let over = |task: &Value| ["RUNNING", "STOPPED"].iter().any(|s| task["lastStatus"] == *s);
    let seen =
        agent.wait("the launch to end", |a| Ok(Some(a.json(&["inspect", &task])?).filter(over))).unwrap();
    let outcome = match seen["lastStatus"].as_str() {
        Some("RUNNING") => Ok(seen["containers"][0]["imageDigest"].as_str().unwrap().to_owned()),
        _ => Err(seen["stoppedReason"].as_str().unwrap().to_owned()),
    };
    agent.text(&["stop", &task]).unwrap();
    outcome
}

/// Removes an image once the containers of the tasks that stopped a moment ago are gone.
fn remove(agent: &mut Agent, image: &str) {
    agent.wait("the image to go", |a| a.text(&["image", "rm", image]).map(Some)).unwrap();
}

/// Starts the agent anew with these settings in place of those of the same name.
fn restart_with(agent: &mut Agent, settings: &str) {
    let old = fs::read_to_string(&agent.config).unwrap();
    let given = |line: &&str| !settings.lines().any(|new| new.split('=').next() == line.split('=').next());
    let kept: Vec<&str> = old.lines().filter(given).collect();
    agent.stop().unwrap();
    fs::write(&agent.config, format!("{}\n{settings}", kept.join("\n"))).unwrap();
    agent.start().unwrap();
    agent.wait_warm().unwrap();
}

/// Debian's registry with credentials, beside the lab's own and over the same storage.
fn guarded_registry(lab: &OneLab) -> (Process, String) {
    let dir = &lab.settings.dir;
    let (file, passwords) = (dir.join("guarded.yml"), dir.join("htpasswd"));
    fs::write(&passwords, HTPASSWD).unwrap();
    let config = format!(
        "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 0.0.0.0:5002\n\
         auth:\n  htpasswd:\n    realm: lab\n    path: {}\n",
        dir.join("registry").display(),
        passwords.display()
    );
    fs::write(&file, config).unwrap();
    let netns = format!("{}-vpc", lab.settings.name);
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &netns, "docker-registry", "serve"]).arg(&file);
    let mut process = Process::start("the guarded registry", &mut command, &dir.join("guarded.log")).unwrap();
    let url = format!("http://{ROUTER}:5002/v2/");
    eventually("the guarded registry to answer", PATIENCE, || {
        process.must_run()?;
        let mut curl = Command::new("ip");
        Ok(run(curl.args(["netns", "exec", &netns, "curl", "--silent", &url])).ok())
    })
    .unwrap();
    (process, format!("{ROUTER}:5002"))
}

/// Files below a directory that hold one of these texts.
fn holders(dir: &Path, texts: &[String]) -> Vec<String> {
    let mut grep = Command::new("grep");
    grep.args(["--recursive", "--files-with-matches", "--text", "--fixed-strings"]);
    let output = grep.args(texts.iter().flat_map(|t| ["-e", t])).arg(dir).output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn credentials_open_a_registry_in_both_forms_and_are_never_repeated() {
    let mut lab = cluster_lab("login", "ECS_LOGLEVEL=debug\n");
    let (_registry, host) = guarded_registry(&lab);
    let image = format!("{host}/berth/demo:latest");
    let insecure = format!("BERTH_INSECURE_REGISTRIES={host}");
    let agent = &mut lab.agents[0];
    fs::set_permissions(&agent.config, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    restart_with(agent, &insecure);
    let reason = try_run(agent, &image).unwrap_err();
    assert!(reason.contains("unauthorized") && reason.contains("no credentials are set"), "{reason}");

    let docker = |password: &str| {
        format!(
            "{insecure}\nECS_ENGINE_AUTH_TYPE=docker\n\
             ECS_ENGINE_AUTH_DATA={{\"{host}\":{{\"username\":\"{USER}\",\"password\":\"{password}\",\"email\":\"a@b\"}}}}"
        )
    };
    restart_with(agent, &docker("wrong-secret"));
    let reason = try_run(agent, &image).unwrap_err();
    assert!(reason.contains("unauthorized") && !reason.contains("no credentials are set"), "{reason}");
    restart_with(agent, &docker(PASSWORD));
    let digest = try_run(agent, &image).unwrap();
    remove(agent, &image);

    let encoded =
        run(Command::new("sh").args(["-c", &format!("printf %s '{USER}:{PASSWORD}' | base64")])).unwrap();
    let encoded = encoded.trim().to_owned();
    restart_with(
        agent,
        &format!(
            "{insecure}\nECS_ENGINE_AUTH_TYPE=dockercfg\nECS_ENGINE_AUTH_DATA={{\"http://{host}/v1/\":{{\"auth\":\"{encoded}\",\"email\":\"a@b\"}}}}"
        ),
    );
    assert_eq!(try_run(agent, &image).unwrap(), digest);

    // All that was written and all that is said: the settings alone have them.
    let secrets = [PASSWORD.to_owned(), "wrong-secret".to_owned(), encoded];
    let pid = agent.process.as_ref().unwrap().pid();
    for file in ["environ", "cmdline"] {
        let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(!secrets.iter().any(|s| text.contains(s)), "{file}: {text}");
    }
    for command in [&["tasks"][..], &["images"], &["events"], &["status"], &["enis"]] {
        let text = agent.text(command).unwrap() + &agent.text(&[command, &["--json"]].concat()).unwrap();
        assert!(!secrets.iter().any(|s| text.contains(s)), "{command:?}: {text}");
    }
    let config = agent.config.display().to_string();
    agent.stop().unwrap();
    assert_eq!(holders(&lab.settings.dir, &secrets), [config]);
}

#[test]
fn a_moved_tag_is_seen_as_the_pull_behavior_says_and_a_registry_that_is_gone_matters_as_much() {
    let insecure = format!("BERTH_INSECURE_REGISTRIES={ROUTER}:5000,{ROUTER}:5001\n");
    let mut lab = cluster_lab("moved", &insecure);
    let images: Vec<Image> = (1..=2).map(|n| Image::new(n).unwrap()).collect();
    let netns = format!("{}-vpc", lab.settings.name);
    let names = ["default", "always", "once", "prefer-cached"];
    for (name, sees) in names.into_iter().zip([true, true, false, false]) {
        let (_, old) = lab.registry().unwrap().push(&images[0], name, "1").unwrap();
        let front = Proxy::start(&netns, &format!("{ROUTER}:5001"), &format!("{ROUTER}:5000"));
        let image = format!("{ROUTER}:5001/{name}:1");
        restart_with(&mut lab.agents[0], &format!("ECS_IMAGE_PULL_BEHAVIOR={name}"));
        assert_eq!(try_run(&mut lab.agents[0], &image).unwrap(), old, "{name}");
        let (_, new) = lab.registry().unwrap().push(&images[1], name, "1").unwrap();
        let expected = if sees { new } else { old };
        assert_eq!(try_run(&mut lab.agents[0], &image).unwrap(), expected, "{name}");
        drop(front);
        if name == "always" {
            // It is waited for: a registry that restarts takes some seconds.
            let task = begin(&lab.agents[0], &of(sleeper("gone"), &image));
            let agent = &mut lab.agents[0];
            let tried = |t: &Value| t["containers"][0]["pull"]["failures"].as_u64() > Some(0);
            let seen = agent.wait("a try", |a| Ok(Some(a.json(&["inspect", &task])?).filter(tried))).unwrap();
            assert_eq!(seen["containers"][0]["pull"]["problem"], "connection refused", "{seen}");
            let _back = Proxy::start(&netns, &format!("{ROUTER}:5001"), &format!("{ROUTER}:5000"));
            let seen = until(agent, &task, "RUNNING");
            assert_eq!(seen["containers"][0]["imageDigest"], expected);
            agent.text(&["stop", &task]).unwrap();
        } else {
            // Five tries at a registry that is gone take 15 s.
            let begun = Instant::now();
            assert_eq!(try_run(&mut lab.agents[0], &image).unwrap(), expected, "{name}");
            assert!(begun.elapsed().as_secs() < 12, "{name}: waited {:?} for what it had", begun.elapsed());
        }
    }
}

/// A lab with a proxy in front of its registry, and an image of some size that the agents have not seen.
struct Slow {
    lab: OneLab,
    front: Proxy,
    image: String,
    digest: String,
    /// Bytes of its one layer.
    size: u64,
}

fn slow(name: &str) -> Slow {
    let insecure = format!("BERTH_INSECURE_REGISTRIES={ROUTER}:5000,{ROUTER}:5001\n");
    let lab = cluster_lab(name, &insecure);
    let netns = format!("{}-vpc", lab.settings.name);
    let front = Proxy::start(&netns, &format!("{ROUTER}:5001"), &format!("{ROUTER}:5000"));
    let big = Image::new(6 << 20).unwrap();
    let (_, digest) = lab.registry().unwrap().push(&big, "big", "1").unwrap();
    Slow { lab, front, image: format!("{ROUTER}:5001/big:1"), digest, size: big.layer.len() as u64 }
}

#[test]
fn a_slow_pull_is_seen_everywhere_and_goes_on_where_it_was_after_kill_9() {
    // Of these, the one that is named last is dropped first: the proxy is in the lab's namespace.
    let Slow { mut lab, front, image, digest, size } = slow("slow");
    let agent = &mut lab.agents[0];
    let follower = follow(agent);
    front.pace(1 << 20);
    let task = begin(agent, &of(sleeper("big"), &image));
    let far = |t: &Value| t["containers"][0]["pull"]["bytesDone"].as_u64() > Some(1 << 20);
    let seen = agent.wait("progress", |a| Ok(Some(a.json(&["inspect", &task])?).filter(far))).unwrap();
    assert_eq!(seen["containers"][0]["pull"]["stage"], "DOWNLOADING", "{seen}");
    let shown = agent.text(&["inspect", &task]).unwrap();
    assert!(shown.contains("downloading"), "{shown}");
    let shown = agent.text(&["images"]).unwrap();
    assert!(shown.contains("PULLING") && shown.contains("/big:1"), "{shown}");
    for _ in 0..2 {
        let before = agent.json(&["inspect", &task]).unwrap()["containers"][0]["pull"]["bytesDone"].as_u64();
        agent.kill().unwrap();
        agent.start().unwrap();
        agent
            .wait("the pull to go on", |a| {
                let now = &a.json(&["inspect", &task])?["containers"][0];
                let further = now["pull"]["bytesDone"].as_u64() > before || now["imageDigest"].is_string();
                Ok(further.then_some(()))
            })
            .unwrap();
    }
    front.pace(proxy::FAST);
    assert_eq!(until(agent, &task, "RUNNING")["containers"][0]["imageDigest"], digest);
    // What was on its way at each kill came for nothing.
    let sent = front.sent();
    assert!(sent >= size && sent < size + (2 << 20), "{sent} bytes for a layer of {size}");
    let told = follower.told();
    assert!(told.contains("\"PULL\"") && told.contains("downloading"), "{told}");
}

#[test]
fn pulls_that_stall_keep_neither_a_launch_nor_a_stop_waiting_and_many_tasks_share_one_pull() {
    // Of these, the one that is named last is dropped first: the proxy is in the lab's namespace.
    let Slow { mut lab, front, image, digest, size } = slow("stall");
    let here = format!("{}/berth/demo:latest", lab.registry().unwrap().host);
    try_run(&mut lab.agents[0], &here).unwrap();
    for n in 0..4 {
        let image = Image::new((1 << 20) + n).unwrap();
        lab.registry().unwrap().push(&image, "held", &n.to_string()).unwrap();
    }
    // Slow enough that none is done before all have begun; then nothing comes any more.
    front.pace(32 << 10);
    let agent = &mut lab.agents[0];
    // One task: each would hold an ENI, of which this instance has three.
    let mut held = crowd(4);
    for (n, container) in held["containerDefinitions"].as_array_mut().unwrap().iter_mut().enumerate() {
        container["image"] = json!(format!("{ROUTER}:5001/held:{n}"));
    }
    let held = begin(agent, &held);
    agent
        .wait("three pulls, and one that waits for them", |a| {
            let images = a.json(&["images"])?;
            let active = images["pulls"]["active"].as_array().cloned().unwrap_or_default();
            let are = |stage: &str| active.iter().filter(|pull| pull["stage"] == stage).count();
            Ok((are("DOWNLOADING") == 3 && are("WAITING") == 1).then_some(()))
        })
        .unwrap();
    front.pace(0);
    let begun = Instant::now();
    try_run(agent, &here).unwrap();
    assert!(begun.elapsed().as_secs() < 6, "a launch from the cache took {:?}", begun.elapsed());
    let begun = Instant::now();
    agent.text(&["stop", &held]).unwrap();
    let took = begun.elapsed();
    assert!(took.as_secs() < 3, "a task that waits for its images took {took:?} to stop");
    assert_eq!(agent.json(&["inspect", &held]).unwrap()["stoppedReason"], "Task stopped by operator");
    agent
        .wait("the pulls to end: nobody waits for them", |a| {
            Ok((a.json(&["images"])?["pulls"]["active"] == json!([])).then_some(()))
        })
        .unwrap();

    front.pace(proxy::FAST);
    front.sent();
    let many = of(crowd(7), &image);
    let tasks: Vec<String> = (0..3).map(|_| begin(agent, &many)).collect();
    for task in &tasks {
        let seen = until(agent, task, "RUNNING");
        assert!(seen["containers"].as_array().unwrap().iter().all(|c| c["imageDigest"] == *digest), "{seen}");
    }
    let sent = front.sent();
    assert!(sent >= size && sent < size + (64 << 10), "{sent} bytes for a layer of {size}");
}

/// A task of many containers.
fn crowd(size: usize) -> Value {
    let mut definition = sleeper("crowd");
    let one = definition["containerDefinitions"][0].clone();
    let named = |n: usize| {
        let mut container = one.clone();
        container["name"] = json!(format!("c{n}"));
        container["memory"] = json!(16);
        container
    };
    definition["containerDefinitions"] = (0..size).map(named).collect();
    definition
}

/// `berth events --follow`, as long as the agent lives.
struct Follower {
    child: std::process::Child,
}

fn follow(agent: &Agent) -> Follower {
    let mut command = agent.berth(&["events", "--follow", "--json"]).unwrap();
    Follower { child: command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap() }
}

impl Follower {
    /// What it was told until the agent it followed was killed.
    fn told(self) -> String {
        String::from_utf8(self.child.wait_with_output().unwrap().stdout).unwrap()
    }
}

#[test]
fn a_registry_that_lies_is_named_and_unused_images_make_room_while_used_ones_stay() {
    let mut lab = cluster_lab("room", "");
    let host = lab.registry().unwrap().host.clone();
    let liar = Image::new(3).unwrap();
    lab.registry().unwrap().push(&liar, "liar", "1").unwrap();
    // The same length, other bytes: the registry serves what its disk has.
    let layer = digest(&liar.layer);
    let hex = layer.strip_prefix("sha256:").unwrap();
    let blob =
        lab.settings.dir.join(format!("registry/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]));
    let mut bytes = fs::read(&blob).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&blob, bytes).unwrap();
    let reason = try_run(&mut lab.agents[0], &format!("{host}/liar:1")).unwrap_err();
    assert!(reason.starts_with("CannotPullContainerError") && reason.contains(&layer), "{reason}");
    assert!(reason.contains("the registry sent bytes with digest sha256:"), "{reason}");
    let reason = try_run(&mut lab.agents[0], &format!("{host}/nowhere:1")).unwrap_err();
    assert!(reason.contains("manifest unknown") && reason.contains("nowhere:1"), "{reason}");

    for (n, name) in ["used", "unused"].into_iter().enumerate() {
        lab.registry().unwrap().push(&Image::new(4 + n).unwrap(), name, "1").unwrap();
    }
    let (used, unused) = (format!("{host}/used:1"), format!("{host}/unused:1"));
    let agent = &mut lab.agents[0];
    let (task, _) = agent.run(&of(busybox("used", "exec sleep 1000"), &used)).unwrap();
    try_run(agent, &unused).unwrap();
    let refused = agent.text(&["image", "rm", &used]).unwrap_err().to_string();
    assert!(refused.contains("used"), "{refused}");
    // Every disk is fuller than this.
    let root = lab.settings.dir.join("containerd-root");
    let agent = &mut lab.agents[0];
    restart_with(agent, &format!("BERTH_IMAGE_PRESSURE_HIGH=1\nBERTH_CONTAINERD_ROOT={}", root.display()));
    agent
        .wait("room to be made", |a| {
            let images = a.json(&["images"])?.to_string();
            assert!(images.contains(&used), "an image in use was removed: {images}");
            Ok((!images.contains(&unused)).then_some(()))
        })
        .unwrap();
    assert_eq!(agent.inspect(&task).unwrap()["lastStatus"], "RUNNING");
    agent.text(&["stop", arn(&task).unwrap()]).unwrap();
    remove(agent, &used);
    assert!(agent.text(&["image", "rm", &used]).unwrap_err().to_string().contains("no image"));
    // It is pulled again when it is wanted again.
    try_run(agent, &used).unwrap();
}
