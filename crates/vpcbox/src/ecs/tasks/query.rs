//! ListTasks, DescribeTasks, StopTask: how operators watch and end tasks, and how a polling agent finds its own.

use super::{Task, TaskStatus, network::Network};
use crate::ecs::{Call, Ecs, clusters::missing, error::ApiError, input::Input, paging};
use serde_json::{Value, json};

/// ECS's limits.
const MAX_DESCRIBED: usize = 100;
const MAX_REASON: usize = 255;
/// The reason of a stop that gives none.
const STOPPED_BY_USER: &str = "Task stopped by user";

impl Ecs {
    pub(in crate::ecs) fn list_tasks(
        &mut self,
        input: &Value,
        call: &mut Call<'_>,
    ) -> Result<Value, ApiError> {
        let input = Input::new(input)?;
        let cluster = self.cluster(input)?;
        let instance = match input.text("containerInstance")?.filter(|text| !text.is_empty()) {
            Some(reference) => Some(self.instance(&cluster, reference)?),
            None => None,
        };
        let agent_asks = instance.is_some_and(|instance| call.is_of(instance));
        let instance = instance.map(|instance| instance.id.clone());
        let (family, started_by) = (input.text("family")?, input.text("startedBy")?);
        let desired = input.one_of("desiredStatus", &["RUNNING", "PENDING", "STOPPED"])?;
        let launch = input.one_of("launchType", &["EC2", "FARGATE", "EXTERNAL", "MANAGED_INSTANCES"])?;
        for member in ["serviceName", "daemonName"] {
            if input.text(member)?.is_some_and(|name| !name.is_empty()) {
                return Err(ApiError::new("ServiceNotFoundException", "Service not found."));
            }
        }
        if let Some(id) = instance.as_ref().filter(|_| agent_asks) {
            self.heard_from(id, call.now);
        }
        let wanted = |task: &&Task| {
            task.cluster == cluster
                && instance.as_ref().is_none_or(|id| task.instance == *id)
                && family.is_none_or(|family| task.family == family)
                && started_by.is_none_or(|by| task.started_by.as_deref() == Some(by))
                && task.desired() == desired.unwrap_or("RUNNING")
                && launch.is_none_or(|launch| launch == "EC2")
        };
        let arns = self.tasks.values().filter(wanted).map(|task| task.arn.clone()).collect();
        let page = paging::page(input, "taskArns", arns)?;
        for arn in page["taskArns"].as_array().into_iter().flatten().filter(|_| agent_asks) {
            let id = arn.as_str().and_then(|arn| arn.rsplit('/').next()).unwrap_or_default();
            if let Some(task) = self.tasks.get_mut(id) {
                task.told = true;
            }
        }
        Ok(page)
    }

    pub(in crate::ecs) fn describe_tasks(
        &mut self,
        input: &Value,
        call: &mut Call<'_>,
    ) -> Result<Value, ApiError> {
        let input = Input::new(input)?;
        let cluster = self.cluster(input)?;
        let references = input.texts("tasks")?;
        let with_tags = input.includes("include", &["TAGS"], "TAGS")?;
        if references.is_empty() {
            return Err(ApiError::invalid("Tasks cannot be empty."));
        }
        if references.len() > MAX_DESCRIBED {
            return Err(ApiError::invalid(format!("Tasks can have at most {MAX_DESCRIBED} items.")));
        }
        let (mut found, mut failures) = (Vec::new(), Vec::new());
        for reference in references {
            match self.find_task(&cluster, reference) {
                Some(task) => found.push(task.id.clone()),
                None if reference.starts_with("arn:") => failures.push(missing(reference)),
                None => failures.push(missing(&self.names.task(&cluster, reference))),
            }
        }
        Ok(json!({ "tasks": self.tasks_json(&found, with_tags, call), "failures": failures }))
    }

    pub(in crate::ecs) fn stop_task(
        &mut self,
        input: &Value,
        call: &mut Call<'_>,
    ) -> Result<Value, ApiError> {
        let input = Input::new(input)?;
        let reference = input.required("task", "Task can not be blank.")?;
        let cluster = self.cluster(input)?;
        let reason = input.text("reason")?.filter(|reason| !reason.is_empty()).unwrap_or(STOPPED_BY_USER);
        if reason.chars().count() > MAX_REASON {
            return Err(ApiError::invalid(format!("reason can have at most {MAX_REASON} characters.")));
        }
        let id = self.find_task(&cluster, reference).map(|task| task.id.clone());
        let id = id.ok_or_else(|| ApiError::invalid("The referenced task was not found."))?;
        if let Some(task) = self.tasks.get_mut(&id) {
            task.want_stopped("UserInitiated", reason, call.now);
            task.end_untaken(None, call.now);
        }
        let mut shown = self.tasks_json(&[id], true, call);
        Ok(json!({ "task": shown.pop() }))
    }

    /// Tasks as replies show them, with the ENIs that they have by now.
    pub(super) fn tasks_json(&mut self, ids: &[String], with_tags: bool, call: &mut Call<'_>) -> Vec<Value> {
        for id in ids {
            self.look_up_network(id, call);
        }
        let tasks = ids.iter().filter_map(|id| self.tasks.get(id));
        tasks.map(|task| task.json(&self.names, with_tags)).collect()
    }

    /// Finds the ENI that a task has by now.
    pub(super) fn look_up_network(&mut self, id: &str, call: &mut Call<'_>) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        // The ENI goes to another task with its tag; a stopped one keeps what it had.
        if task.attachment.is_none() || task.last == TaskStatus::Stopped {
            return;
        }
        let Some(instance) = self.instances.get(&task.instance) else { return };
        let state = call.world.current(call.now);
        if let Some(found) = Network::find(state, &instance.ec2, &task.arn) {
            task.network = Some(found);
        }
    }
}
