//! What agents report: SubmitTaskStateChange, SubmitContainerStateChange, SubmitAttachmentStateChanges.
//!
//! Reports come at least once. One that was taken before changes nothing and is acknowledged; one that would take a task back
//! from its end is refused, as ECS refuses it.

use super::{
    ContainerStatus, Task, TaskStatus,
    history::{ContainerLine, ReportLine},
    kept,
};
use crate::{
    ecs::{Call, Ecs, error::ApiError, input::Input},
    keys::Caller,
};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Attachments of one report; agents send one.
const MAX_ATTACHMENTS: usize = 100;

/// A container's part of a report, read and checked.
struct ContainerReport {
    name: String,
    status: Option<ContainerStatus>,
    exit_code: Option<i64>,
    reason: Option<String>,
    runtime_id: Option<String>,
    image_digest: Option<String>,
    network_bindings: Option<Value>,
}

impl ContainerReport {
    fn line(&self) -> ContainerLine {
        ContainerLine::new(&self.name, self.status, self.exit_code, self.reason.as_deref())
    }
}

impl Ecs {
    pub(in crate::ecs) fn submit_task(
        &mut self,
        input: &Value,
        call: &mut Call<'_>,
    ) -> Result<Value, ApiError> {
        let input = Input::new(input)?;
        let status = read_status(input)?;
        let containers = input.objects("containers")?.into_iter().map(|container| {
            let name = container.required("containerName", "Container name can not be blank.")?;
            read_container(container, name)
        });
        let containers = containers.collect::<Result<Vec<_>, _>>()?;
        let attachments = read_attachments(input)?;
        let reason = kept(input.text("reason")?);
        let times = [
            read_time(input, "pullStartedAt")?,
            read_time(input, "pullStoppedAt")?,
            read_time(input, "executionStoppedAt")?,
        ];
        let task = self.reported(input, call)?;
        task.check(status, &containers)?;
        if let Some((unknown, _)) = attachments.iter().find(|(id, _)| !task.has_attachment(id)) {
            return Err(unknown_attachment(unknown));
        }
        task.history.note(ReportLine {
            status: status.map(|status| status.as_str().to_owned()),
            reason: reason.clone(),
            attachment: attachments.last().map(|(_, status)| status.clone()),
            containers: containers.iter().map(ContainerReport::line).collect(),
            ..ReportLine::new(call.now)
        });
        if task.last == TaskStatus::Stopped {
            return Ok(acknowledged());
        }
        for (_, status) in &attachments {
            task.attachment_is(status);
        }
        for container in containers {
            task.container_is(container);
        }
        let [pull_started, pull_stopped, execution_stopped] = times;
        task.times.pull_started = task.times.pull_started.or(pull_started);
        task.times.pull_stopped = pull_stopped.or(task.times.pull_stopped);
        task.times.execution_stopped = task.times.execution_stopped.or(execution_stopped);
        if let Some(status) = status {
            task.is(status, reason, call.now);
        }
        task.version += 1;
        Ok(acknowledged())
    }

    pub(in crate::ecs) fn submit_container(
        &mut self,
        input: &Value,
        call: &mut Call<'_>,
    ) -> Result<Value, ApiError> {
        let input = Input::new(input)?;
        let name = input.required("containerName", "Container name can not be blank.")?;
        let report = read_container(input, name)?;
        let task = self.reported(input, call)?;
        task.check(None, std::slice::from_ref(&report))?;
        task.history.note(ReportLine { containers: vec![report.line()], ..ReportLine::new(call.now) });
        if task.last != TaskStatus::Stopped {
            task.container_is(report);
            task.version += 1;
        }
        Ok(acknowledged())
    }

    pub(in crate::ecs) fn submit_attachments(
        &mut self,
        input: &Value,
        call: &mut Call<'_>,
    ) -> Result<Value, ApiError> {
        let input = Input::new(input)?;
        let cluster = self.cluster(input)?;
        let attachments = read_attachments(input)?;
        if attachments.is_empty() {
            return Err(ApiError::invalid("Attachments can not be empty."));
        }
        let mut found = Vec::new();
        for (id, status) in &attachments {
            let task = self.tasks.values().find(|task| task.cluster == cluster && task.has_attachment(id));
            let task = task.ok_or_else(|| unknown_attachment(id))?;
            self.check_reporter(task, call.caller)?;
            found.push((task.id.clone(), status));
        }
        for (id, status) in found {
            if let Some(task) = self.tasks.get_mut(&id) {
                let attachment = Some(status.clone());
                task.history.note(ReportLine { attachment, ..ReportLine::new(call.now) });
                if task.last != TaskStatus::Stopped {
                    task.taken = true;
                    task.attachment_is(status);
                    task.version += 1;
                }
            }
            self.heard_from_task(&id, call.now);
        }
        Ok(acknowledged())
    }

