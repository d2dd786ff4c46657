//! `dependsOn`: whether the graph can be resolved at all, and whether a container may start now. Pure.
//!
//! Edges are looked at anew after every event, so a dependant starts as soon as the condition holds: nothing is polled.

use super::Container;
use crate::{
    backoff::Tick,
    stage::{End, Stage},
};
use berth_types::task::{ContainerSpec, DependsCondition};

/// Why a graph cannot be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GraphError {
    #[error("container {container} depends on {on}, which the task does not have")]
    Dangling { container: String, on: String },
    #[error("container {container} depends on itself by way of others")]
    Circular { container: String },
}

/// Checks that every edge ends at a container of the task and that some order of starts exists.
pub(crate) fn check(containers: &[ContainerSpec]) -> Result<(), GraphError> {
    let index = |name: &str| containers.iter().position(|c| c.name == name);
    let mut waits_for = Vec::with_capacity(containers.len());
    for container in containers {
        let mut edges = Vec::with_capacity(container.depends_on.len());
        for edge in &container.depends_on {
            edges.push(index(&edge.container).ok_or_else(|| GraphError::Dangling {
                container: container.name.clone(),
                on: edge.container.clone(),
            })?);
        }
        waits_for.push(edges);
    }
    // Start whatever can start until nothing more can: what is left waits for itself.
    let mut started = vec![false; containers.len()];
    loop {
        let next = (0..containers.len()).find(|&i| !started[i] && waits_for[i].iter().all(|&d| started[d]));
        match (next, started.iter().position(|s| !s)) {
            (Some(i), _) => started[i] = true,
            (None, Some(i)) => return Err(GraphError::Circular { container: containers[i].name.clone() }),
            (None, None) => return Ok(()),
        }
    }
}

/// Whether a container may start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Now.
    Open,
    /// Not yet; `on` goes on from "waits for". At `until` the answer changes by itself.
    Waits { on: String, until: Option<Tick> },
    /// Never, and why.
    Never(String),
}

/// Looks at all edges of one container. The first that can never be satisfied decides, then the first that is not yet.
pub(crate) fn gate(target: &Container, all: &[Container], now: Tick) -> Gate {
    let mut waits: Option<(String, Option<Tick>)> = None;
    for edge in &target.spec.depends_on {
        let Some(dependency) = all.iter().find(|c| c.spec.name == edge.container) else {
            return Gate::Never(format!("container {} does not exist", edge.container));
        };
        match one(target, dependency, edge.condition, now) {
            Gate::Open => {}
            Gate::Never(why) => return Gate::Never(why),
            Gate::Waits { on, until } => {
                let soonest = waits.as_ref().and_then(|(_, t)| *t).into_iter().chain(until).min();
                waits = Some((waits.map_or(on, |(first, _)| first), soonest));
            }
        }
    }
    waits.map_or(Gate::Open, |(on, until)| Gate::Waits { on, until })
}

fn one(target: &Container, dependency: &Container, condition: DependsCondition, now: Tick) -> Gate {
    let (name, of) = (&dependency.spec.name, &target.spec.name);
    let waits = |until| Gate::Waits {
        on: format!("container {name} to {}, for container {of}", verb(condition)),
        until,
    };
    let never = |what: &str| {
        Gate::Never(format!(
            "failed to resolve container ordering dependency [{name}] for target [{of}] as dependency {what}"
        ))
    };
    match (&dependency.stage, condition) {
        (Stage::New | Stage::Pulled { .. } | Stage::Created { .. }, _) => waits(None),
        (Stage::Running { .. }, DependsCondition::Start) => Gate::Open,
        (Stage::Running { .. }, DependsCondition::Complete | DependsCondition::Success) => {
            match dependency.give_up_at {
                Some(deadline) if now >= deadline => Gate::Never(format!(
                    "container ordering dependency [{name}] for target [{of}] has timed out"
                )),
                deadline => waits(deadline),
            }
        }
        (Stage::Ended { past, .. }, DependsCondition::Start) if past.started_at.is_some() => Gate::Open,
        (Stage::Ended { .. }, DependsCondition::Start) => never("did not start"),
        (Stage::Ended { end, .. }, DependsCondition::Complete) => match end {
            End::Exited { .. } => Gate::Open,
            End::Failed { .. } | End::Vanished { .. } | End::Unneeded { .. } => {
                never("did not run to its end")
            }
        },
        (Stage::Ended { end, .. }, DependsCondition::Success) => match end {
            End::Exited { code: 0, .. } => Gate::Open,
            End::Exited { .. } | End::Failed { .. } | End::Vanished { .. } | End::Unneeded { .. } => {
                never("did not exit successfully")
            }
        },
    }
}

fn verb(condition: DependsCondition) -> &'static str {
    match condition {
        DependsCondition::Start => "START",
        DependsCondition::Complete => "COMPLETE",
        DependsCondition::Success => "end with SUCCESS",
    }
}

/// Whether a container may be told to stop: nobody who depends on it is left.
pub(crate) fn may_stop(target: &Container, all: &[Container]) -> bool {
    all.iter()
        .all(|c| c.stage.has_ended() || c.spec.depends_on.iter().all(|d| d.container != target.spec.name))
}

#[cfg(test)]
mod tests;
