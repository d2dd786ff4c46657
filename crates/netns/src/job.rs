//! The four operations, each as it runs on its own thread from start to end.

use crate::{
    builder::World,
    error::Fail,
    files,
    kernel::{self, Hands},
    listener,
    ns::{self, Named, Netlink, Netns, NsError},
    plan::{self, ENI_NAME, Place},
};
use berth_types::{
    eni::{BuiltSlot, NetworkFacts, ObservedSlot, SlotSpec},
    ids::SlotId,
    ports::NetworkErrorKind,
};
use std::{fs, future::Future, io, path::Path};

/// Rounds of observe, plan, apply until the plan is empty: move, configure, verify, and one for what the kernel undid in between (taking
/// a link down drops its IPv6 addresses and routes).
const ROUNDS: usize = 4;

/// Drives a future on this thread.
fn drive<T>(work: impl Future<Output = Result<T, Fail>>) -> Result<T, Fail> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    // When this returns the runtime is gone, and with it every netlink socket that `work` opened.
    runtime.map_err(|e| Fail::io("start a runtime", &e))?.block_on(work)
}

fn enter_failed(e: NsError) -> Fail {
    Fail::caused("enter the namespace", &e)
}

fn netlink_here() -> Result<Netlink, Fail> {
    Netlink::here().map_err(|e| Fail::io("open a netlink socket", &e))
}

// ------------------------------------------------------------------------------------------------------------------ build

pub(crate) fn build(world: &World, spec: &SlotSpec) -> Result<BuiltSlot, Fail> {
    drive(async {
        let path = world.netns_path(&spec.slot);
        world.home.enter().map_err(enter_failed)?;
        let host = netlink_here()?;
        // Without its link a slot would be an empty namespace that somebody has to clear away.
        if !matches!(ns::inspect(&path).map_err(enter_failed)?, Named::Mounted(_)) {
            host_link(&host, spec).await?;
        }
        let files =
            files::write(&world.state_dir(&spec.slot), spec).map_err(|e| Fail::io("write the files", &e))?;
        let netns = ns::create_named_here(&path).map_err(|e| Fail::caused("create the namespace", &e))?;
        let inside = netlink_here()?;
        let ifindex = settle(&Hands { host: &host, inside: &inside, netns: &netns }, spec).await?;

        let listener =
            listener::open().map_err(|e| Fail::kernel("open the metadata listener", e.to_string()))?;
        let steered = world.pins.steer(&spec.slot, &netns, &listener);
        steered.map_err(|e| Fail::caused("steer port 80 to the metadata listener", &e))?;
        Ok(BuiltSlot { netns: netns.id(), netns_path: path, ifindex, files, listener })
    })
}

/// Observes, plans and applies until nothing is left to do; answers the index of the ENI's link.
async fn settle(hands: &Hands<'_>, spec: &SlotSpec) -> Result<u32, Fail> {
    let sysctls = plan::observed_sysctls(spec);
    let mut left = Vec::new();
    for round in 0..ROUNDS {
        let seen = kernel::observe(hands.inside, &sysctls).await?;
        let place = match plan::link_with_mac(&seen.links, spec.mac) {
            Some(link) => Place::Inside(link.ifindex),
            None => Place::Host(host_link(hands.host, spec).await?),
        };
        left = plan::plan(spec, &seen, place);
        tracing::debug!(slot = %spec.slot, round, ops = ?left, "planned");
        match place {
            Place::Inside(ifindex) if left.is_empty() => return Ok(ifindex),
            _ => {}
        }
        for op in &left {
            hands.apply(op, spec.mac).await?;
        }
    }
    let text = format!("still to do after {ROUNDS} rounds: {left:?}");
    Err(Fail::new("verify the namespace", NetworkErrorKind::NotVerified(text)))
}

async fn host_link(host: &Netlink, spec: &SlotSpec) -> Result<u32, Fail> {
    let links = kernel::links(host).await.map_err(|e| Fail::kernel("list the links", e.to_string()))?;
    let link = plan::link_with_mac(&links, spec.mac);
    link.map(|l| l.ifindex).ok_or_else(|| Fail::new("find the link", NetworkErrorKind::NoLink(spec.mac)))
}

// ---------------------------------------------------------------------------------------------------------------- observe

pub(crate) fn observe(world: &World) -> Result<NetworkFacts, Fail> {
    drive(async {
        world.home.enter().map_err(enter_failed)?;
        let host = netlink_here()?;
        let links = kernel::links(&host).await.map_err(|e| Fail::kernel("list the links", e.to_string()))?;
        let mut slots = Vec::new();
        for slot in named_slots(&world.config.netns_dir).map_err(|e| Fail::io("list the namespaces", &e))? {
            if slot.belongs_to(&world.config.instance) {
                slots.extend(observe_slot(world, slot).await?);
            }
        }
        slots.sort_by(|a, b| a.slot.cmp(&b.slot));
        Ok(NetworkFacts { links: kernel::table(links), slots })
    })
}

