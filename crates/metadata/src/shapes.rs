//! The bodies on the wire, key for key in wire order; [`crate::documents`] fills them.
//!
//! Absent on purpose, until there is a source for them: Health and RestartCount of a container, tags, Errors, ClockDrift and
//! EphemeralStorageMetrics of a task. Their places are marked.

use crate::gojson::VCpu;
use berth_types::Timestamp;
use serde::Serialize;
use std::{
    borrow::Cow,
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A container in v3 and v4. The two differ by the fields that are `Option` here and not omitted by value.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Container<'a> {
    pub(crate) docker_id: &'a str,
    pub(crate) name: &'a str,
    pub(crate) docker_name: &'a str,
    pub(crate) image: &'a str,
    #[serde(rename = "ImageID")]
    pub(crate) image_id: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) ports: Vec<Port<'a>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) labels: BTreeMap<&'a str, &'a str>,
    pub(crate) desired_status: &'static str,
    pub(crate) known_status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) exit_code: Option<u32>,
    pub(crate) limits: ContainerLimits,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) created_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) started_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) finished_at: Option<Timestamp>,
    #[serde(rename = "Type")]
    pub(crate) kind: &'static str,
    #[serde(rename = "Networks", skip_serializing_if = "Option::is_none")]
    pub(crate) networks_v3: Option<[NetworkV3<'a>; 1]>,
    // Health comes here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) volumes: Vec<Volume<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) log_driver: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) log_options: Option<&'a BTreeMap<String, String>>,
    #[serde(rename = "ContainerARN", skip_serializing_if = "Option::is_none")]
    pub(crate) container_arn: Option<String>,
    #[serde(rename = "Networks", skip_serializing_if = "Option::is_none")]
    pub(crate) networks_v4: Option<[NetworkV4<'a>; 1]>,
    // RestartCount comes here.
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Port<'a> {
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) container_port: u16,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) protocol: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) host_port: u16,
    // v4 has HostIp here: the address that the host's side is bound to. A task with an ENI has no host's side.
}

/// Both keys always, unlike the task's.
#[derive(Debug, Serialize)]
pub(crate) struct ContainerLimits {
    #[serde(rename = "CPU")]
    pub(crate) cpu: u32,
    #[serde(rename = "Memory")]
    pub(crate) memory: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Volume<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) docker_name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) source: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) destination: &'a str,
}

#[derive(Debug, Serialize)]
pub(crate) struct NetworkV3<'a> {
    #[serde(rename = "NetworkMode")]
    pub(crate) network_mode: &'static str,
    #[serde(rename = "IPv4Addresses", skip_serializing_if = "<[_]>::is_empty")]
    pub(crate) ipv4_addresses: &'a [Ipv4Addr],
    #[serde(rename = "IPv6Addresses", skip_serializing_if = "<[_]>::is_empty")]
    pub(crate) ipv6_addresses: &'a [Ipv6Addr],
}

#[derive(Debug, Serialize)]
pub(crate) struct NetworkV4<'a> {
    #[serde(rename = "NetworkMode")]
    pub(crate) network_mode: &'static str,
    #[serde(rename = "IPv4Addresses", skip_serializing_if = "<[_]>::is_empty")]
    pub(crate) ipv4_addresses: &'a [Ipv4Addr],
    #[serde(rename = "IPv6Addresses", skip_serializing_if = "<[_]>::is_empty")]
    pub(crate) ipv6_addresses: &'a [Ipv6Addr],
    #[serde(rename = "AttachmentIndex")]
    pub(crate) attachment_index: u32,
    #[serde(rename = "MACAddress")]
    pub(crate) mac_address: String,
    #[serde(rename = "IPv4SubnetCIDRBlock")]
    pub(crate) ipv4_subnet_cidr_block: String,
    #[serde(rename = "IPv6SubnetCIDRBlock", skip_serializing_if = "Option::is_none")]
    pub(crate) ipv6_subnet_cidr_block: Option<String>,
    #[serde(rename = "DomainNameServers", skip_serializing_if = "<[_]>::is_empty")]
    pub(crate) domain_name_servers: &'a [IpAddr],
    #[serde(rename = "DomainNameSearchList", skip_serializing_if = "<[_]>::is_empty")]
    pub(crate) domain_name_search_list: &'a [String],
    #[serde(rename = "PrivateDNSName", skip_serializing_if = "str::is_empty")]
    pub(crate) private_dns_name: &'a str,
    // `Ipv4` is the official agent's spelling in this one key.
    #[serde(rename = "SubnetGatewayIpv4Address")]
    pub(crate) subnet_gateway_ipv4_address: String,
    // SubnetGatewayIpv6Address comes here, for ENIs without IPv4 only.
}

#[derive(Debug, Serialize)]
pub(crate) struct TaskLimits {
    #[serde(rename = "CPU", skip_serializing_if = "Option::is_none")]
    pub(crate) cpu: Option<VCpu>,
    #[serde(rename = "Memory", skip_serializing_if = "is_zero")]
    pub(crate) memory: u64,
}

/// A task in v3.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct TaskV3<'a> {
    pub(crate) cluster: &'a str,
    #[serde(rename = "TaskARN")]
    pub(crate) task_arn: &'a str,
    pub(crate) family: &'a str,
    pub(crate) revision: &'a str,
    pub(crate) desired_status: &'static str,
    pub(crate) known_status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) containers: Vec<Container<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limits: Option<TaskLimits>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pull_started_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pull_stopped_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) execution_stopped_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) availability_zone: Option<&'a str>,
    // TaskTags, ContainerInstanceTags come here.
}

/// A task in v4.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct TaskV4<'a> {
    pub(crate) cluster: &'a str,
    #[serde(rename = "TaskARN")]
    pub(crate) task_arn: &'a str,
    pub(crate) family: &'a str,
    pub(crate) revision: &'a str,
    pub(crate) desired_status: &'static str,
    pub(crate) known_status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limits: Option<TaskLimits>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pull_started_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pull_stopped_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) execution_stopped_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) availability_zone: Option<&'a str>,
    // TaskTags, ContainerInstanceTags come here.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) launch_type: &'a str,
    // Errors comes here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) containers: Vec<Container<'a>>,
    #[serde(rename = "VPCID")]
    pub(crate) vpc_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) service_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<&'a str>,
    // ClockDrift, EphemeralStorageMetrics come here.
    pub(crate) fault_injection_enabled: bool,
    #[serde(rename = "AvailabilityZoneID", skip_serializing_if = "Option::is_none")]
    pub(crate) availability_zone_id: Option<&'a str>,
}
