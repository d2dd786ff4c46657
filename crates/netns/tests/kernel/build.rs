//! Building: from nothing, again, and from every half-built state that a killed agent can leave.

use crate::scene::{MAC, OTHER_MAC, Scene, eventually, identity};
use berth_netns::ns::{self, Named};
use berth_testkit::netns::Scratch;
use berth_types::{
    eni::SlotSpec,
    ids::SlotId,
    ports::{Network, NetworkErrorKind},
};
use serde_json::Value;
use std::{fs, time::Duration};

/// Addresses of a link by iproute2's account: `(address/prefix, scope, tentative)`.
fn addresses(scene: &Scene, slot: &SlotId, link: &str) -> Vec<(String, String, bool)> {
    let shown = scene.scratch.ip_json(&scene.netns(slot), &format!("address show dev {link}")).unwrap();
    let infos = shown[0]["addr_info"].as_array().unwrap().clone();
    let of = |a: &Value| {
        let address = format!("{}/{}", a["local"].as_str().unwrap(), a["prefixlen"]);
        (address, a["scope"].as_str().unwrap().to_owned(), a["tentative"] == true)
    };
    infos.iter().map(of).collect()
}

/// Default routes and blackholes, by iproute2's account.
fn routes(scene: &Scene, slot: &SlotId) -> Vec<String> {
    let mut routes = Vec::new();
    for family in ["-4", "-6"] {
        let shown = scene.scratch.ip_json(&scene.netns(slot), &format!("{family} route show")).unwrap();
        for route in shown.as_array().unwrap() {
            let text = |key: &str| route[key].as_str().unwrap_or_default().to_owned();
            match (text("type").as_str(), text("dst").as_str()) {
                ("blackhole", dst) => routes.push(format!("blackhole {dst}")),
                (_, "default") => routes.push(format!("default via {} dev {}", text("gateway"), text("dev"))),
                _ => {}
            }
        }
    }
    routes.sort();
    routes
}

fn assert_as_wanted(scene: &Scene, spec: &SlotSpec) {
    let slot = &spec.slot;
    let links = scene.scratch.ip_json(&scene.netns(slot), "link show eth0").unwrap();
    assert_eq!(links[0]["address"], spec.mac.to_string());
    assert_eq!(links[0]["mtu"], spec.mtu);
    assert_eq!(links[0]["operstate"], "UP");
    let here = addresses(scene, slot, "eth0");
    for wanted in &spec.addresses {
        assert!(here.contains(&(wanted.to_string(), "global".into(), false)), "{wanted} in {here:?}");
    }
    assert_eq!(here.iter().filter(|a| a.1 == "global").count(), spec.addresses.len(), "{here:?}");
    assert!(addresses(scene, slot, "lo").contains(&("169.254.170.2/32".into(), "host".into(), false)));
    let mut wanted = vec![
        "blackhole 169.254.169.254".into(),
        "blackhole fd00:ec2::254".into(),
        "default via 10.0.1.1 dev eth0".into(),
    ];
    wanted.extend(spec.gateway_ipv6.map(|g| format!("default via {g} dev eth0")));
    assert_eq!(routes(scene, slot), wanted);
}

#[tokio::test]
async fn an_ipv4_slot_is_built_as_wanted() {
    let scene = Scene::new().await;
    let spec = scene.spec();
    let built = scene.builder.build(&spec).await.unwrap();

    assert_as_wanted(&scene, &spec);
    assert_eq!(ns::inspect(&built.netns_path).unwrap(), Named::Mounted(built.netns));
    assert_eq!(scene.links(scene.scratch.host()), []);
    // No IPv6 on the ENI, not even a link-local address; but ::1 is there.
    assert!(addresses(&scene, &spec.slot, "eth0").iter().all(|a| !a.0.contains(':')));
    assert!(addresses(&scene, &spec.slot, "lo").iter().any(|a| a.0 == "::1/128"));
}

#[tokio::test]
async fn a_dual_stack_slot_reaches_its_router_over_both_families_at_once() {
    let scene = Scene::new().await;
    let spec = scene.dual_stack();
    scene.builder.build(&spec).await.unwrap();

    assert_as_wanted(&scene, &spec);
    assert_eq!(addresses(&scene, &spec.slot, "eth0")[0].0, "10.0.1.7/24", "the primary address comes first");
    for router in ["10.0.1.1:9", "[fd00:1::1]:9"] {
        // Nothing listens there: a refusal is the router's own answer.
        assert_eq!(
            crate::scene::ask(&scene.netns(&spec.slot), router),
            Err(std::io::ErrorKind::ConnectionRefused),
            "{router}"
        );
    }
}

