//! Tasks to test with.

use crate::{
    backoff::{Now, Tick},
    config::{EngineConfig, Rules},
};
use berth_types::{
    Timestamp,
    ids::{EndpointId, TaskArn},
    lease::LeaseNeeds,
    task::{ContainerSpec, DependsCondition, DependsOn, LogDriver, LogSpec, TaskSpec},
};
use std::{collections::BTreeMap, time::Duration};

pub(crate) fn arn(id: &str) -> TaskArn {
    format!("arn:aws:ecs:us-west-2:111122223333:task/demo/{id}").parse().unwrap()
}

pub(crate) fn container(name: &str) -> ContainerSpec {
    ContainerSpec {
        name: name.to_owned(),
        endpoint_id: EndpointId::random(),
        image: "busybox".to_owned(),
        essential: true,
        cpu: 0,
        memory: None,
        memory_reservation: None,
        entry_point: None,
        command: None,
        environment: Vec::new(),
        working_directory: None,
        user: None,
        readonly_root_filesystem: false,
        privileged: false,
        capabilities_add: Vec::new(),
        capabilities_drop: Vec::new(),
        ulimits: Vec::new(),
        shared_memory_size: None,
        tmpfs: Vec::new(),
        mount_points: Vec::new(),
        port_mappings: Vec::new(),
        depends_on: Vec::new(),
        start_timeout: None,
        stop_timeout: None,
        log: LogSpec { driver: LogDriver::JsonFile, options: BTreeMap::new() },
        docker_labels: BTreeMap::new(),
        no_new_privileges: false,
        pseudo_terminal: false,
    }
}

/// A container that does what `command` says (see `FakeContainers`).
pub(crate) fn doing(name: &str, command: &str) -> ContainerSpec {
    ContainerSpec { command: Some(command.split(' ').map(str::to_owned).collect()), ..container(name) }
}

pub(crate) fn side(container: ContainerSpec) -> ContainerSpec {
    ContainerSpec { essential: false, ..container }
}

pub(crate) fn after(mut container: ContainerSpec, on: &str, condition: DependsCondition) -> ContainerSpec {
    container.depends_on.push(DependsOn { container: on.to_owned(), condition });
    container
}

pub(crate) fn task(id: &str, containers: Vec<ContainerSpec>) -> TaskSpec {
    TaskSpec {
        arn: arn(id),
        cluster: "demo".to_owned(),
        family: "web".to_owned(),
        revision: "7".to_owned(),
        group: None,
        service_name: None,
        launch_type: "EC2".to_owned(),
        cpu: None,
        memory: None,
        volumes: Vec::new(),
        containers,
        network: LeaseNeeds::default(),
        task_role_arn: None,
        execution_role_arn: None,
        enable_fault_injection: false,
        created_at: Timestamp::from_second(1_767_225_600).unwrap(),
        origin: berth_types::task::Origin::Operator,
    }
}

pub(crate) fn config() -> EngineConfig {
    EngineConfig {
        clock: berth_testkit::containers::clock,
        ..EngineConfig::new("us-west-2", "/nonexistent/berth")
    }
}

pub(crate) fn rules() -> Rules {
    config().rules()
}

/// So many seconds after the start.
pub(crate) fn at(seconds: u64) -> Now {
    let wall = Timestamp::from_second(1_767_225_600 + i64::try_from(seconds).unwrap()).unwrap();
    Now { wall, tick: Tick::ZERO + Duration::from_secs(seconds) }
}
