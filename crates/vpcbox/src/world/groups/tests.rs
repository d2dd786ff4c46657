//! Security groups as EC2 keeps them, and what they mean for the fabric.

use super::*;
use crate::{
    fabric::filter::{EniFilter, Ports},
    samples::{ONE_INSTANCE, config},
    world::{
        Change, CreateEni,
        ids::{EniId, InstanceId, SubnetId},
        rules::{MAX_RULES, NewRule},
    },
};
use std::net::IpAddr;

fn now() -> Timestamp {
    "2026-11-22T15:42:23Z".parse().unwrap()
}

fn world() -> World {
    World::new(&config(ONE_INSTANCE), "seed", now()).unwrap()
}

fn create(world: &mut World, name: &str) -> GroupId {
    let params = CreateGroup { name: name.into(), description: "d".into(), tags: Tags::new() };
    world.create_group(params, now()).unwrap().id.clone()
}

/// An ENI of these groups that is plugged into the instance.
fn eni(world: &mut World, groups: &[GroupId], index: u32) -> EniId {
    let params = CreateEni {
        subnet: SubnetId::parse("subnet-0123456789abcdef0").unwrap(),
        groups: groups.to_vec(),
        description: String::new(),
        primary: None,
        secondary: Vec::new(),
        secondary_count: 0,
        ipv6: Vec::new(),
        ipv6_count: 0,
        tags: Tags::new(),
    };
    let id = world.create(&format!("token-{index}"), &params, now()).unwrap().id.clone();
    let instance = InstanceId::parse("i-0123456789abcdef0").unwrap();
    world.attach(&id, &instance, index, 0, now()).unwrap();
    id
}

fn rule(traffic: Traffic, peer: Peer) -> NewRule {
    NewRule { terms: Terms { traffic, peer }, description: None }
}

fn port(number: u16) -> Traffic {
    Traffic::Tcp(Ports { first: number, last: number })
}

fn block(text: &str) -> Peer {
    Peer::V4(text.parse().unwrap())
}

fn let_in(world: &mut World, group: &GroupId, new: NewRule) -> Result<Vec<Rule>, Refusal> {
    world.authorize(group, Direction::Ingress, vec![new], &Tags::new(), now())
}

fn filter_of(world: &mut World, eni: &EniId) -> EniFilter {
    world.links(now()).filter.enis[eni.as_str()].clone()
}

#[test]
fn the_default_group_lets_its_own_members_in_and_everything_out_and_a_new_one_nothing_in() {
    let mut world = world();
    let default = world.state.site.default_group.clone();
    let new = create(&mut world, "web");
    let terms = |world: &World, id, direction| -> Vec<String> {
        world.state.groups[id].of(direction).map(|rule| rule.terms.to_string()).collect()
    };
    assert_eq!(terms(&world, &default, Direction::Ingress), [format!("peer: {default}, ALL, ALLOW")]);
    assert_eq!(terms(&world, &new, Direction::Ingress), Vec::<String>::new());
    for id in [&default, &new] {
        assert_eq!(terms(&world, id, Direction::Egress), ["peer: 0.0.0.0/0, ALL, ALLOW"], "no IPv6 here");
    }
}

#[test]
fn names_are_unique_and_groups_in_use_stay() {
    let mut world = world();
    let (web, db) = (create(&mut world, "web"), create(&mut world, "db"));
    let again = CreateGroup { name: "web".into(), description: "d".into(), tags: Tags::new() };
    assert_eq!(world.create_group(again, now()).unwrap_err().code(), "InvalidGroup.Duplicate");
    let default = world.state.site.default_group.clone();
    assert_eq!(world.delete_group(&default, now()).unwrap_err().code(), "CannotDelete");

    let named = let_in(&mut world, &db, rule(port(5432), Peer::Group(web.clone()))).unwrap();
    assert_eq!(world.delete_group(&web, now()).unwrap_err().code(), "DependencyViolation", "named by db");
    world.revoke_ids(&db, Direction::Ingress, &[named[0].id.clone()], now()).unwrap();
    let member = eni(&mut world, std::slice::from_ref(&web), 1);
    assert_eq!(world.delete_group(&web, now()).unwrap_err().code(), "DependencyViolation", "has a member");
    world.modify(&member, Change::Groups(vec![db]), now()).unwrap();
    // Its own rules that name it do not keep it.
    let_in(&mut world, &web, rule(Traffic::Any, Peer::Group(web.clone()))).unwrap();
    world.delete_group(&web, now()).unwrap();
    assert_eq!(world.delete_group(&web, now()).unwrap_err().code(), "InvalidGroup.NotFound");
}

