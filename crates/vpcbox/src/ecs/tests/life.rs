//! The life of tasks, as the reports of agents move it.

use super::*;
use crate::world::{
    CreateEni,
    ids::{InstanceId, SubnetId},
};
use std::collections::BTreeMap;

#[test]
fn a_task_goes_as_its_agent_reports() {
    let (mut site, _) = Site::ready();
    let task = site.run();
    site.wait(1);
    site.report(
        &task,
        json!({ "status": "PENDING", "containers": [
            { "containerName": "app", "status": "PENDING", "reason": "waits for an image" },
        ]}),
    );
    let waiting = site.task(&task);
    assert_eq!(waiting["lastStatus"], "PROVISIONING", "it has no ENI yet");
    assert_eq!(waiting["containers"][0]["reason"], "waits for an image");
    site.attached(&task);
    let attached = site.task(&task);
    assert_eq!(
        (&attached["lastStatus"], &attached["attachments"][0]["status"]),
        (&json!("PENDING"), &json!("ATTACHED"))
    );
    site.wait(1);
    site.report(
        &task,
        json!({
            "status": "RUNNING",
            "pullStartedAt": 1_795_348_801.5,
            "pullStoppedAt": 1_795_348_802,
            "containers": [
                { "containerName": "app", "status": "RUNNING", "runtimeId": "r1", "imageDigest": "sha256:1" },
                { "containerName": "side", "status": "RUNNING", "runtimeId": "r2" },
            ],
        }),
    );
    let running = site.task(&task);
    assert_eq!((&running["lastStatus"], &running["connectivity"]), (&json!("RUNNING"), &json!("CONNECTED")));
    assert_eq!(running["containers"][0].get("reason"), None, "it waits no more");
    assert_eq!(running["pullStartedAt"], json!(1_795_348_801.5));
    assert!(running["startedAt"].as_f64() > running["createdAt"].as_f64());
    site.report(
        &task,
        json!({ "status": "STOPPED", "reason": "", "executionStoppedAt": 1_795_348_809.25, "containers": [
            { "containerName": "app", "status": "STOPPED", "exitCode": 3 },
        ]}),
    );
    let stopped = site.task(&task);
    assert_eq!((&stopped["lastStatus"], &stopped["desiredStatus"]), (&json!("STOPPED"), &json!("STOPPED")));
    assert_eq!(stopped["stopCode"], "EssentialContainerExited");
    assert_eq!(stopped["stoppedReason"], "Essential container in task exited");
    assert_eq!(stopped["containers"][0]["exitCode"], 3);
    assert_eq!(stopped["containers"][0]["runtimeId"], "r1");
    for time in ["stoppingAt", "stoppedAt", "executionStoppedAt"] {
        assert!(stopped[time].is_number(), "{time}");
    }
    assert_eq!(stopped["attachments"][0]["status"], "DELETED");
}

#[test]
fn a_task_that_never_ran_says_why_in_the_best_words_there_are() {
    let container = |reason: &str| json!([{ "containerName": "app", "status": "STOPPED", "reason": reason }]);
    let cases = [
        (json!({ "status": "STOPPED", "reason": "No slot" }), "TaskFailedToStart", "No slot"),
        (
            json!({ "status": "STOPPED", "containers": container("CannotPullContainerError: no such tag") }),
            "TaskFailedToStart",
            "CannotPullContainerError: no such tag",
        ),
        (json!({ "status": "STOPPED" }), "TaskFailedToStart", "Task failed to start"),
        (
            json!({ "status": "STOPPED", "containers": [{ "containerName": "app", "exitCode": 1 }] }),
            "EssentialContainerExited",
            "Essential container in task exited",
        ),
    ];
    for (report, code, reason) in cases {
        let (mut site, _) = Site::ready();
        let task = site.run();
        site.report(&task, report);
        let shown = site.task(&task);
        assert_eq!((&shown["stopCode"], &shown["stoppedReason"]), (&json!(code), &json!(reason)));
    }
}

