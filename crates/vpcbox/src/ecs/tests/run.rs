//! RunTask and StartTask: placement, tokens, overrides.

use super::*;

fn failures(reply: &Value) -> Vec<(String, String)> {
    let failures = reply["failures"].as_array().unwrap();
    failures.iter().map(|f| (text(&f["arn"]), text(&f["reason"]))).collect()
}

fn started(reply: &Value) -> usize {
    reply["tasks"].as_array().unwrap().len()
}

#[test]
fn a_new_task_says_where_it_is_and_what_it_waits_for() {
    let (mut site, instance) = Site::ready();
    let overrides = json!({ "containerOverrides": [
        { "name": "app", "memory": 300, "environment": [{ "name": "A", "value": "b" }] },
    ]});
    let more = json!({ "overrides": overrides, "startedBy": "me", "tags": [{ "key": "k", "value": "v" }] });
    let reply = site.ok("RunTask", Site::request(more));
    let task = &reply["tasks"][0];
    assert_eq!((&task["lastStatus"], &task["desiredStatus"]), (&json!("PROVISIONING"), &json!("RUNNING")));
    assert_eq!(task["containerInstanceArn"], json!(instance));
    assert_eq!(task["group"], "family:web");
    assert_eq!(task["availabilityZone"], "us-west-2a");
    assert_eq!((&task["cpu"], &task["memory"]), (&json!("256"), &json!("364")));
    assert_eq!(task["tags"], json!([{ "key": "k", "value": "v" }]));
    let shown = task["overrides"]["containerOverrides"].as_array().unwrap();
    assert_eq!((&shown[0]["memory"], &shown[1]), (&json!(300), &json!({ "name": "side" })));
    let attachment = &task["attachments"][0];
    assert_eq!(
        (&attachment["type"], &attachment["status"]),
        (&json!("ElasticNetworkInterface"), &json!("PRECREATED"))
    );
    let details = json!([
        { "name": "subnetId", "value": SUBNET_A },
        { "name": "securityGroups", "value": "sg-00000000000000001" },
    ]);
    assert_eq!(attachment["details"], details, "the VPC's default group, as nothing else was asked for");
    assert_eq!(task["containers"][1]["name"], "side");
    assert_eq!(task["containers"][0]["memory"], "300");
}

#[test]
fn each_shortage_of_an_instance_is_a_failure_of_its_own() {
    let (mut site, instance) = Site::ready();
    let big = |member: &str, value: &str| Site::request(json!({ "overrides": { member: value } }));
    let reply = site.ok("RunTask", big("cpu", "4096"));
    assert_eq!(failures(&reply), [(instance.clone(), "RESOURCE:CPU".to_owned())]);
    let reply = site.ok("RunTask", big("memory", "8192"));
    assert_eq!(failures(&reply), [(instance.clone(), "RESOURCE:MEMORY".to_owned())]);
    let reply = site.ok("RunTask", Site::request(json!({ "enableExecuteCommand": true })));
    assert_eq!(failures(&reply), [(instance.clone(), "ATTRIBUTE".to_owned())]);
    let elsewhere = json!({ "awsvpcConfiguration": { "subnets": [SUBNET_B] } });
    let reply = site.ok("RunTask", Site::request(json!({ "networkConfiguration": elsewhere })));
    assert_eq!(failures(&reply), [(instance.clone(), "LOCATION".to_owned())]);
    let reply = site.ok("RunTask", Site::request(json!({ "count": 4 })));
    assert_eq!(started(&reply), 2, "an m5.large has three ENIs, and one is its own");
    assert_eq!(failures(&reply), [(instance.clone(), "RESOURCE:ENI".to_owned())]);
    site.wait(91);
    let reply = site.ok("RunTask", Site::request(json!({})));
    assert_eq!(failures(&reply), [(instance, "AGENT".to_owned())], "nothing was heard of it");
}

