//! A kernel in memory: links in the agent's own namespace, namespaces of slots, and the rules that tie them.
//!
//! A link is in one namespace at a time, a build needs its link, a tear-down gives it back, an ENI that EC2 removes takes its
//! link along wherever it is. Listeners are real sockets on the loopback, because the ports hand out real ones.

use crate::crash::Crash;
use async_trait::async_trait;
use berth_types::{
    eni::{BuiltSlot, LinkFacts, LinkTable, NetworkFacts, ObservedSlot, SlotFiles, SlotSpec},
    ids::{MacAddr, NetnsId, SlotId},
    ports::{Network, NetworkError, NetworkErrorKind},
};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

/// How the kernel behaves.
#[derive(Debug, Clone, Default)]
pub struct NetworkKnobs {
    /// How long a build takes (moving a link is tens of milliseconds on a real kernel).
    pub build_delay: Duration,
    /// How long a tear-down takes.
    pub tear_down_delay: Duration,
    /// The next builds that fail their verification.
    pub failing_builds: u32,
    /// The next tear-downs that fail.
    pub failing_tear_downs: u32,
    /// While true, nothing can be observed.
    pub blind: bool,
}

/// Calls so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NetworkCalls {
    /// `observe`.
    pub observe: u64,
    /// `build`.
    pub build: u64,
    /// `label`.
    pub label: u64,
    /// `tear_down`.
    pub tear_down: u64,
    /// The most builds that ran at the same time.
    pub most_builds: u64,
}

#[derive(Debug, Clone)]
struct Space {
    /// `None`: the file is there, nothing is mounted on it.
    netns: Option<NetnsId>,
    links: BTreeMap<MacAddr, LinkFacts>,
}

#[derive(Debug, Default)]
struct Kernel {
    host: LinkTable,
    spaces: BTreeMap<SlotId, Space>,
    next: u32,
    builds_now: u64,
    calls: NetworkCalls,
    knobs: NetworkKnobs,
}

impl Kernel {
    fn serial(&mut self) -> u32 {
        self.next += 1;
        self.next
    }
}

/// The kernel.
#[derive(Debug)]
pub struct FakeNetwork {
    kernel: Mutex<Kernel>,
    links: watch::Sender<Arc<LinkTable>>,
    crash: Arc<Crash>,
}

impl FakeNetwork {
    /// A machine without links and namespaces that dies with the others of this crash point.
    pub fn new(crash: Arc<Crash>) -> Self {
        Self { kernel: Mutex::default(), links: watch::Sender::new(Arc::default()), crash }
    }

    fn kernel(&self) -> MutexGuard<'_, Kernel> {
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, kernel: &Kernel) {
        self.links.send_replace(Arc::new(kernel.host.clone()));
    }

    /// Changes how the kernel behaves.
    pub fn set(&self, change: impl FnOnce(&mut NetworkKnobs)) {
        change(&mut self.kernel().knobs);
    }

    /// Calls so far.
    pub fn calls(&self) -> NetworkCalls {
        self.kernel().calls
    }

    /// A device was plugged in.
    pub fn plug(&self, mac: MacAddr) {
        let mut kernel = self.kernel();
        let ifindex = kernel.serial();
        let link = LinkFacts { ifindex, name: format!("ens{ifindex}"), mac, alias: None };
        kernel.host.insert(mac, link);
        self.publish(&kernel);
    }

    /// The device went, wherever it was.
    pub fn unplug(&self, mac: MacAddr) {
        let mut kernel = self.kernel();
        kernel.host.remove(&mac);
        for space in kernel.spaces.values_mut() {
            space.links.remove(&mac);
        }
        self.publish(&kernel);
    }

    /// Someone removed a namespace with everything in it; a real ENI's link falls back to the host.
    pub fn destroy(&self, slot: &SlotId) {
        let mut kernel = self.kernel();
        if let Some(space) = kernel.spaces.remove(slot) {
            kernel.host.extend(space.links);
        }
        self.publish(&kernel);
    }

    /// A namespace's file without a namespace: a crash between the two steps.
    pub fn leave_plain_file(&self, slot: &SlotId) {
        self.kernel().spaces.insert(slot.clone(), Space { netns: None, links: BTreeMap::new() });
    }

    /// The machine was started anew: namespaces are gone, links are back on the host.
    pub fn reboot(&self) {
        let mut kernel = self.kernel();
        let spaces = std::mem::take(&mut kernel.spaces);
        for mut link in spaces.into_values().flat_map(|space| space.links.into_values()) {
            link.alias = None;
            kernel.host.insert(link.mac, link);
        }
        for link in kernel.host.values_mut() {
            link.alias = None;
        }
        self.publish(&kernel);
    }

    /// What is really there, without a call of the port.
    pub fn facts(&self) -> NetworkFacts {
        let kernel = self.kernel();
        let slots = kernel.spaces.iter().map(|(slot, space)| ObservedSlot {
            slot: slot.clone(),
            netns: space.netns,
            links: space.links.values().cloned().collect(),
        });
        NetworkFacts { links: kernel.host.clone(), slots: slots.collect() }
    }

    fn error(op: &'static str, slot: &SlotId, kind: NetworkErrorKind) -> NetworkError {
        NetworkError { op, slot: slot.to_string(), kind, source: None }
    }

    /// The steps of a build in their order, so that one that fails leaves the link inside as a real one does.
    fn build_now(&self, spec: &SlotSpec) -> Result<(NetnsId, u32), NetworkError> {
        let mut kernel = self.kernel();
        let found = kernel.spaces.get(&spec.slot).is_some_and(|s| s.links.contains_key(&spec.mac));
        if !found && !kernel.host.contains_key(&spec.mac) {
            return Err(Self::error("build", &spec.slot, NetworkErrorKind::NoLink(spec.mac)));
        }
        let ino = u64::from(kernel.serial());
        let moved = if found { None } else { kernel.host.remove(&spec.mac) };
        let space =
            kernel.spaces.entry(spec.slot.clone()).or_insert(Space { netns: None, links: BTreeMap::new() });
        let netns = *space.netns.get_or_insert(NetnsId { dev: 4, ino });
        if let Some(mut link) = moved {
            "eth0".clone_into(&mut link.name);
            space.links.insert(spec.mac, link);
        }
        let ifindex = space.links.get(&spec.mac).map_or(0, |l| l.ifindex);
        self.publish(&kernel);
        if kernel.knobs.failing_builds > 0 {
            kernel.knobs.failing_builds -= 1;
            let reason = NetworkErrorKind::NotVerified("the default route is not there".to_owned());
            return Err(Self::error("verification", &spec.slot, reason));
        }
        Ok((netns, ifindex))
    }
}