#[test]
fn a_stop_is_wanted_first_and_reported_later() {
    let (mut site, _) = Site::ready();
    let task = site.run();
    site.attached(&task);
    site.report(&task, json!({ "status": "RUNNING" }));
    let stop = |reason: &str| json!({ "cluster": "demo", "task": task, "reason": reason });
    let reply = site.ok("StopTask", stop("enough"));
    let shown = &reply["task"];
    assert_eq!((&shown["lastStatus"], &shown["desiredStatus"]), (&json!("STOPPING"), &json!("STOPPED")));
    assert_eq!((&shown["stopCode"], &shown["stoppedReason"]), (&json!("UserInitiated"), &json!("enough")));
    let running = json!({ "cluster": "demo" });
    assert_eq!(site.ok("ListTasks", running.clone())["taskArns"], json!([]), "agents find it gone");
    site.ok("StopTask", stop("again"));
    site.report(
        &task,
        json!({ "status": "STOPPED", "containers": [{ "containerName": "app", "exitCode": 137 }] }),
    );
    let stopped = site.task(&task);
    assert_eq!(
        (&stopped["stopCode"], &stopped["stoppedReason"]),
        (&json!("UserInitiated"), &json!("enough"))
    );
    let mut all = running;
    all["desiredStatus"] = json!("STOPPED");
    assert_eq!(site.ok("ListTasks", all)["taskArns"], json!([task]));
    let unknown = site.refused("StopTask", json!({ "cluster": "demo", "task": "none" }));
    assert_eq!(unknown.message, "The referenced task was not found.");
}

#[test]
fn a_task_that_its_agent_was_never_told_of_ends_at_once() {
    let (mut site, _) = Site::ready();
    let task = site.run();
    site.ok("ListTasks", json!({ "cluster": "demo" }));
    site.ok("StopTask", json!({ "cluster": "demo", "task": task }));
    let shown = site.task(&task);
    assert_eq!(
        (&shown["lastStatus"], &shown["stoppedReason"]),
        (&json!("STOPPED"), &json!("Task stopped by user"))
    );
    assert_eq!(shown["stopCode"], "UserInitiated");
}

#[test]
fn a_task_that_its_agent_never_speaks_of_ends_once_the_agent_has_had_its_time() {
    let (mut site, instance) = Site::ready();
    let task = site.run();
    let poll = json!({ "cluster": "demo", "containerInstance": instance });
    site.ok("ListTasks", poll.clone());
    site.ok("StopTask", json!({ "cluster": "demo", "task": task }));
    site.wait(1000);
    assert_eq!(site.task(&task)["lastStatus"], "PROVISIONING", "the agent is away and may know of it");
    site.ok("ListTasks", poll);
    assert_eq!(site.task(&task)["lastStatus"], "STOPPED");
    site.report(&task, json!({ "status": "STOPPED" }));
}

#[test]
fn a_task_whose_agent_is_away_waits_for_it_or_ends_with_the_instance() {
    let (mut site, instance) = Site::ready();
    let task = site.run();
    site.ok("ListTasks", json!({ "cluster": "demo", "containerInstance": instance }));
    site.wait(1000);
    site.ok("StopTask", json!({ "cluster": "demo", "task": task }));
    let shown = site.task(&task);
    assert_eq!((&shown["lastStatus"], &shown["desiredStatus"]), (&json!("PROVISIONING"), &json!("STOPPED")));
    let force = json!({ "cluster": "demo", "containerInstance": instance, "force": true });
    site.ok("DeregisterContainerInstance", force);
    let shown = site.task(&task);
    assert_eq!(
        (&shown["lastStatus"], &shown["stoppedReason"]),
        (&json!("STOPPED"), &json!("Task stopped by user"))
    );
}

#[test]
fn a_report_made_twice_changes_nothing_and_none_takes_a_task_back() {
    let (mut site, _) = Site::ready();
    let task = site.run();
    site.attached(&task);
    site.report(&task, json!({ "status": "RUNNING" }));
    let started = site.task(&task)["startedAt"].clone();
    site.wait(5);
    site.report(&task, json!({ "status": "RUNNING" }));
    site.attached(&task);
    site.report(&task, json!({ "status": "PENDING" }));
    let shown = site.task(&task);
    assert_eq!((&shown["lastStatus"], &shown["startedAt"]), (&json!("RUNNING"), &started));
    site.report(&task, json!({ "status": "STOPPED" }));
    let stopped = site.task(&task);
    site.wait(5);
    site.report(&task, json!({ "status": "STOPPED", "reason": "other" }));
    assert_eq!(site.task(&task), stopped);
    let back = json!({ "cluster": "demo", "task": task, "status": "RUNNING" });
    assert_eq!(site.refused("SubmitTaskStateChange", back).message, "The referenced task is stopped.");
}

