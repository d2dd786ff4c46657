//! Limits, and refusals in AWS's words.

use super::*;
use proptest::prelude::*;

#[test]
fn a_stopped_task_is_remembered_for_an_hour() {
    let (mut site, _) = Site::ready();
    let task = site.run();
    site.report(&task, json!({ "status": "STOPPED" }));
    site.wait(3599);
    assert_eq!(site.task(&task)["lastStatus"], "STOPPED");
    site.wait(1);
    let reply = site.ok("DescribeTasks", json!({ "cluster": "demo", "tasks": [task] }));
    assert_eq!(reply["failures"], json!([{ "arn": task, "reason": "MISSING" }]));
}

#[test]
fn lists_are_filtered_and_paged() {
    let (mut site, one) = Site::ready();
    let two = site.register(TWO);
    site.define("job");
    let start = |instance: &str, definition: &str, by: &str| {
        Site::request(
            json!({ "containerInstances": [instance], "taskDefinition": definition, "startedBy": by }),
        )
    };
    for (instance, definition, by) in [(&one, "web", "a"), (&one, "job", "b"), (&two, "web", "b")] {
        site.ok("StartTask", start(instance, definition, by));
    }
    let mut count = |filter: Value| {
        let mut input = json!({ "cluster": "demo" });
        for (member, value) in filter.as_object().unwrap() {
            input[member] = value.clone();
        }
        site.ok("ListTasks", input)["taskArns"].as_array().unwrap().len()
    };
    assert_eq!(count(json!({})), 3);
    assert_eq!(count(json!({ "containerInstance": one })), 2);
    assert_eq!(count(json!({ "family": "web" })), 2);
    assert_eq!(count(json!({ "family": "web", "startedBy": "b" })), 1);
    assert_eq!(count(json!({ "launchType": "FARGATE" })), 0);
    assert_eq!(count(json!({ "desiredStatus": "STOPPED" })), 0);
    assert_eq!(count(json!({ "maxResults": 2 })), 2);
    let first = site.ok("ListTasks", json!({ "cluster": "demo", "maxResults": 2 }));
    let rest = json!({ "cluster": "demo", "maxResults": 2, "nextToken": first["nextToken"] });
    let rest = site.ok("ListTasks", rest);
    assert_eq!((rest["taskArns"].as_array().unwrap().len(), rest.get("nextToken")), (1, None));
    let error = site.refused("ListTasks", json!({ "cluster": "demo", "serviceName": "x" }));
    assert_eq!(error.code, "ServiceNotFoundException");
    let error = site.refused("ListTasks", json!({ "cluster": "demo", "containerInstance": "none" }));
    assert_eq!(error.message, "Referenced container instance none not found.");
}

#[test]
fn what_describe_calls_are_asked_for_is_bounded() {
    let (mut site, _) = Site::ready();
    let many = |n: usize| vec!["x"; n];
    for (operation, member) in
        [("DescribeTasks", "tasks"), ("DescribeContainerInstances", "containerInstances")]
    {
        for n in [0, 101] {
            let error = site.refused(operation, json!({ "cluster": "demo", member: many(n) }));
            assert_eq!(error.code, "InvalidParameterException", "{operation} of {n}");
        }
        let error = site.refused(operation, json!({ "cluster": "demo", member: ["x"], "include": ["ALL"] }));
        assert!(error.message.starts_with("include should be one of ["), "{error}");
        let reply = site.ok(operation, json!({ "cluster": "demo", member: many(100) }));
        assert_eq!(reply["failures"].as_array().unwrap().len(), 100);
    }
}

#[test]
fn every_operation_survives_an_empty_input() {
    let (mut site, _) = Site::ready();
    for (operation, _, _) in crate::ecs::OPERATIONS {
        drop(site.call(operation, Value::Null));
        drop(site.call(operation, json!({})));
        let error = site.refused(operation, json!([]));
        assert_eq!(error.code, "SerializationException", "{operation}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z:/{}]{0,12}".prop_map(Value::from),
        prop::sample::select(vec!["demo", "web", "STOPPED", "app", SUBNET_A]).prop_map(Value::from),
    ];
    let member = prop::sample::select(vec![
        "name",
        "status",
        "task",
        "key",
        "value",
        "containerName",
        "attachmentArn",
        "targetId",
        "type",
        "subnets",
    ]);
    leaf.prop_recursive(3, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(member.clone().prop_map(str::to_owned), inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_input_makes_ecs_panic_and_a_refused_call_starts_nothing(
        at in 0..crate::ecs::OPERATIONS.len(),
        members in prop::collection::btree_map(
            prop::sample::select(vec![
                "task", "tasks", "containers", "attachments", "status", "count", "overrides", "networkConfiguration",
                "containerInstances", "tags", "attributes", "totalResources", "nextToken", "instanceIdentityDocument",
                "placementStrategy", "pullStartedAt", "resourceArn", "clusterName", "versionInfo",
            ]),
            any_json(),
            0..4,
        ),
    ) {
        let (mut site, _) = Site::ready();
        let operation = crate::ecs::OPERATIONS[at].0;
        let mut input = Site::request(json!({}));
        for (member, value) in members {
            input[member] = value;
        }
        if site.call(operation, input).is_err() {
            let listed = site.ok("ListTasks", json!({ "cluster": "demo" }));
            prop_assert_eq!(&listed["taskArns"], &json!([]));
        }
    }

    /// However reports come, late, doubled and out of order: a task never goes back, and ends once.
    #[test]
    fn a_task_never_goes_back(steps in prop::collection::vec((0u8..6, any::<bool>()), 1..12)) {
        let order = ["PROVISIONING", "PENDING", "RUNNING", "STOPPING", "STOPPED"];
        let place = |task: &Value| order.iter().position(|s| task["lastStatus"] == *s).unwrap();
        let (mut site, _) = Site::ready();
        let task = site.run();
        let mut before = site.task(&task);
        let attachment = format!("x/{}", text(&before["attachments"][0]["id"]));
        for (step, wait) in steps {
            site.wait(u64::from(wait));
            let report = |more: (&str, Value)| {
                let mut report = json!({ "cluster": "demo", "task": task });
                report[more.0] = more.1;
                report
            };
            drop(match step {
                0 => site.call("StopTask", report(("reason", json!("why")))),
                1 => site.call("SubmitTaskStateChange", report((
                    "attachments",
                    json!([{ "attachmentArn": attachment, "status": "ATTACHED" }]),
                ))),
                2 => site.call("SubmitTaskStateChange", report(("status", json!("PENDING")))),
                3 => site.call("SubmitTaskStateChange", report(("status", json!("RUNNING")))),
                4 => site.call("SubmitTaskStateChange", report(("status", json!("STOPPED")))),
                _ => site.call("SubmitContainerStateChange", report(("containerName", json!("app")))),
            });
            let after = site.task(&task);
            prop_assert!(place(&after) >= place(&before));
            prop_assert!(before["desiredStatus"] == "RUNNING" || after["desiredStatus"] == "STOPPED");
            for once in ["startedAt", "stoppedAt", "stopCode", "stoppedReason", "stoppingAt"] {
                prop_assert!(before.get(once).is_none() || before[once] == after[once], "{}", once);
            }
            before = after;
        }
    }
}