#[test]
fn an_eni_is_in_five_known_groups_at_most_and_in_the_default_one_when_none_is_named() {
    let mut world = world();
    let groups: Vec<_> = (0..6).map(|n| create(&mut world, &format!("g{n}"))).collect();
    let id = eni(&mut world, &[], 1);
    assert_eq!(world.state.enis[&id].groups, [world.state.site.default_group.clone()]);
    let mut change = |groups: &[GroupId]| world.modify(&id, Change::Groups(groups.to_vec()), now());
    change(&groups[..5]).unwrap();
    assert_eq!(change(&groups).unwrap_err().code(), "SecurityGroupsPerInterfaceLimitExceeded");
    let unknown = GroupId::parse("sg-00000000").unwrap();
    assert_eq!(change(&[unknown]).unwrap_err().code(), "InvalidGroup.NotFound");
    change(&[groups[0].clone(), groups[0].clone()]).unwrap();
    assert_eq!(world.state.enis[&id].groups, [groups[0].clone()], "once");
}

#[test]
fn all_rules_of_a_call_are_made_or_none() {
    let mut world = world();
    let web = create(&mut world, "web");
    let_in(&mut world, &web, rule(port(80), block("0.0.0.0/0"))).unwrap();
    let error = let_in(&mut world, &web, rule(port(80), block("0.0.0.0/0"))).unwrap_err();
    assert_eq!(
        (error.code(), error.to_string().as_str()),
        (
            "InvalidPermission.Duplicate",
            "the specified rule \"peer: 0.0.0.0/0, TCP, from port: 80, to port: 80, ALLOW\" already exists"
        )
    );
    let unknown = Peer::Group(GroupId::parse("sg-00000000").unwrap());
    for (bad, code) in [
        (rule(port(80), block("0.0.0.0/0")), "InvalidPermission.Duplicate"),
        (rule(port(81), block("10.0.0.0/8")), "InvalidParameterValue"),
        (rule(port(82), unknown), "InvalidGroup.NotFound"),
    ] {
        let rules = vec![rule(port(81), block("10.0.0.0/8")), bad];
        let refused = world.authorize(&web, Direction::Ingress, rules, &Tags::new(), now()).unwrap_err();
        assert_eq!(refused.code(), code);
    }
    assert_eq!(world.state.groups[&web].of(Direction::Ingress).count(), 1);
    // The other direction is another rule.
    world
        .authorize(&web, Direction::Egress, vec![rule(port(80), block("0.0.0.0/0"))], &Tags::new(), now())
        .unwrap();

    let terms = [port(80), port(99)].map(|traffic| rule(traffic, block("0.0.0.0/0")).terms);
    assert_eq!(
        world.revoke(&web, Direction::Ingress, &terms, now()).unwrap_err().code(),
        "InvalidPermission.NotFound"
    );
    assert_eq!(world.revoke(&web, Direction::Ingress, &terms[..1], now()).unwrap().len(), 1);
}

