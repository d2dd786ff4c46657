//! What a task definition says is what its containers get: run through `berth run`, looked at from inside them.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;
mod inside;

use common::{OneLab, busybox, in_namespace, lab, sleeper};
use e2e::{
    image::IMAGE,
    lab::{Agent, Lab, arn},
    process::eventually,
};
use serde_json::{Value, json};
use std::{
    fs,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

/// One container that runs a line of shell, with more fields of its definition.
fn container(name: &str, line: &str, more: &Value) -> Value {
    let mut container = json!({
        "name": name, "image": IMAGE, "memory": 64, "entryPoint": ["sh", "-c"], "command": [line], "stopTimeout": 1
    });
    for (key, value) in more.as_object().unwrap() {
        container[key] = value.clone();
    }
    container
}

/// A task of these containers, with more fields of its definition.
fn task(containers: &[Value], more: &Value) -> Value {
    let mut task = json!({"family": "def", "networkMode": "awsvpc", "containerDefinitions": containers});
    for (key, value) in more.as_object().unwrap() {
        task[key] = value.clone();
    }
    task
}

fn until_stopped(agent: &mut Agent, task: &Value) -> Value {
    agent.wait("the end", |a| Ok(Some(a.inspect(task)?).filter(|t| t["lastStatus"] == "STOPPED"))).unwrap()
}

/// Runs a task to its end; the task, and what it printed.
fn to_end(agent: &mut Agent, definition: &Value) -> (Value, String) {
    let (task, _) = agent.run(definition).unwrap();
    let end = until_stopped(agent, &task);
    let text = agent.text(&["logs", arn(&end).unwrap(), "--tail", "1000"]).unwrap();
    (end, text)
}

/// Runs one container to its end and gives what it printed.
fn says(agent: &mut Agent, line: &str, more: &Value) -> String {
    let (end, text) = to_end(agent, &task(&[container("main", line, more)], &json!({})));
    assert_eq!(end["containers"][0]["exitCode"], 0, "{end}\n{text}");
    text
}

fn refusal(agent: &Agent, definition: &Value) -> String {
    agent.run(definition).unwrap_err().to_string()
}

#[track_caller]
fn has_lines(text: &str, wanted: &[&str]) {
    for line in wanted {
        assert!(text.lines().any(|l| l == *line), "no line {line:?} in:\n{text}");
    }
}

fn settled(agent: &mut Agent) {
    agent
        .wait("the pool to settle", |a| {
            let pool = a.json(&["pool"])?;
            let none = ["leased", "filling", "recycling", "removing"].iter().all(|k| pool[k] == 0);
            Ok((none && pool["warm"] == 1).then_some(()))
        })
        .unwrap();
}

/// Nothing of any task may be left once its slot is given back.
fn nothing_left(lab: &mut Lab) {
    settled(&mut lab.agents[0]);
    let now = e2e::leaks::Belongings::observe(&lab.settings).unwrap();
    let root = e2e::sweep::cgroup_root(&lab.settings.name);
    assert!(now.cgroups.iter().all(|c| c.ends_with(&root)), "{:?}", now.cgroups);
    let lives = |c: &&String| c.contains("containerd-shim") || c.contains("berth-logger");
    assert_eq!(now.processes.iter().filter(lives).collect::<Vec<_>>(), Vec::<&String>::new());
    assert_eq!(
        now.mounts.iter().filter(|m| m.ends_with("rootfs")).collect::<Vec<_>>(),
        Vec::<&String>::new()
    );
}

#[test]
fn containers_start_in_order_and_end_with_their_codes_and_reasons() {
    let mut lab = lab("ends2", "");
    let agent = &mut lab.agents[0];
    let on =
        |name: &str, condition: &str| json!({"dependsOn": [{"containerName": name, "condition": condition}]});
    let side = |line: &str, more: &Value| {
        let mut side = container("init", line, more);
        side["essential"] = json!(false);
        side
    };
    for (condition, code) in [("START", 3), ("COMPLETE", 3), ("SUCCESS", 0)] {
        let main = container("main", "echo main", &on("init", condition));
        let (end, text) =
            to_end(agent, &task(&[main, side(&format!("echo init; exit {code}"), &json!({}))], &json!({})));
        assert!(text.contains("main | main\n"), "{condition}: {text}");
        assert_eq!(
            (&end["containers"][0]["exitCode"], &end["startedAt"].is_string()),
            (&json!(0), &true),
            "{end}"
        );
        if condition != "START" {
            assert_eq!(text, "init | init\nmain | main\n");
            assert_eq!(end["containers"][1]["exitCode"], code);
        }
    }
    // A task whose essential container never came to start has not run, although its side container has.
    for (init, condition, reason) in [
        (side("exit 3", &json!({})), "SUCCESS", "did not exit successfully"),
        (side("", &json!({"entryPoint": ["/nope"]})), "START", "did not start"),
        (side("sleep 100", &json!({"startTimeout": 1})), "COMPLETE", "has timed out"),
    ] {
        let text = refusal(agent, &task(&[container("main", "", &on("init", condition)), init], &json!({})));
        assert!(
            text.contains("the task stopped: CannotStartContainerError: ") && text.contains(reason),
            "{text}"
        );
    }
    for (line, memory, code, reason) in [
        (
            "exec dd if=/dev/zero of=/dev/null bs=100M",
            16,
            137,
            json!("OutOfMemoryError: Container killed due to memory usage"),
        ),
        ("(exec dd if=/dev/zero of=/dev/null bs=100M) ; exit 0", 16, 0, json!(null)),
        ("exit 143", 16, 143, json!(null)),
    ] {
        let (end, _) =
            to_end(agent, &task(&[container("main", line, &json!({"memory": memory}))], &json!({})));
        let main = &end["containers"][0];
        assert_eq!((&main["exitCode"], &main["reason"]), (&json!(code), &reason), "{line}");
        assert!(main["startedAt"].as_str() <= main["finishedAt"].as_str(), "{main}");
    }
    // Killed by someone else on the machine.
    let (running, _) = agent.run(&sleeper("killed")).unwrap();
    let pid = running["containers"][0]["pid"].to_string();
    assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
    let end = until_stopped(agent, &running);
    let main = &end["containers"][0];
    assert_eq!((&main["exitCode"], &main["reason"]), (&json!(137), &json!(null)));

    let ten: Vec<Value> = (0..10)
        .map(|i| {
            container(&format!("c{i}"), "echo here; sleep 1", &json!({"memory": 16, "essential": i == 0}))
        })
        .collect();
    let (end, text) = to_end(agent, &task(&ten, &json!({})));
    assert_eq!(text.lines().count(), 10, "{text}");
    assert!(end["containers"].as_array().unwrap().iter().all(|c| c["exitCode"] == 0), "{end}");
    nothing_left(&mut lab);
}

#[test]
fn every_byte_of_output_is_kept_within_the_limits_of_its_log() {
    let mut lab = lab("output", "");
    let agent = &mut lab.agents[0];
    let many = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo line $i; done";
    let (end, text) = to_end(agent, &busybox("many", many));
    assert_eq!((text.lines().count(), text.lines().last()), (1000, Some("line 3000")));
    assert_eq!(agent.text(&["logs", arn(&end).unwrap(), "--tail", "2"]).unwrap(), "line 2999\nline 3000\n");

    let log = json!({"logConfiguration": {"logDriver": "json-file", "options": {"max-size": "20k", "max-file": "3"}}});
    let (end, text) = to_end(agent, &task(&[container("main", many, &log)], &json!({})));
    let numbers: Vec<u32> = text.lines().map(|l| l.strip_prefix("line ").unwrap().parse().unwrap()).collect();
    assert!(numbers.windows(2).all(|w| w[1] == w[0] + 1) && numbers.last() == Some(&3000), "{text}");
    let directory = Path::new(end["containers"][0]["logPath"].as_str().unwrap()).parent().unwrap();
    let sizes: Vec<u64> =
        fs::read_dir(directory).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).collect();
    assert!(sizes.len() == 3 && sizes.iter().all(|s| *s <= 20 * 1024), "{sizes:?}");

    let odd = r#"printf '\377\376\000abc\n\033[31m"q"\\ ü☃\r\n'; printf 'no end'"#;
    let text = says(agent, odd, &json!({}));
    assert_eq!(text, "\u{fffd}\u{fffd}\0abc\n\u{1b}[31m\"q\"\\ ü☃\r\nno end\n");
    let long = says(agent, "dd if=/dev/zero bs=100000 count=1 2>/dev/null; echo; echo end", &json!({}));
    assert!(long == format!("{}\nend\n", "\0".repeat(100_000)), "{} bytes", long.len());

    assert_eq!(says(agent, "echo lost", &json!({"logConfiguration": {"logDriver": "none"}})), "");
    let terminal = says(agent, "[ -t 0 ] && [ -t 1 ] && echo $TERM", &json!({"pseudoTerminal": true}));
    assert_eq!(terminal.trim_end(), "xterm");
}

