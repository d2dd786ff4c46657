//! Container instances: registration, their state, their attributes.

use super::*;

fn named(cluster: &str, instance: &str) -> Value {
    json!({ "cluster": cluster, "containerInstance": instance })
}

#[test]
fn registering_again_keeps_the_arn_with_it_and_without_it() {
    let mut site = Site::new();
    let first = site.register(ONE);
    assert!(first.starts_with("arn:aws:ecs:us-west-2:123456789012:container-instance/demo/"), "{first}");
    assert_eq!(site.register(ONE), first);
    let mut again = Site::registration(ONE);
    again["containerInstanceArn"] = json!(first);
    again["totalResources"][0]["integerValue"] = json!(4096);
    let reply = site.ok("RegisterContainerInstance", again);
    assert_eq!(reply["containerInstance"]["containerInstanceArn"], json!(first));
    assert_eq!(reply["containerInstance"]["registeredResources"][0]["integerValue"], 4096);
    assert_ne!(site.register(TWO), first);
    let listed = site.ok("ListContainerInstances", json!({ "cluster": "demo" }));
    assert_eq!(listed["containerInstanceArns"].as_array().unwrap().len(), 2);
}

#[test]
fn a_registration_comes_back_with_every_attribute_and_those_of_ec2() {
    let mut site = Site::new();
    let mut input = Site::registration(ONE);
    let sent =
        json!([{ "name": "ecs.capability.x", "value": "v1" }, { "name": "ecs.os-type", "value": "linux" }]);
    input["attributes"] = sent.clone();
    let reply = site.ok("RegisterContainerInstance", input);
    let held = reply["containerInstance"]["attributes"].as_array().unwrap();
    for attribute in sent.as_array().unwrap() {
        assert!(held.contains(attribute), "{attribute}");
    }
    for (name, value) in [
        ("ecs.availability-zone", "us-west-2a"),
        ("ecs.instance-type", "m5.large"),
        ("ecs.cpu-architecture", "x86_64"),
    ] {
        assert!(held.contains(&json!({ "name": name, "value": value })), "{name}");
    }
}

#[test]
fn a_restart_forgets_old_capabilities_and_keeps_what_operators_put() {
    let (mut site, instance) = Site::ready();
    let target =
        json!({ "name": "rack", "value": "7", "targetType": "container-instance", "targetId": instance });
    site.ok("PutAttributes", json!({ "cluster": "demo", "attributes": [target] }));
    let mut again = Site::registration(ONE);
    again["attributes"] = json!([{ "name": "ecs.capability.new" }]);
    let reply = site.ok("RegisterContainerInstance", again);
    let names: Vec<_> = reply["containerInstance"]["attributes"].as_array().unwrap().iter().collect();
    let has = |name: &str| names.iter().any(|a| a["name"] == name);
    assert!(has("rack") && has("ecs.capability.new") && !has("ecs.capability.task-eni"));
}

#[test]
fn a_registration_that_cannot_be_true_is_refused() {
    let (mut site, instance) = Site::ready();
    let document = |id: &str, kind: &str| json!({ "instanceId": id, "instanceType": kind }).to_string();
    let mut other = Site::registration(TWO);
    other["containerInstanceArn"] = json!(instance);
    let cases = [
        (json!({ "cluster": "none" }), "ClusterNotFoundException", "Cluster not found."),
        (json!({ "cluster": "demo" }), "InvalidParameterException", "not valid JSON"),
        (
            json!({ "cluster": "demo", "instanceIdentityDocument": document("i-0000000000000000f", "m5.large") }),
            "ClientException",
            "does not exist",
        ),
        (
            json!({ "cluster": "demo", "instanceIdentityDocument": document(ONE, "t3.micro") }),
            "ClientException",
            "Container instance type changes are not supported.",
        ),
        (other, "ClientException", "belongs to another EC2 instance"),
    ];
    for (input, code, words) in cases {
        let error = site.refused("RegisterContainerInstance", input);
        assert!(error.code == code && error.message.contains(words), "{error}");
    }
}

#[test]
fn with_signatures_on_only_the_instance_itself_can_register() {
    let mut site = Site::new();
    site.auth = true;
    let mut input = Site::registration(ONE);
    input["instanceIdentityDocumentSignature"] = json!("guess");
    assert!(site.refused("RegisterContainerInstance", input.clone()).message.contains("does not verify"));
    let seal = site.keys.seal(input["instanceIdentityDocument"].as_str().unwrap());
    input["instanceIdentityDocumentSignature"] = json!(seal);
    site.caller = Caller::Instance(TWO.to_owned());
    assert!(site.refused("RegisterContainerInstance", input.clone()).message.contains("another instance's"));
    site.caller = Caller::Instance(ONE.to_owned());
    site.ok("RegisterContainerInstance", input);
    let error = site.refused("RunTask", json!({}));
    assert_eq!(error.code, "AccessDeniedException");
    assert!(error.message.contains("is not authorized to perform: ecs:RunTask"), "{error}");
}

