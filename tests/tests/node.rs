//! The whole node from outside: what an operator does to it, and what a crash does.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use common::{busybox, in_namespace, lab, single, sleeper};
use e2e::{
    lab::{Agent, arn},
    process::{eventually, run},
};
use serde_json::{Value, json};
use std::{fs, path::Path, process::Command, time::Duration};

/// A web server on every address, port 80, IPv4 and IPv6.
fn web() -> Value {
    busybox("web", "exec httpd -f -vv -p 80 -h /srv/www")
}

fn namespaces(agent: &Agent) -> Vec<String> {
    let tag = format!("berth-{}-", &agent.instance_id[agent.instance_id.len() - 8..]);
    let mut names: Vec<String> = fs::read_dir("/run/netns")
        .unwrap()
        .flatten()
        .map(|e| e.file_name().into_string().unwrap())
        .filter(|n| n.starts_with(&tag))
        .collect();
    names.sort();
    names
}

fn eni_ids(agent: &Agent) -> Vec<String> {
    let list = agent.json(&["enis"]).unwrap();
    let mut ids: Vec<String> =
        list["enis"].as_array().unwrap().iter().filter_map(|e| e["id"].as_str().map(str::to_owned)).collect();
    ids.sort();
    ids
}

/// What a task sees of itself at 169.254.170.2, asked from within its namespace.
fn metadata(task: &Value, path: &str) -> anyhow::Result<Value> {
    let body = in_namespace(task, &format!("http://169.254.170.2{path}"))?;
    Ok(serde_json::from_str(&body)?)
}

fn metadata_path(task: &Value) -> &str {
    task["containers"][0]["metadataPath"].as_str().unwrap()
}

#[test]
fn a_task_serves_on_port_80_while_metadata_answers_beside_it() {
    let lab = lab("port80", "");
    let agent = &lab.agents[0];
    let (task, _) = agent.run(&web()).unwrap();
    let address = task["network"]["ipv4"][0].as_str().unwrap();
    eventually("the page on the ENI's address", Duration::from_secs(10), || {
        Ok(in_namespace(&task, &format!("http://{address}/")).ok())
    })
    .unwrap();
    assert_eq!(in_namespace(&task, "http://127.0.0.1/").unwrap(), e2e::image::PAGE);
    assert_eq!(in_namespace(&task, "http://[::1]/").unwrap(), e2e::image::PAGE);
    let own = metadata(&task, &format!("{}/task", metadata_path(&task))).unwrap();
    assert_eq!(own["TaskARN"], task["taskArn"]);

    // Another task's endpoint id, asked for from here, is an unknown one.
    let (other, _) = agent.run(&sleeper("other")).unwrap();
    let foreign = in_namespace(&task, &format!("http://169.254.170.2{}", metadata_path(&other)))
        .unwrap_err()
        .to_string();
    assert!(foreign.contains("404"), "{foreign}");
    assert_eq!(metadata(&other, metadata_path(&other)).unwrap()["Name"], json!("main"));
}

/// Kills the agent, lets `between` happen, starts it again: nothing of the task may have changed.
fn survives_kill(between: fn(&Agent), name: &str) {
    let mut lab = lab(name, "");
    let agent = &mut lab.agents[0];
    let (before, _) = agent.run(&sleeper("steady")).unwrap();
    agent.wait_warm().unwrap();
    let (netns_before, enis_before) = (namespaces(agent), eni_ids(agent));
    let pid = before["containers"][0]["pid"].as_u64().unwrap();
    let inode =
        fs::metadata(format!("/proc/{pid}/ns/net")).map(|m| std::os::unix::fs::MetadataExt::ino(&m)).unwrap();

    agent.kill().unwrap();
    between(agent);
    assert!(Path::new(&format!("/proc/{pid}")).exists(), "the task's process ended with the agent");
    agent.start().unwrap();
    let after = agent
        .wait("the task to be known again", |a| {
            Ok(Some(a.inspect(&before)?).filter(|t| t["lastStatus"] == "RUNNING" && !t["network"].is_null()))
        })
        .unwrap();

    assert_eq!(after["containers"][0]["pid"], before["containers"][0]["pid"]);
    assert_eq!(after["network"], before["network"]);
    assert_eq!(after["containers"][0]["metadataPath"], before["containers"][0]["metadataPath"]);
    assert_eq!(
        fs::metadata(format!("/proc/{pid}/ns/net")).map(|m| std::os::unix::fs::MetadataExt::ino(&m)).unwrap(),
        inode
    );
    let path = format!("{}/task", metadata_path(&after));
    let answer =
        eventually("metadata to answer again", Duration::from_secs(20), || Ok(metadata(&after, &path).ok()))
            .unwrap();
    assert_eq!((&answer["TaskARN"], &answer["KnownStatus"]), (&before["taskArn"], &json!("RUNNING")));
    agent.wait_warm().unwrap();
    assert_eq!(eni_ids(agent), enis_before, "an ENI was leaked or made anew");
    assert_eq!(
        agent.enis_in_ec2().unwrap().len(),
        enis_before.len(),
        "EC2 has ENIs that the agent does not know"
    );
    assert_eq!(
        namespaces(agent).len(),
        netns_before.len(),
        "{netns_before:?} became {:?}",
        namespaces(agent)
    );

    agent.text(&["stop", arn(&after).unwrap()]).unwrap();
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    agent.drain().unwrap();
    assert_eq!(namespaces(agent), Vec::<String>::new());
    assert_eq!(
        agent.enis_in_ec2().unwrap(),
        Vec::<Value>::new(),
        "EC2 has ENIs that the agent does not know"
    );
}

