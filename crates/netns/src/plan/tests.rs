//! The planner against a small model of the kernel: from whatever state, the rounds of a build end with an empty plan, and soon.

use super::*;
use proptest::prelude::*;

const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const ETH: u32 = 2;
const IN_HOST: u32 = 7;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn spec() -> SlotSpec {
    SlotSpec {
        slot: "01234567-89abcdef".parse().unwrap(),
        eni: "eni-0123456789abcdef0".parse().unwrap(),
        mac: MAC,
        addresses: vec![net("10.0.1.7/24"), net("10.0.1.8/24")],
        gateway_ipv4: Ipv4Addr::new(10, 0, 1, 1),
        gateway_ipv6: None,
        mtu: 9001,
        block_imds: true,
        hostname: "h".into(),
        dns_servers: vec![],
        dns_search: vec![],
    }
}

fn dual() -> SlotSpec {
    let mut spec = SlotSpec { gateway_ipv6: Some("fe80::1".parse().unwrap()), ..spec() };
    spec.addresses.push(net("fd00::7/64"));
    spec
}

fn lo() -> Link {
    Link {
        ifindex: 1,
        name: "lo".into(),
        mac: None,
        mtu: 65536,
        up: false,
        carrier: Carrier::Yes,
        alias: None,
        has_kind: false,
        loopback: true,
    }
}

fn eth(name: &str) -> Link {
    Link {
        ifindex: ETH,
        name: name.into(),
        mac: Some(MAC),
        mtu: 1500,
        has_kind: true,
        loopback: false,
        ..lo()
    }
}

fn fresh() -> Seen {
    let default = |path: String| (path.clone(), if path.contains("disable") { "0" } else { "1" }.to_owned());
    let sysctls =
        observed_sysctls(&dual()).into_iter().filter(|p| !p.contains("eth0")).map(default).collect();
    Seen { links: vec![lo()], sysctls, ..Seen::default() }
}

/// What the kernel makes of an op, as far as the planner can see.
fn apply(seen: &mut Seen, op: Op) {
    let link = |seen: &mut Seen, ifindex| seen.links.iter().position(|l| l.ifindex == ifindex).unwrap();
    match op {
        Op::SetSysctl { path, value } => drop(seen.sysctls.insert(path, value.into())),
        Op::Up { ifindex } => {
            let at = link(seen, ifindex);
            seen.links[at].up = true;
        }
        Op::AwaitCarrier { ifindex } => {
            let at = link(seen, ifindex);
            assert!(seen.links[at].up, "a link that is down never gets a carrier");
            seen.links[at].carrier = Carrier::Yes;
        }
        Op::AddAddress { ifindex, net } => {
            let same_subnet = |a: &Address| a.ifindex == ifindex && a.net.trunc() == net.trunc();
            let secondary = matches!(net, IpNet::V4(_)) && seen.addresses.iter().any(same_subnet);
            seen.addresses.push(Address { ifindex, net, secondary, usable: true });
        }
        Op::DeleteAddress { ifindex, net } => {
            // The kernel takes the secondary addresses of a subnet away with its primary one.
            let is = |a: &Address| a.ifindex == ifindex && a.net == net;
            let primary = seen.addresses.iter().any(|a| is(a) && !a.secondary) && matches!(net, IpNet::V4(_));
            let with_it = |a: &Address| primary && a.ifindex == ifindex && a.net.trunc() == net.trunc();
            seen.addresses.retain(|a| !is(a) && !with_it(a));
        }
        Op::Rename { ifindex, name } => {
            let at = link(seen, ifindex);
            let name = if name == ANY_ETH { format!("eth{}", 100 + ifindex) } else { name.to_owned() };
            assert!(seen.links.iter().all(|l| l.name != name), "two links named {name}");
            seen.links[at].name = name;
            go_down(seen, ifindex);
        }
        Op::MoveIn { host_ifindex, mtu } => {
            assert_eq!(host_ifindex, IN_HOST);
            assert!(seen.links.iter().all(|l| l.name != ENI_NAME), "two links named {ENI_NAME}");
            seen.links.push(Link { up: true, mtu, carrier: Carrier::NotYet, ..eth(ENI_NAME) });
            let inherited = seen.sysctls["net/ipv6/conf/default/disable_ipv6"].clone();
            seen.sysctls.insert(link_disable_ipv6(), inherited);
        }
        Op::SetMtu { ifindex, mtu } => {
            let at = link(seen, ifindex);
            seen.links[at].mtu = mtu;
        }
        Op::AddRoute(mut route) => {
            if let Some(oif) = route.oif {
                let at = link(seen, oif);
                assert!(seen.links[at].up, "no route through a link that is down");
            } else if matches!(route.destination, IpNet::V6(_)) {
                route.oif = Some(1);
            }
            seen.routes.push(route);
        }
        Op::DeleteRoute(route) => seen.routes.retain(|r| *r != route),
    }
}

