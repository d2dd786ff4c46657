//! The node in its cluster: tasks come from ECS, asked for with the AWS CLI as a stranger would, and what becomes of them is reported.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use common::{OneLab, busybox, cluster_lab, in_namespace, sleeper};
use e2e::{
    ecs::{Cluster, address, container_instance},
    image::Image,
    lab::PATIENCE,
    process::eventually,
};
use serde_json::json;
use std::fs;

/// A lab whose agents are in the cluster.
fn registered(name: &str, agent: &str) -> (OneLab, Cluster) {
    let lab = cluster_lab(name, agent);
    for agent in &lab.agents {
        container_instance(agent).unwrap();
    }
    let cluster = Cluster::new(lab.aws().unwrap(), "demo").unwrap();
    (lab, cluster)
}

const ZONE: &str = "us-west-2a";

#[test]
fn a_stranger_runs_a_task_with_the_aws_cli_and_waits_for_its_states() {
    let (lab, ecs) = registered("stranger", "");
    let definition =
        ecs.register(&lab.in_registry(busybox("hello", "echo to you, $NAME; exec sleep 1000")).unwrap());
    let network = ecs.network(ZONE, &[]).unwrap();
    let environment = json!([{"name": "NAME", "value": "stranger"}]);
    let overrides = json!({"containerOverrides": [{"name": "main", "environment": environment}]}).to_string();
    let definition = definition.unwrap();
    let args =
        ["--task-definition", &definition, "--network-configuration", &network, "--overrides", &overrides];
    let answer = ecs.ecs("run-task", &args).unwrap();
    let task = answer["tasks"][0]["taskArn"].as_str().unwrap().to_owned();
    assert_eq!(answer["tasks"][0]["lastStatus"], "PROVISIONING");
    ecs.aws.call(&["ecs", "wait", "tasks-running", "--cluster", "demo", "--tasks", &task]).unwrap();
    let seen = eventually("the ENI to show", PATIENCE, || {
        let seen = ecs.describe(&task).unwrap();
        Ok(seen["containers"][0]["networkInterfaces"][0]["privateIpv4Address"].is_string().then_some(seen))
    })
    .unwrap();
    assert_eq!(seen["attachments"][0]["status"], "ATTACHED");
    assert_eq!(seen["containers"][0]["networkInterfaces"][0]["privateIpv4Address"].as_str(), address(&seen));
    assert!(seen["containers"][0]["imageDigest"].as_str().unwrap().starts_with("sha256:"), "{seen}");
    assert!(
        seen["pullStartedAt"].is_number()
            && seen["pullStoppedAt"].is_number()
            && seen["startedAt"].is_number(),
        "{seen}"
    );
    // The agent has it too, and its container said what the override made of it.
    let here = lab.agents.iter().find(|agent| agent.json(&["inspect", &task]).is_ok()).unwrap();
    assert_eq!(here.text(&["logs", &task]).unwrap().trim(), "to you, stranger");
    ecs.stop(&task).unwrap();
    ecs.aws.call(&["ecs", "wait", "tasks-stopped", "--cluster", "demo", "--tasks", &task]).unwrap();
    let seen = ecs.describe(&task).unwrap();
    assert_eq!((&seen["stopCode"], &seen["stoppedReason"]), (&json!("UserInitiated"), &json!("enough")));
    assert!(seen["containers"][0]["exitCode"].is_number(), "{seen}");
}

#[test]
fn an_end_of_its_own_is_reported_with_its_code_and_its_words() {
    let (lab, ecs) = registered("ends", "");
    let network = ecs.network(ZONE, &[]).unwrap();
    let ends = ecs.register(&lab.in_registry(busybox("ends", "exit 7")).unwrap()).unwrap();
    let mut missing = busybox("missing", "true");
    missing["containerDefinitions"][0]["image"] =
        json!(format!("{}/no/such:image", lab.registry().unwrap().host));
    let missing = ecs.register(&missing).unwrap();
    let (ends, missing) = (ecs.run(&ends, &network, &[]).unwrap(), ecs.run(&missing, &network, &[]).unwrap());
    let seen = ecs.until(&ends, "STOPPED").unwrap();
    assert_eq!(seen["containers"][0]["exitCode"], 7, "{seen}");
    assert_eq!(seen["stopCode"], "EssentialContainerExited");
    assert_eq!(seen["stoppedReason"], "Essential container in task exited");
    assert!(seen["startedAt"].is_number(), "it ran: {seen}");
    let seen = ecs.until(&missing, "STOPPED").unwrap();
    assert_eq!(seen["stopCode"], "TaskFailedToStart", "{seen}");
    let reason = seen["containers"][0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("CannotPull") && reason.contains("no/such"), "{reason}");
    assert!(seen["stoppedReason"].as_str().unwrap().contains("CannotPull"), "{seen}");
}

