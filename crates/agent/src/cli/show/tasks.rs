//! Tasks and their output.

use super::{age, finish, micros, or_dash, table};
use berth_admin::view::{ContainerView, LogView, OriginView, ReportsView, TaskView, progress};
use berth_types::Timestamp;
use std::fmt::Write as _;

pub(in crate::cli) fn tasks(tasks: &[TaskView], now: Timestamp) -> String {
    let mut rows = table(&["TASK", "DEFINITION", "STATUS", "IP", "ENI", "CONTAINERS", "AGE", "NOTE"]);
    for task in tasks {
        let running = task.containers.iter().filter(|c| c.last_status == "RUNNING").count();
        rows.add_row([
            short(task),
            task.task_definition.clone(),
            task.last_status.clone(),
            or_dash(task.network.as_ref().and_then(|n| n.ipv4.first())),
            or_dash(task.network.as_ref().map(|n| &n.eni)),
            format!("{running}/{}", task.containers.len()),
            age(task.created_at, now),
            or_dash(
                task.stopped_reason
                    .as_ref()
                    .or(task.waiting.as_ref())
                    .map(|n| n.lines().next().unwrap_or_default()),
            ),
        ]);
    }
    finish(rows)
}

/// Lines as they were written, each after its container's name when there are several. A long line comes in pieces: the next one
/// of the same stream goes on where the last one stopped.
pub(in crate::cli) fn logs(view: &LogView) -> String {
    let several = view.lines.iter().any(|l| l.container != view.lines[0].container);
    let mut out = String::new();
    let mut open: Option<(&str, &str)> = None;
    for line in &view.lines {
        let source = (line.container.as_str(), line.stream.as_str());
        if open != Some(source) {
            if open.is_some() {
                out.push('\n');
            }
            if several {
                out += &format!("{} | ", line.container);
            }
        }
        out += &line.log;
        open = (!line.log.ends_with('\n')).then_some(source);
    }
    if open.is_some() {
        out.push('\n');
    }
    out
}

fn short(task: &TaskView) -> String {
    task.task_arn.id().chars().take(12).collect()
}

pub(in crate::cli) fn task(task: &TaskView, now: Timestamp) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        writeln!(out, "{name:<15}{value}").ok();
    };
    line("Task", task.task_arn.to_string());
    line("Definition", task.task_definition.clone());
    line("Status", format!("{} (desired {})", task.last_status, task.desired_status));
    line("Asked for by", origin(&task.origin));
    if let Some(waiting) = &task.waiting {
        line("Waiting for", waiting.clone());
    }
    if let Some(reason) = &task.stopped_reason {
        line("Stopped", format!("{reason}{}", task.stop_code.map_or(String::new(), |c| format!(" ({c:?})"))));
    }
    line("Created", format!("{} ({} ago)", task.created_at, age(task.created_at, now)));
    if let (Some(started), Some(launch)) = (task.started_at, task.launch_micros) {
        line("Started", format!("{started} ({} after the request)", micros(launch)));
    }
    if let Some(stopped) = task.stopped_at {
        line("Ended", stopped.to_string());
    }
    if let Some(network) = &task.network {
        let addresses: Vec<String> = network
            .ipv4
            .iter()
            .map(ToString::to_string)
            .chain(network.ipv6.iter().map(ToString::to_string))
            .collect();
        line("Addresses", addresses.join(" "));
        line("ENI", format!("{} {} in {}", network.eni, network.mac, network.subnet));
        line("Namespace", network.netns_path.display().to_string());
    }
    if let Some(reports) = &task.reports {
        line("Reports", reports_line(reports, now));
    }
    for container in &task.containers {
        if let Some(pull) = &container.pull {
            line("Image", format!("{}: {}", container.name, progress(pull)));
        }
    }
    out.push('\n');
    out + &containers(&task.containers)
}

fn origin(origin: &OriginView) -> String {
    match origin {
        OriginView::Operator => "an operator".into(),
        OriginView::ControlPlane { attachment_arn: None } => "the control plane".into(),
        OriginView::ControlPlane { attachment_arn: Some(arn) } => format!("the control plane, for {arn}"),
    }
}

/// What the control plane has not heard of the task.
fn reports_line(reports: &ReportsView, now: Timestamp) -> String {
    let mut text =
        format!("{} wait for the control plane, the oldest for {}", reports.waiting, age(reports.since, now));
    if let Some(problem) = &reports.problem {
        text += &format!("; sent {} times in vain: {problem}", reports.attempts);
    }
    text
}

fn containers(containers: &[ContainerView]) -> String {
    let mut rows = table(&["CONTAINER", "STATUS", "EXIT", "PID", "IMAGE", "ID", "REASON"]);
    for c in containers {
        rows.add_row([
            c.name.clone(),
            c.last_status.clone(),
            or_dash(c.exit_code),
            or_dash(c.pid),
            c.image.clone(),
            or_dash(c.runtime_id.as_ref().map(|id| id.short().to_owned())),
            or_dash(c.reason.as_ref()),
        ]);
    }
    finish(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> TaskView {
        serde_json::from_str(
            r#"{
            "taskArn": "arn:aws:ecs:us-west-2:111122223333:task/demo/0123456789abcdef", "taskDefinition": "web:3",
            "lastStatus": "PENDING", "desiredStatus": "RUNNING", "createdAt": "1970-01-01T00:00:00Z", "takenAt": "1970-01-01T00:00:00Z", "version": 1,
            "origin": {"by": "CONTROL_PLANE", "attachmentArn": "arn:aws:ecs:us-west-2:111122223333:attachment/a-1"},
            "reports": {"waiting": 2, "since": "1970-01-01T00:00:00Z", "attempts": 3, "problem": "no answer"},
            "containers": [{
                "name": "app", "image": "web:1", "lastStatus": "NONE", "essential": true, "metadataPath": "/v4/x",
                "pull": {
                    "reference": "docker.io/library/web:1", "stage": "DOWNLOADING", "startedAt": "1970-01-01T00:00:00Z",
                    "blobs": 5, "blobsDone": 3, "bytes": 42047897, "bytesDone": 12897485, "failures": 0
                }
            }]}"#,
        )
        .unwrap()
    }

    #[test]
    fn a_task_shows_its_pulls_its_reports_and_who_asked_for_it() {
        let text = task(&view(), Timestamp::from_second(65).unwrap());
        for expected in [
            "Asked for by   the control plane, for arn:aws:ecs:us-west-2:111122223333:attachment/a-1\n",
            "Reports        2 wait for the control plane, the oldest for 1m; sent 3 times in vain: no answer\n",
            "Image          app: downloading 3/5 blobs, 12.3 of 40.1 MiB\n",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
    }
}