#[tokio::test]
async fn files_say_what_the_spec_says() {
    let scene = Scene::new().await;
    let built = scene.builder.build(&scene.spec()).await.unwrap();
    let read = |path| fs::read_to_string(path).unwrap();
    assert_eq!(read(&built.files.resolv_conf), "nameserver 10.0.0.2\nsearch ec2.internal\n");
    assert_eq!(read(&built.files.hosts), "127.0.0.1 localhost\n10.0.1.7 ip-10-0-1-7.ec2.internal\n");
    assert_eq!(read(&built.files.hostname), "ip-10-0-1-7.ec2.internal\n");
}

#[tokio::test]
async fn building_twice_gives_the_same_slot() {
    let mut scene = Scene::new().await;
    let spec = scene.dual_stack();
    let first = scene.builder.build(&spec).await.unwrap();
    let second = scene.builder.build(&spec).await.unwrap();
    assert_eq!(identity(&first), identity(&second));

    drop((first, second));
    scene.restart().await;
    let third = scene.builder.build(&spec).await.unwrap();
    assert_as_wanted(&scene, &spec);
    assert_eq!(third.netns, scene.netns(&spec.slot).id());
}

#[tokio::test]
async fn a_plain_file_in_place_of_the_namespace_is_replaced() {
    let scene = Scene::new().await;
    let spec = scene.spec();
    fs::create_dir_all(scene.scratch.netns_dir()).unwrap();
    fs::write(scene.netns_path(&spec.slot), "").unwrap();
    assert_eq!(scene.builder.observe().await.unwrap().slots[0].netns, None);

    scene.builder.build(&spec).await.unwrap();
    assert_as_wanted(&scene, &spec);
}

#[tokio::test]
async fn a_link_that_was_moved_and_not_configured_is_adopted() {
    let scene = Scene::new().await;
    let spec = scene.dual_stack();
    let netns = ns::create_named(&scene.netns_path(&spec.slot)).unwrap();
    // As an agent leaves it that dies right after the move; under its old name, and down.
    scene
        .scratch
        .ip(scene.scratch.host(), &format!("link set ens6 netns {}", scene.netns_path(&spec.slot).display()))
        .unwrap();

    let built = scene.builder.build(&spec).await.unwrap();
    assert_eq!(built.netns, netns.id());
    assert_as_wanted(&scene, &spec);
}

#[tokio::test]
async fn what_went_wrong_inside_is_put_right() {
    let scene = Scene::new().await;
    let spec = scene.dual_stack();
    let _built = scene.builder.build(&spec).await.unwrap();
    let netns = scene.netns(&spec.slot);
    for damage in [
        "link set eth0 mtu 1400",
        "address flush dev eth0",
        "address add 10.0.1.8/24 dev eth0",
        "address add 192.0.2.9/24 dev eth0",
        "-6 route flush default",
        "route add default via 10.0.1.99 dev eth0",
        "route delete blackhole 169.254.169.254",
        "address delete 169.254.170.2/32 dev lo",
    ] {
        scene.scratch.ip(&netns, damage).unwrap();
    }
    scene.builder.build(&spec).await.unwrap();
    assert_as_wanted(&scene, &spec);
    assert_eq!(
        addresses(&scene, &spec.slot, "eth0")[0].0,
        "10.0.1.7/24",
        "the primary address comes first again"
    );
}

#[tokio::test]
async fn routes_and_devices_of_the_task_itself_survive_a_rebuild() {
    let scene = Scene::new().await;
    let spec = scene.spec();
    let _built = scene.builder.build(&spec).await.unwrap();
    let netns = scene.netns(&spec.slot);
    for own in [
        "link add vpn0 type veth peer name vpn1",
        "link set vpn0 up",
        "address add 192.0.2.1/24 dev vpn0",
        "route replace default dev vpn0",
    ] {
        scene.scratch.ip(&netns, own).unwrap();
    }
    scene.builder.build(&spec).await.unwrap();
    let defaults = scene.scratch.ip_json(&netns, "-4 route show default").unwrap();
    assert_eq!((defaults.as_array().unwrap().len(), &defaults[0]["dev"]), (1, &Value::from("vpn0")));
}

#[tokio::test]
async fn another_link_with_the_name_eth0_gives_it_up() {
    let scene = Scene::new().await;
    let spec = scene.spec();
    let netns = ns::create_named(&scene.netns_path(&spec.slot)).unwrap();
    scene.scratch.ip(&netns, "link add eth0 type veth peer name other").unwrap();
    scene.builder.build(&spec).await.unwrap();
    assert_as_wanted(&scene, &spec);
    assert_eq!(scene.links(&netns).len(), 3);
}

