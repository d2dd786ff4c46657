//! ENIs, slots and the pool: facts as the cloud and the kernel report them, and the snapshot that the ENI manager publishes.

use crate::{
    Timestamp,
    ids::{
        AttachmentId, ClientToken, EniId, InstanceId, MacAddr, NetnsId, SecurityGroupId, SlotId, SubnetId,
        TaskArn, VpcId,
    },
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    sync::Arc,
};

/// What EC2 and IMDS say about the instance the agent runs on. Read once at start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceFacts {
    /// The instance.
    pub instance_id: InstanceId,
    /// For example `m5.large`.
    pub instance_type: String,
    /// For example `us-west-2`.
    pub region: String,
    /// For example `us-west-2a`.
    pub availability_zone: String,
    /// For example `usw2-az1`; IMDS of old hosts does not have it.
    pub availability_zone_id: Option<String>,
    /// The account, 12 digits.
    pub account: String,
    /// The VPC of the primary ENI.
    pub vpc: VpcId,
    /// The subnet of the primary ENI: where pool ENIs go unless configured otherwise.
    pub subnet: SubnetId,
    /// Groups of the primary ENI: what pool ENIs get unless configured otherwise.
    pub security_groups: Vec<SecurityGroupId>,
    /// MAC of the primary ENI, which is never touched.
    pub primary_mac: MacAddr,
    /// The instance's own address.
    pub private_ipv4: Ipv4Addr,
    /// ENIs that the type can hold on its default network card, the primary one included.
    pub max_enis: u32,
    /// IPv4 addresses that one ENI of the type can hold.
    pub max_ipv4_per_eni: u32,
}

/// `status` of a network interface in EC2's own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EniStatus {
    /// Not attached.
    Available,
    /// A branch interface on a trunk.
    Associated,
    /// On its way onto an instance.
    Attaching,
    /// Attached.
    InUse,
    /// On its way off.
    Detaching,
}

/// `attachment.status` in EC2's own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttachmentStatus {
    /// The call was taken, the device may not exist yet.
    Attaching,
    /// EC2 is done; the guest may still not see the link.
    Attached,
    /// The device is being removed.
    Detaching,
    /// Gone.
    Detached,
}

/// The binding of an ENI to an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentFacts {
    /// Needed to detach.
    pub id: AttachmentId,
    /// The instance; absent for ENIs that a service attached.
    pub instance: Option<InstanceId>,
    /// Device index on the network card; 0 is the primary ENI.
    pub device_index: u32,
    /// EC2's word.
    pub status: AttachmentStatus,
    /// Whether EC2 deletes the ENI with the instance; false after every attach until it is set.
    pub delete_on_termination: bool,
}

/// One ENI as EC2 describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EniFacts {
    /// The ENI.
    pub id: EniId,
    /// Its MAC: how the link is recognised.
    pub mac: MacAddr,
    /// Its subnet.
    pub subnet: SubnetId,
    /// EC2's word.
    pub status: EniStatus,
    /// Present unless `Available`.
    pub attachment: Option<AttachmentFacts>,
    /// Private IPv4 addresses, the primary first.
    pub ipv4: Vec<Ipv4Addr>,
    /// IPv6 addresses.
    pub ipv6: Vec<Ipv6Addr>,
    /// The subnet's IPv4 block; its first address is the VPC router.
    pub subnet_ipv4: Ipv4Net,
    /// The subnet's IPv6 block, if it has one.
    pub subnet_ipv6: Option<Ipv6Net>,
    /// For example `ip-10-0-1-7.us-west-2.compute.internal`.
    pub private_dns_name: Option<String>,
    /// Its groups.
    pub security_groups: Vec<SecurityGroupId>,
    /// Tags by key.
    pub tags: BTreeMap<String, String>,
    /// The description given at creation.
    pub description: String,
    /// Whether an AWS service owns it: never touched.
    pub requester_managed: bool,
}