#[test]
fn rules_are_limited_for_each_ip_version_and_one_of_a_group_counts_for_both() {
    let mut world = world();
    let web = create(&mut world, "web");
    let v4 = |n: u16| rule(port(n), block("0.0.0.0/0"));
    let v6 = |n: u16| rule(port(n), Peer::V6("::/0".parse().unwrap()));
    let most = u16::try_from(MAX_RULES).unwrap();
    let rules = (1..=most).map(v4).chain((2..=most).map(v6)).collect();
    world.authorize(&web, Direction::Ingress, rules, &Tags::new(), now()).unwrap();
    let named = rule(Traffic::Any, Peer::Group(web.clone()));
    for (one_more, fits) in [(v4(0), false), (named, false), (v6(1), true), (v6(0), false)] {
        let made = let_in(&mut world, &web, one_more);
        assert_eq!(
            made.as_ref().err().map(Refusal::code),
            (!fits).then_some("RulesPerSecurityGroupLimitExceeded")
        );
    }
}

#[test]
fn a_rule_is_changed_under_its_id_and_tags_go_with_rules_and_groups() {
    let mut world = world();
    let web = create(&mut world, "web");
    let tags = Tags::from([("team".to_owned(), "one".to_owned())]);
    let rules = vec![rule(port(80), block("0.0.0.0/0")), rule(port(81), block("0.0.0.0/0"))];
    let made = world.authorize(&web, Direction::Ingress, rules, &tags, now()).unwrap();
    let change = |to| {
        vec![(
            made[0].id.clone(),
            NewRule { description: Some("x".into()), ..rule(port(to), block("10.0.0.0/8")) },
        )]
    };
    world.modify_rules(&web, change(8080), now()).unwrap();
    let (_, changed) = world.state.rule(&made[0].id).unwrap();
    assert_eq!((changed.terms.traffic, changed.description.as_deref()), (port(8080), Some("x")));
    assert_eq!(world.state.tags[made[1].id.as_str()], tags);
    world.revoke_ids(&web, Direction::Ingress, &[made[1].id.clone()], now()).unwrap();
    assert!(!world.state.tags.contains_key(made[1].id.as_str()));
    let wrong_way = world.revoke_ids(&web, Direction::Egress, &[made[0].id.clone()], now());
    assert_eq!(wrong_way.unwrap_err().code(), "InvalidSecurityGroupRuleId.NotFound");
    world.delete_group(&web, now()).unwrap();
    assert!(!world.state.tags.contains_key(made[0].id.as_str()));
}

#[test]
fn the_filter_has_the_rules_of_all_groups_and_the_addresses_of_named_ones() {
    let mut world = world();
    let (web, db) = (create(&mut world, "web"), create(&mut world, "db"));
    let_in(&mut world, &web, rule(port(80), block("0.0.0.0/0"))).unwrap();
    let_in(&mut world, &db, rule(port(5432), Peer::Group(web.clone()))).unwrap();
    let both = eni(&mut world, &[web.clone(), db.clone()], 1);
    let front = eni(&mut world, std::slice::from_ref(&web), 2);
    let filter = filter_of(&mut world, &both);
    assert_eq!(
        filter.ingress.iter().map(|allow| allow.traffic).collect::<Vec<_>>(),
        [port(80), port(5432)],
        "of both groups"
    );
    assert!(filter.source_dest_check);
    let members: BTreeSet<IpAddr> =
        [&both, &front].into_iter().flat_map(|id| world.state.enis[id].addresses()).collect();
    let view = world.links(now());
    assert_eq!(view.filter.groups[web.as_str()], members);
    assert!(!view.filter.groups.contains_key(db.as_str()), "no rule names it");

    world.modify(&front, Change::Groups(vec![db]), now()).unwrap();
    world.modify(&both, Change::SourceDestCheck(false), now()).unwrap();
    let view = world.links(now());
    assert_eq!(view.filter.groups[web.as_str()], world.state.enis[&both].addresses().collect());
    assert!(!filter_of(&mut world, &both).source_dest_check);
    let attachment = world.state.enis[&front].attachment.as_ref().unwrap().id.clone();
    world.detach(&attachment, now()).unwrap();
    assert!(!world.links(now()).filter.enis.contains_key(front.as_str()), "it is on its way off");
}
