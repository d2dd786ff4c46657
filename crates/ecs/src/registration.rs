//! Registers the node in its cluster, however long that takes: [`Registrar`] decides, [`Registering::run`] acts.
//!
//! Nothing else waits for it: the agent starts, tasks run and their reports are sent meanwhile. No error is final, because nobody is
//! there to start the agent again once the operator has mended the role's policy or made the cluster; what cannot mend itself is
//! only tried more rarely.

use crate::{
    board::Board,
    capabilities,
    config::{DEFAULT_CLUSTER, EcsConfig},
    pacing::{Backoff, Jitter},
    port::{ControlPlane, EcsError, EcsErrorKind, Registration},
    saved,
};
use berth_types::{
    Chain, Class,
    cluster::InstanceStatus,
    eni::InstanceFacts,
    ids::InstanceId,
    ports::{Cloud, CloudError, IdentityDocument, Journal},
};
use std::{sync::Arc, time::Duration};
use tracing::{debug, info, warn};

/// After trouble that passes by itself: throttling, no answer. As often as an idle node polls in the end.
const PASSING: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(15) };
/// While the cluster is not there: people start nodes and make the cluster in either order.
const NO_CLUSTER: Backoff = Backoff { first: Duration::from_secs(5), longest: Duration::from_secs(60) };
/// After a refusal, which somebody has to mend.
const REFUSED: Backoff = Backoff { first: Duration::from_secs(60), longest: Duration::from_secs(300) };

/// What to do about a failed registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// Make the default cluster, then register again at once.
    CreateCluster,
    /// Ask whether the container instance still exists: the refusal may be about its ARN.
    AskAboutInstance,
    /// Wait so long (before jitter), then register again.
    Wait(Duration),
}

/// Decides. Pure.
#[derive(Debug)]
pub(crate) struct Registrar {
    /// From an earlier registration; the next one is a re-registration of it.
    arn: Option<String>,
    may_create: bool,
    failures: u32,
}

impl Registrar {
    pub(crate) fn new(arn: Option<String>, may_create: bool) -> Self {
        Self { arn, may_create, failures: 0 }
    }

    /// Takes a failed RegisterContainerInstance.
    pub(crate) fn failed(&mut self, error: &EcsErrorKind) -> Next {
        match error {
            // Once: if it is gone again at the next try, somebody else is at work.
            EcsErrorKind::ClusterNotFound(_) if self.may_create => {
                self.may_create = false;
                Next::CreateCluster
            }
            EcsErrorKind::InvalidParameter(_) | EcsErrorKind::Refused(_) if self.arn.is_some() => {
                Next::AskAboutInstance
            }
            other => Next::Wait(self.wait(pace(other))),
        }
    }

    /// Takes what the control plane said of the container instance that it did not want to re-register; answers how long to wait.
    pub(crate) fn looked(&mut self, status: Option<&str>) -> Duration {
        if is_gone(status) {
            self.arn = None;
            self.failures = 0;
            return Duration::ZERO;
        }
        // It is there, so the refusal is about something else.
        self.wait(REFUSED)
    }

    /// Counts a failure and says how long to wait.
    pub(crate) fn wait(&mut self, pace: Backoff) -> Duration {
        self.failures = self.failures.saturating_add(1);
        pace.after(self.failures)
    }
}

/// A container instance of which there is nothing left to re-register.
pub(crate) fn is_gone(status: Option<&str>) -> bool {
    matches!(status, None | Some("INACTIVE" | "REGISTRATION_FAILED"))
}

/// The control plane's word for the state of a container instance.
pub(crate) fn status_of(word: &str) -> InstanceStatus {
    match word {
        "DRAINING" | "DEREGISTERING" => InstanceStatus::Draining,
        _ if is_gone(Some(word)) => InstanceStatus::Inactive,
        _ => InstanceStatus::Active,
    }
}

/// How often to try again after this error.
fn pace(error: &EcsErrorKind) -> Backoff {
    match error {
        EcsErrorKind::Throttled(_) | EcsErrorKind::Unavailable(_) => PASSING,
        EcsErrorKind::ClusterNotFound(_) => NO_CLUSTER,
        EcsErrorKind::Unauthorized(_)
        | EcsErrorKind::InvalidParameter(_)
        | EcsErrorKind::Refused(_)
        | EcsErrorKind::Malformed(_) => REFUSED,
    }
}

fn cloud_pace(error: &CloudError) -> Backoff {
    match error.class() {
        Class::Retry | Class::RetryAfter(_) => PASSING,
        Class::Permanent | Class::Bug => REFUSED,
    }
}

/// Acts.
pub(crate) struct Registering {
    pub(crate) control: Arc<dyn ControlPlane>,
    pub(crate) cloud: Arc<dyn Cloud>,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) config: EcsConfig,
    pub(crate) instance: InstanceFacts,
    /// CPU units and MiB.
    pub(crate) resources: (u32, u64),
}

