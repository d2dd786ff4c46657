//! Why the world refuses a call: one variant per rule of EC2, each with the code that EC2 answers.
//!
//! The HTTP side ([`crate::ec2`]) turns a refusal into XML; nothing here knows about HTTP.

use super::{
    groups::Terms,
    ids::{AttachmentId, EniId, GroupId, InstanceId, SubnetId, VpcId},
};
use std::net::IpAddr;

/// A rule of EC2 that a call would break. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// An id of the wrong form.
    #[error("Invalid id: \"{id}\" (expecting \"{prefix}...\")")]
    Malformed {
        /// EC2's code; it differs by kind of id.
        code: &'static str,
        /// What was given.
        id: String,
        /// How ids of this kind begin.
        prefix: &'static str,
    },
    /// No such object.
    #[error("The {kind} '{id}' does not exist")]
    NotFound {
        /// EC2's code; it differs by kind of object.
        code: &'static str,
        /// EC2's words for the kind.
        kind: &'static str,
        /// Which.
        id: String,
    },
    /// Attaching an ENI that is attached.
    #[error("Interface: [{0}] in use.")]
    EniAttached(EniId),
    /// Deleting an ENI that is attached.
    #[error("Network interface '{0}' is currently in use.")]
    EniInUse(EniId),
    /// Two ENIs on one device index.
    #[error("Instance '{instance}' already has an interface attached at device index '{index}'.")]
    DeviceIndexTaken {
        /// Which instance.
        instance: InstanceId,
        /// Which index.
        index: u32,
    },
    /// More ENIs than the type holds.
    #[error("Interface count {count} exceeds the limit for {instance_type}.")]
    AttachmentLimit {
        /// How many there would be.
        count: usize,
        /// The instance's type.
        instance_type: &'static str,
    },
    /// An ENI of one zone, an instance of another.
    #[error(
        "You may not attach a network interface to an instance if they are not in the same availability zone"
    )]
    OtherZone,
    /// A network card that the type does not have.
    #[error("Network card index {index} exceeds the limit for {instance_type}.")]
    NoSuchCard {
        /// Which card.
        index: u32,
        /// The instance's type.
        instance_type: &'static str,
    },
    /// The primary ENI stays for the instance's life.
    #[error("The network interface at device index 0 cannot be detached.")]
    DetachPrimary,
    /// A second detach while the first runs.
    #[error("The attachment '{0}' is already detaching.")]
    AlreadyDetaching(AttachmentId),
    /// More addresses than the subnet has left.
    #[error("The specified subnet does not have enough free addresses to satisfy the request.")]
    SubnetFull(SubnetId),
    /// An address that another ENI holds.
    #[error("Address {0} is in use.")]
    AddressInUse(IpAddr),
    /// An address of another subnet.
    #[error("Address {address} does not fall within the subnet's address range {subnet}")]
    AddressOutside {
        /// Which address.
        address: IpAddr,
        /// The subnet's block.
        subnet: String,
    },
    /// One of the five addresses that EC2 keeps in every subnet.
    #[error("Address {0} is in subnet's reserved address range")]
    AddressReserved(IpAddr),
    /// More addresses than the ENI may hold.
    #[error("Number of private addresses will exceed limit: {count} of {limit}.")]
    AddressLimit {
        /// How many there would be.
        count: usize,
        /// How many may be.
        limit: usize,
    },
    /// Unassigning an address that the ENI does not hold.
    #[error("Some of [{address}] are not assigned to interface {eni}")]
    NotAssigned {
        /// Which address.
        address: IpAddr,
        /// Which ENI.
        eni: EniId,
    },
    /// Unassigning the primary address.
    #[error("The primary address {address} of interface {eni} cannot be unassigned")]
    PrimaryAddress {
        /// Which address.
        address: IpAddr,
        /// Which ENI.
        eni: EniId,
    },
    /// An IPv6 address asked for in a subnet without IPv6.
    #[error("The subnet '{0}' does not have an IPv6 CIDR block")]
    NoIpv6(SubnetId),
    /// A client token that was used with other parameters.
    #[error(
        "Arguments on this idempotent request are inconsistent with arguments used in previous request(s)."
    )]
    TokenMismatch,
    /// As many ENIs as the account may have.
    #[error("You have reached the limit of {0} network interfaces.")]
    EniQuota(usize),
    /// More groups than an ENI may be in.
    #[error("You have exceeded the number of security groups allowed per network interface.")]
    TooManyGroups,
    /// A group of this name is there already.
    #[error("The security group '{name}' already exists for VPC '{vpc}'")]
    GroupExists {
        /// The name.
        name: String,
        /// The VPC.
        vpc: VpcId,
    },
    /// As many groups as the VPC may have.
    #[error("The maximum number of security groups for VPC '{0}' has been reached.")]
    GroupQuota(VpcId),
    /// The VPC's own group stays.
    #[error("the specified group: \"{id}\" name: \"{name}\" cannot be deleted by a user")]
    DefaultGroup {
        /// Its id.
        id: GroupId,
        /// Its name.
        name: String,
    },
    /// Deleting a group that an ENI is in, or that a rule names.
    #[error("resource {0} has a dependent object")]
    GroupInUse(GroupId),
    /// A rule that is there already.
    #[error("the specified rule \"{0}\" already exists")]
    RuleExists(Terms),
    /// The same rule twice in a call.
    #[error("The same permission must not appear multiple times")]
    RuleTwice,
    /// Revoking a rule that is not there.
    #[error("The specified rule does not exist in this security group.")]
    NoSuchRule,
    /// More rules than a group may have.
    #[error("The maximum number of rules per security group has been reached.")]
    TooManyRules,
    /// More tags than a resource may have.
    #[error("The maximum number of Tags for a resource has been reached.")]
    TooManyTags,
    /// A tag that breaks EC2's rules.
    #[error("{0}")]
    BadTag(&'static str),
    /// A resource that cannot carry tags here.
    #[error("The ID '{0}' is not valid")]
    NotTaggable(String),
}

