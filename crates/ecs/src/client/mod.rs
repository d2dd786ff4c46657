//! The port's operations on ECS, through its SDK.
//!
//! ```text
//!  loops ──ControlPlane──► EcsClient ──► calls (aws-sdk-ecs) ──HTTPS, SigV4──► ECS
//!                             │             └ credentials: environment, else the instance role ──► IMDS
//!                             └──► raw: bodies that are read by us, not by the SDK
//! ```
//!
//! Nothing here waits and tries again beyond the SDK's second attempt: the loops own back-off.

mod convert;
mod raw;
mod sdk;
#[cfg(test)]
mod tests;

use crate::{
    config::EcsConfig,
    failure,
    port::{ControlPlane, Descriptions, EcsError, EcsErrorKind, Registered, Registration, Report},
};
use async_trait::async_trait;
use aws_sdk_ecs::{
    Client,
    types::{ContainerInstanceStatus, DesiredStatus, Failure, Tag},
};
use berth_types::ids::TaskArn;
use tracing::warn;

/// Tasks in one page of ListTasks and in one DescribeTasks: ECS's own maximum.
pub(crate) const PAGE: usize = 100;
/// Pages of ListTasks that are read before something is wrong: the engine holds at most 1024 tasks, and those that stopped within the
/// hour come on top.
const PAGES_MAX: usize = 64;
/// What DescribeTasks says of a task that it does not know.
const MISSING: &str = "MISSING";

/// ECS, for one cluster.
#[derive(Debug)]
pub(crate) struct EcsClient {
    client: Client,
    cluster: String,
}

impl EcsClient {
    /// Makes the client; talks to nobody yet.
    pub(crate) fn new(config: &EcsConfig, instance_region: &str) -> Result<Self, EcsError> {
        Ok(Self { client: sdk::client(config, instance_region)?, cluster: config.cluster.clone() })
    }

    async fn list(&self, instance: &str, desired: DesiredStatus) -> Result<Vec<TaskArn>, EcsError> {
        const OP: &str = "list tasks of";
        let (mut found, mut next) = (Vec::new(), None);
        for _ in 0..PAGES_MAX {
            let page = self
                .client
                .list_tasks()
                .cluster(&self.cluster)
                .container_instance(instance)
                .desired_status(desired.clone())
                .set_next_token(next)
                .send()
                .await
                .map_err(|error| failure::sort(OP, instance, error))?;
            for arn in page.task_arns.unwrap_or_default() {
                match arn.parse() {
                    Ok(arn) => found.push(arn),
                    // It cannot run here, and it can be no task of ours.
                    Err(error) => warn!(%error, "a listed task has an arn that cannot be read, left out"),
                }
            }
            next = page.next_token.filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(found);
            }
        }
        // Half a list would let the rest pass for stopped.
        Err(failure::malformed(OP, instance, format!("more than {PAGES_MAX} pages")))
    }

    async fn describe_page(&self, tasks: &[TaskArn]) -> Result<Descriptions, EcsError> {
        const OP: &str = "describe";
        let target = || match tasks {
            [one] => one.to_string(),
            many => format!("{} tasks", many.len()),
        };
        let body = raw::Body::default();
        let reply = self
            .client
            .describe_tasks()
            .cluster(&self.cluster)
            .set_tasks(Some(tasks.iter().map(ToString::to_string).collect()))
            .customize()
            .interceptor(body.clone())
            .send()
            .await
            .map_err(|error| failure::sort(OP, target(), error))?;
        // A task that is absent counts as unknown to the control plane: that may only be said when it said so.
        refuse_failures(OP, target, reply.failures(), &[MISSING])?;
        let missing = reply.failures().iter().filter_map(|failure| failure.arn()?.parse().ok()).collect();
        let mut overrides =
            raw::overrides(&body.take()).map_err(|e| failure::malformed(OP, target(), e.to_string()))?;
        let described = reply.tasks.unwrap_or_default().into_iter().map(|task| {
            let own = task.task_arn.as_deref().and_then(|arn| overrides.remove(arn));
            convert::task(task, own).ok_or_else(|| failure::malformed(OP, target(), "a task without an ARN"))
        });
        Ok(Descriptions { tasks: described.collect::<Result<_, _>>()?, missing })
    }
}

/// An error unless all failures have one of these reasons.
fn refuse_failures(
    op: &'static str,
    target: impl Fn() -> String,
    failures: &[Failure],
    expected: &[&str],
) -> Result<(), EcsError> {
    let other = failures.iter().find(|f| !f.reason().is_some_and(|reason| expected.contains(&reason)));
    let Some(failure) = other else { return Ok(()) };
    let text = [failure.arn(), failure.reason(), failure.detail()];
    let text = text.into_iter().flatten().collect::<Vec<_>>().join(": ");
    Err(failure::error(op, target(), EcsErrorKind::Refused(text)))
}

