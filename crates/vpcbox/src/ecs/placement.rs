//! Which container instance takes a task: a pure choice among candidates.
//!
//! A candidate that does not fit gives the one reason that ECS would name; among those that fit, the strategies decide in their
//! order, as ECS's do, and where they leave a tie the instance with the fewest tasks is taken.

use super::{error::ApiError, input::Input};
use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

/// ECS's limits.
const MAX_STRATEGIES: usize = 5;
const MAX_CONSTRAINTS: usize = 10;

/// What a task needs of its instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// CPU units.
    pub(super) cpu: i64,
    /// MiB.
    pub(super) memory: i64,
    /// ENIs of its own: one for an awsvpc task, none for others.
    pub(super) enis: u32,
    /// Names of attributes.
    pub(super) attributes: Vec<String>,
    /// Zones of the subnets that it may be in; `None` is any.
    pub(super) zones: Option<BTreeSet<String>>,
}

/// An instance that might take the task.
#[derive(Debug, Clone, Default)]
pub(super) struct Candidate {
    /// Its id.
    pub(super) id: String,
    /// Whether its agent has called lately.
    pub(super) connected: bool,
    /// CPU units left.
    pub(super) cpu: i64,
    /// MiB left.
    pub(super) memory: i64,
    /// ENIs left.
    pub(super) enis: u32,
    /// Its attributes, with their values if they have one.
    pub(super) attributes: BTreeMap<String, Option<String>>,
    /// Its tasks.
    pub(super) tasks: usize,
    /// Tasks of the same group among them.
    pub(super) of_group: usize,
}

/// How to choose among instances that fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Strategy {
    /// Evenly over instances.
    SpreadInstances,
    /// Evenly over the values of an attribute.
    SpreadAttribute(String),
    /// Where the least CPU is left.
    PackCpu,
    /// Where the least memory is left.
    PackMemory,
    /// Anywhere.
    Random,
}

/// All that a call says about placement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rules {
    /// In their order.
    pub(super) strategies: Vec<Strategy>,
    /// No two tasks of a group on one instance.
    pub(super) distinct: bool,
}

/// Reads `placementStrategy` and `placementConstraints`.
pub(super) fn rules(input: Input<'_>) -> Result<Rules, ApiError> {
    let (strategies, constraints) =
        (input.objects("placementStrategy")?, input.objects("placementConstraints")?);
    if strategies.len() > MAX_STRATEGIES {
        let message = format!("placementStrategy can have at most {MAX_STRATEGIES} items.");
        return Err(ApiError::invalid(message));
    }
    if constraints.len() > MAX_CONSTRAINTS {
        let message = format!("placementConstraints can have at most {MAX_CONSTRAINTS} items.");
        return Err(ApiError::invalid(message));
    }
    let mut rules = Rules::default();
    for strategy in strategies {
        rules.strategies.push(read_strategy(strategy)?);
    }
    for constraint in constraints {
        match constraint.one_of("type", &["distinctInstance", "memberOf"])? {
            Some("distinctInstance") => rules.distinct = true,
            Some(_) => {
                let message =
                    "vpcbox does not evaluate cluster query expressions: placement constraint memberOf.";
                return Err(ApiError::invalid(message));
            }
            None => return Err(ApiError::invalid("Placement constraint type can not be blank.")),
        }
    }
    Ok(rules)
}

fn read_strategy(input: Input<'_>) -> Result<Strategy, ApiError> {
    let kind = input.one_of("type", &["random", "spread", "binpack"])?;
    let field = input.text("field")?.unwrap_or_default();
    match (kind, field.to_ascii_lowercase().as_str()) {
        (Some("random"), "") => Ok(Strategy::Random),
        (Some("random"), _) => Err(ApiError::invalid("Placement strategy random takes no field.")),
        (Some("spread"), "instanceid" | "host") => Ok(Strategy::SpreadInstances),
        (Some("spread"), _) if field.starts_with("attribute:") => {
            Ok(Strategy::SpreadAttribute(field.trim_start_matches("attribute:").to_owned()))
        }
        (Some("binpack"), "cpu") => Ok(Strategy::PackCpu),
        (Some("binpack"), "memory") => Ok(Strategy::PackMemory),
        (Some(kind), _) => Err(ApiError::invalid(format!("Invalid field {field:?} for strategy {kind}."))),
        (None, _) => Err(ApiError::invalid("Placement strategy type can not be blank.")),
    }
}