impl Registering {
    /// Registers, with the ARN of an earlier registration if there is one. Answers the container instance's ARN, which is durable
    /// unless the journal could not be written: then the next start registers this instance anew.
    pub(crate) async fn run(&self, earlier: Option<String>, board: &Board, jitter: &mut Jitter) -> String {
        let mut registrar = Registrar::new(earlier, self.config.create_cluster);
        let mut told = String::new();
        loop {
            let (problem, wait) = match self.attempt(&mut registrar).await {
                Ok(arn) => {
                    let status = self.status(&arn).await;
                    board.update(|snapshot| {
                        snapshot.container_instance_arn = Some(arn.clone());
                        snapshot.status = status;
                        snapshot.problem = None;
                    });
                    return arn;
                }
                Err(failed) => failed,
            };
            let wait = jitter.around(wait);
            if problem == told {
                debug!(error = problem, wait_ms = wait.as_millis(), "not registered; trying again");
            } else {
                warn!(error = problem, cluster = self.config.cluster, "not registered; trying again");
                told.clone_from(&problem);
            }
            board.problem(Some(problem));
            tokio::time::sleep(wait).await;
        }
    }

    /// One attempt; a failed one says what was in the way and how long to wait.
    async fn attempt(&self, registrar: &mut Registrar) -> Result<String, (String, Duration)> {
        let identity = match self.cloud.identity_document().await {
            Ok(identity) => identity,
            Err(error) => {
                return Err((Chain(&error).to_string(), registrar.wait(cloud_pace(&error))));
            }
        };
        let registration = self.registration(identity, registrar.arn.clone());
        let error = match self.control.register(&registration).await {
            Ok(registered) => {
                if !registered.lost_attributes.is_empty() {
                    warn!(
                        attributes = registered.lost_attributes.join(" "),
                        "attributes did not come back from the registration"
                    );
                }
                self.keep(&registered.container_instance_arn, registrar.arn.as_deref()).await;
                return Ok(registered.container_instance_arn);
            }
            Err(error) => error,
        };
        let text = Chain(&error).to_string();
        let wait = match registrar.failed(&error.kind) {
            Next::CreateCluster => self.create_cluster(registrar).await,
            Next::AskAboutInstance => self.ask(registrar).await,
            Next::Wait(wait) => wait,
        };
        Err((text, wait))
    }

    /// The instance's place now: one that was re-registered may be draining still. Where that is not to be seen the poller's looks say.
    async fn status(&self, arn: &str) -> InstanceStatus {
        match self.control.describe_instance(arn).await {
            Ok(Some(word)) => status_of(&word),
            Ok(None) | Err(_) => InstanceStatus::Active,
        }
    }

    async fn create_cluster(&self, registrar: &mut Registrar) -> Duration {
        match self.control.create_cluster(DEFAULT_CLUSTER).await {
            Ok(cluster) => {
                info!(cluster, "no cluster is configured; the default cluster was made");
                Duration::ZERO
            }
            Err(error) => self.failed_on_the_way(registrar, &error, "the default cluster could not be made"),
        }
    }

    async fn ask(&self, registrar: &mut Registrar) -> Duration {
        let Some(arn) = registrar.arn.clone() else { return registrar.wait(REFUSED) };
        match self.control.describe_instance(&arn).await {
            Ok(status) => {
                if is_gone(status.as_deref()) {
                    warn!(
                        instance = arn,
                        status = status.as_deref().unwrap_or("unknown"),
                        "the container instance is gone; registering a new one"
                    );
                }
                registrar.looked(status.as_deref())
            }
            Err(error) => {
                self.failed_on_the_way(registrar, &error, "the container instance cannot be looked at")
            }
        }
    }

    fn failed_on_the_way(&self, registrar: &mut Registrar, error: &EcsError, what: &'static str) -> Duration {
        warn!(error = %Chain(error), "{what}");
        registrar.wait(pace(&error.kind))
    }

    fn registration(&self, identity: IdentityDocument, arn: Option<String>) -> Registration {
        // The operator's own attributes may have been changed through the API since: only the first registration sets them.
        let mut attributes =
            if arn.is_none() { capabilities::custom(&self.config.attributes) } else { Vec::new() };
        attributes.extend(capabilities::attributes(&self.config.abilities, &self.instance));
        let (cpu, memory) = self.resources;
        Registration {
            container_instance_arn: arn,
            identity,
            attributes,
            cpu,
            memory,
            reserved_ports: self.config.reserved_ports.clone(),
            reserved_udp_ports: self.config.reserved_udp_ports.clone(),
            tags: self.config.tags.clone().into_iter().collect(),
        }
    }

    async fn keep(&self, arn: &str, earlier: Option<&str>) {
        match earlier {
            Some(earlier) if earlier == arn => info!(instance = arn, "re-registered"),
            Some(earlier) => warn!(instance = arn, earlier, "re-registered under another arn"),
            None => info!(instance = arn, cluster = self.config.cluster, "registered"),
        }
        let id: &InstanceId = &self.instance.instance_id;
        if let Err(error) = saved::save(&*self.journal, &self.config.cluster, id, arn).await {
            // The control plane knows the instance by its identity document: the next start is given the same ARN, or a new one.
            warn!(error = %Chain(&error), "the registration could not be recorded");
        }
    }
}