#[test]
fn any_call_of_the_agents_shows_that_it_is_there() {
    let (mut site, instance) = Site::ready();
    let task = site.run();
    let list = json!({ "cluster": "demo", "containerInstance": instance });
    let poll = json!({ "cluster": "demo", "containerInstance": instance });
    let report = json!({ "cluster": "demo", "task": task, "status": "PENDING" });
    for (operation, input) in
        [("ListTasks", list), ("DiscoverPollEndpoint", poll), ("SubmitTaskStateChange", report)]
    {
        site.wait(89);
        site.ok(operation, input);
    }
    site.wait(89);
    let describe = json!({ "cluster": "demo", "containerInstances": [instance] });
    assert_eq!(
        site.ok("DescribeContainerInstances", describe.clone())["containerInstances"][0]["agentConnected"],
        true
    );
    site.caller = Caller::Instance(ONE.to_owned());
    site.ok("DescribeTasks", json!({ "cluster": "demo", "tasks": [task] }));
    site.caller = Caller::Operator;
    site.wait(89);
    assert_eq!(
        site.ok("DescribeContainerInstances", describe.clone())["containerInstances"][0]["agentConnected"],
        true
    );
    site.wait(2);
    assert_eq!(
        site.ok("DescribeContainerInstances", describe)["containerInstances"][0]["agentConnected"],
        false
    );
}

#[test]
fn draining_stops_new_tasks_and_nothing_else() {
    let (mut site, instance) = Site::ready();
    let task = site.run();
    let turn =
        |status: &str| json!({ "cluster": "demo", "containerInstances": [instance], "status": status });
    let reply = site.ok("UpdateContainerInstancesState", turn("DRAINING"));
    assert_eq!(reply["containerInstances"][0]["status"], "DRAINING");
    let error = site.refused("RunTask", Site::request(json!({})));
    assert_eq!(error.message, "No Container Instances were found in your cluster.");
    let reply = site.ok("StartTask", Site::request(json!({ "containerInstances": [instance] })));
    assert_eq!(failures(&reply), [(instance.clone(), "INACTIVE".to_owned())]);
    assert_eq!(site.task(&task)["desiredStatus"], "RUNNING");
    assert_eq!(site.register(ONE), instance);
    let described = json!({ "cluster": "demo", "containerInstances": [instance] });
    let shown = site.ok("DescribeContainerInstances", described);
    assert_eq!(shown["containerInstances"][0]["status"], "DRAINING", "a restart does not end it");
    site.ok("UpdateContainerInstancesState", turn("ACTIVE"));
    site.run();
    let error = site.refused("UpdateContainerInstancesState", turn("ASLEEP"));
    assert_eq!(error.message, "Container instance status should be one of [ACTIVE, DRAINING].");
}

#[test]
fn start_task_takes_the_instances_it_is_given() {
    let (mut site, one) = Site::ready();
    let two = site.register(TWO);
    let reply = site.ok("StartTask", Site::request(json!({ "containerInstances": [one, two, "nobody"] })));
    let places: Vec<_> = (0..2).map(|n| text(&reply["tasks"][n]["containerInstanceArn"])).collect();
    assert_eq!(places, [one, two]);
    assert_eq!(failures(&reply)[0].1, "MISSING");
}

#[test]
fn tasks_spread_over_zones_and_a_task_gets_the_subnet_of_its_zone() {
    let (mut site, _) = Site::ready();
    site.register(TWO);
    site.register(FAR);
    let more = json!({
        "count": 2,
        "placementStrategy": [{ "type": "spread", "field": "attribute:ecs.availability-zone" }],
        "networkConfiguration": { "awsvpcConfiguration": { "subnets": [SUBNET_A, SUBNET_B] } },
    });
    let reply = site.ok("RunTask", Site::request(more));
    let mut places: Vec<_> = (0..2)
        .map(|n| {
            let task = &reply["tasks"][n];
            (text(&task["availabilityZone"]), text(&task["attachments"][0]["details"][0]["value"]))
        })
        .collect();
    places.sort();
    let pair = |zone: &str, subnet: &str| (zone.to_owned(), subnet.to_owned());
    assert_eq!(places, [pair("us-west-2a", SUBNET_A), pair("us-west-2b", SUBNET_B)]);
}

