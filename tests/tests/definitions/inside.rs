//! Looked at from inside the containers of one lab.

use crate::{
    common::{busybox, lab},
    container, has_lines, nothing_left, says, task, to_end,
};
use e2e::{
    lab::{Agent, arn},
    process::eventually,
};
use serde_json::{Value, json};
use std::{fs, process::Command, time::Duration};

#[test]
fn what_a_definition_says_is_what_its_containers_get() {
    let mut lab = lab("defs", "");
    let agent = &mut lab.agents[0];
    commands_and_environment(agent);
    users_and_directories(agent);
    limits(agent);
    privileges(agent);
    file_systems(agent);
    network(agent);
    nothing_left(&mut lab);
}

fn commands_and_environment(agent: &mut Agent) {
    let bare = |entry: &Value, command: &Value| {
        let fields = json!({"entryPoint": entry, "command": command});
        task(&[container("main", "", &fields)], &json!({}))
    };
    for (entry, command, said) in [
        (json!(null), json!(["echo", "command only"]), "command only\n"),
        // The image's own command is not taken over to another entry point.
        (json!(["echo", "entry"]), json!(null), "entry\n"),
        (json!([""]), json!(["echo", "no entry"]), "no entry\n"),
        (json!(["echo", "a"]), json!(["b c", "$HOME", "ü☃"]), "a b c $HOME ü☃\n"),
    ] {
        assert_eq!(to_end(agent, &bare(&entry, &command)).1, said, "{entry} {command}");
    }
    let own = json!({"environment": [
        {"name": "FROM_IMAGE", "value": "no"}, {"name": "EMPTY", "value": ""}, {"name": "AWS_REGION", "value": "mine"},
        {"name": "ECS_CONTAINER_METADATA_URI_V4", "value": "mine"}, {"name": "TEXT", "value": "ü ☃ = $A"}]});
    let text = says(agent, "env", &own);
    has_lines(
        &text,
        &[
            "FROM_IMAGE=no",
            "EMPTY=",
            "AWS_REGION=mine",
            "TEXT=ü ☃ = $A",
            "HOME=/root",
            "AWS_EXECUTION_ENV=AWS_ECS_EC2",
        ],
    );
    assert!(text.contains("ECS_CONTAINER_METADATA_URI_V4=http://169.254.170.2/v4/"), "{text}");
    assert!(text.contains("ECS_CONTAINER_METADATA_URI=http://169.254.170.2/v3/"), "{text}");
    has_lines(&says(agent, "env", &json!({})), &["AWS_REGION=us-west-2", "FROM_IMAGE=yes"]);
}

fn users_and_directories(agent: &mut Agent) {
    let line = "id -u; id -g; echo $HOME; pwd";
    for (user, said) in [
        ("web", "1000\n1000\n/\n/a b/ü\n"),
        ("1000:0", "1000\n0\n/\n/a b/ü\n"),
        ("12345", "12345\n0\n/\n/a b/ü\n"),
        (":1000", "0\n1000\n/root\n/a b/ü\n"),
    ] {
        assert_eq!(says(agent, line, &json!({"user": user, "workingDirectory": "/a b/ü"})), said, "{user}");
    }
}

fn limits(agent: &mut Agent) {
    // Named by cgroup v1 and v2; what the other one names is not there.
    let line = "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory.max cpu/cpu.shares cpu.weight 2>/dev/null; \
                grep hierarchical_memory_limit memory/memory.stat 2>/dev/null; grep files /proc/self/limits; true";
    let more = json!({"cpu": 512, "memory": 100, "memoryReservation": 50,
        "ulimits": [{"name": "nofile", "softLimit": 100, "hardLimit": 200}]});
    let (_, text) = to_end(
        agent,
        &task(&[container("main", line, &more)], &json!({"cpu": "1 vCPU", "memory": "0.25GB"})),
    );
    assert!(text.contains("104857600\n"), "{text}");
    assert!(text.contains("512\n") || text.contains("20\n"), "{text}");
    assert!(text.contains("Max open files            100                  200"), "{text}");

    // The task's own limits are those of a cgroup around its containers.
    let fields = json!({"cpu": ".5 vCPU", "memory": "0.25GB"});
    let (running, _) =
        agent.run(&task(&[container("main", "exec sleep 1000", &json!({"memory": null}))], &fields)).unwrap();
    let id = arn(&running).unwrap().rsplit('/').next().unwrap();
    let found = |names: [&str; 2]| {
        let mut find = Command::new("find");
        let output = find.args(["/sys/fs/cgroup", "-path", &format!("*/{id}/{}", names[0])]);
        let output = output.args(["-o", "-path", &format!("*/{id}/{}", names[1])]).output().unwrap();
        let path = String::from_utf8(output.stdout).unwrap();
        fs::read_to_string(path.trim()).unwrap_or_else(|e| panic!("{names:?}: {path:?}: {e}"))
    };
    assert_eq!(found(["memory.limit_in_bytes", "memory.max"]).trim(), "268435456");
    assert!(["50000", "50000 100000"].contains(&found(["cpu.cfs_quota_us", "cpu.max"]).trim()));
    agent.text(&["stop", arn(&running).unwrap()]).unwrap();
}

