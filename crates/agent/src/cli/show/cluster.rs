//! The node, its place in the cluster, and what happens on it.

use super::age;
use berth_admin::{
    Event,
    view::{ClusterView, HealthView, InstanceView, status_word},
};
use berth_types::Timestamp;
use std::fmt::Write as _;

pub(in crate::cli) fn status(
    instance: &InstanceView,
    view: &ClusterView,
    health: &HealthView,
    now: Timestamp,
) -> String {
    let facts = &instance.instance;
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        writeln!(out, "{name:<10}{value}").ok();
    };
    line("Agent", format!("berth {}, up {}", instance.agent_version, age(instance.started_at, now)));
    line(
        "Instance",
        format!(
            "{} ({}) in {}, {}",
            facts.instance_id, facts.instance_type, facts.availability_zone, facts.private_ipv4
        ),
    );
    line("ENIs", format!("{} at most, the primary included", facts.max_enis));
    line("Tasks", format!("{} running or on their way, {} known", instance.running_tasks, instance.tasks));
    line("Health", if health.healthy { "healthy".into() } else { "NOT healthy".into() });
    for problem in &health.problems {
        line("", format!("- {problem}"));
    }
    out + &cluster(view, now)
}

pub(in crate::cli) fn cluster(view: &ClusterView, now: Timestamp) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        writeln!(out, "{name:<10}{value}").ok();
    };
    line("Cluster", view.cluster.clone());
    if view.control_plane == "none" {
        line("", "no control plane: only operators give this node tasks".into());
        return out;
    }
    let arn = view.container_instance_arn.as_deref().unwrap_or("no container instance yet");
    line("", format!("{} as {arn}", status_word(view.status)));
    let polled = match view.polled_at {
        Some(at) => format!("last heard {} ago", age(at, now)),
        None => "not heard yet".into(),
    };
    line(
        "",
        format!(
            "{polled}, asked every {:.1} s, {} calls in the last minute (polls: {} at most)",
            view.poll_interval_seconds, view.calls_last_minute, view.polls_per_minute
        ),
    );
    if let Some(problem) = &view.problem {
        line("Problem", problem.clone());
    }
    let waiting: usize = view.reports.iter().map(|task| task.reports).sum();
    line("Reports", format!("{waiting} wait for the control plane, of {} tasks", view.reports.len()));
    for reports in view.reports.iter().filter(|reports| reports.problem.is_some()) {
        let problem = reports.problem.as_deref().unwrap_or_default();
        line("", format!("- {} since {}: {problem}", reports.task.id(), age(reports.since, now)));
    }
    for refused in &view.refused {
        line("Refused", format!("{}: {}", refused.task.id(), refused.reason));
    }
    out
}

/// One line: when, what, of which task, in words.
pub(in crate::cli) fn event(event: &Event) -> String {
    let news = &event.news;
    let kind = serde_json::to_value(news.kind).ok().and_then(|v| v.as_str().map(str::to_owned));
    let about = match (&news.task, &news.image) {
        (Some(task), _) => task.id().chars().take(12).collect(),
        (None, Some(image)) => image.clone(),
        (None, None) => "-".to_owned(),
    };
    // Times of one width, so that what follows is aligned.
    let text = news.text.replace('\n', " ");
    format!("{:.3}  {:<14} {about:<12}  {text}\n", event.at, kind.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_types::cluster::{InstanceStatus, WaitingReports};
    use serde_json::json;

    fn view() -> ClusterView {
        let task = "arn:aws:ecs:us-west-2:111122223333:task/demo/0123456789abcdef".parse().unwrap();
        ClusterView {
            control_plane: "ecs".into(),
            cluster: "demo".into(),
            container_instance_arn: Some("arn:i".into()),
            status: InstanceStatus::Draining,
            problem: Some("no answer: connection refused".into()),
            polled_at: Some(Timestamp::from_second(58).unwrap()),
            poll_interval_seconds: 1.5,
            calls_last_minute: 7,
            polls_per_minute: 100,
            refused: vec![],
            reports: vec![WaitingReports {
                task,
                reports: 2,
                since: Timestamp::from_second(0).unwrap(),
                attempts: 4,
                problem: Some("throttled".into()),
            }],
        }
    }

    #[test]
    fn the_cluster_is_shown_with_what_is_in_the_way() {
        let text = cluster(&view(), Timestamp::from_second(60).unwrap());
        assert_eq!(
            text,
            "Cluster   demo\n          DRAINING as arn:i\n          last heard 2s ago, asked every 1.5 s, 7 calls in the last minute \
             (polls: 100 at most)\nProblem   no answer: connection refused\nReports   2 wait for the control plane, of 1 tasks\n          \
             - 0123456789abcdef since 1m: throttled\n"
        );
        let alone = ClusterView { control_plane: "none".into(), ..view() };
        assert!(cluster(&alone, Timestamp::UNIX_EPOCH).contains("no control plane"));
    }

    #[test]
    fn an_event_is_one_line() {
        let seen: Event = serde_json::from_value(json!({
            "seq": 1, "at": "2026-11-22T10:00:00.5Z", "kind": "TASK",
            "task": "arn:aws:ecs:us-west-2:111122223333:task/demo/0123456789abcdef", "status": "STOPPED", "text": "web:1 is STOPPED:\nx"
        }))
        .unwrap();
        assert_eq!(
            event(&seen),
            "2026-11-22T10:00:00.500Z  TASK           0123456789ab  web:1 is STOPPED: x\n"
        );
    }
}
