//! Scripts: `nft` takes them, and whatever filters follow each other, the table ends as if it had been made anew.

use super::*;
use proptest::{prelude::*, test_runner::TestRunner};

fn an_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (1..6u8).prop_map(|host| IpAddr::from([10, 0, 1, host])),
        (1..6u16).prop_map(|host| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, host])),
    ]
}

fn some_traffic() -> impl Strategy<Value = Traffic> {
    let ports = || {
        prop_oneof![
            Just(Ports::ALL),
            (any::<u16>(), any::<u16>()).prop_map(|(a, b)| Ports { first: a.min(b), last: a.max(b) }),
        ]
    };
    let kind = || {
        prop_oneof![
            Just(IcmpKind::Any),
            any::<u8>().prop_map(IcmpKind::Type),
            any::<(u8, u8)>().prop_map(|(kind, code)| IcmpKind::Code(kind, code)),
        ]
    };
    prop_oneof![
        Just(Traffic::Any),
        ports().prop_map(Traffic::Tcp),
        ports().prop_map(Traffic::Udp),
        kind().prop_map(Traffic::Icmp),
        kind().prop_map(Traffic::Icmpv6),
        any::<u8>().prop_map(Traffic::Protocol),
    ]
}

fn some_rules() -> impl Strategy<Value = BTreeSet<Allow>> {
    let peer = prop_oneof![
        (any::<u32>(), 0..=32u8).prop_map(|(a, n)| Peer::V4(Ipv4Net::new(a.into(), n).unwrap().trunc())),
        (any::<u128>(), 0..=128u8).prop_map(|(a, n)| Peer::V6(Ipv6Net::new(a.into(), n).unwrap().trunc())),
        (0..3u8).prop_map(|n| Peer::Group(format!("sg-0000000{n}"))),
    ];
    let allow = (peer, some_traffic()).prop_map(|(peer, traffic)| Allow { peer, traffic });
    prop::collection::btree_set(allow, 0..4)
}

/// Every group that a rule names has its addresses, as the world sees to it.
fn a_filter() -> impl Strategy<Value = Filter> {
    let addresses = || prop::collection::btree_set(an_address(), 0..4);
    let eni = (any::<[u8; 6]>(), addresses(), any::<bool>(), some_rules(), some_rules()).prop_map(
        |(mac, addresses, source_dest_check, ingress, egress)| EniFilter {
            mac,
            addresses,
            source_dest_check,
            ingress,
            egress,
        },
    );
    let id = (0..4u8).prop_map(|n| format!("eni-0000000{n}"));
    (prop::collection::btree_map(id, eni, 0..4), prop::collection::vec(addresses(), 3)).prop_map(
        |(enis, members)| {
            let rules = enis.values().flat_map(|e: &EniFilter| e.ingress.iter().chain(&e.egress));
            let named: BTreeSet<String> = rules
                .filter_map(|r| if let Peer::Group(id) = &r.peer { Some(id.clone()) } else { None })
                .collect();
            let groups = named.into_iter().zip(members).collect();
            Filter { enis, groups }
        },
    )
}

/// The table as the kernel has it, in an order that does not depend on how it came about.
fn listing(vpc: &Netns) -> Vec<String> {
    let list = || Command::new("nft").args(["-s", "list", "table", "bridge", "vpcbox"]).output().unwrap();
    let text = String::from_utf8(vpc.run(list).unwrap().stdout).unwrap();
    let tidy = |block: &str| match block.split_once("elements = {") {
        Some((head, elements)) => {
            let mut elements: Vec<_> =
                elements.split(',').map(|e| e.trim().trim_end_matches(['}', '\n', '\t'])).collect();
            elements.sort_unstable();
            format!("{head}{elements:?}")
        }
        None => block.to_owned(),
    };
    let text = text.trim_start_matches("table bridge vpcbox {\n").trim_end().trim_end_matches("\n}");
    let mut blocks: Vec<_> = text.split("\n\n").map(tidy).collect();
    blocks.sort_unstable();
    blocks
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_ends_where_a_new_table_would_begin() {
    let (changed, fresh) = (Netns::create().unwrap(), Netns::create().unwrap());
    let subnets = spec("any").subnets;
    apply(&changed, base(&subnets)).await.unwrap();
    // A case goes on from where the last one ended: it cannot be made smaller by itself.
    let config = ProptestConfig {
        cases: 24,
        max_shrink_iters: 0,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let mut runner = TestRunner::new(config);
    let runtime = tokio::runtime::Handle::current();
    let last = std::cell::RefCell::new(Filter::default());
    let outcome = runner.run(&a_filter(), |next| {
        let applied = |netns: &Netns, script: String| {
            tokio::task::block_in_place(|| runtime.block_on(apply(netns, script)))
                .map_err(|e| TestCaseError::fail(e.to_string()))
        };
        applied(&changed, change(&last.borrow(), &next))?;
        last.replace(next.clone());
        applied(&fresh, base(&subnets) + &change(&Filter::default(), &next))?;
        for (is, should) in listing(&changed).iter().zip(&listing(&fresh)) {
            prop_assert_eq!(is, should);
        }
        prop_assert_eq!(change(&next, &next), "");
        Ok(())
    });
    outcome.unwrap();
}

#[tokio::test]
async fn a_script_that_is_refused_says_why_and_changes_nothing() {
    let vpc = Netns::create().unwrap();
    apply(&vpc, base(&spec("any").subnets)).await.unwrap();
    let before = listing(&vpc);
    let refused = apply(&vpc, "add chain bridge vpcbox x\nadd rule bridge vpcbox y accept\n".into()).await;
    let Err(FabricError::NftRefused(why)) = refused else { panic!("{refused:?}") };
    assert!(why.contains("No such file or directory"), "{why}");
    assert_eq!(listing(&vpc), before);
    assert_eq!(names::vpc_end("eni-00000001"), "enieni00000001", "what counters are found by");
}
