//! What ECS answers: described definitions, and overrides laid over them.

use super::*;
use crate::task::ContainerSpec;

/// What ECS makes of a definition that was registered: defaults filled in, members of its own added.
fn described(definition: &Value) -> Value {
    let mut answer = definition.clone();
    let own = json!({
        "taskDefinitionArn": "arn:aws:ecs:us-west-2:111122223333:task-definition/web:7", "revision": 7, "status": "ACTIVE",
        "requiresAttributes": [{"name": "ecs.capability.task-eni"}], "compatibilities": ["EXTERNAL", "EC2"],
        "registeredAt": 1_782_760_000.5, "registeredBy": "arn:aws:iam::111122223333:root", "placementConstraints": [],
        "proxyConfiguration": null, "somethingOfTomorrow": [], "anotherThing": {"inside": []}
    });
    answer.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
    answer.as_object_mut().unwrap().remove("tags");
    for container in answer["containerDefinitions"].as_array_mut().unwrap() {
        let defaults = json!({
            "cpu": 0, "portMappings": [], "environment": [], "mountPoints": [], "volumesFrom": [], "systemControls": [],
            "linuxParameters": {"devices": []}, "healthCheck": null, "newToggle": {}
        });
        for (key, value) in defaults.as_object().unwrap() {
            container.as_object_mut().unwrap().entry(key).or_insert(value.clone());
        }
    }
    answer
}

fn read(value: &Value) -> Result<TaskDefinition, TaskDefinitionError> {
    parse_described(value.to_string().as_bytes())
}

fn overridden(definition: &Value, overrides: &Value) -> Result<TaskSpec, String> {
    let definition = read(&described(definition)).map_err(|e| e.to_string())?;
    let overrides = Overrides::parse(overrides.to_string().as_bytes()).map_err(|e| e.to_string())?;
    validate_with(&definition, &overrides, identity()).map_err(|e| e.to_string())
}

/// Every run makes endpoint ids of its own.
fn without_ids(mut spec: TaskSpec) -> TaskSpec {
    let id = "00000000-0000-4000-8000-000000000000".parse().unwrap();
    spec.containers = spec
        .containers
        .into_iter()
        .map(|c| ContainerSpec { endpoint_id: crate::ids::EndpointId::clone(&id), ..c })
        .collect();
    spec
}

#[test]
fn a_described_definition_is_the_one_that_was_registered() {
    let definition = read(&described(&web())).unwrap();
    assert_eq!((definition.family(), definition.revision()), ("web", Some(7)));
    let spec = validate_with(&definition, &Overrides::default(), identity()).unwrap();
    assert_eq!(without_ids(spec), without_ids(run(&web()).unwrap()));
}

#[test]
fn a_member_with_a_value_that_nobody_knows_is_named() {
    let mut answer = described(&web());
    answer["containerDefinitions"][1]["newToggle"] = json!({"mode": "fast"});
    let error = read(&answer).unwrap_err();
    assert_eq!(error.field, "containerDefinitions[1].newToggle");
    assert!(error.problem.contains("unknown field"), "{error}");
}

#[test]
fn what_only_ecs_writes_is_refused_in_a_registration() {
    for field in ["revision", "status"] {
        let error = run(&with(&format!("/{field}"), json!(1))).unwrap_err();
        assert!(error.contains("unknown field"), "{error}");
    }
}

#[test]
fn overrides_replace_what_they_name_and_leave_the_rest() {
    let overrides = json!({
        "cpu": "512", "memory": "1 GB", "taskRoleArn": "arn:aws:iam::111122223333:role/other", "inferenceAcceleratorOverrides": [],
        "containerOverrides": [
            {"name": "app", "command": ["sleep 5"], "cpu": 20, "memory": 100, "memoryReservation": 50,
             "environment": [{"name": "B", "value": "2"}, {"name": "A", "value": "9"}]},
            {"name": "init"}, {}
        ]
    });
    let spec = overridden(&web(), &overrides).unwrap();
    assert_eq!((spec.cpu, spec.memory), (Some(512), Some(1024)));
    assert_eq!(spec.task_role_arn.as_deref(), Some("arn:aws:iam::111122223333:role/other"));
    let (app, plain) = (&spec.containers[0], run(&web()).unwrap());
    assert_eq!(app.command.as_deref(), Some(&["sleep 5".to_owned()][..]));
    assert_eq!(app.entry_point, plain.containers[0].entry_point);
    assert_eq!((app.cpu, app.memory, app.memory_reservation), (20, Some(100), Some(50)));
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(app.environment, [pair("A", "9"), pair("B", "2")]);
    assert_eq!(without_ids(spec.clone()).containers[1], without_ids(plain).containers[1]);
}

