//! The fabric: the VPC's network, made of real devices of this kernel.
//!
//! ```text
//!  /run/netns/NAME-vpc                                   /run/netns/NAME-i-0123...
//!  ┌───────────────────────────────────────┐            ┌─────────────────────────────────┐
//!  │ br-SUBNET  10.0.1.1/24 ─ eniXXXX ─────┼── veth ────┼─ eth0 (primary, configured)     │
//!  │     │ routing: one hop, no address    │            │  lo 169.254.169.254 (IMDS)      │
//!  │     │ translation                     │            │                                 │
//!  │ br-SUBNET  10.0.2.1/24 ─ eniYYYY ─────┼── veth ────┼─ eth1 (attached ENI, down)      │
//!  └───────────────────────────────────────┘            └─────────────────────────────────┘
//! ```
//!
//! A subnet is a bridge, an instance is a namespace, an ENI is the inner end of a veth pair that is *born* in the instance when
//! the ENI is attached, under a name that the kernel gives, and goes with its outer end when the ENI is detached, wherever the
//! inner end has been moved by then. When a namespace dies, a real ENI falls back to the instance; a veth end is destroyed: the
//! fabric watches the outer ends and makes the pair anew in the instance, as `dev%d`.
//!
//! [`Fabric`] is a handle. One thread owns the devices (`owner`): it takes commands from a bounded channel, and link events from
//! the kernel only as hints to look again. `setup` builds, `teardown` removes, `links` speaks netlink, `names` derives names.
//!
//! Source/destination checks and security groups are enforced at the outer end of each pair ([`Filter`]): nothing passes until a
//! filter says what may.

mod error;
pub mod filter;
mod links;
mod names;
mod owner;
mod setup;
mod teardown;

pub use error::FabricError;
pub use filter::Filter;

use berth_netns::ns::Netns;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use owner::Command;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::{mpsc, oneshot};

/// Where IMDS listens in each instance; the fabric gives the address to lo.
pub const IMDS_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// What to build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FabricSpec {
    /// Prefix of the namespaces' names: lower-case letters, digits, dashes.
    pub name: String,
    /// MTU of all links.
    pub mtu: u32,
    /// One bridge each.
    pub subnets: Vec<SubnetSpec>,
    /// Ids of the instances (`i-` and hexadecimal digits), one namespace each.
    pub instances: Vec<String>,
}

/// A subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetSpec {
    /// Its id.
    pub id: String,
    /// Its IPv4 block; the first address after the network's is the router's.
    pub ipv4: Ipv4Net,
    /// Its IPv6 block; `::1` in it is the router's, beside the link-local `fe80:ec2::1`.
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
    /// A fixed name (the primary's `eth0`): then the link is also configured and brought up, as the instance's own system does
    /// at boot. With `None` the kernel numbers it and it stays down.
    pub name: Option<String>,
    /// Addresses with the subnet's prefix lengths to configure; only used with a `name`. Default routes follow from them.
    pub addresses: Vec<IpNet>,
}

/// A handle on a running fabric; clones speak to the same one. When the last one is dropped, the fabric is taken down in the
/// background; call [`Fabric::down`] to wait for it.
#[derive(Debug, Clone)]
pub struct Fabric(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    vpc: PathBuf,
    instances: BTreeMap<String, PathBuf>,
    commands: mpsc::Sender<Command>,
}

impl Fabric {
    /// Builds the namespaces. What a killed fabric of this name left is removed first; a living one is an error.
    pub async fn up(spec: FabricSpec) -> Result<Self, FabricError> {
        setup::check(&spec)?;
        let vpc = names::vpc_netns(&spec.name);
        let instances =
            spec.instances.iter().map(|id| (id.clone(), names::instance_netns(&spec.name, id))).collect();
        let commands = owner::start(spec).await?;
        Ok(Self(Arc::new(Shared { vpc, instances, commands })))
    }

    /// The VPC's own namespace: its bridges and routes.
    pub fn vpc_netns(&self) -> PathBuf {
        self.0.vpc.clone()
    }

    /// The namespace of an instance.
    pub fn instance_netns(&self, instance: &str) -> Option<PathBuf> {
        self.0.instances.get(instance).cloned()
    }

    /// Makes an ENI show up. Repeatable; an ENI that is plugged in otherwise is an error.
    pub async fn plug(&self, plug: Plug) -> Result<(), FabricError> {
        self.ask(|reply| Command::Plug(plug, reply)).await?
    }

    /// Makes an ENI vanish, wherever its link is now. One that is not plugged in is unplugged.
    pub async fn unplug(&self, eni: &str) -> Result<(), FabricError> {
        self.ask(|reply| Command::Unplug(eni.to_owned(), reply)).await?
    }

    /// Makes the VPC's routers forget whose these addresses were. Repeatable.
    pub async fn forget(&self, addresses: BTreeSet<IpAddr>) -> Result<(), FabricError> {
        self.ask(|reply| Command::Forget(addresses, reply)).await?
    }

    /// Makes this the filter of all ENIs, at once and as a whole; flows that are known go on. Repeatable. An ENI of which it says
    /// nothing hears and says nothing, so it is to be given before [`Fabric::plug`].
    pub async fn filter(&self, filter: Filter) -> Result<(), FabricError> {
        self.ask(|reply| Command::Filter(filter, reply)).await?
    }

    /// A listener in an instance's namespace. Close it before [`Fabric::down`]: it keeps the namespace alive.
    pub fn bind_in_instance(&self, instance: &str, address: SocketAddr) -> io::Result<TcpListener> {
        let path = self.0.instances.get(instance).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, FabricError::NoSuchInstance(instance.to_owned()))
        })?;
        bind_in(path, address)
    }

    /// A listener in the VPC's namespace, where the routers' addresses are. Close it before [`Fabric::down`].
    pub fn bind_in_vpc(&self, address: SocketAddr) -> io::Result<TcpListener> {
        bind_in(&self.0.vpc, address)
    }

    /// Removes everything and waits for it. Repeatable. What could not be removed is logged, and is left to
    /// [`Fabric::remove_leftovers`].
    pub async fn down(&self) {
        // `Down` from a fabric that is down already is what was asked for.
        drop(self.ask(Command::Down).await);
    }

    /// Removes what a killed fabric of this name left: links, also those in tasks' namespaces, and namespaces. Returns the names
    /// of the namespaces. Repeatable; fails with [`FabricError::Running`] while the fabric is alive.
    pub async fn remove_leftovers(name: &str) -> Result<Vec<String>, FabricError> {
        let name = name.to_owned();
        let work = move || {
            let _claim = teardown::Claim::take(&name)?;
            teardown::remove_all(&name)
        };
        // The work panics or is cancelled only together with the runtime.
        tokio::task::spawn_blocking(work).await.unwrap_or(Err(FabricError::Down))
    }

    /// The process that a fabric of this name lives in, or one that is just removing what another one left.
    pub fn holder(name: &str) -> Option<i32> {
        teardown::holder(name)
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, FabricError> {
        let (reply, answer) = oneshot::channel();
        self.0.commands.send(command(reply)).await.map_err(|_| FabricError::Down)?;
        answer.await.map_err(|_| FabricError::Down)
    }
}

fn bind_in(netns: &Path, address: SocketAddr) -> io::Result<TcpListener> {
    let netns = Netns::open(netns).map_err(io::Error::other)?;
    netns.run(|| TcpListener::bind(address)).map_err(io::Error::other)?
}

#[cfg(test)]
mod tests;
