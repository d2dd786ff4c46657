//! DescribeInstances and DescribeInstanceTypes.

use super::{error::ApiError, filters::Filters, interfaces, paging::Page, params::Params, xml::Xml};
use crate::{
    config::derive_id,
    world::{
        AMI, World,
        ids::InstanceId,
        state::{Attachment, Eni, Instance, State},
        types::{InstanceType, TYPES, find},
    },
};
use jiff::Timestamp;

/// Filters of DescribeInstances.
const INSTANCE_FILTERS: &[&str] = &[
    "availability-zone",
    "image-id",
    "instance-id",
    "instance-state-code",
    "instance-state-name",
    "instance-type",
    "network-interface.network-interface-id",
    "owner-id",
    "private-dns-name",
    "private-ip-address",
    "subnet-id",
    "vpc-id",
];
/// Filters of DescribeInstanceTypes.
const TYPE_FILTERS: &[&str] = &[
    "instance-type",
    "network-info.maximum-network-interfaces",
    "processor-info.supported-architecture",
    "vcpu-info.default-vcpus",
];
/// Largest pages.
const MAX_INSTANCES: u32 = 1000;
const MAX_TYPES: u32 = 100;

/// DescribeInstances.
pub(super) fn describe(
    mut params: Params,
    world: &mut World,
    now: Timestamp,
    xml: &mut Xml,
) -> Result<(), ApiError> {
    let ids = params.list("InstanceId");
    let ids = ids.iter().map(|id| InstanceId::parse(id)).collect::<Result<Vec<_>, _>>()?;
    let filters = Filters::take(&mut params, INSTANCE_FILTERS)?;
    let page = Page::take(&mut params, MAX_INSTANCES, !ids.is_empty())?;
    params.boolean("IncludeManagedResources")?;
    params.finish()?;
    let state = world.read(now);
    if let Some(unknown) = ids.iter().find(|id| !state.site.instances.contains_key(*id)) {
        return Err(unknown.not_found().into());
    }
    let found = state
        .site
        .instances
        .values()
        .filter(|i| ids.is_empty() || ids.contains(&i.id))
        .filter(|i| filters.pass(state.tags_of(i.id.as_str()), |name| instance_values(&state, i, name)))
        .collect();
    let (found, next) = page.cut(found, |i| i.id.to_string());
    xml.set("reservationSet", found, |xml, instance| {
        xml.leaf("reservationId", derive_id("r", &[instance.id.as_str()]));
        xml.leaf("ownerId", &state.site.account);
        xml.node("groupSet", |_| {});
        xml.set("instancesSet", [instance], |xml, instance| write_instance(xml, &state, instance));
    });
    if let Some(next) = next {
        xml.leaf("nextToken", next);
    }
    Ok(())
}

fn instance_values(state: &State, instance: &Instance, filter: &str) -> Vec<String> {
    let subnet = state.site.subnets.get(&instance.subnet);
    let address = state.enis.get(&instance.primary).map(|e| e.primary_ipv4());
    match filter {
        "availability-zone" => subnet.map(|s| s.zone.clone()).into_iter().collect(),
        "image-id" => vec![AMI.to_owned()],
        "instance-id" => vec![instance.id.to_string()],
        "instance-state-code" => vec!["16".to_owned()],
        "instance-state-name" => vec!["running".to_owned()],
        "instance-type" => vec![instance.kind.name.to_owned()],
        "network-interface.network-interface-id" => {
            state.attached_to(&instance.id).iter().map(|(eni, _)| eni.id.to_string()).collect()
        }
        "owner-id" => vec![state.site.account.clone()],
        "private-dns-name" => address.map(|a| state.dns_name(a)).into_iter().collect(),
        "private-ip-address" => address.map(|a| a.to_string()).into_iter().collect(),
        "subnet-id" => vec![instance.subnet.to_string()],
        "vpc-id" => vec![state.site.vpc.id.to_string()],
        _ => Vec::new(),
    }
}

fn write_instance(xml: &mut Xml, state: &State, instance: &Instance) {
    xml.leaf("instanceId", &instance.id);
    xml.leaf("imageId", AMI);
    xml.node("instanceState", |xml| {
        xml.leaf("code", 16);
        xml.leaf("name", "running");
    });
    xml.leaf("instanceType", instance.kind.name);
    xml.leaf("amiLaunchIndex", 0);
    xml.time("launchTime", instance.launched);
    xml.node("placement", |xml| {
        if let Some(subnet) = state.site.subnets.get(&instance.subnet) {
            xml.leaf("availabilityZone", &subnet.zone);
            xml.leaf("availabilityZoneId", &subnet.zone_id);
        }
        xml.leaf("tenancy", "default");
    });
    xml.node("monitoring", |xml| xml.leaf("state", "disabled"));
    xml.leaf("subnetId", &instance.subnet);
    xml.leaf("vpcId", &state.site.vpc.id);
    xml.leaf("architecture", instance.kind.architecture);
    xml.leaf("hypervisor", "xen");
    xml.leaf("virtualizationType", "hvm");
    xml.leaf("rootDeviceType", "ebs");
    xml.leaf("enaSupport", true);
    xml.leaf("ebsOptimized", false);
    if let Some(role) = &instance.role {
        xml.node("iamInstanceProfile", |xml| {
            xml.leaf("arn", format!("arn:aws:iam::{}:instance-profile/{role}", state.site.account));
        });
    }
    if let Some(primary) = state.enis.get(&instance.primary) {
        xml.leaf("privateIpAddress", primary.primary_ipv4());
        xml.leaf("privateDnsName", state.dns_name(primary.primary_ipv4()));
        xml.leaf("sourceDestCheck", primary.source_dest_check);
        interfaces::write_groups(xml, state, &primary.groups);
    }
    xml.set("networkInterfaceSet", state.attached_to(&instance.id), |xml, (eni, attachment)| {
        write_interface(xml, state, eni, attachment);
    });
    xml.tags(state.tags_of(instance.id.as_str()));
    write_metadata_options(xml);
}