    /// The task that a report is about; its agent is alive.
    fn reported(&mut self, input: Input<'_>, call: &mut Call<'_>) -> Result<&mut Task, ApiError> {
        let cluster = self.cluster(input)?;
        let reference = input.required("task", "Task can not be blank.")?;
        let missing = || ApiError::invalid("The referenced task was not found.");
        let task = self.find_task(&cluster, reference).ok_or_else(missing)?;
        self.check_reporter(task, call.caller)?;
        let id = task.id.clone();
        self.heard_from_task(&id, call.now);
        // Before it may be the last report: after that the tag is another task's.
        self.look_up_network(&id, call);
        let task = self.tasks.get_mut(&id).ok_or_else(missing)?;
        task.taken = true;
        Ok(task)
    }

    fn heard_from_task(&mut self, id: &str, now: Timestamp) {
        if let Some(instance) = self.tasks.get(id).map(|task| task.instance.clone()) {
            self.heard_from(&instance, now);
        }
    }

    /// An agent reports its own tasks only.
    fn check_reporter(&self, task: &Task, caller: &Caller) -> Result<(), ApiError> {
        let Caller::Instance(ec2) = caller else { return Ok(()) };
        // An instance that has been forgotten leaves no task that anybody could report.
        if self.instances.get(&task.instance).is_some_and(|instance| instance.ec2 == *ec2) {
            return Ok(());
        }
        let message = format!("Task {} is not on the instance {ec2}.", task.id);
        Err(ApiError::new("AccessDeniedException", message))
    }
}

impl Task {
    fn check(&self, status: Option<TaskStatus>, containers: &[ContainerReport]) -> Result<(), ApiError> {
        let unknown = containers.iter().find(|report| self.containers.iter().all(|c| c.name != report.name));
        if let Some(unknown) = unknown {
            let message = format!("Container {} is not part of the task.", unknown.name);
            return Err(ApiError::invalid(message));
        }
        if self.last == TaskStatus::Stopped && status.is_some_and(|status| status != TaskStatus::Stopped) {
            return Err(ApiError::invalid("The referenced task is stopped."));
        }
        Ok(())
    }

    fn has_attachment(&self, id: &str) -> bool {
        self.attachment.as_ref().is_some_and(|attachment| attachment.id == id)
    }

    fn attachment_is(&mut self, status: &str) {
        if let Some(attachment) = &mut self.attachment {
            status.clone_into(&mut attachment.status);
        }
        if status == "ATTACHED" {
            self.advance(TaskStatus::Pending);
        }
    }

    fn container_is(&mut self, report: ContainerReport) {
        let Some(container) = self.containers.iter_mut().find(|c| c.name == report.name) else { return };
        let was_stopped = container.status == ContainerStatus::Stopped;
        container.status = container.status.max(report.status.unwrap_or(container.status));
        container.exit_code = report.exit_code.or(container.exit_code);
        container.runtime_id = report.runtime_id.or(container.runtime_id.take());
        container.image_digest = report.image_digest.or(container.image_digest.take());
        // Why a container waits is no longer true of one that runs; why it ended stays.
        container.reason =
            if was_stopped { report.reason.or(container.reason.take()) } else { report.reason };
        if let Some(bindings) = report.network_bindings {
            container.network_bindings = bindings;
        }
    }

    fn is(&mut self, status: TaskStatus, reason: Option<String>, now: Timestamp) {
        self.times.connectivity.get_or_insert(now);
        match status {
            TaskStatus::Running => {
                self.times.started.get_or_insert(now);
                self.advance(if self.stop_wanted { TaskStatus::Stopping } else { TaskStatus::Running });
            }
            TaskStatus::Stopped => {
                self.explain(reason);
                self.end(now);
            }
            // The agent says why the task waits; only its ENI takes it on.
            TaskStatus::Provisioning | TaskStatus::Pending | TaskStatus::Stopping => {}
        }
    }

