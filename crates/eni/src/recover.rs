//! Taking over what a former program left: journal, EC2 and kernel, merged into the state. Pure.
//!
//! The three tell of the same things from different sides. The journal knows intents and leases, EC2 knows ENIs (by tag) and
//! attachments, the kernel knows namespaces, links (by MAC) and aliases. Each comes in when it comes; an ENI that the journal
//! describes completely is taken over without waiting for EC2, so that tasks keep their slots while EC2 is down. With the journal
//! gone, tags and kernel give the same result later.

use crate::{
    config::{LAG, Spec},
    machine::{Creating, Eni, Now, Past, Reply, Seat, Stage, State, is_task_tag},
    records::{Course, EniRecord, Memory},
};
use berth_types::{
    Timestamp,
    eni::{CreateEni, EniFacts, LinkFacts},
    ids::{ClientToken, SlotId, TaskArn},
    ports::TAG_CREATED,
};
use std::collections::BTreeMap;

/// What an alias of ours begins with.
const ALIAS_PREFIX: &str = "berth ";

/// Longest alias that the kernel takes (IFALIASZ less the final zero).
const ALIAS_MAX: usize = 255;

/// EC2 honours a client token for at least 24 hours; past this the create is not repeated, and what it made is found by its tags.
const TOKEN_LIFE: std::time::Duration = std::time::Duration::from_secs(20 * 3600);

/// The alias of a leased link.
pub(crate) fn alias(task: &TaskArn) -> String {
    let mut text = format!("{ALIAS_PREFIX}{task}");
    text.truncate(ALIAS_MAX);
    text
}

/// Who holds a link, as its alias says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AliasSays {
    /// Nothing of a task.
    Nobody,
    /// This task.
    Task(TaskArn),
    /// Some task, but the name was cut off.
    Somebody,
}

/// Reads an alias.
pub(crate) fn read_alias(alias: Option<&str>) -> AliasSays {
    match alias.and_then(|text| text.strip_prefix(ALIAS_PREFIX)).filter(|rest| rest.starts_with("arn:")) {
        None => AliasSays::Nobody,
        Some(arn) if alias.map_or(0, str::len) < ALIAS_MAX => {
            arn.parse().map_or(AliasSays::Somebody, AliasSays::Task)
        }
        Some(_) => AliasSays::Somebody,
    }
}

/// Takes over what the journal remembers.
pub(crate) fn remember(state: &mut State, memory: Memory, now: Now) {
    state.memory = memory.leases;
    for (token, record) in memory.enis {
        match record.facts.clone() {
            None => remember_intent(state, token, record, now),
            Some(facts) => {
                let eni = remembered(&record, facts, now);
                state.enis.entry(token).or_insert(eni);
            }
        }
    }
}

/// A create whose answer the journal does not know: repeated with its token, which EC2 answers with the same ENI.
fn remember_intent(state: &mut State, token: ClientToken, record: EniRecord, now: Now) {
    let age = now.wall.duration_since(record.created_at);
    if age > jiff::SignedDuration::try_from(TOKEN_LIFE).unwrap_or(jiff::SignedDuration::MAX) {
        state.dirty_enis.insert(token);
        return;
    }
    let mut groups = record.request.security_groups.clone();
    groups.sort();
    groups.dedup();
    let creating = Creating {
        spec: Spec { subnet: record.request.subnet.clone(), groups },
        request: record.request,
        created_at: record.created_at,
        since: now,
        retry: crate::backoff::Retry::default(),
        busy: false,
        tried: true,
        error: None,
    };
    state.creating.insert(token, creating);
}

/// An ENI of the journal. Where it really is, the next describe says; until then it is where it was.
fn remembered(record: &EniRecord, facts: EniFacts, now: Now) -> Eni {
    let seat = record
        .device_index
        .zip(record.attachment.clone())
        .map(|(index, attachment)| Seat { index, attachment });
    let stage = match (record.course, seat, record.device_index) {
        (Course::Keep, Some(seat), _) => Stage::AwaitingLink { seat },
        // The attach was announced, its answer is not known: look before repeating it.
        (Course::Keep, None, Some(index)) => Stage::Attaching { index, reply: Reply::Unknown },
        (Course::Keep, None, None) => Stage::Created,
        (Course::Remove, Some(seat), _) => Stage::Detaching { seat, asked: false },
        (Course::Remove, None, _) => Stage::Deleting,
    };
    let mut eni = Eni::new(record.request.clone(), facts, stage, now);
    eni.created_at = record.created_at;
    eni.condemned = record.course == Course::Remove;
    // Known from our own records: needs no second look before it may go.
    eni.sightings = 1;
    eni.tagged = record.task_tags.iter().map(|key| (key.clone(), String::new())).collect();
    eni.tagged.extend(task_tags_of(&eni.facts));
    eni.remembered_slot = record.slot.clone();
    let lag = jiff::SignedDuration::try_from(LAG).unwrap_or(jiff::SignedDuration::MAX);
    if record.regrouped_at.is_some_and(|at| now.wall.duration_since(at) < lag) {
        eni.doubt_groups(now);
    }
    eni
}

