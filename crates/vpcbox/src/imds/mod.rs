//! IMDSv2: the metadata service of an instance, at 169.254.169.254 in the instance's namespace.
//!
//! There is one server for each instance, on a listener that was bound inside the instance's namespace: which instance asks is
//! known by the listener, and a token of one instance is nothing to another. What it tells is asked of the world anew for every
//! request ([`ImdsView`]), so the tree of MACs grows as soon as an ENI is attached. `tree` lays the facts out as the real
//! service does, `token` keeps the session tokens, `http` speaks HTTP. Version 1 (no token) is off.

mod http;
mod token;
mod tree;

use ipnet::{Ipv4Net, Ipv6Net};
use jiff::Timestamp;
use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr, TcpListener},
    sync::Arc,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What IMDS needs to know of the world; asked anew for every request.
pub trait ImdsView: Send + Sync {
    /// The instance as it is now; `None` when it does not exist.
    fn instance(&self, id: &str) -> Option<ImdsInstance>;
    /// Credentials of the instance's role; `None` when it has no role.
    fn issue_credentials(&self, instance: &str) -> Option<ImdsCredentials>;
    /// What shows others that an identity document came from this service.
    fn seal(&self, document: &str) -> String;
}

/// An instance as its metadata service shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImdsInstance {
    /// `i-...`.
    pub instance_id: String,
    /// For example `m5.large`.
    pub instance_type: String,
    /// `ami-...`.
    pub ami_id: String,
    /// For example `us-west-2`.
    pub region: String,
    /// For example `us-west-2a`.
    pub availability_zone: String,
    /// For example `usw2-az1`.
    pub availability_zone_id: String,
    /// The account, 12 digits.
    pub account: String,
    /// MAC of the primary ENI.
    pub mac: [u8; 6],
    /// Private DNS name of the primary ENI.
    pub hostname: String,
    /// Primary address of the primary ENI.
    pub local_ipv4: Ipv4Addr,
    /// Name of the IAM role.
    pub role: Option<String>,
    /// When it was launched: the `pendingTime` of the identity document.
    pub launched: Timestamp,
    /// Attached ENIs, the primary included.
    pub interfaces: Vec<ImdsInterface>,
}

/// An ENI as the metadata service shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImdsInterface {
    /// Its MAC.
    pub mac: [u8; 6],
    /// Device index; 0 is the primary.
    pub device_number: u32,
    /// `eni-...`.
    pub eni_id: String,
    /// `subnet-...`.
    pub subnet_id: String,
    /// The subnet's IPv4 block.
    pub subnet_ipv4: Ipv4Net,
    /// The subnet's IPv6 block.
    pub subnet_ipv6: Option<Ipv6Net>,
    /// `vpc-...`.
    pub vpc_id: String,
    /// The VPC's IPv4 blocks, the primary first.
    pub vpc_ipv4: Vec<Ipv4Net>,
    /// The VPC's IPv6 blocks.
    pub vpc_ipv6: Vec<Ipv6Net>,
    /// Private IPv4 addresses, primary first.
    pub ipv4: Vec<Ipv4Addr>,
    /// IPv6 addresses.
    pub ipv6: Vec<Ipv6Addr>,
    /// Id and name of each security group.
    pub security_groups: Vec<(String, String)>,
    /// The account that owns it.
    pub owner_id: String,
    /// Its private DNS name.
    pub hostname: String,
}

/// Credentials of a role.
#[derive(Clone, PartialEq, Eq)]
pub struct ImdsCredentials {
    /// `ASIA...`.
    pub access_key_id: String,
    /// Not shown by `Debug`.
    pub secret_access_key: String,
    /// The session token; not shown by `Debug`.
    pub token: String,
    /// When they were made.
    pub last_updated: Timestamp,
    /// When they end.
    pub expiration: Timestamp,
}

impl fmt::Debug for ImdsCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImdsCredentials")
            .field("access_key_id", &self.access_key_id)
            .field("expiration", &self.expiration)
            .finish_non_exhaustive()
    }
}

/// Serves the metadata of `instance` on `listener` until `shutdown`. Call it inside a Tokio runtime. The listener is closed when
/// the returned task has ended.
pub fn serve(
    listener: TcpListener,
    view: Arc<dyn ImdsView>,
    instance: String,
    shutdown: CancellationToken,
) -> JoinHandle<()> {
    tokio::spawn(http::serve(listener, http::Server::new(view, instance), shutdown))
}

/// Lower case with colons, as EC2 writes MACs.
fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// RFC 3339 with whole seconds and `Z`, as IMDS writes times.
fn time_text(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests;
