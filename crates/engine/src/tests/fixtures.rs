//! Tasks to test with.

use crate::{
    backoff::{Now, Tick},
    config::{EngineConfig, Rules},
};
use berth_testkit::samples;
use berth_types::{
    Timestamp,
    ids::TaskArn,
    task::{ContainerSpec, DependsCondition, DependsOn, TaskSpec},
};
use std::time::Duration;

pub(crate) fn arn(id: &str) -> TaskArn {
    format!("arn:aws:ecs:us-west-2:111122223333:task/demo/{id}").parse().unwrap()
}

pub(crate) fn container(name: &str) -> ContainerSpec {
    samples::container(name, "busybox")
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
    samples::task(arn(id), containers)
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
