//! Aligned tables for people.

use berth_admin::view::{ContainerView, HealthView, InstanceView, LogView, Pool, TaskView};
use berth_types::{
    Timestamp,
    eni::{EniView, SlotView},
};
use comfy_table::{Table, presets};
use std::fmt::Write as _;

fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(headings.iter().copied());
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

fn finish(table: Table) -> String {
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn or_dash(text: Option<impl ToString>) -> String {
    text.map_or_else(|| "-".into(), |t| t.to_string())
}

/// `3s`, `5m`, `2h`, `4d`.
pub(super) fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(since).as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// `850 us`, `84.2 ms`, `1.3 s`.
pub(super) fn micros(micros: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let value = micros as f64;
    match micros {
        0..1000 => format!("{micros} us"),
        1000..1_000_000 => format!("{:.1} ms", value / 1e3),
        _ => format!("{:.1} s", value / 1e6),
    }
}

pub(super) fn tasks(tasks: &[TaskView], now: Timestamp) -> String {
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
pub(super) fn logs(view: &LogView) -> String {
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

pub(super) fn task(task: &TaskView, now: Timestamp) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        writeln!(out, "{name:<15}{value}").ok();
    };
    line("Task", task.task_arn.to_string());
    line("Definition", task.task_definition.clone());
    line("Status", format!("{} (desired {})", task.last_status, task.desired_status));
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
    out.push('\n');
    out + &containers(&task.containers)
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

pub(super) fn enis(enis: &[EniView], now: Timestamp) -> String {
    let mut rows = table(&["ENI", "PHASE", "IP", "MAC", "INDEX", "SUBNET", "SLOT", "TASK", "SINCE", "ERROR"]);
    for eni in enis {
        rows.add_row([
            or_dash(eni.id.as_ref()),
            phase(eni),
            or_dash(eni.ipv4),
            or_dash(eni.mac),
            or_dash(eni.device_index),
            eni.subnet.to_string(),
            or_dash(eni.slot.as_ref()),
            or_dash(eni.task.as_ref().map(|t| t.id().chars().take(12).collect::<String>())),
            age(eni.since, now),
            or_dash(eni.error.as_ref()),
        ]);
    }
    finish(rows)
}

/// The word of the JSON form.
fn phase(eni: &EniView) -> String {
    serde_json::to_value(eni.phase).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

pub(super) fn slots(slots: &[SlotView], now: Timestamp) -> String {
    let mut rows = table(&["SLOT", "STATE", "IP", "ENI", "NAMESPACE", "BUILT IN", "AGE", "TASK"]);
    for slot in slots {
        let addresses: Vec<String> = slot
            .facts
            .ipv4
            .iter()
            .map(ToString::to_string)
            .chain(slot.facts.ipv6.iter().map(ToString::to_string))
            .collect();
        rows.add_row([
            slot.facts.slot.to_string(),
            if slot.task.is_some() { "leased" } else { "warm" }.into(),
            addresses.join(" "),
            slot.facts.eni.to_string(),
            slot.facts.netns_path.display().to_string(),
            micros(slot.build_micros),
            age(slot.ready_at, now),
            or_dash(slot.task.as_ref().map(|t| t.id().chars().take(12).collect::<String>())),
        ]);
    }
    finish(rows)
}

pub(super) fn pool(pool: &Pool, now: Timestamp) -> String {
    let mut rows = table(&[
        "WARM",
        "TARGET",
        "FILLING",
        "LEASED",
        "RECYCLING",
        "REMOVING",
        "MAX",
        "LEASES",
        "FROM WARM",
    ]);
    rows.add_row([
        pool.warm.to_string(),
        pool.warm_target.to_string(),
        pool.filling.to_string(),
        pool.leased.to_string(),
        pool.recycling.to_string(),
        pool.removing.to_string(),
        pool.max_enis.to_string(),
        pool.leases_total.to_string(),
        pool.warm_leases_total.to_string(),
    ]);
    let mut out = finish(rows);
    for waiting in &pool.waiting {
        writeln!(out, "waiting {:>4}  {}  {}", age(waiting.since, now), waiting.task.id(), waiting.reason)
            .ok();
    }
    for problem in &pool.problems {
        writeln!(out, "problem  {problem}").ok();
    }
    out
}

pub(super) fn status(instance: &InstanceView, health: &HealthView, now: Timestamp) -> String {
    let facts = &instance.instance;
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        writeln!(out, "{name:<10}{value}").ok();
    };
    line("Agent", format!("berth {}, up {}", instance.agent_version, age(instance.started_at, now)));
    line("Cluster", instance.cluster.clone());
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
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_durations_are_short() {
        let at = |s| Timestamp::from_second(s).unwrap();
        assert_eq!(
            [
                age(at(0), at(59)),
                age(at(0), at(60)),
                age(at(0), at(7200)),
                age(at(0), at(200_000)),
                age(at(9), at(0))
            ],
            ["59s", "1m", "2h", "2d", "0s"]
        );
        assert_eq!([micros(850), micros(84_210), micros(1_300_000)], ["850 us", "84.2 ms", "1.3 s"]);
    }

    #[test]
    fn a_table_is_aligned_and_has_no_trailing_spaces() {
        let text = pool(&Pool::default(), Timestamp::UNIX_EPOCH);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(
            lines[0].find("TARGET"),
            lines[1].char_indices().filter(|(_, c)| *c == '0').nth(1).map(|(i, _)| i)
        );
        assert!(lines.iter().all(|l| !l.ends_with(' ')));
    }
}