/// A listener as the namespace builder hands it out.
fn listener(slot: &SlotId) -> Result<std::net::TcpListener, NetworkError> {
    let failed =
        |e: std::io::Error| FakeNetwork::error("listener", slot, NetworkErrorKind::Kernel(e.to_string()));
    let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

#[async_trait]
impl Network for FakeNetwork {
    async fn observe(&self) -> Result<NetworkFacts, NetworkError> {
        let dies = self.crash.enter().await;
        let blind = {
            let mut kernel = self.kernel();
            kernel.calls.observe += 1;
            kernel.knobs.blind
        };
        let facts = self.facts();
        self.crash.leave(dies).await;
        if blind {
            let kind = NetworkErrorKind::Kernel("cannot read /run/netns".to_owned());
            return Err(NetworkError { op: "observation", slot: "-".to_owned(), kind, source: None });
        }
        Ok(facts)
    }

    async fn build(&self, spec: &SlotSpec) -> Result<BuiltSlot, NetworkError> {
        let dies = self.crash.enter().await;
        let delay = {
            let mut kernel = self.kernel();
            kernel.calls.build += 1;
            kernel.builds_now += 1;
            kernel.calls.most_builds = kernel.calls.most_builds.max(kernel.builds_now);
            kernel.knobs.build_delay
        };
        tokio::time::sleep(delay).await;
        self.kernel().builds_now -= 1;
        let built = self.build_now(spec);
        self.crash.leave(dies).await;
        let (netns, ifindex) = built?;
        let directory = PathBuf::from("/fake/slots").join(spec.slot.as_str());
        Ok(BuiltSlot {
            netns,
            netns_path: PathBuf::from("/run/netns").join(spec.slot.netns_name()),
            ifindex,
            files: SlotFiles {
                resolv_conf: directory.join("resolv.conf"),
                hosts: directory.join("hosts"),
                hostname: directory.join("hostname"),
            },
            listener: listener(&spec.slot)?,
        })
    }

    async fn label(&self, slot: &SlotId, alias: &str) -> Result<(), NetworkError> {
        let dies = self.crash.enter().await;
        let labelled = {
            let mut kernel = self.kernel();
            kernel.calls.label += 1;
            let space = kernel.spaces.get_mut(slot).filter(|s| s.netns.is_some());
            space.map(|space| space.links.values_mut().for_each(|l| l.alias = Some(alias.to_owned())))
        };
        self.crash.leave(dies).await;
        labelled.ok_or_else(|| {
            Self::error("label", slot, NetworkErrorKind::Kernel("no such namespace".to_owned()))
        })
    }

    async fn tear_down(&self, slot: &SlotId) -> Result<(), NetworkError> {
        let dies = self.crash.enter().await;
        let delay = {
            let mut kernel = self.kernel();
            kernel.calls.tear_down += 1;
            kernel.knobs.tear_down_delay
        };
        tokio::time::sleep(delay).await;
        let failed = {
            let mut kernel = self.kernel();
            let fails = kernel.knobs.failing_tear_downs > 0;
            if fails {
                kernel.knobs.failing_tear_downs -= 1;
            } else if let Some(space) = kernel.spaces.remove(slot) {
                for mut link in space.links.into_values() {
                    link.name = format!("eth{}", link.ifindex);
                    link.alias = None;
                    kernel.host.insert(link.mac, link);
                }
                self.publish(&kernel);
            }
            fails
        };
        self.crash.leave(dies).await;
        if failed {
            return Err(Self::error(
                "tear-down",
                slot,
                NetworkErrorKind::Kernel("device or resource busy".to_owned()),
            ));
        }
        Ok(())
    }

    fn links(&self) -> watch::Receiver<Arc<LinkTable>> {
        self.links.subscribe()
    }
}
