//! Tables for machine and planner: a state, an event or a moment, and what is to be done.

use super::facts;
use crate::{
    config::{BUILD_TRIES, EniConfig, LAG, YOUNG},
    demand::demand,
    failure::{Failure, Kind},
    machine::{Asked, Event, Finished, Now, Presence, Stage, State},
    ops::Op,
    plan::{Action, plan},
    records::{Memory, decode, read, write_eni},
};
use berth_testkit::cloud;
use berth_types::{
    Timestamp,
    eni::{AttachmentFacts, AttachmentStatus, EniFacts, EniStatus, LinkFacts, NetworkFacts, SlotFiles},
    ids::{ClientToken, MacAddr, NetnsId, TaskArn},
    lease::LeaseNeeds,
    ports::{Record, TAG_INSTANCE, TAG_INTENT, Write},
};
use proptest::prelude::*;
use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

fn at(seconds: u64) -> Now {
    Now { mono: Duration::from_secs(seconds), wall: Timestamp::UNIX_EPOCH }
}

fn task(number: u32) -> TaskArn {
    super::world::task(number)
}

fn eni_facts(number: u8, place: Option<(u32, AttachmentStatus)>) -> EniFacts {
    let instance = cloud::instance(4).instance_id;
    let tags = [(TAG_INSTANCE, instance.to_string()), (TAG_INTENT, format!("token-{number}"))];
    let tags = tags.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    EniFacts {
        id: format!("eni-{number:08x}").parse().unwrap(),
        mac: MacAddr([2, 0, 0, 0, 1, number]),
        status: if place.is_some() { EniStatus::InUse } else { EniStatus::Available },
        attachment: place.map(|(device_index, status)| AttachmentFacts {
            id: format!("eni-attach-{number:08x}").parse().unwrap(),
            instance: Some(instance),
            device_index,
            status,
            delete_on_termination: true,
        }),
        ..facts(&tags)
    }
}

fn token(number: u8) -> ClientToken {
    format!("token-{number}").parse().unwrap()
}

/// A state that has looked at everything and found these ENIs.
fn state(warm: u32, enis: Vec<EniFacts>) -> State {
    let mut state = State::new(EniConfig { warm, ..EniConfig::default() }, cloud::instance(4));
    state.apply(Event::Loaded(Ok(Memory::default())), at(0));
    state.apply(Event::Recovered, at(0));
    state.apply(Event::NetworkSeen { began: 0, result: Ok(NetworkFacts::default()) }, at(0));
    state.network.kicked = false;
    for _ in 0..2 {
        state.apply(Event::CloudSeen { began: 0, result: Ok(enis.clone()) }, at(0));
    }
    for eni in state.enis.values_mut() {
        // Seen for so long that what EC2 shows of their groups counts.
        eni.regrouped = None;
        eni.spec = crate::machine::spec_of(&eni.facts);
    }
    state
}

/// Plans and begins until nothing is left to decide; the ops that run now.
fn settle(state: &mut State, now: Now) -> Vec<Op> {
    let mut ops = Vec::new();
    for _ in 0..20 {
        let plan = plan(state, now);
        if plan.actions.is_empty() {
            return ops;
        }
        ops.extend(plan.actions.into_iter().filter_map(|action| state.begin(action, now)));
    }
    panic!("the plan does not come to rest");
}

fn plug(state: &mut State, number: u8) {
    let mac = MacAddr([2, 0, 0, 0, 1, number]);
    let link = LinkFacts { ifindex: u32::from(number), name: format!("ens{number}"), mac, alias: None };
    let mut links = (*state.links).clone();
    links.insert(mac, link);
    state.apply(Event::Links(Arc::new(links)), at(0));
}

fn finished() -> Finished {
    let file = |name: &str| PathBuf::from("/slots").join(name);
    Finished {
        netns: NetnsId { dev: 4, ino: 1 },
        netns_path: PathBuf::from("/run/netns/berth"),
        files: SlotFiles {
            resolv_conf: file("resolv.conf"),
            hosts: file("hosts"),
            hostname: file("hostname"),
        },
        build_micros: 1,
    }
}