#[test]
fn each_bad_override_is_named_where_it_stands() {
    let table = [
        (
            json!({"name": "nobody", "command": ["x"]}),
            "containerOverrides[0].name",
            "a container of the definition",
        ),
        (json!({"command": ["x"]}), "containerOverrides[0].name", "is absent"),
        (
            json!({"name": "app", "environmentFiles": [{"value": "arn", "type": "s3"}]}),
            "containerOverrides[0].environmentFiles",
            "not supported",
        ),
        (
            json!({"name": "app", "resourceRequirements": [{"type": "GPU", "value": "1"}]}),
            "containerOverrides[0].resourceRequirements",
            "not supported",
        ),
        (json!({"name": "app", "memory": 2}), "containerOverrides[0].memory", "expected 6"),
        (json!({"name": "app", "memory": "lots"}), "containerOverrides[0].memory", "expected i64"),
        (json!({"name": "app", "cpu": -1}), "containerOverrides[0].cpu", "expected 0"),
        (json!({"name": "app", "command": ["a\0"]}), "containerOverrides[0].command[0]", "NUL"),
        (
            json!({"name": "app", "environment": [{"name": "B", "value": "1"}, {"name": "A=B"}]}),
            "containerOverrides[0].environment[1].name",
            "without",
        ),
        (json!({"name": "app", "user": "root"}), "containerOverrides[0].user", "unknown field"),
    ];
    for (entry, field, expected) in table {
        let error =
            overridden(&web(), &json!({"containerOverrides": [entry.clone()]})).expect_err("was accepted");
        assert!(
            error.starts_with(&format!("overrides.{field}: ")) && error.contains(expected),
            "{entry}: {error}"
        );
    }
    let error =
        overridden(&web(), &json!({"cpu": "x", "inferenceAcceleratorOverrides": [{"deviceName": "d"}]}));
    let error = error.unwrap_err();
    assert!(
        error.contains("overrides.cpu: ") && error.contains("overrides.inferenceAcceleratorOverrides: "),
        "{error}"
    );
}

#[test]
fn what_an_override_takes_from_a_limit_shows_in_the_definition_too() {
    let error = overridden(&web(), &json!({"memory": "32"})).unwrap_err();
    assert!(error.contains("containerDefinitions[0].memory: is 64 MiB; expected at most 32"), "{error}");
}

proptest! {
    #[test]
    fn no_bytes_make_the_readers_of_answers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        parse_described(&bytes).ok();
        Overrides::parse(&bytes).ok();
    }

    /// Whatever the overrides are, each problem names a field, and none is lost when all is laid over each other.
    #[test]
    fn any_override_gives_a_task_or_named_fields(
        name in prop_oneof![Just("app".to_owned()), Just("init".to_owned()), "[a-z]{0,4}"],
        memory in prop::option::of(-10..2000i64), cpu in prop::option::of(-10..2000i64),
        pairs in prop::collection::vec(("[ABC=]{0,2}", "\\PC{0,4}"), 0..5),
    ) {
        let environment: Vec<Value> = pairs.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        let entry = json!({"name": name, "memory": memory, "cpu": cpu, "environment": environment});
        match overridden(&web(), &json!({"containerOverrides": [entry]})) {
            Ok(spec) => {
                let container = spec.containers.iter().find(|c| c.name == name).unwrap();
                for (name, value) in &container.environment {
                    let last = pairs.iter().rev().find(|(n, _)| n == name).map_or("1", |(_, v)| v);
                    prop_assert_eq!(value, last);
                }
            }
            Err(error) => prop_assert!(error.lines().all(|line| line.contains(": ")), "{}", error),
        }
    }
}
