//! The state that tests and the benchmark ask about: a task in the likeness of the reference's hand-made example. Its answers are
//! in `tests/golden`.

#![allow(dead_code, reason = "each user takes its part")]

use super::{MetadataConfig, MetadataLimits};
use berth_testkit::samples;
use berth_types::{
    Timestamp,
    eni::{EniSnapshot, SlotFacts, SlotFiles, SlotView},
    ids::{ContainerId, EndpointId, MacAddr, NetnsId, SlotId, TaskArn},
    task::{
        ContainerSnapshot, ContainerSpec, ContainerStatus, EngineSnapshot, PortMapping, TaskSnapshot,
        TaskSpec, TaskStatus, VolumeView,
    },
};
use std::{collections::BTreeMap, sync::Arc};

pub(crate) fn config() -> MetadataConfig {
    MetadataConfig {
        cluster: "demo".into(),
        vpc: "vpc-0123456789abcdef0".parse().unwrap(),
        availability_zone: Some("us-west-2d".into()),
        availability_zone_id: Some("usw2-az4".into()),
        limits: MetadataLimits::default(),
    }
}

/// The n-th task's name.
pub(crate) fn arn(n: u8) -> TaskArn {
    format!("arn:aws:ecs:us-west-2:111122223333:task/demo/{n:032x}").parse().unwrap()
}

/// The endpoint id of a container of the n-th task.
pub(crate) fn endpoint_id(n: u8, container: u8) -> EndpointId {
    format!("000000{n:02x}-0000-4000-8000-0000000000{container:02x}").parse().unwrap()
}

/// The n-th slot's id.
pub(crate) fn slot_id(n: u8) -> SlotId {
    format!("9abcdef0-{n:08x}").parse().unwrap()
}

fn at(text: &str) -> Option<Timestamp> {
    Some(text.parse().unwrap())
}

fn container_spec(task: u8, index: u8, name: &str, image: &str) -> ContainerSpec {
    ContainerSpec { endpoint_id: endpoint_id(task, index), ..samples::container(name, image) }
}

/// The n-th task's definition: `app` with everything set, `sidecar` with nothing.
pub(crate) fn spec(n: u8) -> TaskSpec {
    let mut app = container_spec(n, 0, "app", "busybox:1.36");
    app.cpu = 256;
    app.memory = Some(50);
    app.port_mappings = vec![PortMapping { container_port: 80, protocol: "tcp".into() }];
    app.log.options = BTreeMap::from([("max-size".into(), "10m".into()), ("max-file".into(), "2".into())]);
    app.docker_labels = BTreeMap::from([
        ("owner".into(), "R&D <web>".into()),
        ("com.amazonaws.ecs.cluster".into(), "forged".into()),
    ]);
    TaskSpec {
        group: Some("service:svc".into()),
        service_name: Some("svc".into()),
        cpu: Some(256),
        memory: Some(512),
        ..samples::task(arn(n), vec![app, container_spec(n, 1, "sidecar", "busybox")])
    }
}

fn container(n: u8, index: usize, name: &str) -> ContainerSnapshot {
    ContainerSnapshot {
        index,
        name: name.into(),
        id: Some(ContainerId::derive(&arn(n), name, 0)),
        docker_name: format!("ecs-web-7-{name}-aabbcc"),
        image_id: None,
        image_digest: None,
        desired: ContainerStatus::Running,
        known: ContainerStatus::Pulled,
        pid: None,
        exit_code: None,
        reason: None,
        created_at: None,
        started_at: None,
        finished_at: None,
        volumes: Vec::new(),
        log_path: None,
    }
}

/// The n-th task, half way up: `app` runs, `sidecar`'s image is here.
pub(crate) fn task(n: u8) -> TaskSnapshot {
    let mut app = container(n, 0, "app");
    app.image_id = Some(format!("sha256:{}", "1".repeat(64)));
    app.known = ContainerStatus::Running;
    app.pid = Some(4711);
    app.created_at = at("2026-01-01T00:00:01.123456789Z");
    app.started_at = at("2026-01-01T00:00:02.5Z");
    app.volumes = vec![VolumeView {
        docker_name: "shared-local".into(),
        source: "/var/lib/x".into(),
        destination: "/ecs".into(),
    }];
    TaskSnapshot {
        known: TaskStatus::Pulled,
        containers: vec![app, container(n, 1, "sidecar")],
        pull_started_at: at("2026-01-01T00:00:00Z"),
        pull_stopped_at: at("2026-01-01T00:00:00.9Z"),
        version: 1,
        ..samples::taken(spec(n))
    }
}

/// The n-th slot.
pub(crate) fn slot(n: u8) -> SlotFacts {
    SlotFacts {
        slot: slot_id(n),
        eni: format!("eni-{n:017x}").parse().unwrap(),
        attachment: format!("eni-attach-{n:017x}").parse().unwrap(),
        mac: MacAddr([0x06, 0x96, 0x9a, 0xce, 0xa6, n]),
        subnet: "subnet-0123456789abcdef0".parse().unwrap(),
        security_groups: Vec::new(),
        ipv4: vec![format!("10.0.2.{n}").parse().unwrap()],
        ipv6: vec![format!("2600:1f13:abc:de00::{n:x}").parse().unwrap()],
        subnet_ipv4: "10.0.2.0/24".parse().unwrap(),
        subnet_ipv6: Some("2600:1f13:abc:de00::/64".parse().unwrap()),
        gateway_ipv4: "10.0.2.1".parse().unwrap(),
        dns_servers: vec!["10.0.0.2".parse().unwrap()],
        dns_search: vec!["us-west-2.compute.internal".into()],
        private_dns_name: format!("ip-10-0-2-{n}.us-west-2.compute.internal"),
        netns: NetnsId { dev: 4, ino: 4026531840 + u64::from(n) },
        netns_path: format!("/run/netns/berth-{}", slot_id(n)).into(),
        files: SlotFiles { resolv_conf: "/x".into(), hosts: "/y".into(), hostname: "/z".into() },
    }
}

/// The engine's snapshot of these tasks.
pub(crate) fn engine(tasks: impl IntoIterator<Item = TaskSnapshot>) -> Arc<EngineSnapshot> {
    let tasks = tasks.into_iter().map(|t| (t.spec.arn.clone(), Arc::new(t))).collect();
    Arc::new(EngineSnapshot { version: 1, recovered: true, runtime_ok: true, tasks })
}

/// The ENI manager's snapshot of these slots, each with the number of its lease holder.
pub(crate) fn enis(slots: impl IntoIterator<Item = (u8, Option<u8>)>) -> Arc<EniSnapshot> {
    let view = |(n, holder): (u8, Option<u8>)| SlotView {
        facts: Arc::new(slot(n)),
        task: holder.map(arn),
        ready_at: "2026-01-01T00:00:00Z".parse().unwrap(),
        build_micros: 1,
        lost: None,
    };
    Arc::new(EniSnapshot {
        recovered: true,
        slots: slots.into_iter().map(view).collect(),
        ..EniSnapshot::default()
    })
}