fn named_slots(dir: &Path) -> io::Result<Vec<SlotId>> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    Ok(entries.flatten().filter_map(|entry| SlotId::from_netns_name(entry.file_name().to_str()?)).collect())
}

async fn observe_slot(world: &World, slot: SlotId) -> Result<Option<ObservedSlot>, Fail> {
    let netns = match Netns::open(&world.netns_path(&slot)) {
        Ok(netns) => netns,
        Err(NsError::NotANamespace { .. }) => {
            return Ok(Some(ObservedSlot { slot, netns: None, links: Vec::new() }));
        }
        // Torn down since the directory was read.
        Err(NsError::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(enter_failed(e)),
    };
    netns.enter().map_err(enter_failed)?;
    let inside = netlink_here()?;
    let links = kernel::links(&inside).await.map_err(|e| Fail::kernel("list the links", e.to_string()))?;
    // One socket at a time, though there may be a thousand slots.
    inside.close().await;
    let facts =
        links.into_iter().filter(|l| !l.loopback).filter_map(|l| l.mac.map(|mac| kernel::facts(l, mac)));
    Ok(Some(ObservedSlot { slot, netns: Some(netns.id()), links: facts.collect() }))
}

// ------------------------------------------------------------------------------------------------------------------ label

pub(crate) fn label(world: &World, slot: &SlotId, alias: &str) -> Result<(), Fail> {
    drive(async {
        let netns = Netns::open(&world.netns_path(slot)).map_err(enter_failed)?;
        netns.enter().map_err(enter_failed)?;
        let inside = netlink_here()?;
        let links =
            kernel::links(&inside).await.map_err(|e| Fail::kernel("list the links", e.to_string()))?;
        let by_mac =
            files::recorded_mac(&world.state_dir(slot)).and_then(|mac| plan::link_with_mac(&links, mac));
        let Some(link) = by_mac.or_else(|| links.iter().find(|l| l.name == ENI_NAME)) else {
            return Err(Fail::kernel("set the alias", "the ENI's link is not in the namespace"));
        };
        kernel::set_alias(&inside, link.ifindex, alias).await
    })
}

// -------------------------------------------------------------------------------------------------------------- tear down

pub(crate) fn tear_down(world: &World, slot: &SlotId) -> Result<(), Fail> {
    // First, and alone: with the name gone nobody would find the link again. A veth dies with its namespace, a real ENI's link falls to
    // the first namespace of the machine, which need not be ours.
    give_links_back(world, slot)?;
    let mut failed = forget(world, slot);
    let path = world.netns_path(slot);
    failed.extend(ns::remove_named(&path).err().map(|e| Fail::caused("remove the namespace", &e)));
    // What failed later failed for the same reason or is tried again with it.
    failed.into_iter().next().map_or(Ok(()), Err)
}

fn give_links_back(world: &World, slot: &SlotId) -> Result<(), Fail> {
    let path = world.netns_path(slot);
    if !matches!(ns::inspect(&path).map_err(enter_failed)?, Named::Mounted(_)) {
        return Ok(());
    }
    let mac = files::recorded_mac(&world.state_dir(slot));
    drive(async {
        let netns = Netns::open(&path).map_err(enter_failed)?;
        world.home.enter().map_err(enter_failed)?;
        let host = netlink_here()?;
        netns.enter().map_err(enter_failed)?;
        let inside = netlink_here()?;
        let hands = Hands { host: &host, inside: &inside, netns: &netns };
        let links =
            kernel::links(&inside).await.map_err(|e| Fail::kernel("list the links", e.to_string()))?;
        let mut failed = None;
        for link in plan::to_give_back(&links, mac) {
            // The rest is moved even when one cannot be.
            if let Err(fail) = hands.give_back(link, &world.home, mac).await {
                failed.get_or_insert(fail);
            }
        }
        failed.map_or(Ok(()), Err)
    })
}

/// Removes what a slot has besides its namespace; every part is tried.
pub(crate) fn forget(world: &World, slot: &SlotId) -> Vec<Fail> {
    let pins = world.pins.forget(slot).err().map(|e| Fail::caused("remove the pins", &e));
    let files = files::remove(&world.state_dir(slot)).err().map(|e| Fail::io("remove the files", &e));
    pins.into_iter().chain(files).collect()
}