/// What an ENI is created with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateEni {
    /// Repeating the call with the same token gives the same ENI.
    pub token: ClientToken,
    /// Where.
    pub subnet: SubnetId,
    /// Groups; never empty.
    pub security_groups: Vec<SecurityGroupId>,
    /// Shown in consoles; a second key to our ENIs.
    pub description: String,
    /// Written by the create call itself, so that no ENI of ours ever lives without them.
    pub tags: BTreeMap<String, String>,
    /// IPv6 addresses to assign; 0 in a subnet without IPv6.
    pub ipv6_addresses: u32,
}

/// A network device as the kernel shows it, in the agent's own namespace or in a slot's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkFacts {
    /// Index in its namespace: links are addressed by it, because udev may rename at any time.
    pub ifindex: u32,
    /// Name at the time of reading, for people only.
    pub name: String,
    /// How it is recognised.
    pub mac: MacAddr,
    /// IFLA_IFALIAS: the kernel's copy of our ownership record.
    pub alias: Option<String>,
}

/// The links of the agent's own namespace by MAC. When several links share a MAC (VLAN children copy their parent's), the one
/// with the shortest name is the parent.
pub type LinkTable = BTreeMap<MacAddr, LinkFacts>;

/// Everything that is needed to make a slot's namespace from nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotSpec {
    /// The slot; names the namespace.
    pub slot: SlotId,
    /// For logs and the link's alias.
    pub eni: EniId,
    /// Which link to move in.
    pub mac: MacAddr,
    /// Addresses with the subnet's prefix length; IPv4 first, the primary address first of all.
    pub addresses: Vec<IpNet>,
    /// Default route; the first address of the subnet.
    pub gateway_ipv4: Ipv4Addr,
    /// IPv6 default route; the VPC router's link-local address unless the subnet names another.
    pub gateway_ipv6: Option<Ipv6Addr>,
    /// Bytes. 9001 in a VPC; 1500 in the box.
    pub mtu: u32,
    /// Blackhole routes for 169.254.169.254 and fd00:ec2::254.
    pub block_imds: bool,
    /// The host's name in the task: the ENI's private DNS name.
    pub hostname: String,
    /// `nameserver` lines; empty means: copy the host's file.
    pub dns_servers: Vec<IpAddr>,
    /// `search` line.
    pub dns_search: Vec<String>,
}

/// Files of a slot that every container of the task gets mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotFiles {
    /// `/etc/resolv.conf` in the containers.
    pub resolv_conf: PathBuf,
    /// `/etc/hosts` in the containers.
    pub hosts: PathBuf,
    /// `/etc/hostname` in the containers.
    pub hostname: PathBuf,
}

/// A slot that the namespace builder has finished and verified by reading back.
#[derive(Debug)]
pub struct BuiltSlot {
    /// Identity of the namespace.
    pub netns: NetnsId,
    /// `/run/netns/berth-SLOT`.
    pub netns_path: PathBuf,
    /// Index of eth0 in the namespace.
    pub ifindex: u32,
    /// resolv.conf, hosts, hostname.
    pub files: SlotFiles,
    /// The metadata listener, bound in the namespace, non-blocking; connections to 169.254.170.2:80 arrive here.
    pub listener: std::net::TcpListener,
}

/// A namespace of this agent as found in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedSlot {
    /// From the namespace's name.
    pub slot: SlotId,
    /// `None`: the file is there but nothing is mounted on it (a crash between the two steps).
    pub netns: Option<NetnsId>,
    /// Links in it other than lo.
    pub links: Vec<LinkFacts>,
}

/// What the kernel really has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NetworkFacts {
    /// Links in the agent's own namespace, loopback excluded.
    pub links: LinkTable,
    /// Namespaces named like ours, of this instance.
    pub slots: Vec<ObservedSlot>,
}

