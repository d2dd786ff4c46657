//! Ids, parsed at the edge: no `String` id crosses a function boundary. All are cheap to clone.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use std::{fmt, str::FromStr, sync::Arc};

/// A text that is not the id it was given as.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is not {kind}: expected {expected}")]
pub struct IdError {
    /// The id's kind with its article: "an ENI id".
    pub kind: &'static str,
    /// What was given, cut to 200 bytes.
    pub value: String,
    /// The form that was expected.
    pub expected: &'static str,
}

/// Longest prefix of a bad value that an error repeats: enough to recognise it, too little to flood a log.
const SHOWN: usize = 200;

fn bad(kind: &'static str, value: &str, expected: &'static str) -> IdError {
    IdError { kind, value: value.chars().take(SHOWN).collect(), expected }
}

macro_rules! string_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $expected:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let check: fn(&str) -> bool = $check;
                if check(text) { Ok(Self(text.into())) } else { Err(bad($kind, text, $expected)) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = String::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// `PREFIX` followed by 8 to 32 hexadecimal digits, as EC2 makes its ids (8 or 17 today).
fn ec2_id(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix)
        .is_some_and(|hex| (8..=32).contains(&hex.len()) && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

string_id!(
    /// An EC2 instance.
    InstanceId, "an instance id", "i- and 8 to 32 hexadecimal digits", |t| ec2_id(t, "i-"));
string_id!(
    /// An elastic network interface.
    EniId, "an ENI id", "eni- and 8 to 32 hexadecimal digits", |t| ec2_id(t, "eni-"));
string_id!(
    /// The binding of an ENI to an instance's device index.
    AttachmentId, "an attachment id", "eni-attach- and 8 to 32 hexadecimal digits", |t| ec2_id(t, "eni-attach-"));
string_id!(
    /// A subnet of a VPC.
    SubnetId, "a subnet id", "subnet- and 8 to 32 hexadecimal digits", |t| ec2_id(t, "subnet-"));
string_id!(
    /// A VPC.
    VpcId, "a VPC id", "vpc- and 8 to 32 hexadecimal digits", |t| ec2_id(t, "vpc-"));
string_id!(
    /// A security group.
    SecurityGroupId, "a security group id", "sg- and 8 to 32 hexadecimal digits", |t| ec2_id(t, "sg-"));
string_id!(
/// What makes a create call repeatable: EC2 answers the same token with the same object. At most 64 ASCII characters.
ClientToken, "a client token", "1 to 64 printable ASCII characters", |t| {
    (1..=64).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_graphic())
});
string_id!(
/// A container's id in containerd: 64 hexadecimal digits, like Docker's, because metadata readers expect that form.
ContainerId, "a container id", "64 lower-case hexadecimal digits", |t| {
    t.len() == 64 && t.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
});
string_id!(
/// The id in a container's metadata URLs (`/v4/ID`): a random UUID, made once and kept for the container's life.
EndpointId, "an endpoint id", "a UUID in lower case", |t| {
    uuid::Uuid::parse_str(t).is_ok_and(|u| u.hyphenated().to_string() == t)
});
string_id!(
/// A slot: `OWNER-SERIAL`, where OWNER is the end of the instance's id, so that two agents on one machine (vpcbox) tell their
/// namespaces apart by name. The namespace is `/run/netns/berth-SLOT`.
SlotId, "a slot id", "8 hexadecimal digits, a dash, 8 hexadecimal digits", |t| {
    t.len() == 17 && t.bytes().enumerate().all(|(i, b)| if i == 8 { b == b'-' } else { b.is_ascii_digit() || (b'a'..=b'f').contains(&b) })
});
string_id!(
/// A cluster's short name.
ClusterName, "a cluster name", "1 to 255 letters, digits, dashes and underscores", |t| {
    (1..=255).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
});
string_id!(
    /// A task's ARN: `arn:PARTITION:ecs:REGION:ACCOUNT:task/[CLUSTER/]ID`.
    TaskArn, "a task ARN", "arn:PARTITION:ecs:REGION:ACCOUNT:task/CLUSTER/ID", is_task_arn);

/// Prefix of every namespace's name under /run/netns.
pub const NETNS_PREFIX: &str = "berth-";

impl EndpointId {
    /// A fresh random id.
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().hyphenated().to_string().into())
    }
}

impl ClientToken {
    /// A fresh random token.
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().hyphenated().to_string().into())
    }
}

impl InstanceId {
    /// The part of the id that slot ids carry: its last 8 digits, lower case.
    pub fn owner_tag(&self) -> String {
        let text = self.as_str();
        text[text.len() - 8..].to_ascii_lowercase()
    }
}

impl SlotId {
    /// A fresh random slot id of this instance.
    pub fn random(instance: &InstanceId) -> Self {
        let serial = uuid::Uuid::new_v4().simple().to_string();
        Self(format!("{}-{}", instance.owner_tag(), &serial[..8]).into())
    }

    /// Whether the slot was made by an agent on this instance.
    pub fn belongs_to(&self, instance: &InstanceId) -> bool {
        self.as_str()[..8] == instance.owner_tag()
    }

    /// The namespace's name as `ip netns` lists it.
    pub fn netns_name(&self) -> String {
        format!("{NETNS_PREFIX}{self}")
    }

    /// The slot whose namespace has this name; `None` for a name that is not ours.
    pub fn from_netns_name(name: &str) -> Option<Self> {
        name.strip_prefix(NETNS_PREFIX)?.parse().ok()
    }
}

impl ContainerId {
    /// The id of a task's container: derived, so that a create that was cut off is found again under the same name.
    /// `attempt` counts restarts that need a new container; 0 is the first.
    pub fn derive(task: &TaskArn, container: &str, attempt: u32) -> Self {
        let mut hash = Sha256::new();
        for part in [task.as_str(), container, &attempt.to_string()] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        Self(hex::encode(hash.finalize()).into())
    }

