//! What is done with registered instances: DeregisterContainerInstance and UpdateContainerInstancesState.

use super::Status;
use crate::ecs::{Call, Ecs, error::ApiError, input::Input};
use serde_json::{Value, json};

/// ECS's limit.
const MAX_UPDATED: usize = 10;
/// What becomes of tasks whose instance is deregistered under them.
const ORPHANED: &str = "Container instance deregistration forced by user";

impl Ecs {
    pub(in crate::ecs) fn deregister_instance(
        &mut self,
        input: &Value,
        call: &mut Call<'_>,
    ) -> Result<Value, ApiError> {
        let input = Input::new(input)?;
        let cluster = self.cluster(input)?;
        let reference = input.required("containerInstance", "Container instance can not be blank.")?;
        let id = self.active_instance(&cluster, reference)?.id.clone();
        let tasks: Vec<String> = self.tasks_on(&id).map(|task| task.id.clone()).collect();
        if !tasks.is_empty() && !input.boolean("force")?.unwrap_or(false) {
            return Err(ApiError::invalid("Found running tasks on the instance."));
        }
        for task in &tasks {
            if let Some(task) = self.tasks.get_mut(task) {
                task.orphan(ORPHANED, call.now);
            }
        }
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.status = Status::Inactive;
            instance.ended_at = Some(call.now);
            instance.version += 1;
        }
        let shown = self.instances.get(&id).map(|i| self.instance_json(i, true, call.now));
        Ok(json!({ "containerInstance": shown }))
    }

    pub(in crate::ecs) fn update_instances_state(
        &mut self,
        input: &Value,
        call: &mut Call<'_>,
    ) -> Result<Value, ApiError> {
        let input = Input::new(input)?;
        let cluster = self.cluster(input)?;
        let references = input.texts("containerInstances")?;
        if references.is_empty() {
            return Err(ApiError::invalid("Container instances cannot be empty."));
        }
        if references.len() > MAX_UPDATED {
            return Err(ApiError::invalid(format!("instanceIds can have at most {MAX_UPDATED} items.")));
        }
        let status = match input.text("status")? {
            Some("ACTIVE") => Status::Active,
            Some("DRAINING") => Status::Draining,
            _ => {
                return Err(ApiError::invalid(
                    "Container instance status should be one of [ACTIVE, DRAINING].",
                ));
            }
        };
        let (mut updated, mut failures) = (Vec::new(), Vec::new());
        for reference in references {
            let found = self.find_instance(&cluster, reference).map(|i| (i.id.clone(), i.status));
            match found {
                None => failures.push(self.missing_instance(&cluster, reference)),
                Some((id, Status::Inactive)) => {
                    let arn = self.names.instance(&cluster, &id);
                    failures.push(json!({ "arn": arn, "reason": "INACTIVE" }));
                }
                Some((id, _)) => {
                    if let Some(instance) = self.instances.get_mut(&id) {
                        instance.status = status;
                        instance.version += 1;
                    }
                    updated.extend(self.instances.get(&id).map(|i| self.instance_json(i, true, call.now)));
                }
            }
        }
        Ok(json!({ "containerInstances": updated, "failures": failures }))
    }
}
