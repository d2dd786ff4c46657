//! Bodies of states that the golden files (`tests/golden`, checked over the wire) do not show.

use super::*;
use crate::sample;
use berth_types::task::LogDriver;
use serde_json::Value;

fn view(task: TaskSnapshot, slot: SlotFacts) -> TaskView {
    TaskView::new(Arc::new(sample::config()), Arc::new(task), Arc::new(slot))
}

fn json(body: Option<Bytes>) -> Value {
    serde_json::from_slice(&body.unwrap()).unwrap()
}

/// The n-th sample with its spec changed.
fn with_spec(change: impl FnOnce(&mut berth_types::task::TaskSpec)) -> TaskSnapshot {
    let mut task = sample::task(1);
    change(Arc::make_mut(&mut task.spec));
    task
}

#[test]
fn a_stopped_task_shows_exit_code_and_both_statuses() {
    let mut task = sample::task(1);
    task.desired = TaskStatus::Stopped;
    task.known = TaskStatus::Stopped;
    task.execution_stopped_at = Some("2026-01-01T00:01:00Z".parse().unwrap());
    let app = &mut task.containers[0];
    (app.desired, app.known, app.exit_code) = (ContainerStatus::Stopped, ContainerStatus::Stopped, Some(0));
    app.finished_at = Some("2026-01-01T00:01:00.25Z".parse().unwrap());
    let body = json(view(task, sample::slot(1)).task(Version::V4));
    assert_eq!((&body["DesiredStatus"], &body["KnownStatus"]), (&"STOPPED".into(), &"STOPPED".into()));
    assert_eq!(body["ExecutionStoppedAt"], "2026-01-01T00:01:00Z");
    let app = &body["Containers"][0];
    assert_eq!((&app["ExitCode"], &app["FinishedAt"]), (&0.into(), &"2026-01-01T00:01:00.25Z".into()));
    assert!(app["DockerId"].as_str().unwrap().len() == 64, "it was created, so it has an id");
}

#[test]
fn task_limits_are_left_out_one_by_one() {
    let limits = |cpu, memory| {
        let task = with_spec(|spec| (spec.cpu, spec.memory) = (cpu, memory));
        json(view(task, sample::slot(1)).task(Version::V3)).get("Limits").map(Value::to_string)
    };
    assert_eq!(limits(None, None), None);
    assert_eq!(limits(Some(0), Some(0)), None);
    assert_eq!(limits(Some(2048), None).as_deref(), Some(r#"{"CPU":2}"#));
    assert_eq!(limits(Some(0), Some(64)).as_deref(), Some(r#"{"Memory":64}"#));
}

#[test]
fn an_ipv4_only_eni_has_no_ipv6_keys() {
    let mut slot = sample::slot(1);
    slot.ipv6.clear();
    slot.dns_servers.clear();
    slot.dns_search.clear();
    slot.private_dns_name.clear();
    let body = view(sample::task(1), slot).container(Version::V4, 0).unwrap();
    let expected = r#""Networks":[{"NetworkMode":"awsvpc","IPv4Addresses":["10.0.2.1"],"AttachmentIndex":0,"MACAddress":"06:96:9a:ce:a6:01","IPv4SubnetCIDRBlock":"10.0.2.0/24","SubnetGatewayIpv4Address":"10.0.2.1/24"}]}"#;
    let body = String::from_utf8(body.to_vec()).unwrap();
    assert!(body.ends_with(expected), "{body}");
}

#[test]
fn facts_that_are_not_known_leave_their_keys_out() {
    let mut config = sample::config();
    (config.availability_zone, config.availability_zone_id) = (None, None);
    let mut task = with_spec(|spec| {
        (spec.group, spec.service_name) = (None, Some(String::new()));
        spec.containers[0].log.driver = LogDriver::None;
    });
    (task.pull_started_at, task.pull_stopped_at) = (None, None);
    let body =
        json(TaskView::new(Arc::new(config), Arc::new(task), Arc::new(sample::slot(1))).task(Version::V4));
    for key in
        ["AvailabilityZone", "AvailabilityZoneID", "Group", "ServiceName", "PullStartedAt", "PullStoppedAt"]
    {
        assert_eq!(body.get(key), None, "{key}");
    }
    assert_eq!(body["Containers"][0]["LogDriver"], "none");
    assert_eq!(body["FaultInjectionEnabled"], false, "always there");
}

#[test]
fn container_arns_are_stable_and_differ_by_task_and_name() {
    let (one, two) = (sample::arn(1), sample::arn(2));
    assert_eq!(container_arn(&one, "app"), container_arn(&one, "app"));
    assert_ne!(container_arn(&one, "app"), container_arn(&two, "app"));
    assert_ne!(container_arn(&one, "app"), container_arn(&one, "sidecar"));
    let old_form: TaskArn = "arn:aws-cn:ecs:cn-north-1:111122223333:task/abc".parse().unwrap();
    assert!(
        container_arn(&old_form, "app").starts_with("arn:aws-cn:ecs:cn-north-1:111122223333:container/abc/")
    );
}

#[test]
fn a_body_is_rendered_once() {
    let view = view(sample::task(1), sample::slot(1));
    let (first, second) = (view.task(Version::V4).unwrap(), view.task(Version::V4).unwrap());
    assert_eq!(first.as_ptr(), second.as_ptr());
}

#[test]
fn a_container_that_the_spec_does_not_have_is_left_out() {
    let mut task = sample::task(1);
    task.containers[1].index = 7;
    let view = view(task, sample::slot(1));
    assert_eq!(json(view.task(Version::V4))["Containers"].as_array().unwrap().len(), 1);
    assert_eq!(view.container_at(sample::endpoint_id(1, 1).as_str()), None);
}

#[test]
fn a_volume_path_that_is_not_utf8_does_not_fail_the_task() {
    use std::os::unix::ffi::OsStrExt;
    let mut task = sample::task(1);
    task.containers[0].volumes[0].source = std::ffi::OsStr::from_bytes(b"/srv/\xff").into();
    let body = json(view(task, sample::slot(1)).task(Version::V4));
    assert_eq!(body["Containers"][0]["Volumes"][0]["Source"], "/srv/\u{fffd}");
}

#[test]
fn a_position_without_a_container_has_no_body() {
    let view = view(sample::task(1), sample::slot(1));
    assert_eq!((view.container(Version::V4, 9), view.docker_id(9)), (None, ""));
}
