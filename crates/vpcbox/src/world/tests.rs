//! EC2's rules, by hand and by random histories.

use super::{
    ids::{AttachmentId, GroupId, InstanceId},
    state::{Phase, RESERVED_ADDRESSES, Tags},
    *,
};
use crate::samples::config;
use proptest::prelude::*;
use std::{collections::BTreeSet, net::Ipv4Addr};

/// A small subnet (11 addresses, 2 of them for the instances), a roomy one, and one in another zone.
const VPC: &str = r#"
name = "worldtest"
region = "us-west-2"
account = "123456789012"
listen = "127.0.0.1:0"
auth = false
[vpc]
cidr = "10.0.0.0/16"
ipv6_cidr = "fd00:ec2:1::/56"
[[subnet]]
name = "small"
zone = "us-west-2a"
cidr = "10.0.1.0/28"
[[subnet]]
name = "roomy"
zone = "us-west-2a"
cidr = "10.0.2.0/24"
ipv6_cidr = "fd00:ec2:1::/64"
[[subnet]]
name = "other"
zone = "us-west-2b"
cidr = "10.0.3.0/24"
[[security_group]]
name = "default"
[[security_group]]
name = "web"
[[instance]]
name = "micro"
type = "t3.micro"
subnet = "small"
security_groups = ["default"]
[[instance]]
name = "large"
type = "m5.large"
subnet = "small"
security_groups = ["default"]
[delays]
attach_ms = 1000
detach_ms = 2000
link_ms = 500
"#;

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(1_795_000_000_000 + ms).unwrap()
}

fn world() -> World {
    let config = config(VPC);
    World::new(&config, "seed", at(0)).unwrap()
}

fn subnet(world: &World, zone_start: &str) -> SubnetId {
    let found = world.state.site.subnets.values().find(|s| s.ipv4.to_string().starts_with(zone_start));
    found.unwrap().id.clone()
}

fn instance(world: &World, name: &str) -> InstanceId {
    world.state.site.instances.values().find(|i| i.name == name).unwrap().id.clone()
}

fn spec(subnet: SubnetId) -> CreateEni {
    CreateEni {
        subnet,
        groups: Vec::new(),
        description: "test".into(),
        primary: None,
        secondary: Vec::new(),
        secondary_count: 0,
        ipv6: Vec::new(),
        ipv6_count: 0,
        tags: Tags::new(),
    }
}

fn create(world: &mut World, token: &str) -> EniId {
    let params = spec(subnet(world, "10.0.2."));
    world.create(token, &params, at(0)).unwrap().id.clone()
}

/// Says to the world what the wiring would: every link that should go is gone.
fn links_go(world: &mut World, now: Timestamp) {
    for (eni, attachment) in world.links(now).leaving {
        world.link_gone(&eni, &attachment, now);
    }
}

#[test]
fn the_same_token_gives_the_same_eni_and_other_parameters_are_a_mismatch() {
    let mut world = world();
    let mut params = spec(subnet(&world, "10.0.2."));
    let first = world.create("token", &params, at(0)).unwrap();
    assert_eq!(world.create("token", &params, at(10)).unwrap().id, first.id);
    params.description = "other".into();
    assert_eq!(world.create("token", &params, at(10)), Err(Refusal::TokenMismatch));
    assert_ne!(world.create("token 2", &params, at(10)).unwrap().id, first.id);
}

#[test]
fn a_token_outlives_its_eni_and_is_forgotten_after_a_day() {
    let mut world = world();
    let first = create(&mut world, "token");
    world.delete(&first, at(1)).unwrap();
    assert_eq!(create(&mut world, "token"), first);
    let params = spec(subnet(&world, "10.0.2."));
    let next_day = at(24 * 3600 * 1000);
    assert_ne!(world.create("token", &params, next_day).unwrap().id, first);
}

#[test]
fn a_subnet_keeps_five_addresses_and_then_is_full() {
    let mut world = world();
    let small = subnet(&world, "10.0.1.");
    let free = |world: &World| world.state.free_addresses(&world.state.site.subnets[&small]);
    assert_eq!(free(&world), 16 - RESERVED_ADDRESSES - 2, "two primary ENIs are in it");
    for n in 0..9 {
        let eni = world.create(&n.to_string(), &spec(small.clone()), at(0)).unwrap();
        assert!((4..15).contains(&eni.primary_ipv4().octets()[3]));
    }
    assert_eq!(free(&world), 0);
    assert_eq!(
        world.create("one more", &spec(small.clone()), at(0)),
        Err(Refusal::SubnetFull(small.clone()))
    );
}