#[test]
fn a_killed_agent_takes_its_tasks_over_again() {
    survives_kill(|_| {}, "kill");
}

#[test]
fn a_killed_agent_without_its_journal_takes_its_tasks_over_again() {
    survives_kill(|agent| fs::remove_dir_all(agent.data_dir.join("journal")).unwrap(), "nojournal");
}

#[test]
fn a_damaged_journal_is_set_aside_and_the_state_rebuilt() {
    survives_kill(
        |agent| {
            let damage = Command::new("bash")
                .arg("-c")
                .arg(format!("find {}/journal -type f -exec dd if=/dev/urandom of={{}} bs=512 count=4 conv=notrunc status=none \\;", agent.data_dir.display()))
                .status()
                .unwrap();
            assert!(damage.success());
        },
        "damaged",
    );
}

#[test]
fn tasks_end_with_their_exit_codes_and_reasons() {
    let mut lab = lab("ends", "");
    let agent = &mut lab.agents[0];
    let stopped = |agent: &mut Agent, task: &Value| {
        agent
            .wait("the end", |a| Ok(Some(a.inspect(task)?).filter(|t| t["lastStatus"] == "STOPPED")))
            .unwrap()
    };

    let (task, _) = agent.run(&busybox("three", "echo out; echo err >&2; exit 3")).unwrap();
    let end = stopped(agent, &task);
    assert_eq!(
        (&end["containers"][0]["exitCode"], &end["stopCode"]),
        (&json!(3), &json!("EssentialContainerExited"))
    );
    assert_eq!(end["stoppedReason"], json!("Essential container in task exited"));
    let mut lines: Vec<String> =
        agent.text(&["logs", arn(&task).unwrap()]).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["err", "out"]);

    // SIGTERM is ignored, so that the grace has to end with SIGKILL.
    let mut stubborn = busybox("stubborn", "trap '' TERM; while true; do sleep 1; done");
    stubborn["containerDefinitions"][0]["stopTimeout"] = json!(1);
    let (task, _) = agent.run(&stubborn).unwrap();
    agent.text(&["stop", arn(&task).unwrap(), "--reason", "enough"]).unwrap();
    let end = agent.inspect(&task).unwrap();
    assert_eq!(
        (&end["containers"][0]["exitCode"], &end["stopCode"], &end["stoppedReason"]),
        (&json!(137), &json!("UserInitiated"), &json!("enough"))
    );

    // A side container that ends is no end of the task; the essential one's is, and takes the rest with it.
    let mut two = busybox("two", "sleep 2");
    let mut side = two["containerDefinitions"][0].clone();
    (side["name"], side["essential"], side["command"]) = (json!("side"), json!(false), json!(["exit 0"]));
    let mut third = side.clone();
    (third["name"], third["command"]) = (json!("third"), json!(["exec sleep 1000"]));
    third["stopTimeout"] = json!(1);
    two["containerDefinitions"].as_array_mut().unwrap().extend([side, third]);
    let (task, _) = agent.run(&two).unwrap();
    let end = stopped(agent, &task);
    let codes: Vec<&Value> = end["containers"].as_array().unwrap().iter().map(|c| &c["exitCode"]).collect();
    assert_eq!(codes, [&json!(0), &json!(0), &json!(137)]);
}

#[test]
fn bad_input_is_refused_with_its_reason_and_leaks_nothing() {
    let mut lab = lab("badinput", "");
    let agent = &mut lab.agents[0];
    let fails = |agent: &Agent, definition: &Value| agent.run(definition).unwrap_err().to_string();

    let mut wrong = sleeper("wrong");
    wrong["containerDefinitions"][0]["memory"] = json!("64");
    assert!(fails(agent, &wrong).contains("containerDefinitions[0].memory"), "{}", fails(agent, &wrong));
    let mut unknown = sleeper("unknown");
    unknown["containerDefinitions"][0]["colour"] = json!("red");
    assert!(fails(agent, &unknown).contains("unknown field `colour`"));
    let mut absent = sleeper("absent");
    absent["containerDefinitions"][0]["image"] = json!("127.0.0.1:9/nowhere/nothing:1");
    let text = fails(agent, &absent);
    assert!(text.contains("CannotPull") && text.contains("nowhere/nothing:1"), "{text}");
    let mut program = sleeper("program");
    program["containerDefinitions"][0]["entryPoint"] = json!(["/no/such/program"]);
    let text = fails(agent, &program);
    assert!(text.contains("/no/such/program"), "{text}");
    let mut user = sleeper("user");
    user["containerDefinitions"][0]["user"] = json!("stranger");
    let text = fails(agent, &user);
    assert!(text.contains("stranger"), "{text}");

    // All slots came back, and only the warm one is left.
    agent
        .wait("the pool to settle", |a| {
            let pool = a.json(&["pool"])?;
            Ok((pool["leased"] == 0
                && pool["warm"] == 1
                && pool["filling"] == 0
                && pool["recycling"] == 0
                && pool["removing"] == 0)
                .then_some(()))
        })
        .unwrap();
    assert_eq!(namespaces(agent).len(), 1);
    assert_eq!(eni_ids(agent).len(), 1);
}

