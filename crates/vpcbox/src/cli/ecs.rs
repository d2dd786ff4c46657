//! ECS's part of `vpcbox status`, for people: what there is, and for each task that does not run the reason.

use super::table;
use crate::ecs::{EcsInventory, Remaining, TaskLine};

/// Stopped tasks that are shown; scripts get all of them with `--json`.
const STOPPED_SHOWN: usize = 10;

/// Clusters, container instances and tasks; nothing when there is no cluster.
pub(super) fn table(ecs: &EcsInventory) -> String {
    if ecs.clusters.is_empty() {
        return String::new();
    }
    let mut parts = vec![clusters(ecs), instances(ecs)];
    if !ecs.tasks.is_empty() {
        parts.push(tasks(ecs));
    }
    parts.join("\n\n") + "\n"
}

fn clusters(ecs: &EcsInventory) -> String {
    let mut lines = table::table(&["CLUSTER", "STATUS", "INSTANCES", "RUNNING", "PENDING"]);
    for c in &ecs.clusters {
        let [instances, running, pending] = [c.instances, c.running, c.pending].map(|n| n.to_string());
        lines.add_row([&c.name, &c.status, &instances, &running, &pending]);
    }
    lines.trim_fmt()
}

fn instances(ecs: &EcsInventory) -> String {
    if ecs.instances.is_empty() {
        return "no container instance: no agent has registered yet".to_owned();
    }
    let head = ["CONTAINER INSTANCE", "INSTANCE", "CLUSTER", "STATUS", "AGENT", "TASKS", "LEFT"];
    let mut lines = table::table(&head);
    for i in &ecs.instances {
        let agent = if i.connected { "connected" } else { "silent" };
        let (tasks, left) = (i.tasks.to_string(), left(i.remaining));
        lines.add_row([last(&i.arn), &i.ec2, &i.cluster, &i.status, agent, &tasks, &left]);
    }
    lines.trim_fmt()
}

fn left(left: Remaining) -> String {
    let Remaining { cpu, cpu_of, memory, memory_of, enis, enis_of } = left;
    format!("cpu {cpu}/{cpu_of} memory {memory}/{memory_of} enis {enis}/{enis_of}")
}

fn tasks(ecs: &EcsInventory) -> String {
    let head = ["TASK", "DEFINITION", "CLUSTER", "INSTANCE", "STATUS", "DESIRED", "ADDRESS", "WHY"];
    let mut lines = table::table(&head);
    let (stopped, live): (Vec<_>, Vec<_>) = ecs.tasks.iter().partition(|task| task.stopped_at.is_some());
    let mut hidden = stopped;
    hidden.sort_by_key(|task| task.stopped_at);
    let shown = hidden.split_off(hidden.len().saturating_sub(STOPPED_SHOWN));
    for task in live.into_iter().chain(shown) {
        lines.add_row(row(task));
    }
    let table = lines.trim_fmt();
    match hidden.len() {
        0 => table,
        more => format!("{table}\n{more} more have stopped"),
    }
}

fn row(task: &TaskLine) -> [&str; 8] {
    [
        last(&task.arn),
        &task.definition,
        &task.cluster,
        task.ec2.as_deref().unwrap_or("-"),
        &task.status,
        &task.desired,
        task.ipv4.as_deref().unwrap_or("-"),
        task.why.as_deref().unwrap_or("-"),
    ]
}

/// The last part of an ARN.
fn last(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or(arn)
}