/// A state whose first ENI is in a warm slot.
fn with_warm_slot() -> State {
    let mut state = state(1, vec![eni_facts(1, Some((1, AttachmentStatus::Attached)))]);
    plug(&mut state, 1);
    let ops = settle(&mut state, at(1));
    let slot = ops
        .iter()
        .find_map(|op| if let Op::Build { spec, .. } = op { Some(spec.slot.clone()) } else { None });
    let result = Ok(Box::new(finished()));
    state.apply(Event::Built { token: token(1), slot: slot.unwrap(), result }, at(1));
    settle(&mut state, at(1));
    recorded(&mut state);
    assert!(matches!(state.enis[&token(1)].stage, Stage::Ready { .. }));
    state
}

/// The journal has taken all facts.
fn recorded(state: &mut State) {
    while state.recording.is_some() {
        state.apply(Event::Recorded(Ok(())), at(1));
        settle(state, at(1));
    }
}

fn failed(kind: Kind) -> Failure {
    Failure::new(kind, "it failed")
}

#[test]
fn nothing_is_asked_of_ec2_or_the_kernel_before_the_journal_was_read() {
    let state = State::new(EniConfig::default(), cloud::instance(4));
    assert_eq!(plan(&state, at(0)).actions, [Action::Load]);
}

#[test]
fn the_first_looks_come_before_the_first_acts() {
    let mut state = State::new(EniConfig::default(), cloud::instance(4));
    state.apply(Event::Recovered, at(0));
    state.apply(Event::Loaded(Ok(Memory::default())), at(0));
    assert_eq!(plan(&state, at(0)).actions, [Action::ObserveCloud, Action::ObserveNetwork]);
}

#[test]
fn an_eni_is_found_at_the_stage_where_ec2_shows_it() {
    for (place, word) in [
        (None, "created"),
        (Some((1, AttachmentStatus::Attaching)), "attaching"),
        (Some((1, AttachmentStatus::Attached)), "awaiting link"),
        (Some((1, AttachmentStatus::Detaching)), "detaching"),
    ] {
        let state = state(1, vec![eni_facts(1, place)]);
        assert_eq!(state.enis[&token(1)].stage.word(), word);
    }
}

#[test]
fn the_primary_and_enis_of_services_are_nobodys_business_whatever_their_tags() {
    let primary = eni_facts(1, Some((0, AttachmentStatus::Attached)));
    let service = EniFacts { requester_managed: true, ..eni_facts(2, Some((1, AttachmentStatus::Attached))) };
    let mut strange = eni_facts(3, Some((2, AttachmentStatus::Attached)));
    strange.attachment.as_mut().unwrap().instance = Some("i-0b0b0b0b".parse().unwrap());
    let state = state(0, vec![primary, service, strange]);
    assert!(state.enis.is_empty());
    assert_eq!(state.capacity(), 2, "the service's ENI takes a place");
}

#[test]
fn an_attach_reserves_the_lowest_free_index_and_never_the_primarys() {
    let mut state = state(2, vec![eni_facts(1, Some((2, AttachmentStatus::Attached))), eni_facts(2, None)]);
    let ops = settle(&mut state, at(1));
    let indexes: Vec<u32> = ops
        .iter()
        .filter_map(|op| if let Op::Attach { index, .. } = op { Some(*index) } else { None })
        .collect();
    assert_eq!(indexes, [1]);
}

#[test]
fn a_build_waits_for_both_ec2_and_the_link() {
    for (status, linked, built) in [
        (AttachmentStatus::Attached, true, true),
        (AttachmentStatus::Attached, false, false),
        (AttachmentStatus::Attaching, true, false),
    ] {
        let mut state = state(1, vec![eni_facts(1, Some((1, status)))]);
        if linked {
            plug(&mut state, 1);
        }
        let ops = settle(&mut state, at(1));
        assert_eq!(ops.iter().any(|op| matches!(op, Op::Build { .. })), built, "{status:?} {linked}");
    }
}

#[test]
fn an_absence_is_believed_when_it_is_seen_twice_with_time_in_between() {
    let mut state = with_warm_slot();
    let gone = |state: &mut State, seconds| {
        let began = state.seq;
        state.apply(Event::CloudSeen { began, result: Ok(Vec::new()) }, at(seconds));
        state.enis[&token(1)].presence
    };
    let young = YOUNG.as_secs();
    assert_eq!(gone(&mut state, young + 10), Presence::Normal);
    assert_eq!(gone(&mut state, young + 11), Presence::Normal);
    assert_eq!(gone(&mut state, young + 10 + LAG.as_secs()), Presence::Gone);
    assert_eq!(state.enis[&token(1)].stage.word(), "draining");
}