#[test]
fn an_address_given_back_is_not_the_next_to_be_used() {
    let mut world = world();
    let first = create(&mut world, "1");
    let address = world.state.enis[&first].primary_ipv4();
    world.delete(&first, at(0)).unwrap();
    let second = create(&mut world, "2");
    assert_ne!(world.state.enis[&second].primary_ipv4(), address);
}

#[test]
fn an_eni_is_attaching_then_attached_then_detaching_then_free() {
    let mut world = world();
    let eni = create(&mut world, "1");
    let large = instance(&world, "large");
    let attachment = world.attach(&eni, &large, 1, 0, at(0)).unwrap();
    let status = |world: &mut World, ms| world.current(at(ms)).enis[&eni].status();
    assert_eq!(status(&mut world, 999), "attaching");
    assert_eq!(status(&mut world, 1000), "in-use");
    assert_eq!(world.delete(&eni, at(1001)), Err(Refusal::EniInUse(eni.clone())));
    world.detach(&attachment, at(2000)).unwrap();
    assert_eq!(status(&mut world, 2001), "detaching");
    assert_eq!(world.detach(&attachment, at(2002)), Err(Refusal::AlreadyDetaching(attachment.clone())));
    assert_eq!(status(&mut world, 9000), "detaching", "its link is still in the instance");
    links_go(&mut world, at(9000));
    assert_eq!(status(&mut world, 9000), "available");
    assert_eq!(world.detach(&attachment, at(9001)), Err(attachment.not_found()));
    world.delete(&eni, at(9002)).unwrap();
    assert_eq!(world.delete(&eni, at(9003)), Err(eni.not_found()));
}

#[test]
fn a_link_is_due_after_its_delay_and_leaves_with_the_detach() {
    let mut world = world();
    let eni = create(&mut world, "1");
    let large = instance(&world, "large");
    let attachment = world.attach(&eni, &large, 1, 0, at(0)).unwrap();
    let early = world.links(at(499));
    assert_eq!((early.wanted.contains_key(&eni), early.next), (false, Some(at(500))));
    let due = world.links(at(500));
    assert_eq!(due.wanted[&eni].attachment, attachment);
    assert_eq!(due.wanted[&eni].plug.addresses, [], "only the primary comes up configured");
    world.detach(&attachment, at(600)).unwrap();
    let left = world.links(at(600));
    assert!(!left.wanted.contains_key(&eni));
    assert_eq!(left.leaving, [(eni, attachment)]);
}

#[test]
fn a_primary_is_wanted_from_the_start_with_its_address_and_stays() {
    let mut world = world();
    let large = instance(&world, "large");
    let primary = world.state.site.instances[&large].primary.clone();
    let wanted = world.links(at(0)).wanted.remove(&primary).unwrap();
    assert_eq!(wanted.plug.name.as_deref(), Some("eth0"));
    assert_eq!(wanted.plug.addresses[0].prefix_len(), 28);
    assert_eq!(world.detach(&wanted.attachment, at(1)), Err(Refusal::DetachPrimary));
}

#[test]
fn links_of_the_next_attachments_never_show_up_when_told() {
    let mut world = world();
    world.set_links_never(1);
    let large = instance(&world, "large");
    let (first, second) = (create(&mut world, "1"), create(&mut world, "2"));
    world.attach(&first, &large, 1, 0, at(0)).unwrap();
    world.attach(&second, &large, 2, 0, at(0)).unwrap();
    let links = world.links(at(3_600_000));
    assert!(!links.wanted.contains_key(&first) && links.wanted.contains_key(&second));
    assert_eq!(world.current(at(3_600_000)).enis[&first].status(), "in-use", "EC2 says that all is well");
}

#[test]
fn a_pulled_link_is_unwanted_while_ec2_calls_it_attached() {
    let mut world = world();
    let eni = create(&mut world, "1");
    let large = instance(&world, "large");
    world.attach(&eni, &large, 1, 0, at(0)).unwrap();
    world.pull(&eni, at(2000)).unwrap();
    assert!(!world.links(at(2000)).wanted.contains_key(&eni));
    assert_eq!(world.current(at(2000)).enis[&eni].status(), "in-use");
}

#[test]
fn an_instance_holds_what_its_type_can() {
    let mut world = world();
    let micro = instance(&world, "micro");
    let (first, second) = (create(&mut world, "1"), create(&mut world, "2"));
    let attachment = world.attach(&first, &micro, 1, 0, at(0)).unwrap();
    let full = Refusal::AttachmentLimit { count: 3, instance_type: "t3.micro" };
    assert_eq!(world.attach(&second, &micro, 2, 0, at(0)), Err(full.clone()));
    world.detach(&attachment, at(0)).unwrap();
    assert_eq!(
        world.attach(&second, &micro, 2, 0, at(1)),
        Err(full),
        "one that is leaving still fills its place"
    );
    links_go(&mut world, at(1));
    world.attach(&second, &micro, 1, 0, at(2001)).unwrap();
}