#[test]
fn distinct_instances_hold_one_task_of_a_group_each() {
    let (mut site, _) = Site::ready();
    site.register(TWO);
    let more = json!({ "count": 3, "placementConstraints": [{ "type": "distinctInstance" }] });
    let reply = site.ok("RunTask", Site::request(more));
    assert_eq!((started(&reply), failures(&reply).len()), (2, 2));
}

#[test]
fn a_client_token_starts_its_tasks_once() {
    let (mut site, _) = Site::ready();
    let again = || Site::request(json!({ "clientToken": "t-1" }));
    let first = site.ok("RunTask", again());
    let second = site.ok("RunTask", again());
    assert_eq!(first["tasks"][0]["taskArn"], second["tasks"][0]["taskArn"]);
    let error = site.refused("RunTask", Site::request(json!({ "clientToken": "t-1", "count": 2 })));
    assert_eq!(error.code, "ConflictException");
    assert_eq!(json!(error.resource_ids), json!([first["tasks"][0]["taskArn"]]));
    let listed = site.ok("ListTasks", json!({ "cluster": "demo" }));
    assert_eq!(listed["taskArns"].as_array().unwrap().len(), 1);
    site.wait(24 * 3600 + 1);
    site.register(ONE);
    let third = site.ok("RunTask", again());
    assert_ne!(first["tasks"][0]["taskArn"], third["tasks"][0]["taskArn"], "a day later it is another call");
}

#[test]
fn a_call_made_again_hears_the_same_refusals_and_starts_no_more() {
    let (mut site, _) = Site::ready();
    let call = || Site::request(json!({ "clientToken": "t-1", "count": 3 }));
    let first = site.ok("RunTask", call());
    assert_eq!((started(&first), first["failures"][0]["reason"].as_str()), (2, Some("RESOURCE:ENI")));
    site.register(TWO);
    let again = site.ok("RunTask", call());
    assert_eq!((started(&again), &again["failures"]), (2, &first["failures"]));
}

#[test]
fn sizes_of_a_task_are_overridden_in_the_units_of_its_definition() {
    let (mut site, instance) = Site::ready();
    let sizes = json!({ "overrides": { "cpu": "1 vCPU", "memory": "1GB" } });
    assert_eq!(started(&site.ok("RunTask", Site::request(sizes))), 1);
    let describe = json!({ "cluster": "demo", "containerInstances": [instance] });
    let shown = site.ok("DescribeContainerInstances", describe);
    let left = shown["containerInstances"][0]["remainingResources"].as_array().unwrap();
    assert_eq!((&left[0]["integerValue"], &left[1]["integerValue"]), (&json!(1024), &json!(3072)));
    let wrong = Site::request(json!({ "overrides": { "memory": "1 vCPU" } }));
    assert_eq!(site.refused("RunTask", wrong).message, "Invalid 'memory' setting for task.");
}

#[test]
fn a_token_whose_call_started_nothing_is_not_spent() {
    let (mut site, _) = Site::ready();
    site.wait(100);
    let call = || Site::request(json!({ "clientToken": "t-1" }));
    assert_eq!(started(&site.ok("RunTask", call())), 0);
    site.register(ONE);
    assert_eq!(started(&site.ok("RunTask", call())), 1);
}