#[test]
fn a_sighting_that_began_before_an_act_ended_says_nothing_about_it() {
    let mut state = state(1, vec![eni_facts(1, None)]);
    settle(&mut state, at(1));
    let began = state.seq;
    state.apply(Event::Attached { token: token(1), result: Ok(()) }, at(2));
    let detaching = eni_facts(1, Some((1, AttachmentStatus::Detaching)));
    state.apply(Event::CloudSeen { began, result: Ok(vec![detaching]) }, at(3));
    assert_eq!(state.enis[&token(1)].stage.word(), "attaching");
}

#[test]
fn an_attach_of_unknown_outcome_is_looked_at_before_it_is_repeated() {
    let mut state = state(1, vec![eni_facts(1, None)]);
    settle(&mut state, at(1));
    state.apply(Event::Attached { token: token(1), result: Err(failed(Kind::Unknown)) }, at(2));
    let ops = settle(&mut state, at(100));
    assert!(!ops.iter().any(|op| matches!(op, Op::Attach { .. })), "{ops:?}");
    assert!(ops.iter().any(|op| matches!(op, Op::ObserveCloud { .. })), "{ops:?}");
    let began = state.seq;
    state.apply(Event::CloudSeen { began, result: Ok(vec![eni_facts(1, None)]) }, at(101));
    let ops = settle(&mut state, at(101));
    assert!(ops.iter().any(|op| matches!(op, Op::Attach { .. })), "{ops:?}");
}

#[test]
fn a_build_that_keeps_failing_costs_the_eni_and_not_the_pool() {
    let mut state = state(1, vec![eni_facts(1, Some((1, AttachmentStatus::Attached)))]);
    plug(&mut state, 1);
    for round in 0..u64::from(BUILD_TRIES) {
        let ops = settle(&mut state, at(100 * round));
        let slot = ops
            .into_iter()
            .find_map(|op| if let Op::Build { spec, .. } = op { Some(spec.slot) } else { None });
        let slot = slot.unwrap_or_else(|| panic!("no build in round {round}"));
        let result = Err(failed(Kind::Kernel));
        state.apply(Event::Built { token: token(1), slot, result }, at(100 * round));
    }
    let ops = settle(&mut state, at(1000));
    assert!(ops.iter().any(|op| matches!(op, Op::TearDown { .. })), "{ops:?}");
    assert!(state.enis[&token(1)].condemned);
    assert!(demand(&state).promised.is_empty());
}

#[test]
fn a_lease_changes_the_state_at_once_and_is_told_to_journal_kernel_and_ec2_behind() {
    let mut state = with_warm_slot();
    let asked = state.lease(&task(1), &LeaseNeeds::default(), None, at(2));
    assert!(matches!(asked, Asked::Answer(Ok(_))));
    let ops = settle(&mut state, at(2));
    assert!(ops.iter().any(|op| matches!(op, Op::Label { .. })));
    assert!(ops.iter().any(|op| matches!(op, Op::Tag { .. })));
    let writes =
        ops.iter().find_map(|op| if let Op::Record { writes } = op { Some(writes) } else { None }).unwrap();
    let key = task(1).to_string();
    assert!(writes.iter().any(|write| matches!(write, Write::Put { key: k, .. } if *k == key)));
    assert!(ops.iter().any(|op| matches!(op, Op::Create { .. })), "the refill is planned at once: {ops:?}");
}

#[test]
fn a_tasks_tags_never_replace_those_that_say_whose_the_eni_is() {
    let mut state = with_warm_slot();
    let tags = BTreeMap::from([
        (TAG_INSTANCE.to_owned(), "i-evil".to_owned()),
        ("team".to_owned(), "blue".to_owned()),
    ]);
    state.lease(&task(1), &LeaseNeeds { tags, ..LeaseNeeds::default() }, None, at(2));
    let ops = settle(&mut state, at(2));
    let change =
        ops.iter().find_map(|op| if let Op::Tag { change, .. } = op { Some(change) } else { None }).unwrap();
    assert!(!change.contains_key(TAG_INSTANCE));
    assert_eq!(change["team"], Some("blue".to_owned()));
}