#[test]
fn a_device_index_takes_one_eni_and_an_eni_one_instance() {
    let mut world = world();
    let (large, micro) = (instance(&world, "large"), instance(&world, "micro"));
    let (first, second) = (create(&mut world, "1"), create(&mut world, "2"));
    world.attach(&first, &large, 1, 0, at(0)).unwrap();
    let taken = Refusal::DeviceIndexTaken { instance: large.clone(), index: 1 };
    assert_eq!(world.attach(&second, &large, 1, 0, at(0)), Err(taken));
    assert_eq!(world.attach(&first, &micro, 1, 0, at(0)), Err(Refusal::EniAttached(first.clone())));
    let other = spec(subnet(&world, "10.0.3."));
    let other = world.create("3", &other, at(0)).unwrap().id.clone();
    assert_eq!(world.attach(&other, &large, 2, 0, at(0)), Err(Refusal::OtherZone));
}

#[test]
fn addresses_are_limited_by_the_type_and_found_at_most_once() {
    let mut world = world();
    let micro = instance(&world, "micro");
    let eni = create(&mut world, "1");
    world.attach(&eni, &micro, 1, 0, at(0)).unwrap();
    let new = world.assign(&eni, &[], 1, false, at(1)).unwrap();
    assert_eq!(world.assign(&eni, &new, 0, false, at(2)).unwrap(), new, "named ones are repeatable");
    assert_eq!(world.assign(&eni, &[], 1, false, at(2)), Err(Refusal::AddressLimit { count: 3, limit: 2 }));
    let primary = world.state.enis[&eni].primary_ipv4();
    let refused = world.unassign(&eni, &[new[0], primary], at(3));
    assert!(matches!(refused, Err(Refusal::PrimaryAddress { .. })));
    world.unassign(&eni, &new, at(3)).unwrap();
    assert!(matches!(world.unassign(&eni, &new, at(3)), Err(Refusal::NotAssigned { .. })));
}

#[test]
fn a_named_address_must_be_free_usable_and_of_the_subnet() {
    let mut world = world();
    let mut params = spec(subnet(&world, "10.0.2."));
    let mut try_one = |world: &mut World, address: [u8; 4]| {
        params.primary = Some(Ipv4Addr::from(address));
        let token = format!("{address:?}");
        world.create(&token, &params, at(0)).map(|e| e.primary_ipv4()).map_err(|e| e.code())
    };
    assert_eq!(try_one(&mut world, [10, 0, 2, 77]), Ok(Ipv4Addr::new(10, 0, 2, 77)));
    let eni = world.state.ipv4[&Ipv4Addr::new(10, 0, 2, 77)].clone();
    world.tokens.clear();
    assert_eq!(try_one(&mut world, [10, 0, 2, 77]), Err("InvalidIPAddress.InUse"));
    for reserved in [[10, 0, 2, 0], [10, 0, 2, 3], [10, 0, 2, 255], [10, 0, 1, 7]] {
        assert_eq!(try_one(&mut world, reserved), Err("InvalidParameterValue"));
    }
    let thief = create(&mut world, "thief");
    let stolen = [Ipv4Addr::new(10, 0, 2, 77)];
    assert!(world.assign(&thief, &stolen, 0, true, at(0)).is_err(), "a primary is never taken away");
    let second = world.assign(&eni, &[], 1, false, at(0)).unwrap();
    assert!(world.assign(&thief, &second, 0, false, at(0)).is_err());
    world.assign(&thief, &second, 0, true, at(0)).unwrap();
    assert_eq!(world.state.enis[&eni].ipv4.len(), 1);
}

#[test]
fn reads_lag_when_told_and_a_young_eni_is_not_found() {
    let mut world = world();
    world.set_read_lag(Duration::from_secs(1), at(0));
    let params = spec(subnet(&world, "10.0.2."));
    let eni = world.create("1", &params, at(100)).unwrap().id.clone();
    let large = instance(&world, "large");
    assert!(!world.read(at(1099)).enis.contains_key(&eni));
    assert_eq!(world.attach(&eni, &large, 1, 0, at(1099)), Err(eni.not_found()));
    assert!(world.read(at(1100)).enis.contains_key(&eni));
    world.attach(&eni, &large, 1, 0, at(1100)).unwrap();
    assert_eq!(world.read(at(2099)).enis[&eni].status(), "available");
    assert_eq!(world.read(at(2100)).enis[&eni].status(), "attaching");
    assert_eq!(world.read(at(3100)).enis[&eni].status(), "in-use");
    world.set_read_lag(Duration::ZERO, at(3100));
    assert_eq!(world.read(at(3100)).enis[&eni].status(), "in-use");
}