/// Why a candidate cannot take the task, in ECS's words.
pub(super) fn refusal(needs: &Needs, candidate: &Candidate, distinct: bool) -> Option<&'static str> {
    if !candidate.connected {
        return Some("AGENT");
    }
    if needs.attributes.iter().any(|name| !candidate.attributes.contains_key(name)) {
        return Some("ATTRIBUTE");
    }
    let zone = candidate.attributes.get("ecs.availability-zone").cloned().flatten().unwrap_or_default();
    if needs.zones.as_ref().is_some_and(|zones| !zones.contains(&zone)) {
        return Some("LOCATION");
    }
    if distinct && candidate.of_group > 0 {
        return Some("CONSTRAINT:distinctInstance");
    }
    if needs.memory > candidate.memory {
        return Some("RESOURCE:MEMORY");
    }
    if needs.cpu > candidate.cpu {
        return Some("RESOURCE:CPU");
    }
    (needs.enis > candidate.enis).then_some("RESOURCE:ENI")
}

/// The instance that takes the task, or each one's reason.
pub(super) fn choose<'a>(
    needs: &Needs,
    candidates: &'a [Candidate],
    rules: &Rules,
    mut dice: impl FnMut() -> u64,
) -> Result<&'a Candidate, Vec<(&'a str, &'static str)>> {
    let mut fitting = Vec::new();
    let mut refused = Vec::new();
    for candidate in candidates {
        match refusal(needs, candidate, rules.distinct) {
            None => fitting.push((candidate, dice())),
            Some(reason) => refused.push((candidate.id.as_str(), reason)),
        }
    }
    let best = fitting.into_iter().min_by(|(a, a_dice), (b, b_dice)| {
        let strategies = rules.strategies.iter().map(|strategy| match strategy {
            Strategy::SpreadInstances => a.of_group.cmp(&b.of_group),
            Strategy::SpreadAttribute(name) => {
                group_tasks(candidates, name, a).cmp(&group_tasks(candidates, name, b))
            }
            Strategy::PackCpu => a.cpu.cmp(&b.cpu),
            Strategy::PackMemory => a.memory.cmp(&b.memory),
            Strategy::Random => a_dice.cmp(b_dice),
        });
        let decided = strategies.fold(Ordering::Equal, Ordering::then);
        decided.then(a.tasks.cmp(&b.tasks)).then_with(|| a.id.cmp(&b.id))
    });
    best.map(|(candidate, _)| candidate).ok_or(refused)
}