#[test]
fn broken_settings_end_the_agent_with_the_reason_and_exit_code_5() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("berth.config");
    fs::write(&config, "BERTH_WARM_SLOTS=lots\nBERTH_SPEED=9\n").unwrap();
    let output = Command::new(e2e::process::program("berth").unwrap())
        .args(["agent", "--config"])
        .arg(&config)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{text}");
    assert!(
        text.contains("BERTH_WARM_SLOTS") && text.contains("line 1") && text.contains("BERTH_SPEED"),
        "{text}"
    );
}

#[test]
fn a_link_that_never_shows_up_is_given_back_and_the_task_told() {
    let mut lab = lab("nolink", "BERTH_LINK_TIMEOUT=2s\nBERTH_LEASE_TIMEOUT=12s\n");
    // The warm slot is taken by the first task; the refill and every ENI after it stay without a link.
    lab.knob(&["link-never=100"]).unwrap();
    let agent = &mut lab.agents[0];
    agent.run(&sleeper("first")).unwrap();
    let text = agent.run(&sleeper("second")).unwrap_err().to_string();
    assert!(
        text.contains("Timeout waiting for network interface provisioning") && text.contains("link"),
        "{text}"
    );
    lab.knob(&["reset"]).unwrap();
    lab.agents[0].drain().unwrap();
    assert_eq!(namespaces(&lab.agents[0]), Vec::<String>::new());
}

#[test]
fn ec2_refusing_fails_the_task_with_ec2s_words() {
    let mut lab = lab("refused", "BERTH_LEASE_TIMEOUT=10s\n");
    lab.knob(&["fail=CreateNetworkInterface:UnauthorizedOperation:100"]).unwrap();
    let agent = &mut lab.agents[0];
    agent.run(&sleeper("first")).unwrap();
    let text = agent.run(&sleeper("second")).unwrap_err().to_string();
    assert!(text.contains("UnauthorizedOperation"), "{text}");
    lab.knob(&["reset"]).unwrap();
    lab.agents[0].drain().unwrap();
}

#[test]
fn a_full_instance_keeps_the_task_waiting_with_the_reason_until_a_slot_is_free() {
    let mut lab = lab("full", "BERTH_MAX_ENIS=1\n");
    let agent = &mut lab.agents[0];
    let (first, _) = agent.run(&sleeper("first")).unwrap();
    let file = agent.config.with_file_name("second.json");
    fs::write(&file, sleeper("second").to_string()).unwrap();
    let second = agent.json(&["run", &file.display().to_string(), "--detach"]).unwrap();
    let waiting =
        agent.wait("the reason", |a| Ok(a.inspect(&second)?["waiting"].as_str().map(str::to_owned))).unwrap();
    assert!(waiting.contains("in use"), "{waiting}");
    let pool = agent.json(&["pool"]).unwrap();
    assert_eq!(pool["waiting"].as_array().unwrap().len(), 1, "{pool}");
    agent.text(&["stop", arn(&first).unwrap()]).unwrap();
    agent
        .wait("the second task to run", |a| {
            Ok(Some(a.inspect(&second)?).filter(|t| t["lastStatus"] == "RUNNING"))
        })
        .unwrap();
}

#[test]
fn a_dead_lab_is_swept_after_everything_was_killed() {
    let single = single();
    let mut lab = common::lab_with(&single, "sweep", "");
    lab.agents[0].run(&sleeper("orphan")).unwrap();
    for agent in &mut lab.agents {
        agent.kill().unwrap();
    }
    lab.vpcbox.as_mut().unwrap().end(nix::sys::signal::Signal::SIGKILL, Duration::from_secs(5)).unwrap();
    let tags = lab.settings.owner_tags();
    lab.settings.sweep().unwrap();
    let left = run(Command::new("ls").arg("/run/netns")).unwrap();
    assert!(!tags.iter().any(|t| left.contains(t.as_str())) && !left.contains(&lab.settings.name), "{left}");
    assert!(e2e::leaks::processes(&lab.settings.dir).unwrap().is_empty());
}
