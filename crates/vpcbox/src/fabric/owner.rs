//! The one thread that owns the fabric's devices.
//!
//! It has a runtime of its own with a single thread: netlink is answered in microseconds, a wake-up across threads would cost
//! more than the request, and nothing else is kept waiting while the kernel moves links about. Commands come in through a bounded channel
//! and are done one after the other, as the kernel's own lock would make them anyway. Link events are hints: each makes the
//! owner look whether the ends of plugged ENIs are still there.

use super::{
    FabricError, FabricSpec, Filter, Plug, filter,
    links::{self, Pair},
    names,
    setup::{self, Built, Subnet, namespace_failed},
    teardown::{self, Claim},
};
use berth_netns::ns::{Netlink, Netns};
use futures::{StreamExt, stream};
use nix::errno::Errno;
use rtnetlink::{
    MulticastGroup,
    packet_core::NetlinkPayload,
    packet_route::{
        RouteNetlinkMessage,
        link::{LinkAttribute, LinkMessage},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval},
};

/// Commands that may wait: an instance holds at most 15 ENIs, so this is a few instances that are filled at once. Senders wait.
const COMMAND_QUEUE: usize = 64;
/// How many ports the kernel lets a bridge have.
const BRIDGE_PORTS: usize = 1023;
/// Looks at all links this often, in case an event was lost: the wait is what a lost one costs.
const RESYNC: Duration = Duration::from_secs(30);
/// The kernel's pattern for a link of a new device.
const NEW_DEVICE: &str = "eth%d";
/// The kernel's pattern for a device that falls back from a namespace that died, when its name is taken.
const FALLEN_BACK: &str = "dev%d";

/// What handles ask for.
#[derive(Debug)]
pub(super) enum Command {
    Plug(Plug, oneshot::Sender<Result<(), FabricError>>),
    Unplug(String, oneshot::Sender<Result<(), FabricError>>),
    Forget(BTreeSet<IpAddr>, oneshot::Sender<Result<(), FabricError>>),
    Filter(Filter, oneshot::Sender<Result<(), FabricError>>),
    Down(oneshot::Sender<()>),
}

#[derive(Debug)]
pub(super) struct Owner {
    name: String,
    mtu: u32,
    vpc: Netns,
    instances: BTreeMap<String, Netns>,
    subnets: BTreeMap<String, Subnet>,
    /// By ENI.
    plugged: BTreeMap<String, Plug>,
    /// What is enforced; nothing if that is not known.
    filter: Option<Filter>,
    /// Requests. Not the connection with the events: an overrun there would swallow replies.
    netlink: Netlink,
}

enum Next {
    Command(Option<Command>),
    Look(Look),
}

/// Where to look for lost links.
enum Look {
    Nowhere,
    At(String),
    Everywhere,
}

/// Starts the owner; returns when the fabric is built.
pub(super) async fn start(spec: FabricSpec) -> Result<mpsc::Sender<Command>, FabricError> {
    let (ready, built) = oneshot::channel();
    let (sender, commands) = mpsc::channel(COMMAND_QUEUE);
    let thread = std::thread::Builder::new().name("fabric".into());
    thread.spawn(move || live(spec, commands, ready)).map_err(FabricError::Thread)?;
    built.await.map_err(|_| FabricError::Down)??;
    Ok(sender)
}

