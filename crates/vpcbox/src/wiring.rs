//! Plugs and unplugs links, and sets filters, so that the fabric becomes what the world says.
//!
//! Observe, plan, apply: [`Service::links`] says what should be, [`Done`] is what this loop has done, [`plan`] is the pure
//! difference. No link comes before the filter that is for it. Anything that fails or changes meanwhile is found again at the next look; a ring of [`Service::changed`] only makes
//! that look come sooner.

use crate::{
    fabric::{Fabric, FabricError, Filter, Plug},
    service::Service,
    world::{
        LinkView, WantedLink,
        ids::{AttachmentId, EniId},
    },
};
use async_trait::async_trait;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// Steps on the fabric at a time. The kernel takes one link change at a time anyway; a few in flight keep it busy.
const PARALLEL: usize = 4;
/// Pause after a step that failed.
const RETRY: Duration = Duration::from_millis(200);
/// A look without any cause: the cure for a cause that was lost.
const IDLE: Duration = Duration::from_secs(5);

/// What can plug links: the fabric, or a test's stand-in.
#[async_trait]
pub trait Hardware: Send + Sync + 'static {
    /// Makes the ENI show up. Repeatable.
    async fn plug(&self, plug: Plug) -> Result<(), FabricError>;
    /// Makes the ENI vanish wherever it is. Repeatable.
    async fn unplug(&self, eni: &str) -> Result<(), FabricError>;
    /// Makes this the filter of all ENIs. Repeatable.
    async fn filter(&self, filter: Filter) -> Result<(), FabricError>;
    /// Makes the routers forget whose these addresses were. Repeatable.
    async fn forget(&self, addresses: BTreeSet<IpAddr>) -> Result<(), FabricError>;
}

#[async_trait]
impl Hardware for Fabric {
    async fn plug(&self, plug: Plug) -> Result<(), FabricError> {
        Self::plug(self, plug).await
    }

    async fn unplug(&self, eni: &str) -> Result<(), FabricError> {
        Self::unplug(self, eni).await
    }

    async fn filter(&self, filter: Filter) -> Result<(), FabricError> {
        Self::filter(self, filter).await
    }

    async fn forget(&self, addresses: BTreeSet<IpAddr>) -> Result<(), FabricError> {
        Self::forget(self, addresses).await
    }
}

/// What is to be done on the fabric now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// The filter changes: security groups, addresses, ENIs that come and go.
    Filter(Filter),
    /// A link goes.
    Unplug(EniId),
    /// A link comes.
    Plug(EniId, WantedLink),
    /// Addresses came to a plugged ENI, or left it: the routers may know them elsewhere.
    Readdress(EniId, WantedLink),
    /// A link that should go is not there: the world is waiting to hear it.
    Report(EniId, AttachmentId),
}

/// What was done for an ENI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugged {
    /// Its link is of this attachment.
    pub attachment: AttachmentId,
    /// The routers know no older holder of these than the ENI.
    pub addresses: BTreeSet<IpAddr>,
}

/// What this loop has done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Done {
    /// The filter that the fabric has; nothing if it was given none yet.
    pub filter: Option<Filter>,
    /// By ENI.
    pub plugged: BTreeMap<EniId, Plugged>,
}

/// The difference between what should be and what was done. An ENI has at most one op: a link of an earlier attachment goes
/// first, the new one comes at the next look, its addresses at the one after that. Links come when the filter is right.
pub fn plan(view: &LinkView, done: &Done) -> Vec<Op> {
    let plugged = &done.plugged;
    let filter = (done.filter.as_ref() != Some(&view.filter)).then(|| Op::Filter(view.filter.clone()));
    let wanted = |eni| view.wanted.get(eni).map(|w| &w.attachment);
    let unplug = plugged
        .iter()
        .filter(|(eni, done)| wanted(*eni) != Some(&done.attachment))
        .map(|(eni, _)| Op::Unplug(eni.clone()));
    let readdress = view.wanted.iter().filter(|(eni, wanted)| {
        plugged
            .get(*eni)
            .is_some_and(|done| done.attachment == wanted.attachment && done.addresses != wanted.addresses)
    });
    let readdress = readdress.map(|(eni, wanted)| Op::Readdress(eni.clone(), wanted.clone()));
    let filtered = filter.is_none();
    let missing = view.wanted.iter().filter(|(eni, _)| filtered && !plugged.contains_key(*eni));
    let plug = missing.map(|(eni, wanted)| Op::Plug(eni.clone(), wanted.clone()));
    let gone = view.leaving.iter().filter(|(eni, _)| !plugged.contains_key(eni));
    let report = gone.map(|(eni, at)| Op::Report(eni.clone(), at.clone()));
    filter.into_iter().chain(unplug).chain(readdress).chain(plug).chain(report).collect()
}