fn privileges(agent: &mut Agent) {
    let line = "grep -E 'CapEff|NoNewPrivs|^Seccomp:' /proc/self/status; ip link set eth0 mtu 1400 && echo changed; true";
    let caps = |add: &[&str], drop: &[&str]| json!({"linuxParameters": {"capabilities": {"add": add, "drop": drop}}});
    let default = says(agent, line, &json!({}));
    has_lines(&default, &["CapEff:\t00000000a80425fb", "NoNewPrivs:\t0", "Seccomp:\t2"]);
    assert!(!default.contains("changed"), "a task may change its interface: {default}");
    has_lines(
        &says(agent, line, &caps(&["NET_ADMIN"], &["MKNOD"])),
        &["CapEff:\t00000000a00435fb", "changed"],
    );
    has_lines(&says(agent, line, &caps(&[], &["ALL"])), &["CapEff:\t0000000000000000"]);
    let user = json!({"user": "1000", "dockerSecurityOptions": ["no-new-privileges"]});
    has_lines(&says(agent, line, &user), &["CapEff:\t0000000000000000", "NoNewPrivs:\t1"]);
    has_lines(&says(agent, line, &json!({"privileged": true})), &["Seccomp:\t0", "changed"]);
}

fn file_systems(agent: &mut Agent) {
    let read_only = json!({"readonlyRootFilesystem": true, "linuxParameters": {"sharedMemorySize": 5, "tmpfs": [
        {"containerPath": "/t/deep", "size": 8, "mountOptions": ["defaults", "exec", "mode=700"]}]}});
    let line = "touch /x || echo refused; touch /t/deep/x /dev/shm/x && echo written; mount | grep -E ' /t/deep | /dev/shm '";
    let text = says(agent, line, &read_only);
    has_lines(&text, &["refused", "written"]);
    assert!(text.contains("size=8192k,mode=700") && text.contains("size=5120k"), "{text}");

    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("file"), "from the host\n").unwrap();
    let volumes = json!({"volumes": [
        {"name": "shared"}, {"name": "dir", "host": {"sourcePath": host.path()}},
        {"name": "made", "host": {"sourcePath": host.path().join("a/b")}},
        {"name": "file", "host": {"sourcePath": host.path().join("file")}}]});
    let mounts = |list: &[(&str, &str, bool)]| {
        let list =
            list.iter().map(|(v, p, ro)| json!({"sourceVolume": v, "containerPath": p, "readOnly": ro}));
        json!({"mountPoints": list.collect::<Vec<_>>()})
    };
    let writer =
        "cat /f; echo made > /made/m; echo data > /s/x; while ! [ -e /made/seen ]; do sleep 0.05; done";
    let writer = container(
        "w",
        writer,
        &mounts(&[("shared", "/s", false), ("file", "/f", false), ("made", "/made", false)]),
    );
    let reader = "while ! cat /s/x 2>/dev/null; do sleep 0.05; done; touch /s/y /d/y || echo refused; touch /d/a/b/seen || touch /made/seen";
    let mut reader = container(
        "r",
        reader,
        &mounts(&[("shared", "/s", true), ("dir", "/d", true), ("made", "/made", false)]),
    );
    reader["dependsOn"] = json!([{"containerName": "w", "condition": "START"}]);
    let (end, text) = to_end(agent, &task(&[writer, reader], &volumes));
    has_lines(&text, &["w | from the host", "r | data", "r | refused"]);
    assert_eq!(fs::read_to_string(host.path().join("a/b/m")).unwrap(), "made\n");
    let id = arn(&end).unwrap().rsplit('/').next().unwrap().to_owned();
    let own = agent.data_dir.join("volumes").join(&id);
    assert!(own.join("shared/x").exists());
    agent.text(&["rm", arn(&end).unwrap()]).unwrap();
    eventually("the task's volumes and logs to go", Duration::from_secs(10), || {
        Ok((!own.exists() && !agent.data_dir.join("logs").join(&id).exists()).then_some(()))
    })
    .unwrap();
    assert!(host.path().join("file").exists());
}

fn network(agent: &mut Agent) {
    let line = "cat /etc/resolv.conf /etc/hosts; hostname; cat /etc/hostname; ip addr show eth0; ip route; \
                nc -w 1 169.254.169.254 80 </dev/null; echo imds $?";
    let (end, text) = to_end(agent, &busybox("net", line));
    let address = text.lines().find_map(|l| l.strip_suffix("/24 brd 10.0.1.255 scope global eth0")).unwrap();
    let address = address.trim().trim_start_matches("inet ");
    let name = format!("ip-{}.us-west-2.compute.internal", address.replace('.', "-"));
    has_lines(
        &text,
        &["nameserver 10.0.0.2", "search us-west-2.compute.internal", "127.0.0.1 localhost", &name, "imds 1"],
    );
    has_lines(
        &text,
        &[&format!("{address} {name}"), "blackhole 169.254.169.254 ", "default via 10.0.1.1 dev eth0 "],
    );
    assert!(text.contains("mtu 1500") && text.contains("inet6 fd00:10:0:1:"), "{text}");
    assert!(end["startedAt"].as_str() <= end["stoppedAt"].as_str());
}