#[test]
fn tags_come_from_the_call_the_definition_and_ecs() {
    let (mut site, _) = Site::ready();
    let definition = "arn:aws:ecs:us-west-2:123456789012:task-definition/web:1";
    let tags = json!([{ "key": "from", "value": "definition" }, { "key": "team", "value": "red" }]);
    site.ok("TagResource", json!({ "resourceArn": definition, "tags": tags }));
    let more = json!({
        "propagateTags": "TASK_DEFINITION",
        "enableECSManagedTags": true,
        "tags": [{ "key": "team", "value": "blue" }],
    });
    let reply = site.ok("RunTask", Site::request(more));
    let expected = json!([
        { "key": "aws:ecs:clusterName", "value": "demo" },
        { "key": "from", "value": "definition" },
        { "key": "team", "value": "blue" },
    ]);
    assert_eq!(reply["tasks"][0]["tags"], expected);
}

#[test]
fn a_task_without_a_network_of_its_own_needs_no_eni() {
    let (mut site, _) = Site::ready();
    let definition = json!({
        "family": "bare",
        "networkMode": "host",
        "containerDefinitions": [{ "name": "app", "image": "web:1", "memory": 64 }],
    });
    site.ok("RegisterTaskDefinition", definition);
    let reply = site.ok("RunTask", json!({ "cluster": "demo", "taskDefinition": "bare", "count": 3 }));
    assert_eq!(started(&reply), 3);
    assert_eq!(reply["tasks"][0]["lastStatus"], "PENDING");
    assert_eq!(reply["tasks"][0]["attachments"], json!([]));
}

#[test]
fn what_run_task_cannot_do_it_says_in_the_words_of_ecs() {
    let (mut site, _) = Site::ready();
    let network = |n: Value| json!({ "networkConfiguration": { "awsvpcConfiguration": n } });
    let with = Site::request;
    let cases = [
        (json!({ "cluster": "demo" }), "TaskDefinition can not be blank."),
        (with(json!({ "cluster": "none" })), "Cluster not found."),
        (with(json!({ "taskDefinition": "none" })), "TaskDefinition not found."),
        (with(json!({ "count": 0 })), "Count must be between 1 and 10."),
        (with(json!({ "count": 11 })), "Count must be between 1 and 10."),
        (
            json!({ "cluster": "demo", "taskDefinition": "web" }),
            "Network Configuration must be provided when networkMode 'awsvpc' is specified.",
        ),
        (with(network(json!({ "subnets": [] }))), "subnets can not be empty."),
        (with(network(json!({ "subnets": ["subnet-0000000000000000f"] }))), "InvalidSubnetID.NotFound"),
        (
            with(network(json!({ "subnets": [SUBNET_A], "securityGroups": ["sg-0000000000000000f"] }))),
            "InvalidGroup.NotFound",
        ),
        (
            with(network(json!({ "subnets": [SUBNET_A], "assignPublicIp": "ENABLED" }))),
            "Assign public IP is not supported for this launch type.",
        ),
        (
            with(json!({ "overrides": { "containerOverrides": [{ "name": "x" }] } })),
            "Override for container named x is not a container in the TaskDefinition.",
        ),
        (with(json!({ "launchType": "FARGATE" })), "Task definition does not support launch_type FARGATE"),
        (with(json!({ "launchType": "MOON" })), "launchType should be one of [EC2, FARGATE"),
        (with(json!({ "capacityProviderStrategy": [{}] })), "The specified capacity provider was not found."),
        (with(json!({ "platformVersion": "LATEST" })), "The platform version must be null"),
        (with(json!({ "tags": [{ "key": "" }] })), "Tag key can not be blank."),
        (with(json!({ "startedBy": "x".repeat(129) })), "startedBy can have at most 128 characters."),
        (with(json!({ "count": "1" })), "STRING_VALUE can not be converted to an Integer"),
    ];
    for (input, words) in cases {
        let error = site.refused("RunTask", input.clone());
        assert!(error.message.contains(words), "{input}: {error}");
    }
    let listed = site.ok("ListTasks", json!({ "cluster": "demo" }));
    assert_eq!(listed["taskArns"], json!([]), "none of them left anything behind");
}
