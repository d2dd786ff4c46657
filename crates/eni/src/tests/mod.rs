//! Tests of the crate: tables for machine and planner, whole runs against fakes, crashes at every call.

mod crash;
mod planning;
mod recovery;
mod runs;
mod storm;
mod troubles;
mod witness;
mod world;

use berth_testkit::cloud;
use berth_types::eni::{EniFacts, EniStatus};
use std::collections::BTreeMap;

/// An ENI of the pool that is attached to nothing.
pub(crate) fn facts(tags: &BTreeMap<String, String>) -> EniFacts {
    let instance = cloud::instance(3);
    EniFacts {
        id: "eni-00000aaa".parse().unwrap(),
        mac: "02:00:00:00:0a:aa".parse().unwrap(),
        subnet: instance.subnet,
        status: EniStatus::Available,
        attachment: None,
        ipv4: vec!["10.0.9.9".parse().unwrap()],
        ipv6: Vec::new(),
        subnet_ipv4: "10.0.0.0/16".parse().unwrap(),
        subnet_ipv6: None,
        private_dns_name: Some("ip-10-0-9-9.us-west-2.compute.internal".to_owned()),
        security_groups: instance.security_groups,
        tags: tags.clone(),
        description: String::new(),
        requester_managed: false,
    }
}