#[test]
fn two_teams_on_one_instance_are_kept_apart_until_a_rule_lets_one_in() {
    let (lab, ecs) = registered("teams", "BERTH_WARM_SLOTS=2\n");
    let (red, blue) = (ecs.group("red").unwrap(), ecs.group("blue").unwrap());
    let within = ["ec2", "authorize-security-group-ingress", "--protocol", "tcp", "--port", "80"];
    let allow = |to: &str, from: &str| {
        ecs.aws.call(&[&within[..], &["--group-id", to, "--source-group", from]].concat()).unwrap();
    };
    allow(&red, &red);
    let agent = &lab.agents[0];
    let web =
        ecs.register(&lab.in_registry(busybox("web", "exec httpd -f -p 80 -h /srv/www")).unwrap()).unwrap();
    let idle = ecs.register(&lab.in_registry(sleeper("idle")).unwrap()).unwrap();
    let start = |definition: &str, group: &str| {
        ecs.start(agent, definition, &ecs.network(ZONE, &[group]).unwrap(), &[]).unwrap()
    };
    let (server, friend, stranger) = (start(&web, &red), start(&idle, &red), start(&idle, &blue));
    for task in [&server, &friend, &stranger] {
        ecs.until(task, "RUNNING").unwrap();
    }
    let task = |arn: &str| agent.json(&["inspect", arn]).unwrap();
    let url = format!("http://{}/", task(&server)["network"]["ipv4"][0].as_str().unwrap());
    let (friend, stranger) = (task(&friend), task(&stranger));
    eventually("the page within the team", PATIENCE, || Ok(in_namespace(&friend, &url).ok())).unwrap();
    for _ in 0..3 {
        assert!(in_namespace(&stranger, &url).is_err(), "a task of another team reached {url}");
    }
    allow(&red, &blue);
    eventually("the page from the other team", PATIENCE, || Ok(in_namespace(&stranger, &url).ok())).unwrap();
    let revoke = [
        "ec2",
        "revoke-security-group-ingress",
        "--protocol",
        "tcp",
        "--port",
        "80",
        "--group-id",
        &red,
        "--source-group",
        &blue,
    ];
    ecs.aws.call(&revoke).unwrap();
    eventually("the page to be out of reach again", PATIENCE, || Ok(in_namespace(&stranger, &url).err()))
        .unwrap();
    assert!(in_namespace(&friend, &url).is_ok());
}

#[test]
fn what_happened_in_an_outage_of_ecs_is_told_in_order_when_it_is_over() {
    let (mut lab, ecs) = registered("outage", "");
    let network = ecs.network(ZONE, &[]).unwrap();
    let short = ecs.register(&lab.in_registry(busybox("short", "sleep 3; exit 3")).unwrap()).unwrap();
    let long = ecs.register(&lab.in_registry(sleeper("long")).unwrap()).unwrap();
    let first = ecs.run(&long, &network, &[]).unwrap();
    ecs.until(&first, "RUNNING").unwrap();
    let second = ecs.run(&short, &network, &[]).unwrap();
    eventually("an agent to take it", PATIENCE, || {
        Ok(lab.agents.iter().find(|a| a.json(&["inspect", &second]).is_ok()).map(drop))
    })
    .unwrap();
    lab.knob(&["ecs.outage=on"]).unwrap();
    let holder = lab.agents.iter().position(|a| a.json(&["inspect", &second]).is_ok()).unwrap();
    // It ends while nobody can be told; the agent dies and comes back while nobody can be asked.
    lab.agents[holder]
        .wait("the end of the task", |a| {
            Ok((a.json(&["inspect", &second])?["lastStatus"] == "STOPPED").then_some(()))
        })
        .unwrap();
    let agent = &mut lab.agents[holder];
    agent.kill().unwrap();
    agent.start().unwrap();
    let waiting = agent
        .wait("its reports to wait", |a| {
            let status = a.json(&["status"])?;
            let waiting = status["cluster"]["reports"].as_array().cloned().unwrap_or_default();
            Ok(waiting
                .iter()
                .find(|w| w["task"] == second.as_str() && w["attempts"].as_u64() > Some(0))
                .cloned())
        })
        .unwrap();
    assert!(waiting["problem"].is_string(), "{waiting}");
    for agent in &lab.agents {
        // Silence is no reason to stop anything.
        if let Ok(task) = agent.json(&["inspect", &first]) {
            assert_eq!(task["lastStatus"], "RUNNING");
        }
    }
    lab.knob(&["ecs.outage=off"]).unwrap();
    let seen = ecs.until(&second, "STOPPED").unwrap();
    assert_eq!(seen["containers"][0]["exitCode"], 3, "{seen}");
    assert!(seen["startedAt"].is_number(), "RUNNING was told before STOPPED: {seen}");
    assert_eq!(ecs.describe(&first).unwrap()["lastStatus"], "RUNNING");
}

