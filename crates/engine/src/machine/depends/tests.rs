//! Graphs and gates.

use super::*;
use crate::{
    machine::Task,
    stage::Remains,
    tests::fixtures::{after, at, container, rules, task},
};
use berth_types::task::DependsCondition::{self, Complete, Start, Success};
use proptest::prelude::*;
use std::sync::Arc;

fn graph(edges: &[(usize, usize)], size: usize) -> Vec<ContainerSpec> {
    let mut containers: Vec<_> = (0..size).map(|i| container(&format!("c{i}"))).collect();
    for (from, to) in edges {
        containers[*from] = after(containers[*from].clone(), &format!("c{to}"), Start);
    }
    containers
}

#[test]
fn dangling_and_circular_graphs_are_told_apart() {
    assert_eq!(check(&graph(&[(0, 1), (1, 2), (0, 2)], 3)), Ok(()));
    assert_eq!(check(&graph(&[(0, 0)], 1)), Err(GraphError::Circular { container: "c0".to_owned() }));
    assert_eq!(check(&graph(&[(1, 2), (2, 1)], 3)), Err(GraphError::Circular { container: "c1".to_owned() }));
    let dangling = vec![after(container("a"), "ghost", Start)];
    assert!(matches!(check(&dangling), Err(GraphError::Dangling { on, .. }) if on == "ghost"));
}

/// A task of `dep` and `app`, which depends on it.
fn pair(condition: DependsCondition, start_timeout: Option<u32>) -> Task {
    let mut dep = container("dep");
    dep.start_timeout = start_timeout;
    let mut pair = Task::new(Arc::new(task("t", vec![dep, after(container("app"), "dep", condition)])));
    for container in &mut pair.containers {
        container.stage.created(at(0).wall);
    }
    pair
}

fn look(pair: &Task, seconds: u64) -> Gate {
    gate(&pair.containers[1], &pair.containers, at(seconds).tick)
}

#[test]
fn each_condition_opens_at_its_own_point() {
    // condition, when the dependency runs, when it ended with 0, with 1, when it never ran
    let table = [
        (Start, "open", "open", "open", "never"),
        (Complete, "waits", "open", "open", "never"),
        (Success, "waits", "open", "never", "never"),
    ];
    let word = |gate: Gate| match gate {
        Gate::Open => "open",
        Gate::Waits { .. } => "waits",
        Gate::Never(_) => "never",
    };
    for (condition, running, zero, one, unstarted) in table {
        let mut task = pair(condition, None);
        assert_eq!(word(look(&task, 0)), "waits", "{condition:?}, not started");
        let mut never = task.clone();
        never.containers[0].stage.end(End::Unneeded { at: at(1).wall }, Remains::Maybe);
        assert_eq!(word(look(&never, 1)), unstarted, "{condition:?}, never started");
        task.containers[0].stage.started(7, at(1).wall);
        assert_eq!(word(look(&task, 1)), running, "{condition:?}, running");
        for (code, expected) in [(0, zero), (1, one)] {
            let mut ended = task.clone();
            ended.containers[0].stage.exited(code, at(2).wall, false);
            assert_eq!(word(look(&ended, 2)), expected, "{condition:?}, exit code {code}");
        }
    }
}

#[test]
fn a_start_timeout_counts_from_the_dependencys_start() {
    let mut task = pair(Complete, Some(10));
    task.started(0, 7, at(5).wall, at(5), &rules());
    assert!(matches!(look(&task, 14), Gate::Waits { until: Some(tick), .. } if tick == at(15).tick));
    assert!(matches!(look(&task, 15), Gate::Never(why) if why.contains("timed out")));
}

#[test]
fn a_container_stops_when_nobody_depends_on_it_any_more() {
    let mut task = pair(Start, None);
    assert!(
        !may_stop(&task.containers[0], &task.containers) && may_stop(&task.containers[1], &task.containers)
    );
    task.containers[1].stage.end(End::Unneeded { at: at(1).wall }, Remains::Maybe);
    assert!(may_stop(&task.containers[0], &task.containers));
}

/// Whether there is a way from a container back to itself.
fn has_circle(edges: &[(usize, usize)], size: usize) -> bool {
    let mut reach = vec![vec![false; size]; size];
    for (from, to) in edges {
        reach[*from][*to] = true;
    }
    for via in 0..size {
        for from in 0..size {
            for to in 0..size {
                reach[from][to] |= reach[from][via] && reach[via][to];
            }
        }
    }
    (0..size).any(|i| reach[i][i])
}

proptest! {
    #[test]
    fn a_circle_is_found_exactly_when_there_is_one(
        (size, edges) in (1..9usize).prop_flat_map(|n| (Just(n), prop::collection::vec((0..n, 0..n), 0..14)))
    ) {
        prop_assert_eq!(check(&graph(&edges, size)).is_err(), has_circle(&edges, size));
    }
}