/// An ENI that only its tags speak of.
pub(crate) fn adopted(token: &ClientToken, facts: EniFacts, stage: Stage, now: Now) -> Eni {
    let request = CreateEni {
        token: token.clone(),
        subnet: facts.subnet.clone(),
        security_groups: facts.security_groups.clone(),
        description: facts.description.clone(),
        tags: facts
            .tags
            .iter()
            .filter(|(key, _)| !is_task_tag(key))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect(),
        ipv6_addresses: u32::try_from(facts.ipv6.len()).unwrap_or(u32::MAX),
    };
    let created = facts.tags.get(TAG_CREATED).and_then(|ms| ms.parse().ok());
    let created_at = created.and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or(now.wall);
    let mut eni = Eni::new(request, facts, stage, now);
    eni.created_at = created_at;
    // Without the journal nobody knows whether its groups have just been changed: one more call, if a task wants it soon.
    eni.doubt_groups(now);
    eni.tagged = task_tags_of(&eni.facts);
    eni
}

/// Task tags that it carries, says EC2.
fn task_tags_of(facts: &EniFacts) -> BTreeMap<String, String> {
    facts
        .tags
        .iter()
        .filter(|(key, _)| is_task_tag(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// Brings ENIs and namespaces together: a link inside a namespace of ours is the link of one of our ENIs.
pub(crate) fn match_orphans(state: &mut State, now: Now) {
    if !state.loaded || !state.network.seen {
        return;
    }
    for token in state.enis.keys().cloned().collect::<Vec<_>>() {
        let Some(eni) = state.enis.get(&token) else { continue };
        let Stage::AwaitingLink { seat } = &eni.stage else { continue };
        let (seat, mac) = (seat.clone(), eni.facts.mac);
        let Some(slot) = state.orphan_with(mac) else { continue };
        let Some(orphan) = state.orphans.remove(&slot) else { continue };
        let past = past(state, &token, &slot, orphan.links.iter().find(|link| link.mac == mac));
        tracing::info!(slot = %slot, task = ?past.task, "slot found");
        if let Some(eni) = state.enis.get_mut(&token) {
            eni.stage = Stage::Building { seat, slot, past: Some(past) };
            eni.since = now;
        }
    }
}

/// What is known of a slot's past.
fn past(state: &State, token: &ClientToken, slot: &SlotId, link: Option<&LinkFacts>) -> Past {
    let leased = state.memory.values().find(|lease| lease.slot == *slot).map(|lease| lease.task.clone());
    let says = read_alias(link.and_then(|link| link.alias.as_deref()));
    let record = state.enis.get(token).and_then(|eni| eni.remembered_slot.as_ref());
    let fresh = record.is_some_and(|record| record.slot == *slot && !record.used);
    let proven_warm = fresh && leased.is_none() && says == AliasSays::Nobody;
    let task = leased.or(match says {
        AliasSays::Task(task) => Some(task),
        AliasSays::Nobody | AliasSays::Somebody => None,
    });
    Past { task, proven_warm }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_names_its_task() {
        let task: TaskArn = "arn:aws:ecs:us-west-2:111122223333:task/demo/0123abcd".parse().unwrap();
        assert_eq!(read_alias(Some(&alias(&task))), AliasSays::Task(task));
        for nobody in [None, Some(""), Some("berth eni-00000001"), Some("uplink arn:aws")] {
            assert_eq!(read_alias(nobody), AliasSays::Nobody, "{nobody:?}");
        }
    }

    #[test]
    fn an_alias_that_was_cut_off_still_says_that_somebody_holds_the_link() {
        let text = format!("arn:aws:ecs:us-west-2:111122223333:task/{}/0123abcd", "c".repeat(255));
        let task: TaskArn = text.parse().unwrap();
        assert_eq!(alias(&task).len(), ALIAS_MAX);
        assert_eq!(read_alias(Some(&alias(&task))), AliasSays::Somebody);
    }
}