fn go_down(seen: &mut Seen, ifindex: u32) {
    if let Some(link) = seen.links.iter_mut().find(|l| l.ifindex == ifindex) {
        link.up = false;
        link.carrier = Carrier::NotYet;
    }
    seen.addresses.retain(|a| a.ifindex != ifindex || matches!(a.net, IpNet::V4(_)));
    seen.routes.retain(|r| r.oif != Some(ifindex) || r.kind == RouteKind::Blackhole);
}

/// Rounds until the plan is empty.
fn settle(spec: &SlotSpec, seen: &mut Seen) -> usize {
    for round in 0..4 {
        let place =
            link_with_mac(&seen.links, MAC).map_or(Place::Host(IN_HOST), |l| Place::Inside(l.ifindex));
        let ops = plan(spec, seen, place);
        if ops.is_empty() {
            return round;
        }
        ops.into_iter().for_each(|op| apply(seen, op));
    }
    panic!("not settled: {seen:?}");
}

#[test]
fn the_first_round_prepares_and_moves() {
    let ops = plan(&spec(), &fresh(), Place::Host(IN_HOST));
    let last = ops.last().unwrap();
    assert_eq!(*last, Op::MoveIn { host_ifindex: IN_HOST, mtu: 9001 });
    assert!(ops.contains(&Op::SetSysctl { path: "net/ipv6/conf/default/disable_ipv6".into(), value: "1" }));
    assert!(ops.contains(&Op::AddAddress { ifindex: 1, net: net("169.254.170.2/32") }));
}

#[test]
fn a_fresh_namespace_takes_two_rounds_and_a_look() {
    for spec in [spec(), dual()] {
        let mut seen = fresh();
        assert_eq!(settle(&spec, &mut seen), 2);
        assert_eq!(settle(&spec, &mut seen), 0);
    }
}

#[test]
fn a_task_without_ipv6_keeps_it_on_lo() {
    let all_off = |op: &Op| matches!(op, Op::SetSysctl { path, value: "1" } if path.contains("/all/"));
    assert!(!plan(&spec(), &fresh(), Place::Host(IN_HOST)).iter().any(all_off));
}

#[test]
fn a_kernel_without_ipv6_is_asked_for_none() {
    let seen = Seen { sysctls: BTreeMap::new(), ..fresh() };
    let ipv6 =
        |op: &Op| matches!(op, Op::SetSysctl { .. } | Op::AddRoute(Route { destination: IpNet::V6(_), .. }));
    assert!(!plan(&spec(), &seen, Place::Host(IN_HOST)).iter().any(ipv6));
}

#[test]
fn blackholes_go_when_they_are_not_wanted() {
    let mut seen = fresh();
    settle(&dual(), &mut seen);
    let open = SlotSpec { block_imds: false, ..dual() };
    assert_eq!(plan(&open, &seen, Place::Inside(ETH)).len(), 2);
    settle(&open, &mut seen);
    assert!(seen.routes.iter().all(|r| r.kind == RouteKind::Unicast));
}

#[test]
fn the_primary_address_is_laid_anew_when_it_is_not_first() {
    let mut seen = fresh();
    settle(&spec(), &mut seen);
    for address in &mut seen.addresses {
        address.secondary = address.net == net("10.0.1.7/24");
    }
    settle(&spec(), &mut seen);
    let first = seen.addresses.iter().find(|a| a.ifindex == ETH && !a.secondary).unwrap();
    assert_eq!(first.net, net("10.0.1.7/24"));
}

#[test]
fn a_default_route_through_the_tasks_own_device_is_left_alone() {
    let mut seen = fresh();
    settle(&spec(), &mut seen);
    seen.routes.retain(|r| r.kind == RouteKind::Blackhole);
    seen.routes.push(Route {
        kind: RouteKind::Unicast,
        destination: net("0.0.0.0/0"),
        gateway: None,
        oif: Some(9),
    });
    assert_eq!(plan(&spec(), &seen, Place::Inside(ETH)), []);
}

#[test]
fn links_to_give_back_are_the_eni_and_real_devices() {
    let own = |name: &str, ifindex| Link { ifindex, mac: Some(MacAddr([6; 6])), ..eth(name) };
    let disguised = Link { alias: Some("berth".into()), ..own("wan0", 3) };
    let real = Link { has_kind: false, ..own("ens7", 4) };
    let links = [lo(), eth("renamed"), disguised, real, own("vpn0", 5)];
    let back: Vec<&str> = to_give_back(&links, Some(MAC)).into_iter().map(|l| l.name.as_str()).collect();
    assert_eq!(back, ["renamed", "wan0", "ens7"]);
    assert_eq!(to_give_back(&[own("eth0", 6)], None).len(), 1);
    assert_eq!(to_give_back(&[Link { mac: None, ..own("vpn0", 5) }], None), Vec::<&Link>::new());
}