    /// The first 12 digits, for tables.
    pub fn short(&self) -> &str {
        &self.as_str()[..12]
    }
}

fn is_task_arn(text: &str) -> bool {
    arn_parts(text).is_some()
}

/// Region, account, cluster and id of a task ARN.
fn arn_parts(text: &str) -> Option<(&str, &str, Option<&str>, &str)> {
    let mut fields = text.splitn(6, ':');
    let (arn, partition, service) = (fields.next()?, fields.next()?, fields.next()?);
    let (region, account, resource) = (fields.next()?, fields.next()?, fields.next()?);
    if arn != "arn" || !partition.starts_with("aws") || service != "ecs" || region.is_empty() {
        return None;
    }
    if account.len() != 12 || !account.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let path = resource.strip_prefix("task/")?;
    let (cluster, id) = match path.split_once('/') {
        Some((cluster, id)) => (Some(cluster), id),
        None => (None, path),
    };
    let word = |t: &str, max| {
        (1..=max).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    // Ids become file and cgroup names: nothing but letters, digits and dashes may pass.
    (word(id, 64) && cluster.is_none_or(|c| word(c, 255))).then_some((region, account, cluster, id))
}

impl TaskArn {
    /// The ARN of a task of this name.
    pub fn new(region: &str, account: &str, cluster: &ClusterName, id: &str) -> Result<Self, IdError> {
        format!("arn:aws:ecs:{region}:{account}:task/{cluster}/{id}").parse()
    }

    /// A fresh ARN with a random id of 32 hexadecimal digits, as ECS makes them.
    pub fn random(region: &str, account: &str, cluster: &ClusterName) -> Result<Self, IdError> {
        Self::new(region, account, cluster, &uuid::Uuid::new_v4().simple().to_string())
    }

    /// The last part: the task's id. Letters, digits, dashes and underscores only, so it is safe as a file name.
    pub fn id(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// The region field.
    pub fn region(&self) -> &str {
        arn_parts(&self.0).map_or("", |p| p.0)
    }

    /// The account field, 12 digits.
    pub fn account(&self) -> &str {
        arn_parts(&self.0).map_or("", |p| p.1)
    }

    /// The cluster's short name, absent in ARNs of the old form.
    pub fn cluster(&self) -> Option<&str> {
        arn_parts(&self.0).and_then(|p| p.2)
    }
}

/// A MAC address; prints in lower case with colons, as EC2 writes it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr(pub [u8; 6]);

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for MacAddr {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let error = || bad("a MAC address", text, "six pairs of hexadecimal digits joined by colons");
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts
                .next()
                .filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))
                .ok_or_else(error)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| error())?;
        }
        if parts.next().is_some() { Err(error()) } else { Ok(Self(bytes)) }
    }
}

impl Serialize for MacAddr {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddr {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The identity of a network namespace. A path can come to name another namespace; device and inode cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NetnsId {
    /// Device of the nsfs file system.
    pub dev: u64,
    /// Inode of the namespace.
    pub ino: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_are_parsed_strictly() {
        assert!("i-0123456789abcdef0".parse::<InstanceId>().is_ok());
        for wrong in ["", "i-", "i-xyz", "eni-12345678", "i-1234567", "i-12345678 "] {
            let error = wrong.parse::<InstanceId>().unwrap_err();
            assert!(error.to_string().contains("expected i-"), "{error}");
        }
    }

    #[test]
    fn task_arn_gives_its_parts() {
        let arn: TaskArn = "arn:aws:ecs:us-west-2:111122223333:task/demo/0123abcd".parse().unwrap();
        assert_eq!(
            (arn.region(), arn.account(), arn.cluster(), arn.id()),
            ("us-west-2", "111122223333", Some("demo"), "0123abcd")
        );
        for wrong in [
            "arn:aws:ecs:us-west-2:111122223333:task/demo/../x",
            "arn:aws:ec2:r:111122223333:task/a/b",
            "arn:aws:ecs::111122223333:task/a",
        ] {
            assert!(wrong.parse::<TaskArn>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn slot_names_round_trip_and_name_their_owner() {
        let mine: InstanceId = "i-0123456789abcdef0".parse().unwrap();
        let other: InstanceId = "i-0123456789abcdef1".parse().unwrap();
        let slot = SlotId::random(&mine);
        assert_eq!(SlotId::from_netns_name(&slot.netns_name()), Some(slot.clone()));
        assert!(slot.belongs_to(&mine) && !slot.belongs_to(&other));
        assert_eq!(SlotId::from_netns_name("cni-1234"), None);
    }

    #[test]
    fn container_ids_differ_by_each_part() {
        let a: TaskArn = "arn:aws:ecs:r:111122223333:task/c/1".parse().unwrap();
        let id = ContainerId::derive(&a, "web", 0);
        assert_eq!(id, ContainerId::derive(&a, "web", 0));
        assert_ne!(id, ContainerId::derive(&a, "web", 1));
        assert_ne!(id, ContainerId::derive(&a, "we", 0));
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in "\\PC*") {
            let parsed = (text.parse::<TaskArn>(), text.parse::<MacAddr>(), text.parse::<SlotId>(), text.parse::<EndpointId>());
            if let Ok(arn) = parsed.0 { prop_assert!(!arn.id().contains('/')); }
        }

        #[test]
        fn mac_addresses_round_trip(bytes: [u8; 6]) {
            prop_assert_eq!(MacAddr(bytes).to_string().parse::<MacAddr>().unwrap(), MacAddr(bytes));
        }
    }
}
