//! Task definitions as callers see them: what is answered, what is refused, and that no input does harm.

mod life;
mod properties;
mod refusals;
mod replies;

use super::Definitions;
use crate::ecs::error::ApiError;
use jiff::Timestamp;
use serde_json::{Value, json};

const CALLER: &str = "arn:aws:iam::123456789012:user/operator";
const PREFIX: &str = "arn:aws:ecs:us-west-2:123456789012:task-definition/";

fn none() -> Definitions {
    Definitions::new("us-west-2", "123456789012")
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// A definition that ECS takes: two containers with an ENI.
fn pair() -> Value {
    json!({
        "family": "web", "networkMode": "awsvpc", "cpu": "256", "memory": "512",
        "containerDefinitions": [
            { "name": "app", "image": "busybox:1", "memory": 64 },
            { "name": "side", "image": "busybox:1", "memory": 64, "essential": false },
        ],
    })
}

/// A value with some members set: `containerDefinitions.0.memory`.
fn with(mut value: Value, changes: &[(&str, Value)]) -> Value {
    for (path, new) in changes {
        let place = path.split('.').fold(&mut value, |place, step| match step.parse::<usize>() {
            Ok(index) => &mut place[index],
            Err(_) => &mut place[step],
        });
        *place = new.clone();
    }
    value
}

fn register(definitions: &mut Definitions, input: &Value) -> Result<Value, ApiError> {
    definitions.register(input, CALLER, at(0))
}

/// The document that a definition becomes.
fn registered(input: &Value) -> Value {
    register(&mut none(), input).unwrap()["taskDefinition"].clone()
}