impl Refusal {
    /// EC2's code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed { code, .. } | Self::NotFound { code, .. } => code,
            Self::EniAttached(_) => "InvalidNetworkInterface.InUse",
            Self::EniInUse(_)
            | Self::DeviceIndexTaken { .. }
            | Self::NoSuchCard { .. }
            | Self::AddressOutside { .. }
            | Self::AddressReserved(_)
            | Self::NotAssigned { .. }
            | Self::PrimaryAddress { .. }
            | Self::NoIpv6(_)
            | Self::RuleTwice
            | Self::BadTag(_) => "InvalidParameterValue",
            Self::AttachmentLimit { .. } => "AttachmentLimitExceeded",
            Self::OtherZone => "InvalidParameterCombination",
            Self::DetachPrimary => "OperationNotPermitted",
            Self::AlreadyDetaching(_) => "IncorrectState",
            Self::SubnetFull(_) => "InsufficientFreeAddressesInSubnet",
            Self::AddressInUse(_) => "InvalidIPAddress.InUse",
            Self::AddressLimit { .. } => "PrivateIpAddressLimitExceeded",
            Self::TokenMismatch => "IdempotentParameterMismatch",
            Self::EniQuota(_) => "NetworkInterfaceLimitExceeded",
            Self::TooManyGroups => "SecurityGroupsPerInterfaceLimitExceeded",
            Self::GroupExists { .. } => "InvalidGroup.Duplicate",
            Self::GroupQuota(_) => "SecurityGroupLimitExceeded",
            Self::DefaultGroup { .. } => "CannotDelete",
            Self::GroupInUse(_) => "DependencyViolation",
            Self::RuleExists(_) => "InvalidPermission.Duplicate",
            Self::NoSuchRule => "InvalidPermission.NotFound",
            Self::TooManyRules => "RulesPerSecurityGroupLimitExceeded",
            Self::TooManyTags => "TagLimitExceeded",
            Self::NotTaggable(_) => "InvalidID",
        }
    }
}