#[test]
fn an_agent_killed_while_it_pulls_and_reports_goes_on_where_it_was() {
    let (mut lab, ecs) = registered("killed", "ECS_IMAGE_PULL_BEHAVIOR=default\n");
    // Large enough that the agent dies in the middle of it more often than not.
    let big = Image::new(48 * 1024 * 1024).unwrap();
    let (reference, digest) = lab.registry().unwrap().push(&big, "big", "1").unwrap();
    let mut definition = sleeper("big");
    definition["containerDefinitions"][0]["image"] = json!(reference);
    let definition = ecs.register(&definition).unwrap();
    let task = ecs.start(&lab.agents[0], &definition, &ecs.network(ZONE, &[]).unwrap(), &[]).unwrap();
    let agent = &mut lab.agents[0];
    for _ in 0..3 {
        let pulling = agent.wait("the pull to begin", |a| {
            let images = a.json(&["images"])?;
            let pulling = images["pulls"]["active"].as_array().is_some_and(|p| !p.is_empty());
            let here = a.json(&["inspect", &task]).is_ok_and(|t| t["lastStatus"] == "RUNNING");
            Ok((pulling || here).then_some(pulling))
        });
        pulling.unwrap();
        agent.kill().unwrap();
        agent.start().unwrap();
    }
    let seen = ecs.until(&task, "RUNNING").unwrap();
    assert_eq!(seen["containers"][0]["imageDigest"], digest, "{seen}");
    ecs.stop(&task).unwrap();
    ecs.until(&task, "STOPPED").unwrap();
}

#[test]
fn a_restarted_agent_keeps_its_arn_and_a_copied_disk_makes_a_new_one() {
    let (mut lab, ecs) = registered("again", "");
    let before: Vec<String> = lab.agents.iter().map(|a| container_instance(a).unwrap()).collect();
    lab.agents[0].kill().unwrap();
    lab.agents[0].start().unwrap();
    lab.agents[0].wait_warm().unwrap();
    assert_eq!(container_instance(&lab.agents[0]).unwrap(), before[0]);
    // Instance two gets the disk of instance one.
    lab.agents[1].drain().unwrap();
    lab.agents[1].stop().unwrap();
    lab.agents[0].drain().unwrap();
    lab.agents[0].stop().unwrap();
    fs::remove_dir_all(&lab.agents[1].data_dir).unwrap();
    let (from, to) = (lab.agents[0].data_dir.clone(), lab.agents[1].data_dir.clone());
    e2e::process::run(std::process::Command::new("cp").arg("-a").arg(from).arg(to)).unwrap();
    lab.agents[1].start().unwrap();
    lab.agents[1].wait_warm().unwrap();
    assert_ne!(container_instance(&lab.agents[1]).unwrap(), before[0], "it took the other instance's place");
    let answer = ecs.aws.call(&["ecs", "list-container-instances", "--cluster", "demo"]).unwrap();
    assert_eq!(answer["containerInstanceArns"].as_array().unwrap().len(), 2, "{answer}");
}

#[test]
fn a_draining_instance_keeps_its_tasks_and_gets_no_new_ones() {
    let (lab, ecs) = registered("drains", "");
    let definition = ecs.register(&lab.in_registry(sleeper("stays")).unwrap()).unwrap();
    let network = ecs.network(ZONE, &[]).unwrap();
    let task = ecs.start(&lab.agents[0], &definition, &network, &[]).unwrap();
    ecs.until(&task, "RUNNING").unwrap();
    for agent in &lab.agents {
        agent.text(&["drain"]).unwrap();
    }
    let run = ["ecs", "run-task", "--cluster", "demo", "--task-definition", &definition];
    let refused = ecs.aws.refused(&[&run[..], &["--network-configuration", &network]].concat()).unwrap();
    assert!(refused.contains("No Container Instances were found in your cluster."), "{refused}");
    assert_eq!(ecs.describe(&task).unwrap()["lastStatus"], "RUNNING");
    lab.agents[0].text(&["drain", "--undo"]).unwrap();
    let second = ecs.run(&definition, &network, &[]).unwrap();
    ecs.until(&second, "RUNNING").unwrap();
}

#[test]
fn a_stranger_sees_why_a_task_stays_pending() {
    let (lab, ecs) = registered("pending", "BERTH_WARM_SLOTS=1\nBERTH_MAX_ENIS=1\n");
    let definition = ecs.register(&lab.in_registry(sleeper("one")).unwrap()).unwrap();
    let network = ecs.network(ZONE, &[]).unwrap();
    let first = ecs.start(&lab.agents[0], &definition, &network, &[]).unwrap();
    ecs.until(&first, "RUNNING").unwrap();
    // The agent may have one ENI only: the second task waits for it.
    let second = ecs.start(&lab.agents[0], &definition, &network, &[]).unwrap();
    let seen = eventually("the reason", PATIENCE, || {
        let seen = ecs.describe(&second).unwrap();
        Ok(seen["containers"][0]["reason"].is_string().then_some(seen))
    })
    .unwrap();
    assert!(["PROVISIONING", "PENDING"].contains(&seen["lastStatus"].as_str().unwrap()), "{seen}");
    let reason = seen["containers"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("ENI"), "{reason}");
    ecs.stop(&first).unwrap();
    let seen = ecs.until(&second, "RUNNING").unwrap();
    assert!(seen["containers"][0]["reason"].is_null(), "what it waited for is over: {seen}");
}
