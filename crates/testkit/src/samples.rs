//! Tasks to begin a test with: everything absent, zero or empty but for what is asked for. A test sets what it is about, by struct update,
//! and does not break when a task learns something new.

use berth_types::{
    Timestamp,
    ids::{EndpointId, TaskArn},
    lease::LeaseNeeds,
    task::{
        ContainerSnapshot, ContainerSpec, ContainerStatus, LogDriver, LogSpec, Origin, TaskSnapshot,
        TaskSpec, TaskStatus,
    },
};
use std::{collections::BTreeMap, sync::Arc};

/// An essential container that asks for nothing but its image.
pub fn container(name: &str, image: &str) -> ContainerSpec {
    ContainerSpec {
        name: name.to_owned(),
        endpoint_id: EndpointId::random(),
        image: image.to_owned(),
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

/// An operator's task `web:7` of these containers, in cluster `demo`, made at the beginning of 2026.
pub fn task(arn: TaskArn, containers: Vec<ContainerSpec>) -> TaskSpec {
    TaskSpec {
        arn,
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
        created_at: Timestamp::constant(1_767_225_600, 0),
        origin: Origin::Operator,
    }
}

/// The task as the engine shows it when it has just taken it.
pub fn taken(spec: impl Into<Arc<TaskSpec>>) -> TaskSnapshot {
    let spec = spec.into();
    TaskSnapshot {
        desired: TaskStatus::Running,
        known: TaskStatus::None,
        containers: spec.containers.iter().enumerate().map(|(index, c)| not_begun(&spec, index, c)).collect(),
        spec,
        lease: None,
        waiting: None,
        stopped_reason: None,
        stop_code: None,
        lease_micros: None,
        taken_at: None,
        pull_started_at: None,
        pull_stopped_at: None,
        started_at: None,
        execution_stopped_at: None,
        stopped_at: None,
        version: 0,
    }
}

fn not_begun(task: &TaskSpec, index: usize, container: &ContainerSpec) -> ContainerSnapshot {
    ContainerSnapshot {
        index,
        name: container.name.clone(),
        id: None,
        docker_name: format!("ecs-{}-{}-{}", task.family, task.revision, container.name),
        image_id: None,
        image_digest: None,
        desired: ContainerStatus::Running,
        known: ContainerStatus::None,
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