/// Something wrong in one place, and words that the answer must have.
fn bad_definitions(agent: &Agent, host: &Path) -> Vec<(Value, Vec<&'static str>)> {
    let one = |more: Value| task(&[container("main", "true", &more)], &json!({}));
    let mounted = |path: &Path, target: &str| {
        let mount = json!({"mountPoints": [{"sourceVolume": "v", "containerPath": target}]});
        task(
            &[container("main", "true", &mount)],
            &json!({"volumes": [{"name": "v", "host": {"sourcePath": path}}]}),
        )
    };
    let tmpfs = |path: &str, option: &str| {
        one(
            json!({"linuxParameters": {"tmpfs": [{"containerPath": path, "size": 1, "mountOptions": [option]}]}}),
        )
    };
    let first = "containerDefinitions[0]";
    let file = host.join("file");
    fs::write(&file, "").unwrap();
    assert!(agent.socket.exists());
    vec![
        (json!([]), vec!["task definition"]),
        (json!({"family": "x"}), vec!["containerDefinitions"]),
        (one(json!({"memory": "64"})), vec![first, ".memory", "i64"]),
        (one(json!({"memory": 5})), vec![".memory: is 5", "expected 6"]),
        (one(json!({"memory": 9_223_372_036_854_775_807_i64})), vec![".memory", "expected 6"]),
        (one(json!({"command": ["a\0b"]})), vec![".command[0]", "NUL"]),
        (one(json!({"user": "web\nroot"})), vec![".user"]),
        (one(json!({"entryPoint": "sh"})), vec![".entryPoint", "expected a sequence"]),
        (one(json!({"colour": "red"})), vec!["unknown field `colour`"]),
        (one(json!({"secrets": [{"name": "A", "valueFrom": "b"}]})), vec![".secrets", "not supported"]),
        (one(json!({"name": "../x"})), vec![".name: is `../x`"]),
        (
            task(&[container("a", "", &json!({})), container("a", "", &json!({}))], &json!({})),
            vec!["[1].name", "another container"],
        ),
        (task(&vec![container("a", "", &json!({})); 11], &json!({})), vec!["11 entries", "1 to 10"]),
        (one(json!({"command": ["x".repeat(70_000)]})), vec!["bytes long", "65536"]),
        (one(json!({"command": ["x".repeat(300_000)]})), vec!["request body", "262144"]),
        (tmpfs("/", "ro"), vec!["tmpfs[0].containerPath", "below /"]),
        (tmpfs("/t", "remount"), vec!["mountOptions[0]: is `remount`"]),
        (tmpfs("/t", "mode=rwx"), vec!["mountOptions[0]: is `mode=rwx`"]),
        (
            one(json!({"mountPoints": [{"sourceVolume": "v", "containerPath": "/x"}]})),
            vec!["mountPoints[0].sourceVolume: is `v`"],
        ),
        (mounted(host, "//."), vec!["mountPoints[0].containerPath", "below /"]),
        (
            mounted(&file.join("below"), "/x"),
            vec!["CannotCreateVolumeError", "file/below", "Not a directory"],
        ),
        (mounted(host, "/etc/passwd"), vec!["CannotStartContainerError", "/etc/passwd", "not a directory"]),
        (mounted(&file, "/etc"), vec!["CannotStartContainerError", "/etc", "directory"]),
        (
            one(json!({"workingDirectory": "/bin/sh"})),
            vec!["CannotStartContainerError", "/bin/sh", "not a directory"],
        ),
        (one(json!({"entryPoint": ["nope"]})), vec!["CannotStartContainerError", "\"nope\"", "not found"]),
        (
            one(json!({"entryPoint": ["/etc/passwd"]})),
            vec!["CannotStartContainerError", "/etc/passwd", "permission denied"],
        ),
        (one(json!({"user": "stranger"})), vec!["CannotCreateContainerError", "stranger", "/etc/passwd"]),
        (one(json!({"user": "4294967295"})), vec!["4294967295", "out of range"]),
        (one(json!({"image": "127.0.0.1:9/nowhere/nothing:1"})), vec!["CannotPull", "nowhere/nothing:1"]),
    ]
}

