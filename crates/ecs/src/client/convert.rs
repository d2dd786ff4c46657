//! Between the port's words and the SDK's types.

use crate::port::{Attachment, ContainerNews, DescribedTask, News, Registration, Report, TaskNews};
use aws_sdk_ecs::{
    operation::submit_task_state_change::builders::SubmitTaskStateChangeFluentBuilder, primitives::DateTime,
    types,
};
use berth_types::{Timestamp, ids::TaskArn};

/// What DescribeTasks calls a task's own ENI.
const ENI_ATTACHMENT: &str = "ElasticNetworkInterface";

/// A described task; `None` if its ARN cannot be read.
pub(super) fn task(task: types::Task, overrides: Option<Vec<u8>>) -> Option<DescribedTask> {
    let arn: TaskArn = task.task_arn?.parse().ok()?;
    let attachment = task.attachments.unwrap_or_default().into_iter().find_map(attachment);
    let containers = task.containers.unwrap_or_default().into_iter().filter_map(|c| c.name).collect();
    Some(DescribedTask {
        arn,
        cluster_arn: task.cluster_arn.unwrap_or_default(),
        definition_arn: task.task_definition_arn.unwrap_or_default(),
        desired_status: task.desired_status.unwrap_or_default(),
        last_status: task.last_status.unwrap_or_default(),
        group: task.group.filter(|group| !group.is_empty()),
        // moto leaves it empty.
        launch_type: task.launch_type.map(|kind| kind.as_str().to_owned()).filter(|kind| !kind.is_empty()),
        stopped_reason: task.stopped_reason.filter(|reason| !reason.is_empty()),
        stop_code: task.stop_code.map(|code| code.as_str().to_owned()),
        created_at: task.created_at.and_then(|at| timestamp(&at)),
        overrides,
        attachment,
        containers,
    })
}

fn attachment(attachment: types::Attachment) -> Option<Attachment> {
    if attachment.r#type.as_deref() != Some(ENI_ATTACHMENT) {
        return None;
    }
    let details = attachment.details.unwrap_or_default().into_iter();
    Some(Attachment {
        id: attachment.id.unwrap_or_default(),
        status: attachment.status.unwrap_or_default(),
        details: details.filter_map(|pair| Some((pair.name?, pair.value?))).collect(),
    })
}

fn timestamp(at: &DateTime) -> Option<Timestamp> {
    Timestamp::new(at.secs(), i32::try_from(at.subsec_nanos()).ok()?).ok()
}

fn date_time(at: Timestamp) -> DateTime {
    let nanos = u32::try_from(at.subsec_nanosecond()).unwrap_or(0);
    DateTime::from_secs_and_nanos(at.as_second(), nanos)
}

/// `totalResources` of a registration.
pub(super) fn resources(registration: &Registration) -> Vec<types::Resource> {
    let number = |name: &str, value: u64| {
        let value = i32::try_from(value).unwrap_or(i32::MAX);
        types::Resource::builder().name(name).r#type("INTEGER").integer_value(value).build()
    };
    let ports = |name: &str, ports: &[u16]| {
        let texts = ports.iter().map(ToString::to_string).collect();
        types::Resource::builder().name(name).r#type("STRINGSET").set_string_set_value(Some(texts)).build()
    };
    vec![
        number("CPU", u64::from(registration.cpu)),
        number("MEMORY", registration.memory),
        ports("PORTS", &registration.reserved_ports),
        ports("PORTS_UDP", &registration.reserved_udp_ports),
    ]
}

/// `attributes` of a registration.
pub(super) fn attributes(
    registration: &Registration,
) -> Result<Vec<types::Attribute>, aws_smithy_types::error::operation::BuildError> {
    let attribute = |(name, value): &(String, Option<String>)| {
        types::Attribute::builder().name(name).set_value(value.clone()).build()
    };
    registration.attributes.iter().map(attribute).collect()
}

/// Attributes with a value that did not come back with it. Those without one need not come back: the official agent has it so.
pub(super) fn lost_attributes(registration: &Registration, echoed: &[types::Attribute]) -> Vec<String> {
    let came_back = |name: &str, value: &str| {
        echoed.iter().any(|attribute| attribute.name() == name && attribute.value() == Some(value))
    };
    let valued = registration.attributes.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
    valued.filter(|(name, value)| !came_back(name, value)).map(|(name, _)| name.clone()).collect()
}

/// Fills a report into its call.
pub(super) fn report(
    call: SubmitTaskStateChangeFluentBuilder,
    report: &Report,
) -> Result<SubmitTaskStateChangeFluentBuilder, aws_smithy_types::error::operation::BuildError> {
    let call = call.cluster(&report.cluster).task(report.task.as_str());
    match &report.news {
        News::Attached { attachment } => {
            let change = types::AttachmentStateChange::builder()
                .attachment_arn(attachment)
                .status("ATTACHED")
                .build()?;
            Ok(call.attachments(change))
        }
        News::Task(news) => Ok(task_news(call, news)),
    }
}

fn task_news(
    call: SubmitTaskStateChangeFluentBuilder,
    news: &TaskNews,
) -> SubmitTaskStateChangeFluentBuilder {
    call.status(&news.status)
        .reason(&news.reason)
        .set_pull_started_at(news.pull_started_at.map(date_time))
        .set_pull_stopped_at(news.pull_stopped_at.map(date_time))
        .set_execution_stopped_at(news.execution_stopped_at.map(date_time))
        .set_containers(Some(news.containers.iter().map(container_news).collect()))
}

fn container_news(news: &ContainerNews) -> types::ContainerStateChange {
    types::ContainerStateChange::builder()
        .container_name(&news.name)
        .set_runtime_id(news.runtime_id.clone())
        .set_image_digest(news.image_digest.clone())
        .status(&news.status)
        .set_exit_code(news.exit_code.and_then(|code| i32::try_from(code).ok()))
        .set_reason(news.reason.clone())
        // With an ENI of its own nothing is bound on the host; the official agent says so by an empty list.
        .set_network_bindings(Some(Vec::new()))
        .build()
}
