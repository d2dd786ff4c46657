//! `POST /v1/tasks`: from a task definition to an assignment.

use crate::{Admin, ApiError, error::parse_body};
use berth_types::{
    assignment::{Assignment, AssignmentError},
    ids::{SecurityGroupId, SubnetId, TaskArn},
    lease::LeaseNeeds,
    task::{Origin, TaskSpec},
    taskdef::{self, Identity},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::{mpsc::error::TrySendError, oneshot};

/// Body of `POST /v1/tasks`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RunRequest {
    /// In the JSON that `aws ecs register-task-definition --cli-input-json` takes.
    pub task_definition: Box<RawValue>,
    /// A subnet other than the pool's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<SubnetId>,
    /// Groups other than the pool's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub security_groups: Vec<SecurityGroupId>,
    /// `family:NAME` unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

/// Operators run definitions that no one has registered: they are all the first revision.
const REVISION: &str = "1";

/// Turns the body into a task, or says which field is wrong.
pub(crate) fn spec(admin: &Admin, body: &[u8]) -> Result<TaskSpec, ApiError> {
    let request: RunRequest = parse_body(body)?;
    let definition = taskdef::parse(request.task_definition.get().as_bytes())
        .map_err(|e| ApiError::InvalidTaskDefinition(e.to_string()))?;
    let instance = &admin.instance;
    let arn = TaskArn::random(&instance.region, &instance.account, &admin.cluster_name)
        .map_err(|e| ApiError::Internal(e.to_string()))?;
    let mut security_groups = request.security_groups;
    security_groups.sort();
    security_groups.dedup();
    let identity = Identity {
        arn,
        cluster: admin.cluster.clone(),
        revision: REVISION.into(),
        group: Some(request.group.unwrap_or_else(|| format!("family:{}", definition.family()))),
        launch_type: "EC2".into(),
        network: LeaseNeeds { subnet: request.subnet, security_groups, tags: Default::default() },
        created_at: (admin.now)(),
        origin: Origin::Operator,
        privileged: admin.privileged,
    };
    taskdef::validate(&definition, identity).map_err(|e| ApiError::InvalidTaskDefinition(e.to_string()))
}

/// Hands an assignment to the engine and waits until it is recorded.
pub(crate) async fn assign(
    admin: &Admin,
    assignment: Assignment,
    answer: oneshot::Receiver<Result<(), AssignmentError>>,
) -> Result<(), ApiError> {
    admin.assignments.try_send(assignment).map_err(|e| match e {
        TrySendError::Full(_) => {
            ApiError::Unavailable("the engine is busy: its queue is full; try again".into())
        }
        TrySendError::Closed(_) => {
            ApiError::Unavailable("the engine has stopped: the agent is going down".into())
        }
    })?;
    match answer.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error @ AssignmentError::NoSuchTask(_))) => Err(ApiError::NotFound(error.to_string())),
        Ok(Err(error @ AssignmentError::TooManyTasks(_))) => Err(ApiError::Unavailable(error.to_string())),
        Ok(Err(error @ AssignmentError::NotRecorded(_))) => Err(ApiError::Internal(error.to_string())),
        Err(_) => Err(ApiError::Unavailable("the engine stopped before it answered".into())),
    }
}