/// All that a lease holder needs to know of its slot. Immutable for the life of the lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotFacts {
    /// The slot.
    pub slot: SlotId,
    /// Its ENI.
    pub eni: EniId,
    /// The ENI's attachment.
    pub attachment: AttachmentId,
    /// The ENI's MAC.
    pub mac: MacAddr,
    /// The ENI's subnet.
    pub subnet: SubnetId,
    /// Groups of the ENI.
    pub security_groups: Vec<SecurityGroupId>,
    /// IPv4 addresses, primary first.
    pub ipv4: Vec<Ipv4Addr>,
    /// IPv6 addresses.
    pub ipv6: Vec<Ipv6Addr>,
    /// The subnet's IPv4 block.
    pub subnet_ipv4: Ipv4Net,
    /// The subnet's IPv6 block.
    pub subnet_ipv6: Option<Ipv6Net>,
    /// The VPC router in the subnet.
    pub gateway_ipv4: Ipv4Addr,
    /// Name servers of the task.
    pub dns_servers: Vec<IpAddr>,
    /// Search list of the task.
    pub dns_search: Vec<String>,
    /// Private DNS name of the ENI, the task's host name.
    pub private_dns_name: String,
    /// The namespace.
    pub netns: NetnsId,
    /// Where it is mounted.
    pub netns_path: PathBuf,
    /// Files for the containers.
    pub files: SlotFiles,
}

/// Where an ENI is on its way, as operators see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EniPhase {
    /// The intent is durable, the create call may be under way.
    Creating,
    /// Exists in EC2, not attached.
    Created,
    /// Attach call under way, or taken by EC2 and not finished.
    Attaching,
    /// Attached in EC2; its link has not shown up.
    AwaitingLink,
    /// Its slot's namespace is being built.
    Building,
    /// In a finished slot that nobody leases.
    Ready,
    /// In a slot that a task leases.
    Leased,
    /// Its old namespace is being torn down.
    Draining,
    /// Resting before it is used again.
    Cooling,
    /// Detach under way.
    Detaching,
    /// Delete under way.
    Deleting,
    /// Kept out of use after an error that does not go away by itself.
    Quarantined,
}

/// One ENI as operators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EniView {
    /// `None` while the create call has not answered.
    pub id: Option<EniId>,
    /// MAC, once known.
    pub mac: Option<MacAddr>,
    /// Where it lies.
    pub subnet: SubnetId,
    /// Device index that is reserved for it.
    pub device_index: Option<u32>,
    /// Primary IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// On its way.
    pub phase: EniPhase,
    /// Its slot, from `Building` to `Draining`.
    pub slot: Option<SlotId>,
    /// The lease holder.
    pub task: Option<TaskArn>,
    /// When the phase began.
    pub since: Timestamp,
    /// The last error on its way, if any.
    pub error: Option<String>,
}

/// One slot as operators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotView {
    /// Everything about it.
    #[serde(flatten)]
    pub facts: Arc<SlotFacts>,
    /// The lease holder; `None` is a warm slot.
    pub task: Option<TaskArn>,
    /// When it became ready.
    pub ready_at: Timestamp,
    /// From the start of the namespace build to verified, in microseconds.
    pub build_micros: u64,
    /// Why it is of no use any more, though its task may still run in it: its ENI, link or namespace was taken away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
}

/// A task that waits for a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingLease {
    /// Who waits.
    pub task: TaskArn,
    /// Since when.
    pub since: Timestamp,
    /// Why it is not served yet, for people.
    pub reason: String,
}

/// The pool in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PoolView {
    /// Slots to keep ready.
    pub warm_target: u32,
    /// Ready and not leased.
    pub warm: u32,
    /// On their way to ready.
    pub filling: u32,
    /// Leased.
    pub leased: u32,
    /// Draining or cooling.
    pub recycling: u32,
    /// Being detached or deleted.
    pub removing: u32,
    /// ENIs that the pool may hold on this instance.
    pub max_enis: u32,
    /// Tasks that wait, oldest first.
    pub waiting: Vec<WaitingLease>,
    /// What keeps the pool from its target, for people; empty when all is well.
    pub problems: Vec<String>,
    /// Leases given since start.
    pub leases_total: u64,
    /// Of these, leases served from a warm slot.
    pub warm_leases_total: u64,
}

/// What the ENI manager publishes after every change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EniSnapshot {
    /// Counts changes.
    pub version: u64,
    /// False until what was found at start has been taken over.
    pub recovered: bool,
    /// All ENIs of the pool.
    pub enis: Vec<EniView>,
    /// Finished slots.
    pub slots: Vec<SlotView>,
    /// Numbers.
    pub pool: PoolView,
}