#[test]
fn tags_have_limits_and_are_deleted_by_key_or_by_value() {
    let mut world = world();
    let eni = create(&mut world, "1");
    let resource = [eni.to_string()];
    let tag = |k: &str, v: &str| Tags::from([(k.to_owned(), v.to_owned())]);
    world.create_tags(&resource, &tag("a", "1"), at(0)).unwrap();
    world.create_tags(&resource, &tag("b", ""), at(0)).unwrap();
    assert_eq!(
        world.create_tags(&resource, &tag("aws:x", "1"), at(0)).unwrap_err().code(),
        "InvalidParameterValue"
    );
    let many = (0..49).map(|n| (n.to_string(), String::new())).collect();
    assert_eq!(world.create_tags(&resource, &many, at(0)), Err(Refusal::TooManyTags));
    world.delete_tags(&resource, &[("a".into(), Some("2".into())), ("b".into(), None)], at(0)).unwrap();
    assert_eq!(world.state.tags_of(eni.as_str()).collect::<Vec<_>>(), [("a", "1")]);
    let gone = world.create_tags(&["eni-00000000".to_owned()], &tag("a", "1"), at(0));
    assert_eq!(gone.unwrap_err().code(), "InvalidNetworkInterfaceID.NotFound");
    world.delete(&eni, at(0)).unwrap();
    assert!(!world.state.tags.contains_key(eni.as_str()));
}

#[test]
fn imds_shows_what_is_attached_and_no_more() {
    let mut world = world();
    let large = instance(&world, "large");
    let eni = create(&mut world, "1");
    let attachment = world.attach(&eni, &large, 1, 0, at(0)).unwrap();
    let count = |world: &mut World, ms| world.imds_instance(large.as_str(), at(ms)).unwrap().interfaces.len();
    assert_eq!((count(&mut world, 0), count(&mut world, 1000)), (1, 2));
    world.detach(&attachment, at(1500)).unwrap();
    assert_eq!(count(&mut world, 1500), 1);
    assert!(world.imds_instance("i-00000000", at(0)).is_none());
}

#[test]
fn an_unknown_instance_type_is_named_with_what_was_expected() {
    let config = config(&VPC.replace("t3.micro", "t9.giga"));
    let error = World::new(&config, "seed", at(0)).unwrap_err().to_string();
    assert!(error.contains("micro") && error.contains("t9.giga") && error.contains("m5.large"), "{error}");
}

/// A call of a random history.
#[derive(Debug, Clone)]
enum Call {
    Create { token: u8, subnet: usize, secondary: usize, ipv6: usize },
    Attach { eni: usize, instance: usize, index: u32 },
    Detach { eni: usize },
    Delete { eni: usize },
    Assign { eni: usize, count: usize },
    Unassign { eni: usize },
    Steal { from: usize, to: usize },
    Wait { ms: u16 },
    LinksGo,
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let eni = 0..24usize;
    let call = prop_oneof![
        4 => (0..40u8, 0..3usize, 0..4usize, 0..2usize)
            .prop_map(|(token, subnet, secondary, ipv6)| Call::Create { token, subnet, secondary, ipv6 }),
        4 => (eni.clone(), 0..2usize, 0..4u32).prop_map(|(eni, instance, index)| Call::Attach { eni, instance, index }),
        2 => eni.clone().prop_map(|eni| Call::Detach { eni }),
        2 => eni.clone().prop_map(|eni| Call::Delete { eni }),
        2 => (eni.clone(), 0..4usize).prop_map(|(eni, count)| Call::Assign { eni, count }),
        1 => eni.clone().prop_map(|eni| Call::Unassign { eni }),
        1 => (eni.clone(), eni).prop_map(|(from, to)| Call::Steal { from, to }),
        2 => (0..3000u16).prop_map(|ms| Call::Wait { ms }),
        2 => Just(Call::LinksGo),
    ];
    prop::collection::vec(call, 1..80)
}

fn nth_eni(world: &World, n: usize) -> Option<EniId> {
    world.state.enis.keys().nth(n).cloned()
}