#[test]
fn an_instance_with_tasks_is_deregistered_by_force_only_and_registers_afresh() {
    let (mut site, instance) = Site::ready();
    let task = site.run();
    let error = site.refused("DeregisterContainerInstance", named("demo", &instance));
    assert_eq!(error.message, "Found running tasks on the instance.");
    let mut force = named("demo", &instance);
    force["force"] = json!(true);
    let gone = site.ok("DeregisterContainerInstance", force);
    assert_eq!(gone["containerInstance"]["status"], "INACTIVE");
    assert_eq!(gone["containerInstance"]["agentConnected"], false);
    let orphan = site.task(&task);
    assert_eq!(orphan["lastStatus"], "STOPPED");
    assert_eq!(orphan["stoppedReason"], "Container instance deregistration forced by user");
    let described =
        site.ok("DescribeContainerInstances", json!({ "cluster": "demo", "containerInstances": [instance] }));
    assert_eq!(described["containerInstances"][0]["status"], "INACTIVE");
    let mut stale = Site::registration(ONE);
    stale["containerInstanceArn"] = json!(instance);
    assert_eq!(site.refused("RegisterContainerInstance", stale).code, "ClientException");
    assert_ne!(site.register(ONE), instance);
    site.wait(3601);
    let described =
        site.ok("DescribeContainerInstances", json!({ "cluster": "demo", "containerInstances": [instance] }));
    assert_eq!(described["failures"][0]["reason"], "MISSING", "after an hour it is forgotten");
}

#[test]
fn an_instance_is_found_by_its_short_id_and_shows_what_it_has_left() {
    let (mut site, instance) = Site::ready();
    site.run();
    let id = instance.rsplit('/').next().unwrap();
    let reply = site
        .ok("DescribeContainerInstances", json!({ "cluster": "demo", "containerInstances": [id, "nobody"] }));
    let shown = &reply["containerInstances"][0];
    assert_eq!(shown["containerInstanceArn"], json!(instance));
    assert_eq!((&shown["pendingTasksCount"], &shown["runningTasksCount"]), (&json!(1), &json!(0)));
    let integer = |set: &str, at: usize| shown[set][at]["integerValue"].as_i64().unwrap();
    assert_eq!((integer("registeredResources", 0), integer("remainingResources", 0)), (2048, 1792));
    assert_eq!((integer("registeredResources", 1), integer("remainingResources", 1)), (4096, 3776));
    let arn = "arn:aws:ecs:us-west-2:123456789012:container-instance/demo/nobody";
    assert_eq!(reply["failures"], json!([{ "arn": arn, "reason": "MISSING" }]));
}

#[test]
fn attributes_are_put_listed_and_deleted() {
    let (mut site, instance) = Site::ready();
    let on = |name: &str| json!({ "name": name, "value": "1", "targetId": instance });
    site.ok("PutAttributes", json!({ "cluster": "demo", "attributes": [on("rack"), on("row")] }));
    let list = json!({ "cluster": "demo", "targetType": "container-instance", "attributeName": "rack" });
    let found = site.ok("ListAttributes", list.clone());
    assert_eq!(found["attributes"][0]["targetId"], json!(instance));
    site.ok("DeleteAttributes", json!({ "cluster": "demo", "attributes": [on("rack")] }));
    assert_eq!(site.ok("ListAttributes", list)["attributes"], json!([]));
    let many: Vec<_> = (0..10).map(|n| on(&format!("a{n}"))).collect();
    let error = site.refused("PutAttributes", json!({ "cluster": "demo", "attributes": many }));
    assert_eq!(error.code, "AttributeLimitExceededException");
    let nowhere = json!({ "cluster": "demo", "attributes": [{ "name": "a", "targetId": "none" }] });
    assert_eq!(site.refused("PutAttributes", nowhere).code, "TargetNotFoundException");
}

#[test]
fn poll_endpoints_are_where_the_caller_reached_the_box() {
    let (mut site, instance) = Site::ready();
    let reply = site.ok("DiscoverPollEndpoint", named("demo", &instance));
    assert_eq!(reply["endpoint"], "http://127.0.0.1:4566/ecs/acs/");
    assert_eq!(reply.get("systemLogsEndpoint"), None);
    let mut private = named("demo", &instance);
    private["zoneId"] = json!("usw2-az1");
    assert!(site.ok("DiscoverPollEndpoint", private).get("systemLogsEndpoint").is_some());
}

#[test]
fn attributes_that_agents_and_ecs_give_are_not_an_operators_to_change() {
    let (mut site, instance) = Site::ready();
    for name in ["ecs.availability-zone", "com.amazonaws.ecs.capability.docker-remote-api.1.18"] {
        let input = json!({ "cluster": "demo", "attributes": [{ "name": name, "targetId": instance }] });
        for operation in ["PutAttributes", "DeleteAttributes"] {
            assert!(site.refused(operation, input.clone()).message.contains("reserved prefix"));
        }
    }
    site.run();
}

#[test]
fn an_operator_who_looks_at_an_instances_tasks_is_not_taken_for_its_agent() {
    let (mut site, instance) = Site::ready();
    let task = site.run();
    site.auth = true;
    let list = json!({ "cluster": "demo", "containerInstance": instance });
    let connected = |site: &mut Site| {
        let describe = json!({ "cluster": "demo", "containerInstances": [instance] });
        site.ok("DescribeContainerInstances", describe)["containerInstances"][0]["agentConnected"].clone()
    };
    site.wait(100);
    site.ok("ListTasks", list.clone());
    site.ok("DiscoverPollEndpoint", list.clone());
    assert_eq!(connected(&mut site), false);
    site.ok("StopTask", json!({ "cluster": "demo", "task": task }));
    assert_eq!(site.task(&task)["lastStatus"], "STOPPED", "no agent was ever told of it");
    site.inside = true;
    site.ok("ListTasks", list);
    assert_eq!(connected(&mut site), true);
}
