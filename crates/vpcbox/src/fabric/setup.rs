//! Building: namespaces, kernel settings, bridges. Runs on the owner's thread, on a name that was cleaned before.

use super::{
    FabricError, FabricSpec, IMDS_ADDRESS, SubnetSpec,
    links::{self, Link},
    names,
};
use berth_netns::ns::{self, Netns};
use ipnet::IpNet;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    path::Path,
};

/// In the VPC's namespace.
const VPC_SETTINGS: &[(&str, &str)] = &[
    // Routing between the subnets is all that the namespace is for.
    ("ipv4/ip_forward", "1"),
    ("ipv6/conf/all/forwarding", "1"),
    // The router takes what comes; checks of the source belong to each ENI.
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    // A VPC's router sends no redirects, and answers ARP only for its address in that subnet.
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv4/conf/all/arp_ignore", "1"),
    // Ports of a bridge need no IPv6 of their own; with it, each floods all others with multicast (16 ms per port at 900 ports).
    ("ipv6/conf/default/disable_ipv6", "1"),
];

/// In an instance's namespace.
const INSTANCE_SETTINGS: &[(&str, &str)] = &[
    // A new namespace inherits this from the machine, which may be a router; an instance is not.
    ("ipv4/ip_forward", "0"),
    ("ipv6/conf/all/forwarding", "0"),
];

/// The least that IPv6 allows, and the most that the kernel's veth takes.
const MTU_RANGE: std::ops::RangeInclusive<u32> = 1280..=65535;

/// What the owner keeps of a finished build.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) vpc: Netns,
    pub(super) instances: BTreeMap<String, Netns>,
    pub(super) subnets: BTreeMap<String, Subnet>,
}

/// A subnet and its bridge.
#[derive(Debug)]
pub(super) struct Subnet {
    pub(super) spec: SubnetSpec,
    pub(super) bridge: u32,
}

/// Finds what could not be built, or would be confused later.
pub(super) fn check(spec: &FabricSpec) -> Result<(), FabricError> {
    let wrong = |what, value: &str, expected| FabricError::Spec { what, value: value.to_owned(), expected };
    if !names::is_box_name(&spec.name) {
        return Err(wrong("name", &spec.name, "expected 1 to 32 lower-case letters, digits and dashes"));
    }
    if !MTU_RANGE.contains(&spec.mtu) {
        return Err(wrong("mtu", &spec.mtu.to_string(), "expected 1280 to 65535"));
    }
    let (mut instances, mut bridges) = (BTreeSet::new(), BTreeSet::new());
    for id in &spec.instances {
        if !names::is_instance_id(id) {
            return Err(wrong("instance", id, "expected i- and 8 to 17 hexadecimal digits"));
        }
        if !instances.insert(id) {
            return Err(wrong("instance", id, "expected each id once"));
        }
    }
    for subnet in &spec.subnets {
        if !bridges.insert(names::bridge(&subnet.id)) {
            return Err(wrong("subnet", &subnet.id, "expected ids that differ in their last 12 characters"));
        }
    }
    Ok(())
}

/// Builds all of it.
pub(super) async fn build(spec: &FabricSpec) -> Result<Built, FabricError> {
    let vpc = create(&names::vpc_netns(&spec.name), VPC_SETTINGS)?;
    let netlink = vpc.netlink().map_err(namespace_failed("open netlink in", "the VPC"))?;
    bring_up_lo(&netlink.handle, &[]).await?;
    let mut subnets = BTreeMap::new();
    for subnet in &spec.subnets {
        let bridge = build_bridge(&vpc, &netlink.handle, subnet, spec.mtu).await?;
        subnets.insert(subnet.id.clone(), Subnet { spec: subnet.clone(), bridge });
    }
    netlink.close().await;
    let mut instances = BTreeMap::new();
    for id in &spec.instances {
        instances.insert(id.clone(), build_instance(&names::instance_netns(&spec.name, id)).await?);
    }
    Ok(Built { vpc, instances, subnets })
}

async fn build_bridge(
    vpc: &Netns,
    handle: &rtnetlink::Handle,
    subnet: &SubnetSpec,
    mtu: u32,
) -> Result<u32, FabricError> {
    let name = names::bridge(&subnet.id);
    let index = links::add_bridge(handle, &name, names::router_mac(&subnet.id), mtu).await?;
    if subnet.ipv6.is_some() {
        let (enable, dad) =
            (format!("ipv6/conf/{name}/disable_ipv6"), format!("ipv6/conf/{name}/accept_dad"));
        apply_settings(vpc, "the VPC", &[(&dad, "0"), (&enable, "0")])?;
    }
    let link = Link { index, name, running: false };
    links::set_up(handle, &link).await?;
    let addresses = links::router_addresses(subnet.ipv4, subnet.ipv6);
    for address in &addresses {
        links::add_address(handle, &link, *address).await?;
    }
    links::wait_heard(handle, &link.name, &addresses).await?;
    Ok(index)
}

async fn build_instance(path: &Path) -> Result<Netns, FabricError> {
    let netns = create(path, INSTANCE_SETTINGS)?;
    let netlink = netns.netlink().map_err(namespace_failed("open netlink in", path.display()))?;
    bring_up_lo(&netlink.handle, &[IpAddr::from(IMDS_ADDRESS).into()]).await?;
    netlink.close().await;
    Ok(netns)
}

async fn bring_up_lo(handle: &rtnetlink::Handle, addresses: &[IpNet]) -> Result<(), FabricError> {
    let lo = links::get(handle, "lo").await?;
    links::set_up(handle, &lo).await?;
    for address in addresses {
        links::add_address(handle, &lo, *address).await?;
    }
    Ok(())
}

fn create(path: &Path, settings: &[(&str, &str)]) -> Result<Netns, FabricError> {
    let netns = ns::create_named(path).map_err(namespace_failed("make namespace", path.display()))?;
    apply_settings(&netns, &path.display().to_string(), settings)?;
    Ok(netns)
}

/// /proc/sys/net shows the settings of the namespace that the reading thread is in.
fn apply_settings(netns: &Netns, name: &str, settings: &[(&str, &str)]) -> Result<(), FabricError> {
    let apply = || {
        settings.iter().try_for_each(|(setting, value)| {
            fs::write(Path::new("/proc/sys/net").join(setting), value).map_err(|source| {
                FabricError::Setting { setting: (*setting).to_owned(), name: name.to_owned(), source }
            })
        })
    };
    netns.run(apply).map_err(namespace_failed("enter", name))?
}

pub(super) fn namespace_failed(
    op: &'static str,
    name: impl ToString,
) -> impl FnOnce(ns::NsError) -> FabricError {
    let name = name.to_string();
    move |source| FabricError::Namespace { op, name, source }
}