/// Makes a call; refusals are part of the game.
fn play(world: &mut World, call: &Call, ms: &mut i64) -> Option<Refusal> {
    let now = at(*ms);
    match call {
        Call::Create { token, subnet, secondary, ipv6 } => {
            let id = world.state.site.subnets.keys().nth(*subnet)?.clone();
            let params = CreateEni { secondary_count: *secondary, ipv6_count: *ipv6, ..spec(id) };
            world.create(&token.to_string(), &params, now).err()
        }
        Call::Attach { eni, instance, index } => {
            let instance = world.state.site.instances.keys().nth(*instance)?.clone();
            let eni = nth_eni(world, *eni)?;
            world.attach(&eni, &instance, *index, 0, now).err()
        }
        Call::Detach { eni } => {
            let eni = nth_eni(world, *eni)?;
            let attachment: AttachmentId = world.state.enis[&eni].attachment.as_ref()?.id.clone();
            world.detach(&attachment, now).err()
        }
        Call::Delete { eni } => {
            let eni = nth_eni(world, *eni)?;
            world.delete(&eni, now).err()
        }
        Call::Assign { eni, count } => {
            let eni = nth_eni(world, *eni)?;
            world.assign(&eni, &[], *count, false, now).err()
        }
        Call::Unassign { eni } => {
            let eni = nth_eni(world, *eni)?;
            let last = *world.state.enis[&eni].ipv4.last()?;
            world.unassign(&eni, &[last], now).err()
        }
        Call::Steal { from, to } => {
            let (from, to) = (nth_eni(world, *from)?, nth_eni(world, *to)?);
            let address = *world.state.enis[&from].ipv4.last()?;
            world.assign(&to, &[address], 0, true, now).err()
        }
        Call::Wait { ms: more } => {
            *ms += i64::from(*more);
            None
        }
        Call::LinksGo => {
            links_go(world, now);
            None
        }
    }
}

/// What holds after every call, whatever it was.
fn check_rules(state: &State) {
    let site = &state.site;
    let mut ipv4 = BTreeSet::new();
    let mut macs = BTreeSet::new();
    for eni in state.enis.values() {
        let subnet = &site.subnets[&eni.subnet];
        assert!(!eni.ipv4.is_empty() && macs.insert(eni.mac));
        for address in &eni.ipv4 {
            assert!(ipv4.insert(*address), "{address} twice");
            assert_eq!(state.ipv4.get(address), Some(&eni.id));
            assert!(subnet.ipv4.contains(address));
        }
        assert!(eni.ipv6.iter().all(|a| state.ipv6.get(a) == Some(&eni.id)));
        if let Some(attachment) = &eni.attachment {
            let host = &site.instances[&attachment.instance];
            assert!(eni.ipv4.len() <= host.kind.addresses_per_eni);
            assert_eq!(subnet.zone, site.subnets[&host.subnet].zone);
        }
        let groups: Vec<GroupId> = vec![site.default_group.clone()];
        assert_eq!(eni.groups.len(), groups.len());
    }
    assert_eq!(ipv4.len(), state.ipv4.len(), "no address without an ENI");
    for host in site.instances.values() {
        let attached = state.attached_to(&host.id);
        let indices: BTreeSet<_> = attached.iter().map(|(_, a)| a.device_index).collect();
        assert_eq!(indices.len(), attached.len(), "one ENI per device index");
        assert!(attached.len() <= host.kind.max_enis as usize);
        assert_eq!(attached[0].1.phase, Phase::Attached, "the primary stays");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_history_breaks_the_rules_and_a_refusal_changes_nothing(history in calls()) {
        let mut world = world();
        let mut ms = 0;
        for call in &history {
            world.current(at(ms));
            let before = format!("{:?}", world.state);
            let refused = play(&mut world, call, &mut ms);
            check_rules(&world.state);
            if let Some(refusal) = refused {
                prop_assert_eq!(&before, &format!("{:?}", world.state), "after {}", refusal);
            }
        }
    }

    #[test]
    fn a_repeated_create_adds_nothing(history in calls(), again in 0..80usize) {
        let mut world = world();
        let mut ms = 0;
        for call in &history {
            play(&mut world, call, &mut ms);
        }
        let Some(call) = history.get(again).filter(|c| matches!(c, Call::Create { .. })) else { return Ok(()) };
        play(&mut world, call, &mut ms);
        let enis = world.state.enis.len();
        play(&mut world, call, &mut ms);
        prop_assert_eq!(world.state.enis.len(), enis);
    }

    #[test]
    fn any_text_is_an_id_or_malformed(text in "\\PC{0,60}") {
        if let Err(refusal) = EniId::parse(&text) {
            prop_assert!(refusal.code().ends_with(".Malformed"));
        }
    }
}