#[tokio::test]
async fn a_link_named_eth0_already_can_be_moved_in() {
    let scratch = Scratch::new(&["10.0.1.1/24"]).unwrap();
    scratch.attach("eth0", MAC).unwrap();
    let scene = Scene::on(scratch, "i-0123456789abcdef0").await;
    let spec = scene.spec();
    scene.builder.build(&spec).await.unwrap();
    assert_as_wanted(&scene, &spec);
}

#[tokio::test]
async fn without_its_link_a_build_says_so_and_leaves_nothing() {
    let scene = Scene::new().await;
    let spec = SlotSpec { mac: OTHER_MAC, ..scene.spec() };
    let error = scene.builder.build(&spec).await.unwrap_err();
    assert_eq!(error.kind, NetworkErrorKind::NoLink(OTHER_MAC), "{error}");
    assert_eq!(ns::inspect(&scene.netns_path(&spec.slot)).unwrap(), Named::Absent);
    assert_eq!(scene.builder.observe().await.unwrap().slots, []);
}

#[tokio::test]
async fn an_mtu_that_the_link_cannot_have_is_the_kernels_refusal_and_the_next_build_adopts() {
    let scene = Scene::new().await;
    let spec = SlotSpec { mtu: 1_000_000, ..scene.spec() };
    let error = scene.builder.build(&spec).await.unwrap_err();
    assert!(matches!(error.kind, NetworkErrorKind::Kernel(_)), "{error}");
    let spec = SlotSpec { mtu: 9001, ..spec };
    scene.builder.build(&spec).await.unwrap();
    assert_as_wanted(&scene, &spec);
}

#[tokio::test]
async fn another_instances_slot_is_refused_and_not_listed() {
    let scene = Scene::new().await;
    let spec = scene.spec();
    let foreign = SlotId::random(&"i-0fedcba9876543210".parse().unwrap());
    let _theirs = ns::create_named(&scene.netns_path(&foreign)).unwrap();

    assert!(scene.builder.build(&SlotSpec { slot: foreign.clone(), ..spec.clone() }).await.is_err());
    assert!(scene.builder.tear_down(&foreign).await.is_err());
    assert!(matches!(ns::inspect(&scene.netns_path(&foreign)).unwrap(), Named::Mounted(_)));
    scene.builder.build(&spec).await.unwrap();
    let seen: Vec<SlotId> =
        scene.builder.observe().await.unwrap().slots.into_iter().map(|s| s.slot).collect();
    assert_eq!(seen, [spec.slot]);
}

#[tokio::test]
async fn the_label_is_found_again_by_observation() {
    let scene = Scene::new().await;
    let spec = scene.spec();
    let built = scene.builder.build(&spec).await.unwrap();
    scene.builder.label(&spec.slot, "berth:task-1").await.unwrap();
    let observed = scene.builder.observe().await.unwrap();
    assert_eq!(observed.slots[0].netns, Some(built.netns));
    let link = &observed.slots[0].links[0];
    assert_eq!(
        (link.ifindex, link.name.as_str(), link.mac, link.alias.as_deref()),
        (built.ifindex, "eth0", MAC, Some("berth:task-1"))
    );
}

#[tokio::test]
async fn no_thread_stays_in_a_foreign_namespace() {
    let scene = Scene::new().await;
    let spec = scene.spec();
    scene.builder.build(&spec).await.unwrap();
    scene.builder.observe().await.unwrap();
    scene.builder.tear_down(&spec.slot).await.unwrap();
    // Threads of other tests in this process pass through namespaces at any time: those of ours are among the ones seen now, and all of
    // them must end.
    let now = Scratch::strayed_threads().unwrap();
    eventually("strayed threads end", || {
        let later = Scratch::strayed_threads().unwrap();
        now.iter().all(|thread| !later.contains(thread))
    });
}

#[tokio::test]
async fn two_operations_on_one_slot_do_not_meet() {
    let scene = Scene::new().await;
    let spec = scene.spec();
    let (one, two) = tokio::join!(scene.builder.build(&spec), scene.builder.build(&spec));
    assert_eq!([one.is_ok(), two.is_ok()].iter().filter(|ok| **ok).count(), 1);
}

#[tokio::test]
async fn a_build_waits_for_the_carrier() {
    let scene = Scene::new().await;
    let spec = scene.spec();
    scene.scratch.ip(scene.scratch.fabric(), "link set f-ens6 down").unwrap();
    let build = scene.builder.build(&spec);
    tokio::pin!(build);
    // Still waiting after a time in which a build with carrier is long done.
    assert!(tokio::time::timeout(Duration::from_millis(500), &mut build).await.is_err());
    scene.scratch.ip(scene.scratch.fabric(), "link set f-ens6 up").unwrap();
    build.await.unwrap();
    assert_as_wanted(&scene, &spec);
}
