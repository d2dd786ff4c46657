//! What people read: aligned tables, a line for each thing. Here what all of them share, and the pool's; in the modules the rest.

mod cluster;
mod images;
mod tasks;

pub(super) use cluster::{cluster, event, status};
pub(super) use images::images;
pub(super) use tasks::{logs, task, tasks};

use berth_admin::view::Pool;
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
