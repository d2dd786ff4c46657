//! The whole of ECS as one value: calls go in, replies come out, time is a number.

mod clusters;
mod instances;
mod life;
mod limits;
mod run;
mod status;

use super::{Call, Ecs, error::ApiError};
use crate::{
    keys::{Caller, Keys},
    samples::config,
    world::World,
};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::time::Duration;

/// Two zones, three instances: `one` and `two` in the first zone, `far` in the other.
const SITE: &str = r#"
name = "unittest"
region = "us-west-2"
account = "123456789012"
listen = "127.0.0.1:0"
auth = false
[vpc]
cidr = "10.0.0.0/16"
[[subnet]]
id = "subnet-0000000000000000a"
name = "a"
zone = "us-west-2a"
cidr = "10.0.1.0/24"
[[subnet]]
id = "subnet-0000000000000000b"
name = "b"
zone = "us-west-2b"
cidr = "10.0.2.0/24"
[[security_group]]
id = "sg-00000000000000001"
name = "default"
[[security_group]]
id = "sg-00000000000000002"
name = "red"
[[instance]]
id = "i-00000000000000001"
name = "one"
type = "m5.large"
subnet = "a"
security_groups = ["default"]
role = "node"
[[instance]]
id = "i-00000000000000002"
name = "two"
type = "m5.large"
subnet = "a"
security_groups = ["default"]
[[instance]]
id = "i-00000000000000003"
name = "far"
type = "m5.large"
subnet = "b"
security_groups = ["default"]
[ecs]
clusters = ["demo"]
[delays]
attach_ms = 0
detach_ms = 0
link_ms = 0
"#;

const ONE: &str = "i-00000000000000001";
const TWO: &str = "i-00000000000000002";
const FAR: &str = "i-00000000000000003";
const SUBNET_A: &str = "subnet-0000000000000000a";
const SUBNET_B: &str = "subnet-0000000000000000b";

/// What the agents of these tests can do.
const CAPABILITIES: [&str; 4] = [
    "ecs.capability.task-eni",
    "com.amazonaws.ecs.capability.docker-remote-api.1.18",
    "com.amazonaws.ecs.capability.docker-remote-api.1.21",
    "com.amazonaws.ecs.capability.logging-driver.json-file",
];

struct Site {
    ecs: Ecs,
    world: World,
    keys: Keys,
    caller: Caller,
    auth: bool,
    inside: bool,
    now: Timestamp,
}

impl Site {
    fn new() -> Self {
        let config = config(SITE);
        let now = "2026-11-22T12:00:00Z".parse().unwrap();
        Self {
            ecs: Ecs::new(&config, "seed"),
            world: World::new(&config, "seed", now).unwrap(),
            keys: Keys::new(None),
            caller: Caller::Operator,
            auth: false,
            inside: false,
            now,
        }
    }

    /// With an agent on `one` and a definition `web` of a quarter CPU and 256 MiB.
    fn ready() -> (Self, String) {
        let mut site = Self::new();
        let instance = site.register(ONE);
        site.define("web");
        (site, instance)
    }

    fn call(&mut self, operation: &str, input: Value) -> Result<Value, ApiError> {
        let mut call = Call {
            caller: &self.caller,
            inside: self.inside,
            host: "127.0.0.1:4566",
            world: &mut self.world,
            keys: &self.keys,
            auth: self.auth,
            now: self.now,
        };
        self.ecs.answer(operation, &input, &mut call)
    }

    #[track_caller]
    fn ok(&mut self, operation: &str, input: Value) -> Value {
        self.call(operation, input).unwrap_or_else(|error| panic!("{operation}: {error}"))
    }

    #[track_caller]
    fn refused(&mut self, operation: &str, input: Value) -> ApiError {
        match self.call(operation, input.clone()) {
            Err(error) => error,
            Ok(reply) => panic!("{operation} {input} went through: {reply}"),
        }
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn registration(ec2: &str) -> Value {
        let attributes: Value = CAPABILITIES.iter().map(|name| json!({ "name": name })).collect();
        json!({
            "cluster": "demo",
            "instanceIdentityDocument": json!({ "instanceId": ec2, "instanceType": "m5.large" }).to_string(),
            "attributes": attributes,
            "totalResources": [
                { "name": "CPU", "type": "INTEGER", "integerValue": 2048 },
                { "name": "MEMORY", "type": "INTEGER", "integerValue": 4096 },
                { "name": "PORTS", "type": "STRINGSET", "stringSetValue": ["22"] },
            ],
        })
    }

    /// The ARN of the container instance.
    #[track_caller]
    fn register(&mut self, ec2: &str) -> String {
        let reply = self.ok("RegisterContainerInstance", Self::registration(ec2));
        text(&reply["containerInstance"]["containerInstanceArn"])
    }

    #[track_caller]
    fn define(&mut self, family: &str) {
        let definition = json!({
            "family": family,
            "networkMode": "awsvpc",
            "containerDefinitions": [
                { "name": "app", "image": "web:1", "cpu": 256, "memory": 256 },
                { "name": "side", "image": "side:1", "memory": 64, "essential": false },
            ],
        });
        self.ok("RegisterTaskDefinition", definition);
    }

    /// RunTask with a network in the first zone.
    fn request(more: Value) -> Value {
        let mut request = json!({
            "cluster": "demo",
            "taskDefinition": "web",
            "networkConfiguration": { "awsvpcConfiguration": { "subnets": [SUBNET_A] } },
        });
        for (member, value) in more.as_object().unwrap() {
            request[member] = value.clone();
        }
        request
    }

    /// The ARN of a new task.
    #[track_caller]
    fn run(&mut self) -> String {
        let reply = self.ok("RunTask", Self::request(json!({})));
        assert_eq!(reply["failures"], json!([]));
        text(&reply["tasks"][0]["taskArn"])
    }

    #[track_caller]
    fn task(&mut self, arn: &str) -> Value {
        let mut reply = self.ok("DescribeTasks", json!({ "cluster": "demo", "tasks": [arn] }));
        reply["tasks"][0].take()
    }

    #[track_caller]
    fn report(&mut self, arn: &str, more: Value) {
        let mut report = json!({ "cluster": "demo", "task": arn });
        for (member, value) in more.as_object().unwrap() {
            report[member] = value.clone();
        }
        assert_eq!(self.ok("SubmitTaskStateChange", report), json!({ "acknowledgment": "ACK" }));
    }

    #[track_caller]
    fn attached(&mut self, arn: &str) {
        let id = text(&self.task(arn)["attachments"][0]["id"]);
        let attachment = format!("arn:aws:ecs:us-west-2:123456789012:attachment/{id}");
        self.report(arn, json!({ "attachments": [{ "attachmentArn": attachment, "status": "ATTACHED" }] }));
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}
