//! Ops: one repeatable act on the world each, run in a task of its own, its end reported as an event.
//!
//! An op never decides and never retries. Where it carries an intent, the intent is durable before the act.

use crate::{
    failure::{Failure, Kind},
    machine::{Event, Finished},
    records, recover,
};
use berth_types::{
    eni::{CreateEni, SlotSpec},
    ids::{AttachmentId, ClientToken, EniId, InstanceId, SecurityGroupId, SlotId, TaskArn},
    lease::ListenerChange,
    ports::{Cloud, Durability, Journal, Network, Table, Write},
};
use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};

/// A call to EC2 may take this long, whatever the port's own time-outs are: a call that never ends would keep its ENI for ever.
const CLOUD_DEADLINE: Duration = Duration::from_secs(60);
/// Work on the kernel: a build takes 35 ms alone and a second or two behind a burst of moves.
const KERNEL_DEADLINE: Duration = Duration::from_secs(30);
/// The metadata endpoint closes sockets; past this the namespace is removed under it. The link leaves the namespace first, so a
/// socket that stays open pins an empty namespace, not the ENI.
const LISTENER_DEADLINE: Duration = Duration::from_secs(5);

/// An act on the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    Load {
        instance: InstanceId,
    },
    ObserveCloud {
        began: u64,
    },
    ObserveNetwork {
        began: u64,
    },
    Record {
        writes: Vec<Write>,
    },
    Create {
        token: ClientToken,
        request: Box<CreateEni>,
        intent: Vec<Write>,
    },
    Attach {
        token: ClientToken,
        eni: EniId,
        index: u32,
        intent: Vec<Write>,
    },
    Detach {
        token: ClientToken,
        eni: EniId,
        attachment: AttachmentId,
        intent: Vec<Write>,
    },
    Delete {
        token: ClientToken,
        eni: EniId,
        intent: Vec<Write>,
    },
    Build {
        token: ClientToken,
        spec: Box<SlotSpec>,
    },
    TearDown {
        token: ClientToken,
        slot: SlotId,
    },
    TearDownOrphan {
        slot: SlotId,
    },
    Flag {
        token: ClientToken,
        eni: EniId,
        attachment: AttachmentId,
    },
    Regroup {
        token: ClientToken,
        eni: EniId,
        groups: Vec<SecurityGroupId>,
        intent: Vec<Write>,
    },
    Label {
        token: ClientToken,
        slot: SlotId,
        task: TaskArn,
    },
    Tag {
        token: ClientToken,
        eni: EniId,
        change: BTreeMap<String, Option<String>>,
        /// The task tags that the ENI carries afterwards.
        tags: BTreeMap<String, String>,
    },
}

/// What ops act through.
#[derive(Clone)]
pub(crate) struct Ports {
    pub(crate) cloud: Arc<dyn Cloud>,
    pub(crate) network: Arc<dyn Network>,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) listeners: mpsc::Sender<ListenerChange>,
}

impl Ports {
    /// Runs an op to its end.
    pub(crate) async fn run(self, op: Op) -> Event {
        match op {
            Op::Load { instance } => Event::Loaded(self.load(&instance).await),
            Op::ObserveCloud { began } => Event::CloudSeen { began, result: cloud(self.cloud.enis()).await },
            Op::ObserveNetwork { began } => Event::NetworkSeen { began, result: self.observe().await },
            Op::Record { writes } => Event::Recorded(self.commit(writes, Durability::Fact).await),
            Op::Create { token, request, intent } => {
                let result = self.after(intent, self.cloud.create_eni(&request)).await.map(Box::new);
                Event::Created { token, result }
            }
            Op::Attach { token, eni, index, intent } => {
                let result = self.after(intent, self.cloud.attach_eni(&eni, index)).await.map(drop);
                Event::Attached { token, result }
            }
            Op::Detach { token, eni, attachment, intent } => {
                tracing::info!(%eni, %attachment, "detaching eni");
                let result = self.after(intent, self.cloud.detach_eni(&attachment)).await;
                Event::Detached { token, result }
            }
            Op::Delete { token, eni, intent } => {
                let result = self.after(intent, self.cloud.delete_eni(&eni)).await;
                Event::Deleted { token, result }
            }
            Op::Build { token, spec } => {
                let result = self.build(&spec).await.map(Box::new);
                Event::Built { token, slot: spec.slot, result }
            }
            Op::TearDown { token, slot } => {
                let result = self.tear_down(&slot).await;
                Event::TornDown { token, slot, result }
            }
            Op::TearDownOrphan { slot } => {
                let result = self.tear_down(&slot).await;
                Event::OrphanTornDown { slot, result }
            }
            Op::Flag { token, eni, attachment } => {
                let result = cloud(self.cloud.set_delete_on_termination(&eni, &attachment)).await;
                Event::Flagged { token, result }
            }
            Op::Regroup { token, eni, groups, intent } => {
                tracing::info!(%eni, groups = ?groups, "giving eni other security groups");
                let result = self.after(intent, self.cloud.set_security_groups(&eni, &groups)).await;
                Event::Regrouped { token, groups, result }
            }
            Op::Label { token, slot, task } => {
                let alias = recover::alias(&task);
                let result = kernel("label", self.network.label(&slot, &alias)).await;
                Event::Labelled { token, task, result }
            }
            Op::Tag { token, eni, change, tags } => {
                let result = cloud(self.cloud.tag_eni(&eni, &change)).await;
                Event::Tagged { token, tags, result }
            }
        }
    }

