//! RunTask and StartTask: tasks are made on the instances that placement, or the caller, chooses for them.

use super::{
    Container, ContainerStatus, History, MAX_TASKS, Task, TaskStatus, Times,
    request::{ContainerPlan, Request},
    tokens::{Used, fingerprint},
};
use crate::ecs::{
    Call, Ecs,
    error::ApiError,
    input::Input,
    instances::{ContainerInstance, Status},
    placement::{self, Candidate, Needs, Rules},
};
use jiff::Timestamp;
use serde_json::{Value, json};

/// ECS's limits.
const MAX_COUNT: i64 = 10;
const MAX_INSTANCES: usize = 10;
const MAX_TOKEN: usize = 64;

impl Ecs {
    pub(in crate::ecs) fn run_task(&mut self, input: &Value, call: &mut Call<'_>) -> Result<Value, ApiError> {
        let raw = input;
        let input = Input::new(input)?;
        let request = self.read_request(input, call)?;
        check_launch(input)?;
        let count = input.integer("count")?.unwrap_or(1);
        if !(1..=MAX_COUNT).contains(&count) {
            return Err(ApiError::invalid(format!("Count must be between 1 and {MAX_COUNT}.")));
        }
        let rules = placement::rules(input)?;
        let token = input.text("clientToken")?.filter(|token| !token.is_empty());
        if token.is_some_and(|token| token.len() > MAX_TOKEN) {
            return Err(ApiError::invalid(format!("clientToken can have at most {MAX_TOKEN} characters.")));
        }
        if let Some(used) = token.and_then(|token| self.tokens.find(&request.cluster, token)).cloned() {
            return self.run_again(&used, raw, call);
        }
        let (started, failures) = self.place(&request, &rules, count, call.now)?;
        if let (Some(token), false) = (token, started.is_empty()) {
            let (input, tasks, failures) = (fingerprint(raw), started.clone(), failures.clone());
            let used = Used { input, tasks, failures, at: call.now };
            self.tokens.remember(&request.cluster, token, used);
        }
        Ok(json!({ "tasks": self.tasks_json(&started, true, call), "failures": failures }))
    }

    /// A call with the token of an earlier one.
    fn run_again(&mut self, used: &Used, input: &Value, call: &mut Call<'_>) -> Result<Value, ApiError> {
        if used.input == fingerprint(input) {
            let tasks = self.tasks_json(&used.tasks, true, call);
            return Ok(json!({ "tasks": tasks, "failures": used.failures }));
        }
        let arns = used.tasks.iter().filter_map(|id| self.tasks.get(id)).map(|task| task.arn.clone());
        let message = "The provided clientToken is already in use with a different RunTask request.";
        let mut error = ApiError::new("ConflictException", message);
        error.resource_ids = arns.collect();
        Err(error)
    }

    /// Starts as many of the tasks as find a place; for the rest, why each instance refused.
    fn place(
        &mut self,
        request: &Request,
        rules: &Rules,
        count: i64,
        now: Timestamp,
    ) -> Result<(Vec<String>, Vec<Value>), ApiError> {
        let active = |i: &&ContainerInstance| i.cluster == request.cluster && i.status == Status::Active;
        if !self.instances.values().any(|instance| active(&instance)) {
            return Err(ApiError::invalid("No Container Instances were found in your cluster."));
        }
        self.check_room(count)?;
        let needs = request.needs();
        let mut started = Vec::new();
        for _ in 0..count {
            let instances = self.instances.values().filter(active);
            let candidates: Vec<_> = instances.map(|i| self.candidate(i, &request.group, now)).collect();
            let names = &mut self.names;
            match placement::choose(&needs, &candidates, rules, || names.dice()) {
                Ok(chosen) => started.push(self.start(request, &needs, &chosen.id, now)),
                Err(reasons) => {
                    let failure = |(id, reason): &(&str, &str)| json!({ "arn": self.names.instance(&request.cluster, id), "reason": reason });
                    return Ok((started, reasons.iter().map(failure).collect()));
                }
            }
        }
        Ok((started, Vec::new()))
    }

    fn check_room(&self, count: i64) -> Result<(), ApiError> {
        let live = self.tasks.values().filter(|task| task.last != TaskStatus::Stopped).count();
        if live + usize::try_from(count).unwrap_or(usize::MAX) > MAX_TASKS {
            return Err(ApiError::limit(format!("You've reached the limit of {MAX_TASKS} tasks.")));
        }
        Ok(())
    }

    fn candidate(&self, instance: &ContainerInstance, group: &str, now: Timestamp) -> Candidate {
        let left = self.remaining(instance);
        Candidate {
            id: instance.id.clone(),
            connected: self.is_connected(instance, now),
            cpu: left.cpu,
            memory: left.memory,
            enis: self.enis_left(instance),
            attributes: instance.attributes.clone(),
            tasks: self.tasks_on(&instance.id).count(),
            of_group: self.tasks_on(&instance.id).filter(|task| task.group == group).count(),
        }
    }