    /// Why it has ended, unless somebody wanted it to.
    fn explain(&mut self, reason: Option<String>) {
        if self.stop_code.is_some() {
            return;
        }
        let exited = self.containers.iter().any(|c| c.essential && c.exit_code.is_some());
        let of_container = || self.containers.iter().find_map(|c| c.reason.clone());
        let (code, reason) = if self.times.started.is_some() || exited {
            let usual = || "Essential container in task exited".to_owned();
            ("EssentialContainerExited", reason.unwrap_or_else(usual))
        } else {
            let usual = || of_container().unwrap_or_else(|| "Task failed to start".to_owned());
            ("TaskFailedToStart", reason.unwrap_or_else(usual))
        };
        self.stop_code = Some(code);
        self.stopped_reason = Some(reason);
    }
}

fn read_status(input: Input<'_>) -> Result<Option<TaskStatus>, ApiError> {
    let status = match input.one_of("status", &["PENDING", "RUNNING", "STOPPED"])? {
        Some("RUNNING") => Some(TaskStatus::Running),
        Some("STOPPED") => Some(TaskStatus::Stopped),
        Some(_) => Some(TaskStatus::Pending),
        None => None,
    };
    Ok(status)
}

fn read_container(input: Input<'_>, name: &str) -> Result<ContainerReport, ApiError> {
    let status = read_status(input)?.map(|status| match status {
        TaskStatus::Running => ContainerStatus::Running,
        TaskStatus::Stopped => ContainerStatus::Stopped,
        TaskStatus::Provisioning | TaskStatus::Pending | TaskStatus::Stopping => ContainerStatus::Pending,
    });
    let bindings = input.objects("networkBindings")?.into_iter().map(read_binding);
    let bindings = bindings.collect::<Result<Value, ApiError>>()?;
    Ok(ContainerReport {
        name: name.to_owned(),
        status,
        exit_code: input.integer("exitCode")?,
        reason: kept(input.text("reason")?),
        runtime_id: kept(input.text("runtimeId")?),
        image_digest: kept(input.text("imageDigest")?),
        network_bindings: input.has("networkBindings").then_some(bindings),
    })
}

/// The members of a binding that the model has.
fn read_binding(input: Input<'_>) -> Result<Value, ApiError> {
    let mut binding = Map::new();
    for member in ["bindIP", "protocol", "containerPortRange", "hostPortRange"] {
        if let Some(text) = input.text(member)? {
            binding.insert(member.to_owned(), json!(text));
        }
    }
    for member in ["containerPort", "hostPort"] {
        if let Some(port) = input.integer(member)? {
            binding.insert(member.to_owned(), json!(port));
        }
    }
    Ok(Value::Object(binding))
}

/// Ids of attachments and what they are now.
fn read_attachments(input: Input<'_>) -> Result<Vec<(String, String)>, ApiError> {
    let listed = input.objects("attachments")?;
    if listed.len() > MAX_ATTACHMENTS {
        let message = format!("attachments can have at most {MAX_ATTACHMENTS} items.");
        return Err(ApiError::invalid(message));
    }
    let read = |attachment: Input<'_>| {
        let arn = attachment.required("attachmentArn", "Attachment ARN can not be blank.")?;
        let status = attachment.one_of("status", &["ATTACHED", "DETACHED"])?;
        let status = status.ok_or_else(|| ApiError::invalid("Attachment status can not be blank."))?;
        // With the cluster or without: agents see ARNs of both forms.
        let id = arn.rsplit('/').next().unwrap_or(arn);
        Ok((id.to_owned(), status.to_owned()))
    };
    listed.into_iter().map(read).collect()
}

/// Seconds since 1970.
fn read_time(input: Input<'_>, member: &str) -> Result<Option<Timestamp>, ApiError> {
    let Some(seconds) = input.number(member)? else { return Ok(None) };
    let since = Duration::try_from_secs_f64(seconds).ok();
    let time = since.and_then(|since| Timestamp::UNIX_EPOCH.checked_add(since).ok());
    time.map(Some).ok_or_else(|| ApiError::serialization(format!("{member} is not a time")))
}

fn unknown_attachment(id: &str) -> ApiError {
    ApiError::invalid(format!("The referenced attachment {id} was not found."))
}

fn acknowledged() -> Value {
    json!({ "acknowledgment": "ACK" })
}