    async fn load(&self, instance: &InstanceId) -> Result<records::Memory, Failure> {
        let enis = self.journal.load(Table::Enis).await.map_err(|e| Failure::from(&e))?;
        let leases = self.journal.load(Table::Leases).await.map_err(|e| Failure::from(&e))?;
        Ok(records::read(instance, enis, leases))
    }

    async fn observe(&self) -> Result<berth_types::eni::NetworkFacts, Failure> {
        kernel("observation", self.network.observe()).await
    }

    async fn commit(&self, writes: Vec<Write>, durability: Durability) -> Result<(), Failure> {
        self.journal.commit(writes, durability).await.map_err(|e| Failure::from(&e))
    }

    /// Makes the intent durable, then acts.
    async fn after<T>(
        &self,
        intent: Vec<Write>,
        act: impl Future<Output = Result<T, berth_types::ports::CloudError>>,
    ) -> Result<T, Failure> {
        self.commit(intent, Durability::Intent).await?;
        cloud(act).await
    }

    /// Builds the namespace and hands the listener to the metadata endpoint: only then the slot is one.
    async fn build(&self, spec: &SlotSpec) -> Result<Finished, Failure> {
        let began = Instant::now();
        let built = kernel("build", self.network.build(spec)).await?;
        let open = ListenerChange::Open { slot: spec.slot.clone(), listener: built.listener };
        match timeout(LISTENER_DEADLINE, self.listeners.send(open)).await {
            Ok(Ok(())) => {}
            // The endpoint is gone: the agent is going down, and the next one makes the listener anew.
            Ok(Err(_)) => tracing::debug!(slot = %spec.slot, "nobody serves the metadata listener"),
            Err(_) => {
                return Err(Failure::new(Kind::Kernel, "the metadata endpoint does not take the listener"));
            }
        }
        Ok(Finished {
            netns: built.netns,
            netns_path: built.netns_path,
            files: built.files,
            build_micros: u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
        })
    }

    /// Closes the metadata listener, then removes the namespace: an open socket would keep it alive.
    async fn tear_down(&self, slot: &SlotId) -> Result<(), Failure> {
        let (done, closed) = oneshot::channel();
        let close = async {
            if self.listeners.send(ListenerChange::Close { slot: slot.clone(), done }).await.is_ok() {
                // Dropped unanswered means the same as answered: the endpoint holds nothing of this slot.
                closed.await.ok();
            }
        };
        if timeout(LISTENER_DEADLINE, close).await.is_err() {
            tracing::warn!(%slot, "metadata listener not closed in time, removing its namespace all the same");
        }
        kernel("tear-down", self.network.tear_down(slot)).await
    }
}

/// A call to EC2 within its deadline.
async fn cloud<T>(
    call: impl Future<Output = Result<T, berth_types::ports::CloudError>>,
) -> Result<T, Failure> {
    match timeout(CLOUD_DEADLINE, call).await {
        Ok(result) => result.map_err(|e| Failure::from(&e)),
        Err(_) => {
            let seconds = CLOUD_DEADLINE.as_secs();
            Err(Failure::new(Kind::Unknown, format!("EC2 did not answer within {seconds} s")))
        }
    }
}

/// Work on the kernel within its deadline.
async fn kernel<T>(
    op: &str,
    work: impl Future<Output = Result<T, berth_types::ports::NetworkError>>,
) -> Result<T, Failure> {
    match timeout(KERNEL_DEADLINE, work).await {
        Ok(result) => result.map_err(|e| Failure::from(&e)),
        Err(_) => {
            let seconds = KERNEL_DEADLINE.as_secs();
            Err(Failure::new(Kind::Kernel, format!("{op} did not end within {seconds} s")))
        }
    }
}
