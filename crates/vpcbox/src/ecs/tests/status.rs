use super::*;
use crate::ecs::EcsInventory;

fn inventory(site: &mut Site) -> EcsInventory {
    let now = site.now;
    site.ecs.inventory(site.world.current(now), now)
}

#[track_caller]
fn why(site: &mut Site) -> String {
    inventory(site).tasks[0].why.clone().unwrap_or_default()
}

#[test]
fn a_task_that_waits_says_for_whom_and_one_that_has_stopped_says_why() {
    let (mut site, instance) = Site::ready();
    let task = site.run();
    let poll = json!({ "cluster": "demo", "containerInstance": instance });
    assert_eq!(why(&mut site), "waits for its agent, to ask for its tasks");
    site.ok("ListTasks", poll);
    assert_eq!(why(&mut site), "waits for its agent, to report");
    site.report(&task, json!({ "status": "PENDING" }));
    assert_eq!(why(&mut site), "waits for its agent, to give it an ENI");
    let container = json!({ "containerName": "app", "status": "PENDING", "reason": "no free slot" });
    site.report(&task, json!({ "status": "PENDING", "containers": [container] }));
    assert_eq!(why(&mut site), "no free slot");
    site.attached(&task);
    site.report(&task, json!({ "containers": [{ "containerName": "app", "status": "RUNNING" }] }));
    assert_eq!(why(&mut site), "waits for its agent, to start its containers");
    site.report(&task, json!({ "status": "RUNNING" }));
    assert_eq!(inventory(&mut site).tasks[0].why, None);
    site.ok("StopTask", json!({ "cluster": "demo", "task": task, "reason": "enough" }));
    site.wait(1000);
    assert_eq!(why(&mut site), "waits for its agent, which is silent, to end it");
    site.report(&task, json!({ "status": "STOPPED" }));
    assert_eq!(why(&mut site), "enough");
}

#[test]
fn what_a_task_is_reported_to_wait_for_is_shown_however_its_agent_learnt_of_it() {
    let (mut site, _) = Site::ready();
    let task = site.run();
    let container = json!({ "containerName": "app", "status": "PENDING", "reason": "no free slot" });
    site.report(&task, json!({ "status": "PENDING", "containers": [container] }));
    assert_eq!(why(&mut site), "no free slot");
}

#[test]
fn what_was_reported_of_a_task_is_shown_in_order_and_what_was_refused_is_not() {
    let (mut site, _) = Site::ready();
    let task = site.run();
    site.attached(&task);
    site.attached(&task);
    site.wait(1);
    let app = json!({ "containerName": "app", "status": "RUNNING" });
    site.report(&task, json!({ "status": "RUNNING", "containers": [app] }));
    let wrong = json!({ "cluster": "demo", "task": task, "containers": [{ "containerName": "x" }] });
    site.refused("SubmitTaskStateChange", wrong);
    let side = json!({ "cluster": "demo", "task": task, "containerName": "side", "status": "STOPPED", "exitCode": 0 });
    site.ok("SubmitContainerStateChange", side);
    site.report(&task, json!({ "status": "STOPPED", "reason": "over" }));
    let reports = serde_json::to_value(&inventory(&mut site).tasks[0].reports).unwrap();
    let expected = json!([
        { "at": "2026-11-22T12:00:00Z", "times": 2, "attachment": "ATTACHED" },
        { "at": "2026-11-22T12:00:01Z", "times": 1, "status": "RUNNING", "containers": [
            { "name": "app", "status": "RUNNING" },
        ]},
        { "at": "2026-11-22T12:00:01Z", "times": 1, "containers": [
            { "name": "side", "status": "STOPPED", "exitCode": 0 },
        ]},
        { "at": "2026-11-22T12:00:01Z", "times": 1, "status": "STOPPED", "reason": "over" },
    ]);
    assert_eq!(reports, expected);
}

#[test]
fn clusters_and_instances_say_what_is_in_them_and_what_is_left() {
    let (mut site, instance) = Site::ready();
    let task = site.run();
    let shown = inventory(&mut site);
    let cluster = &shown.clusters[0];
    assert_eq!(
        (cluster.name.as_str(), cluster.instances, cluster.pending, cluster.running),
        ("demo", 1, 1, 0)
    );
    let line = &shown.instances[0];
    assert_eq!((&line.arn, line.ec2.as_str(), line.tasks), (&instance, ONE, 1));
    assert_eq!((line.remaining.cpu, line.remaining.cpu_of), (2048 - 256, 2048));
    assert_eq!((line.remaining.enis, line.remaining.enis_of), (1, 2));
    assert!(line.connected);
    assert_eq!((&shown.tasks[0].arn, shown.tasks[0].definition.as_str()), (&task, "web:1"));
}
