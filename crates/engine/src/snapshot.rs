//! The engine's state as everyone else sees it. Pure. Only changed tasks are made anew; the rest is shared with the snapshot before.

use crate::{
    config::EngineConfig,
    machine::{
        Container, Goal, Life, Recovery, Slot, Task, World,
        depends::{self, Gate},
        lease_of,
    },
    names,
    stage::{End, Stage},
};
use berth_types::task::{ContainerSnapshot, ContainerStatus, TaskSnapshot, TaskStatus};
use std::{collections::BTreeMap, sync::Arc};

/// One task.
pub(crate) fn task(task: &Task, world: &World, config: &EngineConfig) -> TaskSnapshot {
    let (desired, wish) = match &task.goal {
        Goal::Run => (TaskStatus::Running, None),
        Goal::Stop(wish) => (TaskStatus::Stopped, Some(wish)),
    };
    TaskSnapshot {
        spec: Arc::clone(&task.spec),
        desired,
        known: task.known(),
        containers: task.containers.iter().enumerate().map(|(i, c)| container(task, i, c, config)).collect(),
        lease: lease_of(task).cloned(),
        waiting: waiting(task, world),
        stopped_reason: wish.map(|w| w.reason.clone()),
        stop_code: wish.and_then(|w| w.code),
        pull_started_at: task.times.pull_started_at,
        pull_stopped_at: task.times.pull_stopped_at,
        lease_micros: task.times.lease_micros,
        taken_at: task.times.taken_at,
        started_at: task.times.started_at,
        execution_stopped_at: task.times.execution_stopped_at,
        stopped_at: match task.life {
            Life::Live => None,
            Life::Stopped { at, .. } => Some(at),
        },
        version: task.ledger.changes,
    }
}

fn container(task: &Task, index: usize, container: &Container, config: &EngineConfig) -> ContainerSnapshot {
    let (spec, past) = (&task.spec, container.stage.past());
    let end: Option<&End> = match &container.stage {
        Stage::Ended { end, .. } => Some(end),
        Stage::New | Stage::Pulled { .. } | Stage::Created { .. } | Stage::Running { .. } => None,
    };
    let pid = match container.stage {
        Stage::Running { pid, .. } => Some(pid),
        Stage::New | Stage::Pulled { .. } | Stage::Created { .. } | Stage::Ended { .. } => None,
    };
    let stopping = task.is_stopping() || end.is_some();
    // The id is decided from the start but means nothing before there is a slot to make the container in.
    let decided = past.created_at.is_some() || matches!(task.slot, Slot::Held(_));
    ContainerSnapshot {
        index,
        name: container.spec.name.clone(),
        id: decided.then(|| container.id.clone()),
        docker_name: names::docker_name(spec, &container.spec.name),
        image_id: past.image.as_ref().map(|i| i.image_id.clone()),
        image_digest: past
            .image
            .as_ref()
            .map(|i| i.digest.clone())
            .or_else(|| names::digest(&container.spec.image).map(str::to_owned)),
        desired: if stopping { ContainerStatus::Stopped } else { ContainerStatus::Running },
        known: container.stage.status(),
        pid,
        exit_code: end.and_then(End::code),
        reason: end.and_then(End::reason),
        created_at: past.created_at,
        started_at: past.started_at,
        finished_at: end.filter(|_| past.started_at.is_some()).map(End::at),
        volumes: names::mounts(config, spec, &container.spec).into_iter().map(|(view, _)| view).collect(),
        log_path: names::shown_log_path(config, spec, &container.spec),
    }
}

/// What keeps a task where it is, for people, as it goes on from "waits for": the first thing that it cannot go on without.
fn waiting(task: &Task, world: &World) -> Option<String> {
    if let Some(retry) = &world.journal.retry
        && !task.ledger.is_settled()
    {
        return Some(format!("its record: {}", retry.problem));
    }
    if let Some(retry) = task.retries.values().max_by_key(|r| r.failures) {
        return Some(format!("another try after: {}", retry.problem));
    }
    if task.is_kept_for_report().is_some() {
        return Some("its end to be put on record for the control plane".to_owned());
    }
    if matches!(task.life, Life::Stopped { .. }) {
        return None;
    }
    let needs_runtime =
        task.is_stopping() || task.containers.iter().any(|c| c.stage.status() < ContainerStatus::Running);
    if needs_runtime && !world.runtime.ok {
        return Some("containerd, which does not answer".to_owned());
    }
    match (&task.slot, world.recovery) {
        (Slot::Wanted { held: Some(slot) }, _) => return Some(format!("its slot {slot} to be adopted")),
        (Slot::Wanted { held: None }, Recovery::Done) if task.goal == Goal::Run => {
            let reason = world.slot_waits.get(&task.spec.arn).map(|reason| format!(": {reason}"));
            return Some(format!("a network interface{}", reason.unwrap_or_default()));
        }
        (Slot::Wanted { held: None }, Recovery::Looking | Recovery::Leases | Recovery::Announcing) => {
            return Some("the agent to take over what it has found".to_owned());
        }
        (Slot::Wanted { held: None } | Slot::Held(_) | Slot::Lost(_) | Slot::GivenBack, _) => {}
    }
    if let Some(images) = images_on_their_way(task) {
        return Some(images);
    }
    task.containers.iter().find_map(|container| match &container.stage {
        // The time does not matter for what is waited for, only for how long.
        Stage::Created { .. } => match depends::gate(container, &task.containers, crate::backoff::Tick::ZERO)
        {
            Gate::Waits { on, .. } => Some(on),
            Gate::Open | Gate::Never(_) => None,
        },
        Stage::New | Stage::Pulled { .. } | Stage::Running { .. } | Stage::Ended { .. } => None,
    })
}

/// `image busybox for container web`, and so on for each image.
fn images_on_their_way(task: &Task) -> Option<String> {
    if task.is_stopping() {
        return None;
    }
    let mut waiting: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for container in task.containers.iter().filter(|c| c.stage == Stage::New) {
        waiting.entry(&container.spec.image).or_default().push(&container.spec.name);
    }
    let one = |(image, containers): (&str, Vec<&str>)| {
        let noun = if containers.len() == 1 { "container" } else { "containers" };
        format!("image {image} for {noun} {}", containers.join(", "))
    };
    let all: Vec<_> = waiting.into_iter().map(one).collect();
    (!all.is_empty()).then(|| all.join(" and "))
}