/// The thread, from the claim to the last namespace.
fn live(
    spec: FabricSpec,
    commands: mpsc::Receiver<Command>,
    ready: oneshot::Sender<Result<(), FabricError>>,
) {
    let name = spec.name.clone();
    let begun = Claim::take(&name).and_then(|claim| {
        let left = teardown::remove_all(&name)?;
        if !left.is_empty() {
            tracing::info!(vpc = name, namespaces = ?left, "removed what a killed fabric left");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok((claim, runtime.map_err(FabricError::Thread)?))
    });
    let (_claim, runtime) = match begun {
        Ok(begun) => begun,
        Err(e) => return drop(ready.send(Err(e))),
    };
    let asked = runtime.block_on(work(spec, commands, ready));
    // Its sockets would keep the VPC's namespace alive.
    drop(runtime);
    if let Err(error) = teardown::remove_all(&name) {
        tracing::warn!(vpc = name, error = &error as &dyn std::error::Error, "fabric not wholly removed");
    }
    tracing::info!(vpc = name, "fabric is down");
    match asked {
        Ended::Asked(reply) => drop(reply.send(())),
        Ended::Failed(ready, error) => drop(ready.send(Err(error))),
        Ended::Dropped => {}
    }
}

/// Why the work ended, and whom to tell once all is removed.
enum Ended {
    Asked(oneshot::Sender<()>),
    Failed(oneshot::Sender<Result<(), FabricError>>, FabricError),
    Dropped,
}

async fn work(
    spec: FabricSpec,
    mut commands: mpsc::Receiver<Command>,
    ready: oneshot::Sender<Result<(), FabricError>>,
) -> Ended {
    let (mut owner, mut watch) = match Owner::build(spec).await {
        Ok(built) => built,
        Err(e) => return Ended::Failed(ready, e),
    };
    tracing::info!(
        vpc = owner.name,
        subnets = owner.subnets.len(),
        instances = owner.instances.len(),
        "fabric is up"
    );
    if ready.send(Ok(())).is_err() {
        return Ended::Dropped;
    }
    // A closed stream would be ready for ever; the slow look still goes on without it.
    let mut events = (&mut watch.events).chain(stream::pending());
    let mut resync = interval(RESYNC);
    resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // All three only take something out of a queue, or nothing: none loses anything when another one wins.
        let next = tokio::select! {
            command = commands.recv() => Next::Command(command),
            event = events.next() => Next::Look(event.map_or(Look::Nowhere, |(m, _)| hint(m.payload))),
            _ = resync.tick() => Next::Look(Look::Everywhere),
        };
        match next {
            Next::Command(Some(Command::Plug(plug, reply))) => drop(reply.send(owner.plug(plug).await)),
            Next::Command(Some(Command::Unplug(eni, reply))) => drop(reply.send(owner.unplug(&eni).await)),
            Next::Command(Some(Command::Forget(addresses, reply))) => {
                drop(reply.send(links::forget_addresses(&owner.netlink.handle, &addresses).await));
            }
            Next::Command(Some(Command::Filter(filter, reply))) => {
                drop(reply.send(owner.filter(filter).await))
            }
            Next::Command(Some(Command::Down(reply))) => return Ended::Asked(reply),
            Next::Command(None) => return Ended::Dropped,
            Next::Look(look) => owner.look(look).await,
        }
    }
}

fn hint(payload: NetlinkPayload<RouteNetlinkMessage>) -> Look {
    match payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(LinkMessage { attributes, .. })) => {
            let name = attributes.into_iter().find_map(|a| match a {
                LinkAttribute::IfName(name) => Some(name),
                _ => None,
            });
            name.map_or(Look::Everywhere, Look::At)
        }
        NetlinkPayload::Overrun(_) => Look::Everywhere,
        _ => Look::Nowhere,
    }
}

impl Owner {
    /// Builds the fabric; also returns the connection that tells of links.
    pub(super) async fn build(spec: FabricSpec) -> Result<(Self, Netlink), FabricError> {
        let Built { vpc, instances, subnets } = setup::build(&spec).await?;
        let open = || namespace_failed("open netlink in", "the VPC");
        let watch = vpc.netlink_with(&[MulticastGroup::Link]).map_err(open())?;
        let netlink = vpc.netlink().map_err(open())?;
        let (name, mtu, plugged) = (spec.name, spec.mtu, BTreeMap::new());
        let mut owner = Self { name, mtu, vpc, instances, subnets, plugged, filter: None, netlink };
        // Before the first link: without a table everything would pass.
        owner.filter(Filter::default()).await?;
        Ok((owner, watch))
    }

    async fn filter(&mut self, filter: Filter) -> Result<(), FabricError> {
        let script = match &self.filter {
            Some(old) => filter::change(old, &filter),
            None => {
                let subnets: Vec<_> = self.subnets.values().map(|s| s.spec.clone()).collect();
                filter::base(&subnets) + &filter::change(&Filter::default(), &filter)
            }
        };
        let applied = filter::apply(&self.vpc, script).await;
        match &applied {
            Ok(()) => self.filter = Some(filter),
            // As it was.
            Err(FabricError::NftRefused(_) | FabricError::NoNft(_)) => {}
            // The next one begins with a new table: known flows are lost, the rules are right.
            Err(_) => self.filter = None,
        }
        applied
    }

    pub(super) async fn plug(&mut self, plug: Plug) -> Result<(), FabricError> {
        let end = names::vpc_end(&plug.eni);
        if let Some(there) = self.plugged.get(&plug.eni) {
            if *there != plug {
                let Plug { eni, instance, .. } = there.clone();
                return Err(FabricError::PluggedOtherwise { eni, instance });
            }
            if links::find(&self.netlink.handle, &end).await?.is_some() {
                return Ok(());
            }
        } else if self.plugged.keys().any(|eni| names::vpc_end(eni) == end) {
            return Err(FabricError::NameTaken { eni: plug.eni, name: end });
        }
        let in_subnet = self.plugged.values().filter(|p| p.subnet == plug.subnet).count();
        if in_subnet >= BRIDGE_PORTS {
            return Err(FabricError::SubnetFull { subnet: plug.subnet, limit: BRIDGE_PORTS });
        }
        if let Err(error) = self.make(&plug, NEW_DEVICE).await {
            // Half a link must not stay: the next try would find it and call it whole.
            links::remove(&self.netlink.handle, &end).await?;
            return Err(error);
        }
        tracing::info!(vpc = self.name, eni = plug.eni, instance = plug.instance, "link plugged");
        self.plugged.insert(plug.eni.clone(), plug);
        Ok(())
    }