fn any_address() -> impl Strategy<Value = Address> {
    const NETS: [&str; 8] = [
        "10.0.1.7/24",
        "10.0.1.8/24",
        "10.0.1.9/24",
        "192.0.2.1/32",
        "fd00::7/64",
        "fd00::9/64",
        "fe80::5/64",
        "169.254.170.2/32",
    ];
    (1_u32..=3, prop::sample::select(&NETS[..]), any::<bool>(), any::<bool>()).prop_map(
        |(ifindex, text, secondary, usable)| {
            let net = net(text);
            Address { ifindex, net, secondary: secondary && matches!(net, IpNet::V4(_)), usable }
        },
    )
}

fn any_route() -> impl Strategy<Value = Route> {
    let v4 = Route { kind: RouteKind::Unicast, destination: net("0.0.0.0/0"), gateway: None, oif: Some(ETH) };
    let v6 = Route { destination: net("::/0"), ..v4.clone() };
    let hole = Route {
        kind: RouteKind::Blackhole,
        destination: net("169.254.169.254/32"),
        gateway: None,
        oif: None,
    };
    let hole6 = Route { destination: net("fd00:ec2::254/128"), oif: Some(1), ..hole.clone() };
    let via =
        |route: &Route, gateway: &str| Route { gateway: Some(gateway.parse().unwrap()), ..route.clone() };
    let all = vec![
        via(&v4, "10.0.1.1"),
        via(&v4, "10.0.1.99"),
        via(&v6, "fe80::1"),
        via(&v6, "fe80::2"),
        v4,
        v6,
        hole,
        hole6,
    ];
    prop::sample::select(all)
}

prop_compose! {
    /// A namespace as a killed agent and a wild task may have left it.
    fn any_seen()(
        inside in any::<bool>(),
        clash in any::<bool>(),
        name in prop::sample::select(vec!["eth0", "ens6"]),
        up in any::<bool>(),
        mtu in prop::sample::select(vec![1500_u32, 9001]),
        lo_up in any::<bool>(),
        addresses in prop::collection::vec(any_address(), 0..6),
        routes in prop::collection::vec(any_route(), 0..4),
        off in any::<bool>(),
    ) -> Seen {
        let mut seen = fresh();
        seen.links[0].up = lo_up;
        if inside {
            seen.links.push(Link { up, mtu, carrier: if up { Carrier::Yes } else { Carrier::NotYet }, ..eth(name) });
            seen.sysctls.insert(link_disable_ipv6(), if off { "1" } else { "0" }.into());
        }
        if clash && (!inside || name != "eth0") {
            seen.links.push(Link { ifindex: 3, mac: Some(MacAddr([4; 6])), ..eth("eth0") });
        }
        let exists = |ifindex| seen.links.iter().any(|l| l.ifindex == ifindex);
        let mut known: Vec<(u32, IpNet)> = Vec::new();
        let addresses = addresses.into_iter().filter(|a| exists(a.ifindex)).filter(|a| {
            let new = !known.contains(&(a.ifindex, a.net));
            known.push((a.ifindex, a.net));
            new
        });
        let addresses = addresses.collect();
        let routes = routes.into_iter().filter(|r| r.oif.is_none_or(|oif| oif == 1 || (inside && up))).collect();
        Seen { addresses, routes, ..seen }
    }
}

proptest! {
    #[test]
    fn any_namespace_settles(mut seen in any_seen(), six in any::<bool>(), block_imds in any::<bool>()) {
        let spec = SlotSpec { block_imds, ..if six { dual() } else { spec() } };
        settle(&spec, &mut seen);
        let here = |a: &&Address| a.ifindex == link_with_mac(&seen.links, MAC).map_or(0, |l| l.ifindex);
        let mut nets: Vec<IpNet> = seen.addresses.iter().filter(here).map(|a| a.net).filter(|n| !n.to_string().starts_with("fe80")).collect();
        nets.sort();
        let mut wanted = spec.addresses.clone();
        wanted.sort();
        prop_assert_eq!(nets, wanted);
        prop_assert_eq!(seen.routes.iter().any(|r| r.kind == RouteKind::Blackhole), block_imds);
        prop_assert_eq!(plan(&spec, &seen, Place::Inside(ETH)), vec![]);
    }
}
