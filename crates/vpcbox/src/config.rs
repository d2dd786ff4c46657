//! `vpc.toml`: what the VPC in a box is made of.
//!
//! The text is read in two steps: `raw` mirrors the file (serde), `check` turns it into a [`Config`] in which every id is
//! given, every reference is an id, and every block lies where it must. The rest of the crate sees only [`Config`]. An error
//! names the line, the key and what was expected, because this file is written by hand.

mod check;
mod groups;
mod raw;

use crate::fabric::{FabricSpec, SubnetSpec, filter::Allow};
use ipnet::{Ipv4Net, Ipv6Net};
use sha2::{Digest, Sha256};
use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// Largest file that is read: a thousand instances need 200 KB.
const MAX_FILE: u64 = 1024 * 1024;

/// A VPC in a box. Every id is set, references between the parts are ids, all of them resolve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Prefix of the names of all namespaces of this VPC; two VPCs on one machine differ by it.
    pub name: String,
    /// For example `us-west-2`.
    pub region: String,
    /// The account, 12 digits.
    pub account: String,
    /// Where the API listens on the machine itself; port 0 means any.
    pub listen: SocketAddr,
    /// Whether requests must be signed.
    pub auth: bool,
    /// The key of the operator; always there when `auth` is set.
    pub operator: Option<OperatorKey>,
    /// The VPC.
    pub vpc: VpcConfig,
    /// Its subnets, at least one.
    pub subnets: Vec<SubnetConfig>,
    /// Its security groups, at least one; the first is the default group.
    pub security_groups: Vec<SecurityGroupConfig>,
    /// Its instances.
    pub instances: Vec<InstanceConfig>,
    /// ECS clusters that are there from the start.
    pub clusters: Vec<String>,
    /// How long things take.
    pub delays: Delays,
    /// MTU of all links.
    pub mtu: u32,
}

/// A long-lived access key.
#[derive(Clone, PartialEq, Eq)]
pub struct OperatorKey {
    /// Key id.
    pub access_key: String,
    /// The secret; not shown by `Debug`.
    pub secret_key: String,
}

impl fmt::Debug for OperatorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperatorKey").field("access_key", &self.access_key).finish_non_exhaustive()
    }
}

/// The VPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VpcConfig {
    /// `vpc-` and 17 hexadecimal digits.
    pub id: String,
    /// IPv4 block.
    pub ipv4: Ipv4Net,
    /// IPv6 block.
    pub ipv6: Option<Ipv6Net>,
}

/// A subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetConfig {
    /// `subnet-` and 17 hexadecimal digits.
    pub id: String,
    /// Its `Name` tag, and how the file refers to it.
    pub name: String,
    /// For example `us-west-2a`.
    pub zone: String,
    /// For example `usw2-az1`.
    pub zone_id: String,
    /// IPv4 block, /16 to /28 within the VPC's.
    pub ipv4: Ipv4Net,
    /// IPv6 block, a /64 within the VPC's.
    pub ipv6: Option<Ipv6Net>,
}

/// A security group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityGroupConfig {
    /// `sg-` and 17 hexadecimal digits.
    pub id: String,
    /// Group name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// What its members may get; nothing said means what EC2 gives a new group.
    pub ingress: Option<Vec<Allow>>,
    /// What its members may send; nothing said means what EC2 gives a new group.
    pub egress: Option<Vec<Allow>>,
}

/// An instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceConfig {
    /// `i-` and 17 hexadecimal digits.
    pub id: String,
    /// Its `Name` tag.
    pub name: String,
    /// For example `m5.large`; that the type is known is checked by the world, which has the table.
    pub instance_type: String,
    /// Id of the subnet of its primary ENI.
    pub subnet: String,
    /// Ids of the groups of its primary ENI; never empty.
    pub security_groups: Vec<String>,
    /// IAM role whose credentials its IMDS hands out.
    pub role: Option<String>,
}

/// How long EC2 and the hardware take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delays {
    /// An ENI stays `attaching` for this long.
    pub attach: Duration,
    /// An ENI stays `detaching` for this long.
    pub detach: Duration,
    /// From the attach call to the link in the instance.
    pub link: Duration,
}

/// Why `vpc.toml` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is larger than any real one.
    #[error("{}: {size} bytes, expected at most {MAX_FILE}", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// Its size.
        size: u64,
    },
    /// A value is wrong.
    #[error("{}:{line}: {key}: {problem}", path.display())]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// Line of the value, from 1.
        line: usize,
        /// For example `subnet[1].cidr`.
        key: String,
        /// What is wrong, and what was expected.
        problem: String,
    },
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let read = |source| ConfigError::Read { path: path.to_owned(), source };
        let size = std::fs::metadata(path).map_err(read)?.len();
        if size > MAX_FILE {
            return Err(ConfigError::TooLarge { path: path.to_owned(), size });
        }
        Self::parse(&std::fs::read_to_string(path).map_err(read)?, path)
    }

    /// Checks a text; `path` is only named in errors.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let invalid = |p: check::Problem| ConfigError::Invalid {
            path: path.to_owned(),
            line: raw::line_of(text, p.at),
            key: p.key,
            problem: p.problem,
        };
        let raw = raw::parse(text).map_err(invalid)?;
        check::check(raw).map_err(invalid)
    }

    /// What the fabric has to build.
    pub fn fabric_spec(&self) -> FabricSpec {
        FabricSpec {
            name: self.name.clone(),
            mtu: self.mtu,
            subnets: self
                .subnets
                .iter()
                .map(|s| SubnetSpec { id: s.id.clone(), ipv4: s.ipv4, ipv6: s.ipv6 })
                .collect(),
            instances: self.instances.iter().map(|i| i.id.clone()).collect(),
        }
    }
}

/// An id of EC2's form that follows from its parts: `derive_id("eni", &["box", "web"])` is `eni-` and 17 hexadecimal digits,
/// the same at every start.
pub fn derive_id(kind: &str, parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in [kind].iter().chain(parts) {
        // With its length, so that no two lists of parts run together into the same bytes.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let mut digits = hex::encode(hash.finalize());
    digits.truncate(17);
    format!("{kind}-{digits}")
}

#[cfg(test)]
mod tests;
