//! Tasks, slots and pulls for tests.

use berth_testkit::samples;
use berth_types::{
    Timestamp,
    eni::{InstanceFacts, SlotFacts, SlotFiles, SlotView},
    ids::{NetnsId, TaskArn},
    image::{PullStage, PullView},
    task::{TaskSnapshot, TaskSpec},
    taskdef::{self, Identity},
};
use std::sync::Arc;

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

pub(crate) fn instance() -> InstanceFacts {
    InstanceFacts {
        instance_id: "i-0123456789abcdef0".parse().unwrap(),
        instance_type: "m5.large".into(),
        region: "us-west-2".into(),
        availability_zone: "us-west-2a".into(),
        availability_zone_id: None,
        account: "111122223333".into(),
        vpc: "vpc-12345678".parse().unwrap(),
        subnet: "subnet-12345678".parse().unwrap(),
        security_groups: vec![],
        primary_mac: "02:00:00:00:00:01".parse().unwrap(),
        private_ipv4: "10.0.0.4".parse().unwrap(),
        max_enis: 3,
        max_ipv4_per_eni: 10,
    }
}

/// The task `number`, with containers `a` and `b`.
pub(crate) fn spec(number: usize) -> TaskSpec {
    let definition = br#"{"family": "web", "networkMode": "awsvpc", "containerDefinitions": [
        {"name": "a", "image": "x", "memory": 8}, {"name": "b", "image": "x", "memory": 8}]}"#;
    let identity = Identity {
        arn: arn(number),
        cluster: "demo".into(),
        revision: "1".into(),
        group: None,
        launch_type: "EC2".into(),
        network: Default::default(),
        created_at: at(0),
        origin: Default::default(),
        privileged: true,
    };
    taskdef::validate(&taskdef::parse(definition).unwrap(), identity).unwrap()
}

pub(crate) fn arn(number: usize) -> TaskArn {
    format!("arn:aws:ecs:us-west-2:111122223333:task/demo/{number:032}").parse().unwrap()
}

/// The task as the engine shows it when it has just taken it.
pub(crate) fn snapshot(spec: TaskSpec) -> TaskSnapshot {
    let mut task = samples::taken(spec);
    for container in &mut task.containers {
        container.docker_name = String::new();
        container.log_path = Some(format!("/log/{}", container.name).into());
    }
    TaskSnapshot { waiting: Some("an ENI".into()), version: 1, ..task }
}

pub(crate) fn slot(number: usize) -> SlotView {
    let facts = SlotFacts {
        slot: format!("89abcdef-{number:08x}").parse().unwrap(),
        eni: format!("eni-{number:017x}").parse().unwrap(),
        attachment: format!("eni-attach-{number:017x}").parse().unwrap(),
        mac: "02:00:00:00:00:02".parse().unwrap(),
        subnet: "subnet-12345678".parse().unwrap(),
        security_groups: vec![],
        ipv4: vec!["10.0.1.7".parse().unwrap()],
        ipv6: vec![],
        subnet_ipv4: "10.0.1.0/24".parse().unwrap(),
        subnet_ipv6: None,
        gateway_ipv4: "10.0.1.1".parse().unwrap(),
        dns_servers: vec![],
        dns_search: vec![],
        private_dns_name: "ip-10-0-1-7.us-west-2.compute.internal".into(),
        netns: NetnsId { dev: 4, ino: 1 },
        netns_path: "/run/netns/x".into(),
        files: SlotFiles { resolv_conf: "/r".into(), hosts: "/h".into(), hostname: "/n".into() },
    };
    SlotView { facts: Arc::new(facts), task: None, ready_at: at(0), build_micros: 84_200, lost: None }
}

pub(crate) fn pull(reference: &str) -> PullView {
    PullView {
        reference: reference.into(),
        stage: PullStage::Downloading,
        started_at: at(0),
        blobs: 5,
        blobs_done: 3,
        bytes: 42_047_897,
        bytes_done: 12_897_485,
        failures: 0,
        problem: None,
    }
}