/// Tasks of the group on all instances that share a candidate's value of an attribute.
fn group_tasks(candidates: &[Candidate], name: &str, of: &Candidate) -> usize {
    let value = of.attributes.get(name);
    candidates.iter().filter(|c| c.attributes.get(name) == value).map(|c| c.of_group).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn candidate(id: &str) -> Candidate {
        let zone = Some("us-west-2a".to_owned());
        Candidate {
            id: id.to_owned(),
            connected: true,
            cpu: 1024,
            memory: 1024,
            enis: 2,
            attributes: [("ecs.availability-zone".to_owned(), zone), ("can".to_owned(), None)].into(),
            ..Candidate::default()
        }
    }

    fn needs() -> Needs {
        let zones = Some(["us-west-2a".to_owned()].into());
        Needs { cpu: 256, memory: 512, enis: 1, attributes: vec!["can".to_owned()], zones }
    }

    #[test]
    fn each_shortage_has_its_own_reason() {
        let fits = candidate("a");
        assert_eq!(refusal(&needs(), &fits, false), None);
        let cases = [
            ("AGENT", Candidate { connected: false, ..fits.clone() }),
            ("ATTRIBUTE", Candidate { attributes: BTreeMap::new(), ..fits.clone() }),
            ("RESOURCE:MEMORY", Candidate { memory: 511, ..fits.clone() }),
            ("RESOURCE:CPU", Candidate { cpu: 255, ..fits.clone() }),
            ("RESOURCE:ENI", Candidate { enis: 0, ..fits.clone() }),
        ];
        for (reason, candidate) in cases {
            assert_eq!(refusal(&needs(), &candidate, false), Some(reason));
        }
        let elsewhere = Needs { zones: Some(["us-west-2b".to_owned()].into()), ..needs() };
        assert_eq!(refusal(&elsewhere, &fits, false), Some("LOCATION"));
        let taken = Candidate { of_group: 1, ..fits };
        assert_eq!(refusal(&needs(), &taken, true), Some("CONSTRAINT:distinctInstance"));
    }

    #[test]
    fn without_a_strategy_the_instance_with_the_fewest_tasks_is_taken() {
        let busy = Candidate { tasks: 3, ..candidate("a") };
        let all = [busy, candidate("b"), candidate("c")];
        assert_eq!(choose(&needs(), &all, &Rules::default(), || 0).unwrap().id, "b");
    }

    #[test]
    fn strategies_decide_in_their_order() {
        let with_zone = |mut c: Candidate, zone: &str| {
            c.attributes.insert("ecs.availability-zone".to_owned(), Some(zone.to_owned()));
            c
        };
        let all = [
            with_zone(Candidate { of_group: 1, cpu: 300, ..candidate("a") }, "us-west-2a"),
            with_zone(Candidate { cpu: 1000, ..candidate("b") }, "us-west-2b"),
            with_zone(Candidate { cpu: 500, ..candidate("c") }, "us-west-2b"),
        ];
        let needs = Needs { zones: None, ..needs() };
        let zone = Strategy::SpreadAttribute("ecs.availability-zone".to_owned());
        let pick = |strategies| {
            let rules = Rules { strategies, distinct: false };
            choose(&needs, &all, &rules, || 0).unwrap().id.clone()
        };
        assert_eq!(pick(vec![Strategy::PackCpu]), "a");
        assert_eq!(pick(vec![zone.clone()]), "b");
        assert_eq!(pick(vec![zone, Strategy::PackCpu]), "c");
    }

    #[test]
    fn every_instance_says_why_when_none_fits() {
        let full = Candidate { enis: 0, ..candidate("a") };
        let silent = Candidate { connected: false, ..candidate("b") };
        let all = [full, silent];
        let refused = choose(&needs(), &all, &Rules::default(), || 0).unwrap_err();
        assert_eq!(refused, [("a", "RESOURCE:ENI"), ("b", "AGENT")]);
    }

    #[test]
    fn rules_that_nobody_evaluates_are_refused_and_not_passed_over() {
        let bad = [
            json!({ "placementConstraints": [{ "type": "memberOf", "expression": "attribute:a == b" }] }),
            json!({ "placementConstraints": [{}] }),
            json!({ "placementStrategy": [{ "type": "spread", "field": "moon" }] }),
            json!({ "placementStrategy": [{ "type": "best" }] }),
        ];
        for input in bad {
            assert!(rules(Input::new(&input).unwrap()).is_err(), "{input}");
        }
        let good = json!({
            "placementConstraints": [{ "type": "distinctInstance" }],
            "placementStrategy": [{ "type": "spread", "field": "instanceId" }, { "type": "random" }],
        });
        let expected =
            Rules { strategies: vec![Strategy::SpreadInstances, Strategy::Random], distinct: true };
        assert_eq!(rules(Input::new(&good).unwrap()), Ok(expected));
    }
}
