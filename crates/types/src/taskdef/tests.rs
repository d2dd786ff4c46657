//! Definitions as users write them: what runs, and what is refused by which field.

use super::*;
use crate::{
    ids::ClusterName,
    lease::LeaseNeeds,
    task::{DependsCondition, LogDriver, TaskSpec},
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn identity() -> Identity {
    let cluster: ClusterName = "demo".parse().unwrap();
    Identity {
        arn: crate::ids::TaskArn::new("us-west-2", "111122223333", &cluster, "0123").unwrap(),
        cluster: "demo".into(),
        revision: "1".into(),
        group: None,
        launch_type: "EC2".into(),
        network: LeaseNeeds::default(),
        created_at: crate::Timestamp::UNIX_EPOCH,
        origin: crate::task::Origin::Operator,
        privileged: true,
    }
}

fn web() -> Value {
    json!({
        "family": "web",
        "networkMode": "awsvpc",
        "cpu": "256",
        "memory": ".5 GB",
        "volumes": [{"name": "data"}, {"name": "etc", "host": {"sourcePath": "/etc"}}],
        "containerDefinitions": [{
            "name": "app", "image": "busybox:1.36", "memory": 64, "cpu": 10, "essential": true,
            "entryPoint": ["sh", "-c"], "command": ["httpd -f"],
            "environment": [{"name": "A", "value": "1"}],
            "portMappings": [{"containerPort": 80}],
            "mountPoints": [{"sourceVolume": "data", "containerPath": "/data"}],
            "ulimits": [{"name": "nofile", "softLimit": 10, "hardLimit": 20}],
            "linuxParameters": {"capabilities": {"drop": ["ALL"]}, "tmpfs": [{"containerPath": "/t", "size": 8, "mountOptions": ["noexec"]}]},
            "logConfiguration": {"logDriver": "json-file", "options": {"max-size": "1m", "max-file": "2"}}
        }, {
            "name": "init", "image": "busybox", "essential": false
        }],
        "requiresCompatibilities": ["EC2"],
        "tags": [{"key": "team", "value": "a"}]
    })
}

fn run(value: &Value) -> Result<TaskSpec, String> {
    let definition = parse(value.to_string().as_bytes()).map_err(|e| e.to_string())?;
    validate(&definition, identity()).map_err(|e| e.to_string())
}

/// Sets the value at a JSON pointer, making the last key if it is not there.
fn with(pointer: &str, value: Value) -> Value {
    let mut json = web();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = json.pointer_mut(parent).unwrap();
    match parent {
        Value::Array(list) => list[key.parse::<usize>().unwrap()] = value,
        object => object[key] = value,
    }
    json
}

#[test]
fn a_whole_definition_becomes_a_task() {
    let spec = run(&web()).unwrap();
    assert_eq!((spec.cpu, spec.memory), (Some(256), Some(512)));
    assert_eq!(spec.containers.len(), 2);
    let app = &spec.containers[0];
    assert_eq!((app.memory, app.cpu, app.essential), (Some(64), 10, true));
    assert_eq!(app.port_mappings[0].protocol, "tcp");
    assert_eq!(app.log.driver, LogDriver::JsonFile);
    assert_eq!(spec.volumes[1].host_path.as_deref(), Some(std::path::Path::new("/etc")));
    assert_ne!(app.endpoint_id, spec.containers[1].endpoint_id);
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of one row a field")]
fn each_bad_field_is_named_with_what_was_expected() {
    let first = "/containerDefinitions/0";
    let table: Vec<(String, Value, &str, &str)> = vec![
        ("/family".into(), json!("a b"), "family", "letters"),
        ("/family".into(), json!(7), "family", "expected a string"),
        ("/networkMode".into(), json!("bridge"), "networkMode", "awsvpc"),
        ("/networkMode".into(), json!(null), "networkMode", "awsvpc"),
        ("/cpu".into(), json!("lots"), "cpu", "CPU units"),
        ("/memory".into(), json!("1"), "memory", "at least 6"),
        ("/pidMode".into(), json!("host"), "pidMode", "not supported"),
        ("/containerDefinitions".into(), json!([]), "containerDefinitions", "1 to 10"),
        ("/containerDefinitions".into(), json!({}), "containerDefinitions", "sequence"),
        ("/whatever".into(), json!(1), "whatever", "unknown field"),
        (format!("{first}/memory"), json!("64"), "containerDefinitions[0].memory", "expected i64"),
        (format!("{first}/memory"), json!(1), "containerDefinitions[0].memory", "expected 6"),
        (format!("{first}/memory"), json!(100_000), "containerDefinitions[0].memory", "at most 512"),
        (format!("{first}/cpu"), json!(2000), "cpu", "at least their sum"),
        (
            format!("{first}/environment"),
            json!([["A", "1"]]),
            "containerDefinitions[0].environment[0]",
            "an object",
        ),
        (
            "/containerDefinitions/1".into(),
            json!(["init", "busybox"]),
            "containerDefinitions[1]",
            "an object",
        ),
        ("/runtimePlatform".into(), json!(["X86_64", "LINUX"]), "runtimePlatform", "an object"),
        (format!("{first}/name"), json!("../x"), "containerDefinitions[0].name", "letters"),
        (format!("{first}/name"), json!("init"), "containerDefinitions[1].name", "name of its own"),
        (format!("{first}/image"), json!(""), "containerDefinitions[0].image", "image reference"),
        (format!("{first}/essential"), json!("yes"), "containerDefinitions[0].essential", "boolean"),
        (format!("{first}/essential"), json!(false), "containerDefinitions", "essential"),
        (format!("{first}/command"), json!("ls"), "containerDefinitions[0].command", "sequence"),
        (
            format!("{first}/environment"),
            json!([{"name": "A=B", "value": ""}]),
            "containerDefinitions[0].environment[0].name",
            "without",
        ),
        (
            format!("{first}/environment"),
            json!({"A": "1"}),
            "containerDefinitions[0].environment",
            "sequence",
        ),
        (
            format!("{first}/workingDirectory"),
            json!("tmp"),
            "containerDefinitions[0].workingDirectory",
            "absolute",
        ),
        (
            format!("{first}/mountPoints"),
            json!([{"sourceVolume": "x", "containerPath": "/x"}]),
            "containerDefinitions[0].mountPoints[0].sourceVolume",
            "volumes",
        ),
        (
            format!("{first}/mountPoints"),
            json!([{"sourceVolume": "data", "containerPath": "/../x"}]),
            "containerDefinitions[0].mountPoints[0].containerPath",
            "absolute",
        ),
        (
            format!("{first}/portMappings"),
            json!([{"containerPort": 80, "hostPort": 8080}]),
            "containerDefinitions[0].portMappings[0].hostPort",
            "80",
        ),
        (
            format!("{first}/portMappings"),
            json!([{"containerPort": 70_000}]),
            "containerDefinitions[0].portMappings[0].containerPort",
            "65535",
        ),
        (
            format!("{first}/ulimits"),
            json!([{"name": "files", "softLimit": 1, "hardLimit": 1}]),
            "containerDefinitions[0].ulimits[0].name",
            "nofile",
        ),
        (
            format!("{first}/ulimits"),
            json!([{"name": "nofile", "softLimit": 2, "hardLimit": 1}]),
            "containerDefinitions[0].ulimits[0].softLimit",
            "at most 1",
        ),
        (
            format!("{first}/dependsOn"),
            json!([{"containerName": "x", "condition": "START"}]),
            "containerDefinitions[0].dependsOn[0].containerName",
            "another container",
        ),
        (
            format!("{first}/dependsOn"),
            json!([{"containerName": "init", "condition": "HEALTHY"}]),
            "containerDefinitions[0].dependsOn[0].condition",
            "START",
        ),
        (
            format!("{first}/dependsOn"),
            json!([{"containerName": "app", "condition": "START"}]),
            "containerDefinitions",
            "circle",
        ),
        (
            format!("{first}/logConfiguration"),
            json!({"logDriver": "awslogs"}),
            "containerDefinitions[0].logConfiguration.logDriver",
            "json-file",
        ),
        (
            format!("{first}/logConfiguration"),
            json!({"logDriver": "json-file", "options": {"max-size": "big"}}),
            "containerDefinitions[0].logConfiguration.options.max-size",
            "10m",
        ),
        (
            format!("{first}/secrets"),
            json!([{"name": "A", "valueFrom": "x"}]),
            "containerDefinitions[0].secrets",
            "not supported",
        ),
        (
            format!("{first}/healthCheck"),
            json!({"command": ["CMD", "true"]}),
            "containerDefinitions[0].healthCheck",
            "not supported",
        ),
        (
            format!("{first}/linuxParameters/capabilities/drop"),
            json!(["CAP_CHOWN"]),
            "containerDefinitions[0].linuxParameters.capabilities.drop[0]",
            "without `CAP_`",
        ),
        (format!("{first}/memory"), json!(5), "containerDefinitions[0].memory", "expected 6 to"),
        (format!("{first}/command"), json!(["a", "b\0"]), "containerDefinitions[0].command[1]", "NUL"),
        (format!("{first}/user"), json!("web\nroot"), "containerDefinitions[0].user", "expected a name"),
        (
            format!("{first}/mountPoints"),
            json!([{"sourceVolume": "data", "containerPath": "/./"}]),
            "containerDefinitions[0].mountPoints[0].containerPath",
            "below /",
        ),
        (
            format!("{first}/mountPoints"),
            json!([{"sourceVolume": "data", "containerPath": "/x"}, {"sourceVolume": "data", "containerPath": "//x/."}]),
            "containerDefinitions[0].mountPoints[1].containerPath",
            "mounted already",
        ),
        (
            format!("{first}/linuxParameters/tmpfs/0/mountOptions/0"),
            json!("mode=rwx"),
            "containerDefinitions[0].linuxParameters.tmpfs[0].mountOptions[0]",
            "a number",
        ),
        (
            format!("{first}/linuxParameters/tmpfs/0/mountOptions/0"),
            json!("size=9"),
            "containerDefinitions[0].linuxParameters.tmpfs[0].mountOptions[0]",
            "noexec",
        ),
        ("/volumes/0/name".into(), json!("a/b"), "volumes[0].name", "letters"),
        ("/volumes/1/host/sourcePath".into(), json!("etc"), "volumes[1].host.sourcePath", "absolute"),
        (
            "/volumes/0/efsVolumeConfiguration".into(),
            json!({"fileSystemId": "fs-1"}),
            "volumes[0].efsVolumeConfiguration",
            "not supported",
        ),
    ];
    for (pointer, value, field, expected) in table {
        let error =
            run(&with(&pointer, value.clone())).expect_err(&format!("{pointer} = {value} was accepted"));
        assert!(
            error.lines().any(|l| l.starts_with(&format!("{field}: ")) && l.contains(expected)),
            "{pointer} = {value}: {error}"
        );
    }
}

#[test]
fn all_problems_are_reported_at_once() {
    let mut json = with("/networkMode", json!("host"));
    json["containerDefinitions"][0]["image"] = json!("");
    assert_eq!(run(&json).unwrap_err().lines().count(), 2);
}

#[test]
fn a_container_without_any_memory_limit_is_refused_as_ecs_does() {
    let error = run(&with("/memory", json!(null))).unwrap_err();
    assert!(error.contains("containerDefinitions[1]: has no memory limit"), "{error}");
}

#[test]
fn containers_for_which_more_is_reserved_than_the_task_has_are_refused_as_ecs_does() {
    let mut json = web();
    json["containerDefinitions"][1]["memory"] = json!(449);
    assert!(run(&json).unwrap_err().contains("memory: is 512 MiB, but 513 are reserved"));
    json["containerDefinitions"][1]["memoryReservation"] = json!(448);
    run(&json).unwrap();
}

#[test]
fn dependencies_are_translated() {
    let spec = run(&with(
        "/containerDefinitions/0/dependsOn",
        json!([{"containerName": "init", "condition": "SUCCESS"}]),
    ))
    .unwrap();
    assert_eq!(spec.containers[0].depends_on[0].condition, DependsCondition::Success);
}

#[test]
fn a_circle_of_three_is_found() {
    let mut json = web();
    json["containerDefinitions"] = json!([
        {"name": "a", "image": "x", "dependsOn": [{"containerName": "b", "condition": "START"}]},
        {"name": "b", "image": "x", "dependsOn": [{"containerName": "c", "condition": "START"}]},
        {"name": "c", "image": "x", "dependsOn": [{"containerName": "a", "condition": "START"}]},
        {"name": "d", "image": "x"},
    ]);
    assert!(run(&json).unwrap_err().contains("circle: a, b, c"));
}

mod described;

#[test]
fn text_behind_the_document_is_an_error() {
    assert!(parse(format!("{} x", web()).as_bytes()).is_err());
    assert!(parse(&vec![b' '; MAX_BYTES + 1]).unwrap_err().to_string().contains("at most"));
}

#[test]
fn a_spec_survives_being_recorded() {
    let spec = run(&web()).unwrap();
    let again: TaskSpec = serde_json::from_slice(&serde_json::to_vec(&spec).unwrap()).unwrap();
    assert_eq!(again, spec);
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        parse(&bytes).ok();
    }

    /// Any value in any place gives a task or a named field, never a panic.
    #[test]
    fn any_value_anywhere_is_answered(key in "[a-zA-Z]{1,12}", number: i64, text in "\\PC{0,20}", place in 0..4usize) {
        let json = match place {
            0 => with(&format!("/{key}"), json!(text)),
            1 => with(&format!("/containerDefinitions/0/{key}"), json!(number)),
            2 => with("/containerDefinitions/0/memory", json!(number)),
            _ => with("/containerDefinitions/0/image", json!(text)),
        };
        if let Err(error) = run(&json) {
            prop_assert!(error.contains(": "));
        }
    }
}

#[test]
fn a_privileged_container_is_refused_by_name_where_that_is_switched_off() {
    let mut definition = web();
    definition["containerDefinitions"][0]["privileged"] = json!(true);
    let definition = parse(definition.to_string().as_bytes()).unwrap();
    assert!(validate(&definition, identity()).unwrap().containers[0].privileged);
    let refused =
        validate(&definition, Identity { privileged: false, ..identity() }).unwrap_err().to_string();
    assert!(refused.starts_with("containerDefinitions[0].privileged: is true"), "{refused}");
    let none = parse(web().to_string().as_bytes()).unwrap();
    assert!(validate(&none, Identity { privileged: false, ..identity() }).is_ok());
}