    pub(in crate::ecs) fn start_task(
        &mut self,
        input: &Value,
        call: &mut Call<'_>,
    ) -> Result<Value, ApiError> {
        let input = Input::new(input)?;
        let references = input.texts("containerInstances")?;
        if references.is_empty() {
            return Err(ApiError::invalid("Container instances cannot be empty."));
        }
        if references.len() > MAX_INSTANCES {
            return Err(ApiError::invalid(format!("instanceIds can have at most {MAX_INSTANCES} items.")));
        }
        let request = self.read_request(input, call)?;
        self.check_room(MAX_COUNT)?;
        let needs = request.needs();
        let (mut started, mut failures) = (Vec::new(), Vec::new());
        for reference in references {
            let Some(instance) = self.find_instance(&request.cluster, reference) else {
                failures.push(self.missing_instance(&request.cluster, reference));
                continue;
            };
            let candidate = self.candidate(instance, &request.group, call.now);
            let reason = match instance.status {
                Status::Active => placement::refusal(&needs, &candidate, false),
                Status::Draining | Status::Inactive => Some("INACTIVE"),
            };
            match reason {
                None => started.push(self.start(&request, &needs, &candidate.id, call.now)),
                Some(reason) => {
                    failures.push(json!({ "arn": self.instance_arn(instance), "reason": reason }));
                }
            }
        }
        Ok(json!({ "tasks": self.tasks_json(&started, true, call), "failures": failures }))
    }

    /// Makes a task on an instance; its id.
    fn start(&mut self, request: &Request, needs: &Needs, instance: &str, now: Timestamp) -> String {
        let id = self.names.fresh_id();
        let attribute =
            |name: &str| self.instances.get(instance).and_then(|i| i.attributes.get(name).cloned().flatten());
        let (zone, architecture) = (attribute("ecs.availability-zone"), attribute("ecs.cpu-architecture"));
        let attachment =
            request.network.as_ref().map(|n| n.attachment(self.names.fresh_uuid(), zone.as_deref()));
        let containers = self.containers(request, &id);
        let last = match attachment {
            Some(_) => TaskStatus::Provisioning,
            // There is nothing to provision.
            None => TaskStatus::Pending,
        };
        let task = Task {
            arn: self.names.task(&request.cluster, &id),
            id: id.clone(),
            cluster: request.cluster.clone(),
            instance: instance.to_owned(),
            last,
            needs: needs.clone(),
            tags: request.tags.clone(),
            definition: request.definition.arn.clone(),
            family: request.definition.family.clone(),
            group: request.group.clone(),
            started_by: request.started_by.clone(),
            exec: request.exec,
            zone,
            architecture,
            cpu: needs.cpu.to_string(),
            memory: needs.memory.to_string(),
            overrides: request.overrides.clone(),
            containers,
            attachment,
            network: None,
            told: false,
            taken: false,
            stop_wanted: false,
            stop_code: None,
            stopped_reason: None,
            times: Times::new(now),
            history: History::default(),
            version: 1,
        };
        self.tasks.insert(id.clone(), task);
        id
    }

    fn containers(&mut self, request: &Request, task: &str) -> Vec<Container> {
        let plans = request.definition.containers.iter();
        let container = |plan: &ContainerPlan| {
            let id = self.names.fresh_uuid();
            let number = |member| request.overrides.container_number(&plan.name, member);
            Container {
                arn: self.names.container(&request.cluster, task, &id),
                name: plan.name.clone(),
                image: plan.image.clone(),
                essential: plan.essential,
                cpu: number("cpu").unwrap_or(plan.cpu),
                memory: number("memory").or(plan.memory),
                memory_reservation: number("memoryReservation").or(plan.memory_reservation),
                status: ContainerStatus::Pending,
                exit_code: None,
                reason: None,
                runtime_id: None,
                image_digest: None,
                network_bindings: json!([]),
            }
        };
        plans.map(container).collect()
    }
}

impl Times {
    fn new(created: Timestamp) -> Self {
        Self {
            created,
            connectivity: None,
            pull_started: None,
            pull_stopped: None,
            started: None,
            stopping: None,
            execution_stopped: None,
            stopped: None,
        }
    }
}

/// The box has container instances and nothing else to run tasks on.
fn check_launch(input: Input<'_>) -> Result<(), ApiError> {
    let kinds = ["EC2", "FARGATE", "EXTERNAL", "MANAGED_INSTANCES"];
    match input.one_of("launchType", &kinds)? {
        None | Some("EC2") => {}
        Some(other) => {
            let message =
                format!("Task definition does not support launch_type {other}: vpcbox has EC2 only.");
            return Err(ApiError::invalid(message));
        }
    }
    if !input.list("capacityProviderStrategy")?.is_empty() {
        return Err(ApiError::invalid("The specified capacity provider was not found."));
    }
    if input.text("platformVersion")?.is_some_and(|version| !version.is_empty()) {
        let message = "The platform version must be null when specifying an EC2 launch type.";
        return Err(ApiError::invalid(message));
    }
    Ok(())
}