/// The loop's own state.
#[derive(Debug)]
pub struct Wiring<H> {
    service: Arc<Service>,
    hardware: Arc<H>,
    done: Done,
    /// ENIs whose last step failed: said once at warn, not at every retry. None is the filter of all of them.
    failing: BTreeSet<Option<EniId>>,
}

/// A step that failed, and of which ENI; none if it was the filter.
pub type Failed = (Option<EniId>, FabricError);

/// When to look again.
#[derive(Debug)]
enum Look {
    /// At once: something was done.
    Now,
    /// When this link is due, or something changes.
    At(Option<Timestamp>),
    /// After a pause: a step failed.
    Later,
}

impl<H: Hardware> Wiring<H> {
    /// Nothing is plugged yet.
    pub fn new(service: Arc<Service>, hardware: Arc<H>) -> Self {
        Self { service, hardware, done: Done::default(), failing: BTreeSet::new() }
    }

    /// Makes the fabric what it should be now; the first failure is an error. For the start, when a primary ENI that cannot be
    /// plugged means that the box does not work.
    pub async fn settle(&mut self) -> Result<(), Failed> {
        loop {
            let ops = plan(&self.service.links(), &self.done);
            if ops.is_empty() {
                return Ok(());
            }
            if let Some(failed) = self.apply(ops).await.into_iter().next() {
                return Err(failed);
            }
        }
    }

    /// Follows the world until `shutdown`. An op under way is finished first.
    pub async fn run(mut self, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            let wait = match self.look().await {
                Look::Now => continue,
                Look::Later => RETRY,
                Look::At(None) => IDLE,
                Look::At(Some(due)) => {
                    Duration::try_from(due.duration_since(Timestamp::now())).unwrap_or_default()
                }
            };
            // All three are only reasons to look again; none takes anything with it when it is dropped.
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = self.service.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn look(&mut self) -> Look {
        let view = self.service.links();
        let ops = plan(&view, &self.done);
        if ops.is_empty() {
            return Look::At(view.next);
        }
        let failed = self.apply(ops).await;
        for (eni, error) in &failed {
            let error = error as &dyn std::error::Error;
            let known = self.failing.contains(eni);
            let eni = eni.as_ref().map(EniId::as_str);
            if known {
                tracing::debug!(eni, error, "fabric still not as it should be");
            } else {
                tracing::warn!(eni, error, "fabric not as it should be");
            }
        }
        let any_failed = !failed.is_empty();
        self.failing = failed.into_iter().map(|(eni, _)| eni).collect();
        if any_failed { Look::Later } else { Look::Now }
    }

    /// Does all ops; those that failed come back.
    async fn apply(&mut self, ops: Vec<Op>) -> Vec<Failed> {
        let (hardware, plugged) = (&self.hardware, &self.done.plugged);
        let done: Vec<_> = stream::iter(ops)
            .map(|op| async move {
                let result = match &op {
                    Op::Filter(filter) => hardware.filter(filter.clone()).await,
                    Op::Unplug(eni) => hardware.unplug(eni.as_str()).await,
                    Op::Plug(_, wanted) => hardware.plug(wanted.plug.clone()).await,
                    Op::Readdress(eni, wanted) => {
                        let known = plugged.get(eni).map(|done| done.addresses.clone()).unwrap_or_default();
                        hardware.forget(&known ^ &wanted.addresses).await
                    }
                    Op::Report(..) => Ok(()),
                };
                (op, result)
            })
            .buffer_unordered(PARALLEL)
            .collect()
            .await;
        let mut failed = Vec::new();
        for (op, result) in done {
            match (op, result) {
                (Op::Filter(filter), Ok(())) => self.done.filter = Some(filter),
                (Op::Filter(_), Err(error)) => failed.push((None, error)),
                (Op::Unplug(eni), Ok(())) => {
                    tracing::debug!(%eni, "link unplugged");
                    if let Some(done) = self.done.plugged.remove(&eni) {
                        self.service.link_gone(&eni, &done.attachment);
                    }
                }
                (Op::Plug(eni, wanted), Ok(())) => {
                    tracing::debug!(%eni, instance = wanted.plug.instance, "link plugged");
                    // None yet: the routers may remember an address where it was before it came to this ENI.
                    let addresses = BTreeSet::new();
                    self.done.plugged.insert(eni, Plugged { attachment: wanted.attachment, addresses });
                }
                (Op::Readdress(eni, wanted), Ok(())) => {
                    let WantedLink { attachment, addresses, .. } = wanted;
                    self.done.plugged.insert(eni, Plugged { attachment, addresses });
                }
                (Op::Report(eni, attachment), _) => self.service.link_gone(&eni, &attachment),
                (Op::Unplug(eni) | Op::Plug(eni, _) | Op::Readdress(eni, _), Err(error)) => {
                    failed.push((Some(eni), error));
                }
            }
        }
        failed
    }
}

#[cfg(test)]
mod tests;