#[test]
fn the_pool_stops_calling_when_its_budget_is_used_up_and_goes_on_later() {
    let mut state = state(1, vec![eni_facts(1, None)]);
    state.dirty_enis.clear();
    for _ in 0..100 {
        state.budget.take(at(1).mono);
    }
    assert_eq!(settle(&mut state, at(1)).iter().filter(|op| !matches!(op, Op::Record { .. })).count(), 0);
    let wake = plan(&state, at(1)).wake.expect("a time to look again");
    assert!(wake > at(1).mono && wake < at(3).mono, "{wake:?}");
    let ops = settle(&mut state, Now { mono: wake, ..at(0) });
    assert!(ops.iter().any(|op| matches!(op, Op::Attach { .. })), "{ops:?}");
}

#[test]
fn throttling_stops_tags_and_fill_and_lets_releases_through() {
    let mut state = with_warm_slot();
    state.lease(&task(1), &LeaseNeeds::default(), None, at(2));
    state.throttle.failures = 5;
    state.throttle.not_before = at(60).mono;
    let ops = settle(&mut state, at(2));
    assert!(!ops.iter().any(|op| matches!(op, Op::Tag { .. } | Op::Create { .. })), "{ops:?}");
    state.apply(Event::Labelled { token: token(1), task: task(1), result: Ok(()) }, at(2));
    state.release(&task(1), at(3));
    let ops = settle(&mut state, at(3));
    assert!(ops.iter().any(|op| matches!(op, Op::TearDown { .. })), "{ops:?}");
}

#[test]
fn every_record_that_is_written_is_read_again() {
    let mut state = with_warm_slot();
    state.lease(&task(1), &LeaseNeeds::default(), None, at(2));
    let ops = settle(&mut state, at(2));
    let (mut enis, mut leases) = (Vec::new(), Vec::new());
    for write in ops
        .into_iter()
        .filter_map(|op| if let Op::Record { writes } = op { Some(writes) } else { None })
        .flatten()
    {
        if let Write::Put { table, key, record } = write {
            let records = if table == berth_types::ports::Table::Enis { &mut enis } else { &mut leases };
            records.push((key, record));
        }
    }
    let memory = read(&cloud::instance(4).instance_id, enis, leases);
    assert_eq!(memory.leases.keys().collect::<Vec<_>>(), [&task(1)]);
    assert!(memory.enis[&token(1)].slot.as_ref().unwrap().used);
    let write = write_eni(&token(1), None);
    assert!(matches!(write, Write::Delete { .. }));
}

proptest! {
    #[test]
    fn no_bytes_in_the_journal_make_the_reader_panic(version: u16, body: Vec<u8>, key in "\\PC{0,40}") {
        let record = Record { version, body };
        prop_assert!(decode::<crate::records::EniRecord>(&key, &record).is_err());
        let memory = read(&cloud::instance(4).instance_id, vec![(key.clone(), record.clone())], vec![(key, record)]);
        prop_assert!(memory.enis.is_empty() && memory.leases.is_empty());
    }
}

#[test]
fn a_slot_whose_groups_are_not_known_for_sure_fits_nobody() {
    let mut state = with_warm_slot();
    let team = LeaseNeeds { security_groups: vec![cloud::group(8)], ..LeaseNeeds::default() };
    assert_eq!(state.lease(&task(1), &team, None, at(2)), Asked::Waits);
    let ops = settle(&mut state, at(2));
    let groups = vec![cloud::group(8)];
    assert!(ops.iter().any(|op| matches!(op, Op::Regroup { groups: g, .. } if *g == groups)), "{ops:?}");
    let lost = Failure::new(Kind::Unknown, "no answer");
    state.apply(Event::Regrouped { token: token(1), groups, result: Err(lost) }, at(3));
    state.release(&task(1), at(3));
    // What EC2 shows now may be from before the change: the pool's groups, which it perhaps no longer has.
    let shown = vec![(*state.enis[&token(1)].facts).clone()];
    state.cloud.began_at = at(4).mono;
    state.apply(Event::CloudSeen { began: state.seq, result: Ok(shown.clone()) }, at(4));
    assert_eq!(state.lease(&task(2), &LeaseNeeds::default(), None, at(4)), Asked::Waits);
    state.release(&task(2), at(5));
    // Later it counts.
    state.cloud.began_at = at(30).mono;
    state.apply(Event::CloudSeen { began: state.seq, result: Ok(shown) }, at(30));
    let asked = state.lease(&task(3), &LeaseNeeds::default(), None, at(31));
    assert!(matches!(asked, Asked::Answer(Ok(_))), "{asked:?}");
}
