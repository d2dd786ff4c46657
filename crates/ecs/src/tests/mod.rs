//! Tests of the crate: whole runs of registration and poller against a control plane, an engine and a journal with behaviour, in
//! paused time.

mod control;
mod crash;
mod polling;
mod registering;
mod rig;
mod whole;

use berth_testkit::cloud;
use berth_types::{eni::InstanceFacts, ids::TaskArn};

/// The instance that the tests run on.
pub(crate) fn instance() -> InstanceFacts {
    cloud::instance(3)
}

/// A task of the cluster.
pub(crate) fn arn(id: &str) -> TaskArn {
    format!("arn:aws:ecs:us-west-2:111122223333:task/demo/{id}").parse().unwrap()
}

/// A definition that runs here, as DescribeTaskDefinition answers it.
pub(crate) fn definition(family: &str) -> String {
    format!(
        r#"{{"family":"{family}","revision":1,"taskDefinitionArn":"arn:aws:ecs:us-west-2:111122223333:task-definition/{family}:1",
            "status":"ACTIVE","networkMode":"awsvpc","containerDefinitions":[{{"name":"app","image":"busybox","memory":64}}]}}"#
    )
}