#[test]
fn whatever_is_wrong_with_a_definition_is_named_and_leaves_nothing() {
    let mut lab = lab("refused2", "");
    let host = tempfile::tempdir().unwrap();
    let agent = &mut lab.agents[0];
    for (definition, words) in bad_definitions(agent, host.path()) {
        let text = refusal(agent, &definition);
        for word in words {
            assert!(text.contains(word), "no {word:?} in {text}");
        }
        assert!(!text.contains('\0'), "{text:?}");
    }
    images_that_are_none(agent, host.path());
    nothing_left(&mut lab);
}

fn images_that_are_none(agent: &Agent, dir: &Path) {
    let good = fs::read(agent.config.ancestors().nth(2).unwrap().join("image.tar")).unwrap();
    let import = |bytes: &[u8]| -> Output {
        let file = dir.join("image.tar");
        fs::write(&file, bytes).unwrap();
        let mut command = agent.berth(&["image", "import"]).unwrap();
        command.arg(&file).args(["--name", "broken:1", "--config"]).arg(&agent.config).output().unwrap()
    };
    for bytes in [&[][..], &good[..600], &good[..500_000], &good[..good.len() - 2000], &[0xfe; 4096][..]] {
        let output = import(bytes);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(
            !output.status.success() && text.contains("cannot be imported"),
            "{} bytes: {text}",
            bytes.len()
        );
    }
    let text = refusal(agent, &task(&[container("main", "true", &json!({"image": "broken:1"}))], &json!({})));
    assert!(text.contains("CannotPull"), "{text}");
}

