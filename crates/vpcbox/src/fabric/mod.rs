//! The fabric: the VPC's network made of real devices of this kernel.
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
};

/// What to build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FabricSpec {
    /// Prefix of the namespaces' names.
    pub name: String,
    /// MTU of all links.
    pub mtu: u32,
    /// One bridge each.
    pub subnets: Vec<SubnetSpec>,
    /// Ids of the instances, one namespace each.
    pub instances: Vec<String>,
}

/// A subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetSpec {
    /// Its id.
    pub id: String,
    /// Its IPv4 block; the first address after the network's is the router's.
    pub ipv4: Ipv4Net,
    /// Its IPv6 block; `::1` in it is the router's.
    pub ipv6: Option<Ipv6Net>,
}

/// An ENI that is to show up in an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plug {
    /// Id of the instance.
    pub instance: String,
    /// Id of the subnet.
    pub subnet: String,
    /// Id of the ENI.
    pub eni: String,
    /// MAC of the ENI.
    pub mac: [u8; 6],
    /// A fixed name (the primary's `eth0`); `None` lets the kernel number it.
    pub name: Option<String>,
    /// Addresses with prefix lengths that the instance's own system would configure (only the primary's).
    pub addresses: Vec<IpNet>,
}

/// Why the fabric could not do something.
#[derive(Debug, thiserror::Error)]
pub enum FabricError {
    /// The fabric was taken down.
    #[error("the fabric is down")]
    Down,
}

/// A handle on a fabric; clones speak to the same one.
#[derive(Debug, Clone)]
pub struct Fabric {}

#[allow(clippy::unused_async, missing_docs, unused_variables, reason = "signatures are published before the bodies")]
impl Fabric {
    /// Builds the namespaces. Removes first what a killed fabric of this name left; fails with `Running` when one is alive.
    pub async fn up(spec: FabricSpec) -> Result<Self, FabricError> {
        Err(FabricError::Down)
    }
    pub fn vpc_netns(&self) -> PathBuf {
        PathBuf::new()
    }
    pub fn instance_netns(&self, instance: &str) -> Option<PathBuf> {
        None
    }
    pub async fn plug(&self, plug: Plug) -> Result<(), FabricError> {
        Err(FabricError::Down)
    }
    pub async fn unplug(&self, eni: &str) -> Result<(), FabricError> {
        Err(FabricError::Down)
    }
    pub fn bind_in_instance(&self, instance: &str, address: SocketAddr) -> io::Result<TcpListener> {
        Err(io::ErrorKind::NotFound.into())
    }
    pub fn bind_in_vpc(&self, address: SocketAddr) -> io::Result<TcpListener> {
        Err(io::ErrorKind::NotFound.into())
    }
    pub async fn down(&self) {}
    /// Removes what a killed fabric of this name left; the names of the removed namespaces.
    pub async fn remove_leftovers(name: &str) -> Result<Vec<String>, FabricError> {
        Ok(Vec::new())
    }
}
