//! What a user does with a cluster through the AWS CLI: register a definition, run a task, look at it, stop it.

use crate::{
    aws::Aws,
    lab::{Agent, PATIENCE},
    process::eventually,
};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A cluster and the VPC that its instances are in.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// The CLI.
    pub aws: Aws,
    /// Its name.
    pub name: String,
    /// Subnets by availability zone.
    pub subnets: BTreeMap<String, String>,
    /// The VPC.
    pub vpc: String,
    /// The VPC's default security group.
    pub default_group: String,
}

/// A text in an answer.
pub fn text(value: &Value, pointer: &str) -> Result<String> {
    let found = value.pointer(pointer).and_then(Value::as_str);
    Ok(found.with_context(|| format!("no {pointer} in {value}"))?.to_owned())
}

impl Cluster {
    /// The cluster of this name, and the VPC's subnets and default group.
    pub fn new(aws: Aws, name: &str) -> Result<Self> {
        let answer = aws.call(&["ec2", "describe-subnets"])?;
        let list = answer["Subnets"].as_array().context("no subnets")?;
        let vpc = text(&answer, "/Subnets/0/VpcId")?;
        let subnet = |s: &Value| Ok((text(s, "/AvailabilityZone")?, text(s, "/SubnetId")?));
        let subnets = list.iter().map(subnet).collect::<Result<_>>()?;
        let filter = "Name=group-name,Values=default";
        let answer = aws.call(&["ec2", "describe-security-groups", "--filters", filter])?;
        let default_group = text(&answer, "/SecurityGroups/0/GroupId")?;
        Ok(Self { aws, name: name.into(), subnets, vpc, default_group })
    }

    /// `aws ecs OPERATION --cluster NAME ...`.
    pub fn ecs(&self, operation: &str, args: &[&str]) -> Result<Value> {
        self.aws.call(&[&["ecs", operation, "--cluster", &self.name], args].concat())
    }

    /// Registers a definition; `family:revision`.
    pub fn register(&self, definition: &Value) -> Result<String> {
        let input = definition.to_string();
        let answer = self.aws.call(&["ecs", "register-task-definition", "--cli-input-json", &input])?;
        let made = &answer["taskDefinition"];
        Ok(format!("{}:{}", text(made, "/family")?, made["revision"]))
    }

    /// The network configuration of tasks in this zone's subnet with these groups, the default one when there are none.
    pub fn network(&self, zone: &str, groups: &[&str]) -> Result<String> {
        let groups = if groups.is_empty() { vec![self.default_group.as_str()] } else { groups.to_vec() };
        let subnet = self.subnets.get(zone).with_context(|| format!("no subnet in {zone}"))?;
        Ok(format!("awsvpcConfiguration={{subnets=[{subnet}],securityGroups=[{}]}}", groups.join(",")))
    }

    /// Makes a security group.
    pub fn group(&self, name: &str) -> Result<String> {
        let args = ["--group-name", name, "--description", name, "--vpc-id", &self.vpc];
        text(&self.aws.call(&[&["ec2", "create-security-group"], &args[..]].concat())?, "/GroupId")
    }

    /// Runs one task wherever ECS places it; its ARN.
    pub fn run(&self, definition: &str, network: &str, more: &[&str]) -> Result<String> {
        let args = [&["--task-definition", definition, "--network-configuration", network], more].concat();
        started(&self.ecs("run-task", &args)?)
    }

    /// Runs one task on this instance; its ARN.
    pub fn start(&self, agent: &Agent, definition: &str, network: &str, more: &[&str]) -> Result<String> {
        let instance = container_instance(agent)?;
        let args = ["--task-definition", definition, "--network-configuration", network];
        let args = [&args[..], &["--container-instances", &instance], more].concat();
        started(&self.ecs("start-task", &args)?)
    }

    /// The task as ECS describes it.
    pub fn describe(&self, task: &str) -> Result<Value> {
        let answer = self.ecs("describe-tasks", &["--tasks", task])?;
        ensure!(answer["failures"] == json!([]), "{answer}");
        Ok(answer["tasks"][0].clone())
    }

    /// Waits until ECS shows something of a task.
    pub fn until_shown(&self, task: &str, what: &str, shown: impl Fn(&Value) -> bool) -> Result<Value> {
        eventually(&format!("{task} to show {what}"), PATIENCE, || {
            let seen = self.describe(task)?;
            if shown(&seen) {
                return Ok(Some(seen));
            }
            bail!("it is {seen}")
        })
    }

    /// Waits until ECS shows this status.
    pub fn until(&self, task: &str, status: &str) -> Result<Value> {
        self.until_shown(task, status, |seen| seen["lastStatus"] == status)
    }

    /// Stops a task.
    pub fn stop(&self, task: &str) -> Result<()> {
        self.ecs("stop-task", &["--task", task, "--reason", "enough"]).map(drop)
    }
}

fn started(answer: &Value) -> Result<String> {
    ensure!(answer["failures"] == json!([]), "not started: {answer}");
    text(answer, "/tasks/0/taskArn")
}

/// The agent's ARN in the cluster, as it says itself once it is registered.
pub fn container_instance(agent: &Agent) -> Result<String> {
    eventually("the registration", PATIENCE, || {
        let cluster = &agent.json(&["status"])?["cluster"];
        match cluster["containerInstanceArn"].as_str() {
            Some(arn) => Ok(Some(arn.to_owned())),
            None => bail!("it says {cluster}"),
        }
    })
}

/// The address of a task's ENI as ECS shows it, once it does.
pub fn address(task: &Value) -> Option<&str> {
    let details = task["attachments"][0]["details"].as_array()?;
    details.iter().find(|d| d["name"] == "privateIPv4Address")?["value"].as_str()
}
