//! From two looks at the node to what happened between them. Pure.

use super::{EventKind, News};
use crate::view::{progress, status_word};
use berth_types::{
    cluster::{ClusterSnapshot, ReportsSnapshot},
    eni::{EniSnapshot, SlotView},
    ids::TaskArn,
    image::{PullEnd, PullStage, PullView, PullsSnapshot},
    lease::Lease,
    task::{ContainerSnapshot, ContainerStatus, EngineSnapshot, TaskSnapshot, TaskStatus},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// One look at everything.
#[derive(Debug, Clone, Default)]
pub(super) struct Look {
    pub(super) engine: Arc<EngineSnapshot>,
    pub(super) enis: Arc<EniSnapshot>,
    pub(super) cluster: Arc<ClusterSnapshot>,
    pub(super) reports: Arc<ReportsSnapshot>,
    pub(super) pulls: Arc<PullsSnapshot>,
}

/// What happened between two looks, in an order in which it may have happened.
pub(super) fn diff(before: &Look, after: &Look) -> Vec<News> {
    let mut news = Vec::new();
    if !Arc::ptr_eq(&before.cluster, &after.cluster) {
        cluster(&before.cluster, &after.cluster, &mut news);
    }
    if !Arc::ptr_eq(&before.pulls, &after.pulls) {
        pulls(&before.pulls, &after.pulls, &mut news);
    }
    let engine_moved = !Arc::ptr_eq(&before.engine, &after.engine);
    let enis_moved = !Arc::ptr_eq(&before.enis, &after.enis);
    if enis_moved {
        slots(&before.enis, &after.enis, &mut news);
    }
    if engine_moved {
        engine(&before.engine, &after.engine, &mut news);
    }
    if engine_moved || enis_moved {
        waiting(before, after, &mut news);
    }
    if !Arc::ptr_eq(&before.reports, &after.reports) {
        reports(&before.reports, &after.reports, &mut news);
    }
    news
}

// ------------------------------------------------------------------------------------------------------------------ tasks

fn engine(before: &EngineSnapshot, after: &EngineSnapshot, news: &mut Vec<News>) {
    if before.runtime_ok != after.runtime_ok && before.recovered {
        let (status, text) = if after.runtime_ok {
            ("UP", "containerd answers")
        } else {
            ("DOWN", "containerd does not answer")
        };
        news.push(News::new(EventKind::Runtime, text).status(status));
    }
    // What was found at start did not happen now: a restart on a full instance would push out all that is worth looking back at.
    if !before.recovered {
        if after.recovered {
            let text = format!("{} tasks taken over", after.tasks.len());
            news.push(News::new(EventKind::Recovered, text));
        }
        return;
    }
    for (arn, task) in &after.tasks {
        match before.tasks.get(arn) {
            Some(old) if Arc::ptr_eq(old, task) => {}
            old => one_task(old.map(AsRef::as_ref), task, news),
        }
    }
    for arn in before.tasks.keys().filter(|arn| !after.tasks.contains_key(arn)) {
        news.push(News::new(EventKind::TaskForgotten, "cleaned up").task(arn));
    }
}

fn one_task(before: Option<&TaskSnapshot>, after: &TaskSnapshot, news: &mut Vec<News>) {
    let arn = &after.spec.arn;
    let name = format!("{}:{}", after.spec.family, after.spec.revision);
    let status = |word: &str, text: String| News::new(EventKind::Task, text).task(arn).status(word);
    let leased = after.lease.as_ref();
    if let (None, Some(lease)) = (before.and_then(|b| b.lease.as_ref()), leased) {
        news.push(lease_news(EventKind::Lease, arn, lease, "has"));
    }
    // A short task may start and end between two looks.
    let ran_before = before.is_some_and(|b| b.started_at.is_some());
    let word = after.last_status();
    if after.started_at.is_some() && !ran_before && word != "RUNNING" {
        news.push(status("RUNNING", format!("{name} is RUNNING")));
    }
    for (index, container) in after.containers.iter().enumerate() {
        one_container(arn, before.and_then(|b| b.containers.get(index)), container, news);
    }
    if before.map(TaskSnapshot::last_status) != Some(word) {
        let reason = after.stopped_reason.as_ref().filter(|_| after.desired == TaskStatus::Stopped);
        let text = match reason {
            Some(reason) => format!("{name} is {word}: {reason}"),
            None => format!("{name} is {word}"),
        };
        news.push(status(word, text));
    }
    if let (Some(lease), None) = (before.and_then(|b| b.lease.as_ref()), leased) {
        news.push(lease_news(EventKind::Release, arn, lease, "has given back"));
    }
}

fn lease_news(kind: EventKind, task: &TaskArn, lease: &Lease, verb: &str) -> News {
    let address = lease.ipv4.first().map(|ip| format!("{ip} on ")).unwrap_or_default();
    let text = format!("{verb} {address}{} in slot {}", lease.eni, lease.slot);
    News { slot: Some(lease.slot.clone()), eni: Some(lease.eni.clone()), ..News::new(kind, text).task(task) }
}

fn one_container(
    task: &TaskArn,
    before: Option<&ContainerSnapshot>,
    after: &ContainerSnapshot,
    news: &mut Vec<News>,
) {
    let known = before.map_or(ContainerStatus::None, |b| b.known);
    if known == after.known {
        return;
    }
    let mut say = |status: ContainerStatus, more: String| {
        let text = format!("{} is {status}{more}", after.name);
        let event = News::new(EventKind::Container, text).task(task).status(status.as_str());
        news.push(News { container: Some(after.name.clone()), ..event });
    };
    if after.known == ContainerStatus::Stopped
        && known < ContainerStatus::Running
        && after.started_at.is_some()
    {
        say(ContainerStatus::Running, String::new());
    }
    let code = after.exit_code.map(|code| format!(": exit code {code}")).unwrap_or_default();
    let reason = after.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    say(after.known, code + &reason);
}

/// What the pool says of a task that waits for a slot is more than what the engine says.
fn waiting(before: &Look, after: &Look, news: &mut Vec<News>) {
    if !before.engine.recovered {
        return;
    }
    let (old_pool, pool) = (pool_reasons(&before.enis), pool_reasons(&after.enis));
    let changed = after.engine.tasks.iter().filter(|(arn, task)| {
        !before.engine.tasks.get(*arn).is_some_and(|old| Arc::ptr_eq(old, task)) || pool.contains_key(arn)
    });
    for (arn, task) in changed {
        let then = before.engine.tasks.get(arn).and_then(|old| wait_of(old, &old_pool));
        let Some(now) = wait_of(task, &pool).filter(|now| then.as_ref() != Some(now)) else { continue };
        news.push(News::new(EventKind::TaskWaiting, format!("waits for {now}")).task(arn));
    }
}

fn pool_reasons(enis: &EniSnapshot) -> BTreeMap<&TaskArn, &str> {
    enis.pool.waiting.iter().map(|w| (&w.task, w.reason.as_str())).collect()
}

fn wait_of(task: &TaskSnapshot, pool: &BTreeMap<&TaskArn, &str>) -> Option<String> {
    let slot = pool.get(&task.spec.arn).map(|reason| format!("a slot: {reason}"));
    slot.or_else(|| task.waiting.clone())
}

// ------------------------------------------------------------------------------------------------------------------ slots

fn slots(before: &EniSnapshot, after: &EniSnapshot, news: &mut Vec<News>) {
    if !before.recovered {
        return;
    }
    let old: BTreeMap<_, &SlotView> = before.slots.iter().map(|slot| (&slot.facts.slot, slot)).collect();
    for slot in &after.slots {
        let then = old.get(&slot.facts.slot);
        if then.is_none() {
            let (name, eni) = (&slot.facts.slot, &slot.facts.eni);
            let text =
                format!("slot {name} with {eni} is ready, built in {} ms", slot.build_micros.div_ceil(1000));
            news.push(slot_news(EventKind::SlotReady, slot, text));
        }
        if let (Some(reason), None) = (&slot.lost, then.and_then(|then| then.lost.as_ref())) {
            news.push(slot_news(
                EventKind::SlotLost,
                slot,
                format!("slot {} is lost: {reason}", slot.facts.slot),
            ));
        }
    }
}

fn slot_news(kind: EventKind, slot: &SlotView, text: String) -> News {
    News {
        task: slot.task.clone(),
        slot: Some(slot.facts.slot.clone()),
        eni: Some(slot.facts.eni.clone()),
        ..News::new(kind, text)
    }
}

// ------------------------------------------------------------------------------------------------------------------ pulls

fn pulls(before: &PullsSnapshot, after: &PullsSnapshot, news: &mut Vec<News>) {
    for end in after.ended.iter().filter(|end| !before.ended.contains(end)) {
        news.push(pull_end(end));
    }
    for pull in &after.active {
        let then = before.active.iter().find(|old| same_pull(old, pull));
        if then.is_none_or(|then| milestone(then) != milestone(pull)) {
            let status = match pull.stage {
                PullStage::Waiting => "WAITING",
                PullStage::Resolving => "RESOLVING",
                PullStage::Downloading => "DOWNLOADING",
                PullStage::Unpacking => "UNPACKING",
            };
            news.push(News::new(EventKind::Pull, progress(pull)).image(&pull.reference).status(status));
        }
    }
}

fn same_pull(one: &PullView, other: &PullView) -> bool {
    one.reference == other.reference && one.started_at == other.started_at
}

/// What of a pull's progress is worth an event: its stage, a try that failed, each tenth of its bytes.
fn milestone(pull: &PullView) -> (PullStage, u32, u64) {
    let tenths = pull.bytes_done.saturating_mul(10).checked_div(pull.bytes).unwrap_or(0);
    (pull.stage, pull.failures, tenths)
}

fn pull_end(end: &PullEnd) -> News {
    let (status, text) = match (&end.problem, &end.digest) {
        (Some(problem), _) => ("FAILED", format!("failed: {problem}")),
        (None, Some(digest)) => ("PULLED", format!("pulled {digest}, {} bytes over the network", end.bytes)),
        (None, None) => ("PULLED", format!("pulled, {} bytes over the network", end.bytes)),
    };
    News::new(EventKind::PullEnded, text).image(&end.reference).status(status)
}

// ---------------------------------------------------------------------------------------------------------- control plane

fn cluster(before: &ClusterSnapshot, after: &ClusterSnapshot, news: &mut Vec<News>) {
    if before.status != after.status {
        let word = status_word(after.status);
        let arn = after.container_instance_arn.as_deref().unwrap_or("this instance");
        let text = format!("{arn} is {word} in cluster {}", after.cluster);
        news.push(News::new(EventKind::Instance, text).status(word));
    }
    match (&before.problem, &after.problem) {
        (old, Some(problem)) if old.as_ref() != Some(problem) => {
            news.push(News::new(EventKind::ControlPlane, problem).status("PROBLEM"));
        }
        (Some(_), None) => {
            news.push(News::new(EventKind::ControlPlane, "the control plane answers").status("OK"));
        }
        _ => {}
    }
    for refused in after.refused.iter().filter(|refused| !before.refused.contains(refused)) {
        news.push(
            News::new(EventKind::TaskRefused, format!("refused: {}", refused.reason)).task(&refused.task),
        );
    }
}

fn reports(before: &ReportsSnapshot, after: &ReportsSnapshot, news: &mut Vec<News>) {
    let stuck: BTreeSet<&TaskArn> =
        before.waiting.iter().filter(|w| w.problem.is_some()).map(|w| &w.task).collect();
    for waiting in after.waiting.iter().filter(|w| !stuck.contains(&w.task)) {
        let Some(problem) = &waiting.problem else { continue };
        let text = format!("{} reports wait for the control plane: {problem}", waiting.reports);
        news.push(News::new(EventKind::Report, text).task(&waiting.task).status("WAITING"));
    }
}

#[cfg(test)]
mod tests;