#[async_trait]
impl ControlPlane for EcsClient {
    async fn register(&self, registration: &Registration) -> Result<Registered, EcsError> {
        const OP: &str = "register in";
        let wrong = |e: aws_smithy_types::error::operation::BuildError| {
            failure::malformed(OP, &self.cluster, e.to_string())
        };
        let tag = |(key, value): &(String, String)| Tag::builder().key(key).value(value).build();
        let tags: Vec<Tag> = registration.tags.iter().map(tag).collect();
        let reply = self
            .client
            .register_container_instance()
            .cluster(&self.cluster)
            .set_container_instance_arn(registration.container_instance_arn.clone())
            .instance_identity_document(&registration.identity.document)
            .instance_identity_document_signature(&registration.identity.signature)
            .set_attributes(Some(convert::attributes(registration).map_err(wrong)?))
            .set_total_resources(Some(convert::resources(registration)))
            .set_tags(Some(tags).filter(|tags| !tags.is_empty()))
            .send()
            .await
            .map_err(|error| failure::sort(OP, &self.cluster, error))?;
        let instance = reply
            .container_instance
            .ok_or_else(|| failure::malformed(OP, &self.cluster, "containerInstance is missing"))?;
        let lost_attributes = convert::lost_attributes(registration, instance.attributes());
        let arn = instance.container_instance_arn.filter(|arn| !arn.is_empty());
        let container_instance_arn =
            arn.ok_or_else(|| failure::malformed(OP, &self.cluster, "containerInstanceArn is missing"))?;
        Ok(Registered { container_instance_arn, lost_attributes })
    }

    async fn create_cluster(&self, name: &str) -> Result<String, EcsError> {
        const OP: &str = "create cluster";
        let reply = self.client.create_cluster().cluster_name(name).send().await;
        let cluster = reply.map_err(|error| failure::sort(OP, name, error))?.cluster;
        cluster
            .and_then(|cluster| cluster.cluster_name)
            .ok_or_else(|| failure::malformed(OP, name, "clusterName is missing"))
    }

    async fn list_tasks(&self, instance: &str) -> Result<Vec<TaskArn>, EcsError> {
        self.list(instance, DesiredStatus::Running).await
    }

    async fn list_stopped(&self, instance: &str) -> Result<Vec<TaskArn>, EcsError> {
        self.list(instance, DesiredStatus::Stopped).await
    }

    async fn describe_tasks(&self, tasks: &[TaskArn]) -> Result<Descriptions, EcsError> {
        let mut all = Descriptions::default();
        for page in tasks.chunks(PAGE) {
            let Descriptions { tasks, missing } = self.describe_page(page).await?;
            all.tasks.extend(tasks);
            all.missing.extend(missing);
        }
        Ok(all)
    }

    async fn describe_task_definition(&self, arn: &str) -> Result<Vec<u8>, EcsError> {
        const OP: &str = "describe task definition";
        let body = raw::Body::default();
        self.client
            .describe_task_definition()
            .task_definition(arn)
            .customize()
            .interceptor(body.clone())
            .send()
            .await
            .map_err(|error| failure::sort(OP, arn, error))?;
        raw::definition(&body.take()).map_err(|error| failure::malformed(OP, arn, error.to_string()))
    }

    async fn describe_instance(&self, instance: &str) -> Result<Option<String>, EcsError> {
        const OP: &str = "describe container instance";
        let call = self.client.describe_container_instances().cluster(&self.cluster);
        let reply = call.container_instances(instance).send().await;
        let reply = reply.map_err(|error| failure::sort(OP, instance, error))?;
        refuse_failures(OP, || instance.to_owned(), reply.failures(), &[MISSING])?;
        Ok(reply.container_instances.unwrap_or_default().into_iter().next().and_then(|found| found.status))
    }

    async fn set_instance_state(&self, instance: &str, draining: bool) -> Result<(), EcsError> {
        const OP: &str = "set the state of container instance";
        let status =
            if draining { ContainerInstanceStatus::Draining } else { ContainerInstanceStatus::Active };
        let call = self.client.update_container_instances_state().cluster(&self.cluster).status(status);
        let reply = call.container_instances(instance).send().await;
        let reply = reply.map_err(|error| failure::sort(OP, instance, error))?;
        refuse_failures(OP, || instance.to_owned(), reply.failures(), &[])
    }

    async fn submit(&self, report: &Report) -> Result<(), EcsError> {
        const OP: &str = "submit state of";
        let target = || report.task.to_string();
        let call = convert::report(self.client.submit_task_state_change(), report)
            .map_err(|error| failure::malformed(OP, target(), error.to_string()))?;
        call.send().await.map(drop).map_err(|error| failure::sort(OP, target(), error))
    }
}