#[test]
fn reports_about_what_is_not_there_are_refused() {
    let (mut site, _) = Site::ready();
    let task = site.run();
    let about = |more: Value| {
        let mut report = json!({ "cluster": "demo", "task": task });
        for (member, value) in more.as_object().unwrap() {
            report[member] = value.clone();
        }
        report
    };
    let attachments =
        json!([{ "attachmentArn": "arn:aws:ecs:us-west-2:123456789012:attachment/x", "status": "ATTACHED" }]);
    let cases = [
        (
            "SubmitTaskStateChange",
            json!({ "cluster": "demo", "task": "none" }),
            "The referenced task was not found.",
        ),
        (
            "SubmitTaskStateChange",
            about(json!({ "containers": [{ "containerName": "x" }] })),
            "not part of the task",
        ),
        ("SubmitTaskStateChange", about(json!({ "attachments": attachments })), "attachment x was not found"),
        ("SubmitTaskStateChange", about(json!({ "status": "DONE" })), "status should be one of"),
        ("SubmitTaskStateChange", about(json!({ "pullStartedAt": "now" })), "can not be converted"),
        ("SubmitContainerStateChange", about(json!({ "containerName": "x" })), "not part of the task"),
        (
            "SubmitAttachmentStateChanges",
            json!({ "cluster": "demo", "attachments": attachments }),
            "was not found",
        ),
    ];
    for (operation, input, words) in cases {
        let error = site.refused(operation, input);
        assert!(error.message.contains(words), "{operation}: {error}");
    }
    site.caller = Caller::Instance(TWO.to_owned());
    let foreign = site.refused("SubmitTaskStateChange", about(json!({ "status": "STOPPED" })));
    assert_eq!(foreign.code, "AccessDeniedException");
}

#[test]
fn containers_and_attachments_can_be_reported_by_themselves() {
    let (mut site, _) = Site::ready();
    let task = site.run();
    let id = text(&site.task(&task)["attachments"][0]["id"]);
    let arn = format!("arn:aws:ecs:us-west-2:123456789012:attachment/demo/{id}");
    let attachments = json!([{ "attachmentArn": arn, "status": "ATTACHED" }]);
    site.ok("SubmitAttachmentStateChanges", json!({ "cluster": "demo", "attachments": attachments }));
    let report = json!({ "cluster": "demo", "task": task, "containerName": "side", "status": "STOPPED", "exitCode": 0 });
    site.ok("SubmitContainerStateChange", report);
    let shown = site.task(&task);
    assert_eq!(shown["lastStatus"], "PENDING");
    assert_eq!(
        (&shown["containers"][1]["lastStatus"], &shown["containers"][1]["exitCode"]),
        (&json!("STOPPED"), &json!(0))
    );
}

#[test]
fn a_task_shows_the_eni_that_carries_its_arn_in_a_tag_and_keeps_it_to_its_end() {
    let (mut site, _) = Site::ready();
    let task = site.run();
    let now = site.now;
    let request = CreateEni {
        subnet: SubnetId::parse(SUBNET_A).unwrap(),
        groups: Vec::new(),
        description: String::new(),
        primary: None,
        secondary: Vec::new(),
        secondary_count: 0,
        ipv6: Vec::new(),
        ipv6_count: 0,
        tags: BTreeMap::new(),
    };
    let eni = site.world.create("token", &request, now).unwrap().id.clone();
    site.world.attach(&eni, &InstanceId::parse(ONE).unwrap(), 1, 0, now).unwrap();
    assert_eq!(site.task(&task)["containers"][0]["networkInterfaces"], json!([]));
    let tags = [("berth:task".to_owned(), task.clone())].into();
    site.world.create_tags(&[eni.to_string()], &tags, now).unwrap();
    let shown = site.task(&task);
    let details: Vec<_> = shown["attachments"][0]["details"].as_array().unwrap().iter().collect();
    let detail = |name: &str| details.iter().find(|d| d["name"] == name).map(|d| text(&d["value"])).unwrap();
    assert_eq!(detail("networkInterfaceId"), eni.to_string());
    assert!(detail("privateIPv4Address").starts_with("10.0.1."));
    assert!(detail("privateDnsName").ends_with(".us-west-2.compute.internal"));
    let interface = &shown["containers"][0]["networkInterfaces"][0];
    assert_eq!(interface["privateIpv4Address"], json!(detail("privateIPv4Address")));
    assert_eq!(interface["attachmentId"], shown["attachments"][0]["id"]);
    site.report(&task, json!({ "status": "STOPPED" }));
    let tags = [("berth:task".to_owned(), "another".to_owned())].into();
    site.world.create_tags(&[eni.to_string()], &tags, now).unwrap();
    let ended = site.task(&task);
    assert_eq!(ended["containers"][0]["networkInterfaces"], shown["containers"][0]["networkInterfaces"]);
}