    /// Makes the pair, and configures the inner end if it is the instance's own.
    async fn make(&self, plug: &Plug, pattern: &str) -> Result<(), FabricError> {
        let handle = &self.netlink.handle;
        let subnet =
            self.subnets.get(&plug.subnet).ok_or_else(|| FabricError::NoSuchSubnet(plug.subnet.clone()))?;
        let netns = self
            .instances
            .get(&plug.instance)
            .ok_or_else(|| FabricError::NoSuchInstance(plug.instance.clone()))?;
        let vpc_end = names::vpc_end(&plug.eni);
        let pair = Pair {
            vpc_end: &vpc_end,
            bridge: subnet.bridge,
            far_end: plug.name.as_deref().unwrap_or(pattern),
            netns,
            mac: plug.mac,
            mtu: self.mtu,
        };
        // Left by a make that was cut off: only the owner makes links of this name, and it does not know this one.
        links::remove(handle, &vpc_end).await?;
        links::add_pair(handle, &pair).await.map_err(|source| {
            if links::refused_as(&source, Errno::EEXIST) {
                FabricError::NameTaken { eni: plug.eni.clone(), name: pair.far_end.to_owned() }
            } else {
                FabricError::Link { op: "make link of", what: plug.eni.clone(), source }
            }
        })?;
        links::set_alias(handle, &vpc_end, &plug.eni).await?;
        if let Some(name) = &plug.name {
            configure(netns, name, plug, subnet).await?;
            // A bridge has its carrier from its first port.
            for name in [&vpc_end, &names::bridge(&plug.subnet)] {
                links::wait_running(handle, name, &plug.eni).await?;
            }
        }
        Ok(())
    }

    async fn unplug(&mut self, eni: &str) -> Result<(), FabricError> {
        let Some(plug) = self.plugged.get(eni) else { return Ok(()) };
        links::remove(&self.netlink.handle, &names::vpc_end(eni)).await?;
        links::forget_mac(&self.netlink.handle, plug.mac).await?;
        tracing::info!(vpc = self.name, eni, instance = plug.instance, "link unplugged");
        self.plugged.remove(eni);
        Ok(())
    }

    /// Makes anew what is plugged in and has lost its link.
    async fn look(&self, look: Look) {
        let lost = match look {
            Look::Nowhere => return,
            Look::At(name) => self.plugged.values().filter(|p| names::vpc_end(&p.eni) == name).collect(),
            Look::Everywhere => self.all_lost().await,
        };
        for plug in lost {
            if let Err(error) = self.restore(plug).await {
                // Tried again by the next slow look.
                let error = &error as &dyn std::error::Error;
                tracing::warn!(vpc = self.name, eni = plug.eni, error, "link not restored");
            }
        }
    }

    async fn all_lost(&self) -> Vec<&Plug> {
        match links::all_names(&self.netlink.handle).await {
            Ok(there) => self.plugged.values().filter(|p| !there.contains(&names::vpc_end(&p.eni))).collect(),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(vpc = self.name, error, "links not listed");
                Vec::new()
            }
        }
    }

    /// The link's namespace died, or someone removed the link: a real ENI would be back in the instance now.
    async fn restore(&self, plug: &Plug) -> Result<(), FabricError> {
        if links::find(&self.netlink.handle, &names::vpc_end(&plug.eni)).await?.is_some() {
            return Ok(());
        }
        self.make(plug, FALLEN_BACK).await?;
        tracing::info!(vpc = self.name, eni = plug.eni, instance = plug.instance, "link fell back");
        Ok(())
    }
}

/// What the instance's own system does at boot: addresses, up, default routes.
async fn configure(netns: &Netns, name: &str, plug: &Plug, subnet: &Subnet) -> Result<(), FabricError> {
    let netlink = netns.netlink().map_err(namespace_failed("open netlink in", &plug.instance))?;
    let handle = &netlink.handle;
    let link = links::get(handle, name).await?;
    for address in &plug.addresses {
        links::add_address(handle, &link, *address).await?;
    }
    // A default route needs a link that is up.
    links::set_up(handle, &link).await?;
    if plug.addresses.iter().any(|a| a.addr().is_ipv4()) {
        let gateway = IpAddr::from(links::router_ipv4(subnet.spec.ipv4));
        links::add_default_route(handle, &link, gateway).await?;
    }
    if plug.addresses.iter().any(|a| a.addr().is_ipv6()) {
        links::add_default_route(handle, &link, links::ROUTER_LINK_LOCAL.into()).await?;
    }
    links::wait_running(handle, name, &plug.eni).await?;
    links::wait_heard(handle, name, &plug.addresses).await?;
    netlink.close().await;
    Ok(())
}