#[test]
fn metadata_tells_of_running_and_of_ended_containers() {
    let mut lab = lab("metadata2", "");
    let agent = &mut lab.agents[0];
    let main = json!({"cpu": 256, "dockerLabels": {"a.b": "<x>&"},
        "portMappings": [{"containerPort": 80}, {"containerPort": 53, "protocol": "udp"}],
        "mountPoints": [{"sourceVolume": "data", "containerPath": "/data"}],
        "logConfiguration": {"logDriver": "json-file", "options": {"max-size": "1m"}}});
    let side = json!({"essential": false, "memory": null, "memoryReservation": 20, "logConfiguration": {"logDriver": "none"}});
    let containers = [
        container("main", "wget -q -O - $ECS_CONTAINER_METADATA_URI_V4/task; echo; exec sleep 1000", &main),
        container("side", "exit 7", &side),
    ];
    let more =
        json!({"cpu": "512", "memory": "256", "volumes": [{"name": "data"}], "enableFaultInjection": true});
    let (run, _) = agent.run(&task(&containers, &more)).unwrap();
    let own = agent.wait("what the task reads", |a| {
        let text = a.text(&["logs", arn(&run)?, "--container", "main"])?;
        Ok(text.lines().next().and_then(|l| serde_json::from_str::<Value>(l).ok()))
    });
    assert_eq!(own.unwrap()["TaskARN"], run["taskArn"]);
    let get = |path: &str| -> Value {
        serde_json::from_str(&in_namespace(&run, &format!("http://169.254.170.2{path}")).unwrap()).unwrap()
    };
    agent
        .wait("the side container's end", |a| {
            Ok((a.inspect(&run)?["containers"][1]["exitCode"] == 7).then_some(()))
        })
        .unwrap();
    let path = run["containers"][0]["metadataPath"].as_str().unwrap();
    let v4 = get(&format!("{path}/task"));
    assert_eq!(
        (&v4["Limits"], &v4["FaultInjectionEnabled"]),
        (&json!({"CPU": 0.5, "Memory": 256}), &json!(true))
    );
    let (main, side) = (&v4["Containers"][0], &v4["Containers"][1]);
    assert_eq!(
        (&main["KnownStatus"], &main["Limits"]),
        (&json!("RUNNING"), &json!({"CPU": 256, "Memory": 64}))
    );
    assert_eq!(main["Labels"]["a.b"], "<x>&");
    assert_eq!((&main["LogDriver"], &main["LogOptions"]), (&json!("json-file"), &json!({"max-size": "1m"})));
    assert_eq!((&main["Volumes"][0]["Destination"], main.get("FinishedAt")), (&json!("/data"), None));
    let ports: Vec<_> = main["Ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| (&p["ContainerPort"], &p["Protocol"], &p["HostPort"]))
        .collect();
    assert_eq!(ports, [(&json!(80), &json!("tcp"), &json!(80)), (&json!(53), &json!("udp"), &json!(53))]);
    let network = &main["Networks"][0];
    assert_eq!(
        (&network["IPv4SubnetCIDRBlock"], &network["SubnetGatewayIpv4Address"]),
        (&json!("10.0.1.0/24"), &json!("10.0.1.1/24"))
    );
    assert_eq!(
        (&network["IPv4Addresses"], &network["MACAddress"]),
        (&run["network"]["ipv4"], &run["network"]["mac"])
    );
    assert_eq!(
        (&side["KnownStatus"], &side["ExitCode"], &side["Limits"]),
        (&json!("STOPPED"), &json!(7), &json!({"CPU": 2, "Memory": 0}))
    );
    assert!(
        side["CreatedAt"].as_str() <= side["StartedAt"].as_str()
            && side["StartedAt"].as_str() <= side["FinishedAt"].as_str(),
        "{side}"
    );
    let v3 = get(&run["containers"][1]["metadataPath"].as_str().unwrap().replace("v4", "v3"));
    assert_eq!((&v3["Name"], &v3["ExitCode"], v3.get("LogDriver")), (&json!("side"), &json!(7), None));
}

#[test]
fn tasks_live_through_the_death_of_containerd_and_are_known_afterwards() {
    let mut lab: OneLab = lab("runtime", "");
    let ticks = busybox("ticks", "trap 'echo bye; exit 9' TERM; while true; do echo tick; sleep 0.1; done");
    let (lasting, _) = lab.agents[0].run(&ticks).unwrap();
    let (short, _) = lab.agents[0].run(&busybox("short", "sleep 1; exit 5")).unwrap();
    lab.kill_containerd().unwrap();
    let pid = short["containers"][0]["pid"].as_u64().unwrap();
    eventually("the short one to end unseen", Duration::from_secs(10), || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        Ok((status.is_empty() || status.contains("State:\tZ")).then_some(()))
    })
    .unwrap();
    let waits = lab.agents[0]
        .json(&["run", "--detach", &definition(&lab.agents[0], &busybox("late", "echo late"))])
        .unwrap();
    // The agent itself comes up without containerd, too.
    lab.agents[0].kill().unwrap();
    lab.agents[0].start().unwrap();
    lab.agents[0]
        .wait("it to say why", |a| Ok(a.text(&["status"]).ok().filter(|t| t.contains("containerd"))))
        .unwrap();
    lab.restart_containerd().unwrap();

    let agent = &mut lab.agents[0];
    let end = until_stopped(agent, &short);
    assert_eq!(
        (&end["containers"][0]["exitCode"], &end["stopCode"]),
        (&json!(5), &json!("EssentialContainerExited"))
    );
    until_stopped(agent, &waits);
    assert_eq!(agent.text(&["logs", arn(&waits).unwrap()]).unwrap(), "late\n");
    let now = agent
        .wait("the lasting one", |a| Ok(Some(a.inspect(&lasting)?).filter(|t| t["lastStatus"] == "RUNNING")))
        .unwrap();
    assert_eq!(now["containers"][0]["pid"], lasting["containers"][0]["pid"]);
    let lines = agent.text(&["logs", arn(&lasting).unwrap(), "--tail", "1000"]).unwrap().lines().count();
    agent
        .wait("its log to grow", |a| {
            Ok((a.text(&["logs", arn(&lasting)?, "--tail", "1000"])?.lines().count() > lines).then_some(()))
        })
        .unwrap();
    agent.text(&["stop", arn(&lasting).unwrap()]).unwrap();
    assert_eq!(agent.inspect(&lasting).unwrap()["containers"][0]["exitCode"], 9);
    nothing_left(&mut lab);
}

