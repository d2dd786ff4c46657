//! From a described task and its definition to what the engine runs, or to the reason that the control plane is told. Pure.

use super::definitions::Read;
use crate::{
    config::Abilities,
    port::{Attachment, DescribedTask},
};
use berth_types::{
    Timestamp,
    ids::TaskArn,
    lease::LeaseNeeds,
    task::{Origin, StopCode, TaskSpec},
    taskdef::{Identity, Overrides, validate_with},
};
use std::str::FromStr;

/// How the official agent begins the reason of a task that it cannot make sense of.
const REFUSED: &str = "UnrecognizedTaskError: Error loading task - ";
/// Longest reason that ECS takes.
const REASON_MAX: usize = 1024;

/// The task to run, or why it cannot run here: all that is wrong with it, by field.
pub(crate) fn translate(
    described: &DescribedTask,
    definition: Read,
    cluster: &str,
    abilities: &Abilities,
    now: Timestamp,
) -> Result<TaskSpec, String> {
    let definition = definition.map_err(|error| refusal(&format!("taskDefinition: {error}")))?;
    let overrides = match &described.overrides {
        Some(json) => Overrides::parse(json).map_err(|error| refusal(&error.to_string()))?,
        None => Overrides::default(),
    };
    let network = network(described.attachment.as_ref()).map_err(|problem| refusal(&problem))?;
    let identity = Identity {
        arn: described.arn.clone(),
        cluster: cluster.to_owned(),
        revision: revision(&described.definition_arn).to_owned(),
        group: described.group.clone(),
        launch_type: described.launch_type.clone().unwrap_or_else(|| "EC2".to_owned()),
        network,
        created_at: now,
        origin: Origin::ControlPlane { attachment: announced(&described.arn, described.attachment.as_ref()) },
        privileged: abilities.privileged,
    };
    let mut spec = validate_with(&definition, &overrides, identity)
        .map_err(|errors| refusal(&errors.to_string().replace('\n', "; ")))?;
    let service = described.group.as_deref().and_then(|group| group.strip_prefix("service:"));
    spec.service_name = service.map(str::to_owned);
    Ok(spec)
}

/// A reason for a task that cannot run here.
pub(crate) fn refusal(problem: &str) -> String {
    format!("{REFUSED}{problem}").chars().take(REASON_MAX).collect()
}

/// `7` of `arn:...:task-definition/web:7`.
fn revision(definition_arn: &str) -> &str {
    definition_arn.rsplit(':').next().unwrap_or_default()
}

/// What the attachment asks of the ENI: `subnetId` as AWS has it, `securityGroups` as vpcbox adds it. What it does not say is the
/// pool's to choose.
fn network(attachment: Option<&Attachment>) -> Result<LeaseNeeds, String> {
    let detail = |name: &str| {
        let details = attachment.into_iter().flat_map(|a| &a.details);
        details
            .filter(|(key, value)| key == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
            .next()
    };
    let subnet = detail("subnetId").map(|text| id("subnetId", text)).transpose()?;
    let groups = detail("securityGroups").unwrap_or_default().split(',').map(str::trim);
    let groups = groups.filter(|text| !text.is_empty()).map(|text| id("securityGroups", text));
    let security_groups = groups.collect::<Result<Vec<_>, _>>()?;
    Ok(LeaseNeeds { subnet, security_groups, ..LeaseNeeds::default() })
}

fn id<T>(name: &str, text: &str) -> Result<T, String>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error: T::Err| format!("attachments[0].details.{name}: {error}"))
}

/// ARN of the attachment that the control plane wants to hear of. One that is `ATTACHED` already brought an ENI of its own making, and
/// nothing is to be said about it.
fn announced(task: &TaskArn, attachment: Option<&Attachment>) -> Option<String> {
    let attachment = attachment.filter(|a| !a.id.is_empty() && a.status != "ATTACHED")?;
    let partition = task.as_str().split(':').nth(1)?;
    Some(format!("arn:{partition}:ecs:{}:{}:attachment/{}", task.region(), task.account(), attachment.id))
}

/// Who stopped the task, for programs. Words that are not known yet are somebody's wish all the same.
pub(crate) fn stop_code(word: Option<&str>) -> StopCode {
    match word {
        Some("TaskFailedToStart") => StopCode::TaskFailedToStart,
        Some("EssentialContainerExited") => StopCode::EssentialContainerExited,
        Some("ServiceSchedulerInitiated") => StopCode::ServiceSchedulerInitiated,
        Some("SpotInterruption") => StopCode::SpotInterruption,
        Some("TerminationNotice") => StopCode::TerminationNotice,
        Some(_) | None => StopCode::UserInitiated,
    }
}