/// An ENI as instances list it: almost, but not quite, as DescribeNetworkInterfaces does.
fn write_interface(xml: &mut Xml, state: &State, eni: &Eni, attachment: &Attachment) {
    xml.leaf("networkInterfaceId", &eni.id);
    xml.leaf("subnetId", &eni.subnet);
    xml.leaf("vpcId", &state.site.vpc.id);
    xml.leaf("description", &eni.description);
    xml.leaf("ownerId", &state.site.account);
    xml.leaf("status", eni.status());
    xml.leaf("macAddress", eni.mac);
    xml.leaf("privateIpAddress", eni.primary_ipv4());
    xml.leaf("privateDnsName", state.dns_name(eni.primary_ipv4()));
    xml.leaf("sourceDestCheck", eni.source_dest_check);
    interfaces::write_groups(xml, state, &eni.groups);
    xml.node("attachment", |xml| interfaces::write_attachment(xml, attachment));
    interfaces::write_addresses(xml, state, eni);
    xml.leaf("interfaceType", "interface");
}

/// What this box's IMDS is: tokens required. (Its answers reach one hop, and the containers' namespaces have no way to it.)
fn write_metadata_options(xml: &mut Xml) {
    xml.node("metadataOptions", |xml| {
        xml.leaf("state", "applied");
        xml.leaf("httpTokens", "required");
        xml.leaf("httpPutResponseHopLimit", 1);
        xml.leaf("httpEndpoint", "enabled");
        xml.leaf("httpProtocolIpv6", "disabled");
        xml.leaf("instanceMetadataTags", "disabled");
    });
}

/// DescribeInstanceTypes.
pub(super) fn describe_types(
    mut params: Params,
    _world: &mut World,
    _now: Timestamp,
    xml: &mut Xml,
) -> Result<(), ApiError> {
    let names = params.list("InstanceType");
    let filters = Filters::take(&mut params, TYPE_FILTERS)?;
    let page = Page::take(&mut params, MAX_TYPES, !names.is_empty())?;
    params.boolean("IncludeUnsupportedInRegion")?;
    params.finish()?;
    if let Some(unknown) = names.iter().find(|name| find(name).is_none()) {
        let message = format!("The following supplied instance types do not exist: [{unknown}]");
        return Err(ApiError::new("InvalidInstanceType", message));
    }
    let found = TYPES
        .iter()
        .filter(|t| names.is_empty() || names.iter().any(|name| name == t.name))
        .filter(|t| filters.pass(std::iter::empty(), |name| type_values(t, name)))
        .collect();
    let (found, next) = page.cut(found, |t| t.name.to_owned());
    xml.set("instanceTypeSet", found, write_type);
    if let Some(next) = next {
        xml.leaf("nextToken", next);
    }
    Ok(())
}

fn type_values(kind: &InstanceType, filter: &str) -> Vec<String> {
    match filter {
        "instance-type" => vec![kind.name.to_owned()],
        "network-info.maximum-network-interfaces" => vec![kind.max_enis.to_string()],
        "processor-info.supported-architecture" => vec![kind.architecture.to_owned()],
        "vcpu-info.default-vcpus" => vec![kind.vcpus.to_string()],
        _ => Vec::new(),
    }
}

fn write_type(xml: &mut Xml, kind: &InstanceType) {
    xml.leaf("instanceType", kind.name);
    xml.leaf("currentGeneration", true);
    xml.leaf("bareMetal", false);
    xml.leaf("hypervisor", "nitro");
    xml.node("processorInfo", |xml| {
        xml.set("supportedArchitectures", [kind.architecture], |xml, a| xml.text(a));
    });
    xml.node("vCpuInfo", |xml| xml.leaf("defaultVCpus", kind.vcpus));
    xml.node("memoryInfo", |xml| xml.leaf("sizeInMiB", kind.memory_mib));
    xml.node("networkInfo", |xml| {
        xml.leaf("networkPerformance", kind.network);
        xml.leaf("maximumNetworkInterfaces", kind.max_enis);
        xml.leaf("maximumNetworkCards", 1);
        xml.leaf("defaultNetworkCardIndex", 0);
        xml.set("networkCards", [kind], |xml, kind| {
            xml.leaf("networkCardIndex", 0);
            xml.leaf("networkPerformance", kind.network);
            xml.leaf("maximumNetworkInterfaces", kind.max_enis);
        });
        xml.leaf("ipv4AddressesPerInterface", kind.addresses_per_eni);
        xml.leaf("ipv6AddressesPerInterface", kind.addresses_per_eni);
        xml.leaf("ipv6Supported", true);
        xml.leaf("enaSupport", "required");
        xml.leaf("efaSupported", false);
    });
}