fn definition(agent: &Agent, definition: &Value) -> String {
    let file = agent.config.with_file_name("detached.json");
    fs::write(&file, definition.to_string()).unwrap();
    file.display().to_string()
}

#[test]
fn tasks_at_once_get_a_slot_each_and_stopping_is_always_possible() {
    let mut lab = lab("atonce", "");
    let agent = &mut lab.agents[0];
    let file = definition(agent, &sleeper("many"));
    let commands: Vec<_> = (0..3)
        .map(|_| {
            let mut command = agent.berth(&["run", &file, "--json"]).unwrap();
            command.stdout(std::process::Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let tasks: Vec<Value> = commands
        .into_iter()
        .map(|command| serde_json::from_slice(&command.wait_with_output().unwrap().stdout).unwrap())
        .collect();
    let mut addresses: Vec<&Value> = tasks.iter().map(|t| &t["network"]["ipv4"][0]).collect();
    addresses.sort_by_key(|a| a.to_string());
    addresses.dedup();
    assert!(tasks.iter().all(|t| t["lastStatus"] == "RUNNING") && addresses.len() == 3, "{tasks:?}");

    // All three ENIs are in use: the fourth waits, says why, and can be stopped twice.
    let fourth = agent.json(&["run", &file, "--detach"]).unwrap();
    assert_eq!(fourth["lastStatus"], "PROVISIONING");
    for _ in 0..2 {
        agent.text(&["stop", arn(&fourth).unwrap(), "--reason", "changed my mind"]).unwrap();
    }
    let end = agent.inspect(&fourth).unwrap();
    assert_eq!((&end["stoppedReason"], &end["startedAt"]), (&json!("changed my mind"), &json!(null)));

    let refused = agent.text(&["rm", arn(&tasks[0]).unwrap()]).unwrap_err().to_string();
    assert!(refused.contains("stop it first"), "{refused}");
    for task in &tasks {
        // Removed while its slot is still being given back.
        agent.text(&["stop", arn(task).unwrap()]).unwrap();
        agent.text(&["logs", arn(task).unwrap()]).unwrap();
        agent.text(&["rm", arn(task).unwrap()]).unwrap();
    }
    agent
        .wait("the tasks to be forgotten", |a| {
            let list = a.json(&["tasks"])?;
            Ok((list["tasks"].as_array().map(Vec::len) == Some(1)).then_some(()))
        })
        .unwrap();
    nothing_left(&mut lab);
}
