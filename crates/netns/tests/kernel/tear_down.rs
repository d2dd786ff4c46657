//! Tear-down: the link comes back, and nothing else stays.

use crate::scene::{MAC, Scene, eventually};
use berth_netns::ns::{self, Named};
use berth_types::ports::Network;
use std::fs;

/// Whether a namespace is alive: nsfs hands out no inode twice while it is.
fn is_alive(scene: &Scene, ino: u64) -> bool {
    let list = scene
        .scratch
        .host()
        .run(|| std::process::Command::new("lsns").args(["-t", "net", "-n", "-o", "NS"]).output());
    String::from_utf8_lossy(&list.unwrap().unwrap().stdout).split_whitespace().any(|ns| ns == ino.to_string())
}

#[tokio::test]
async fn the_link_comes_back_and_the_namespace_goes() {
    let scene = Scene::new().await;
    let spec = scene.spec();
    let built = scene.builder.build(&spec).await.unwrap();
    scene.builder.label(&spec.slot, "berth:task-1").await.unwrap();
    drop(built.listener);

    scene.builder.tear_down(&spec.slot).await.unwrap();
    let host = scene.scratch.ip_json(scene.scratch.host(), "link show").unwrap();
    let link =
        host.as_array().unwrap().iter().find(|l| l["address"] == MAC.to_string()).expect("the link is back");
    let name = link["ifname"].as_str().unwrap();
    assert!(name.starts_with("eth") && name[3..].parse::<u32>().is_ok(), "{name}");
    assert_eq!(link["operstate"], "DOWN");
    assert!(link["ifalias"].as_str().unwrap_or_default().is_empty(), "{link}");
    assert_eq!(ns::inspect(&built.netns_path).unwrap(), Named::Absent);
    eventually("the namespace goes", || !is_alive(&scene, built.netns.ino));
    assert!(!built.files.hosts.exists());
    assert_eq!(fs::read_dir(scene.scratch.run_dir().join("bpf")).unwrap().count(), 0);
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(
        !mounts.contains(scene.scratch.run_dir().to_str().unwrap()),
        "the bpffs is gone with the last slot"
    );
}

#[tokio::test]
async fn it_can_be_repeated_and_the_eni_used_in_a_fresh_namespace() {
    let scene = Scene::new().await;
    let spec = scene.spec();
    let first = scene.builder.build(&spec).await.unwrap().netns;
    for _ in 0..2 {
        scene.builder.tear_down(&spec.slot).await.unwrap();
    }
    let again =
        berth_types::eni::SlotSpec { slot: berth_types::ids::SlotId::random(&scene.instance), ..spec };
    let second = scene.builder.build(&again).await.unwrap();
    assert_eq!(scene.links(&scene.netns(&again.slot)), [("eth0".to_owned(), MAC.to_string())]);
    assert_eq!(second.netns_path, scene.netns_path(&again.slot));
    assert_ne!(first, second.netns);
}

#[tokio::test]
async fn it_begins_anywhere() {
    let scene = Scene::new().await;
    let spec = scene.spec();
    let path = scene.netns_path(&spec.slot);
    // Nothing at all; a plain file; a namespace without a link.
    scene.builder.tear_down(&spec.slot).await.unwrap();
    fs::create_dir_all(scene.scratch.netns_dir()).unwrap();
    fs::write(&path, "").unwrap();
    scene.builder.tear_down(&spec.slot).await.unwrap();
    assert_eq!(ns::inspect(&path).unwrap(), Named::Absent);
    drop(ns::create_named(&path).unwrap());
    scene.builder.tear_down(&spec.slot).await.unwrap();
    assert_eq!(ns::inspect(&path).unwrap(), Named::Absent);
    assert_eq!(scene.links(scene.scratch.host()).len(), 1);
}

#[tokio::test]
async fn a_link_that_the_task_disguised_comes_back_as_itself() {
    let scene = Scene::new().await;
    let spec = scene.spec();
    drop(scene.builder.build(&spec).await.unwrap());
    scene.builder.label(&spec.slot, "berth:task-1").await.unwrap();
    let netns = scene.netns(&spec.slot);
    for disguise in [
        "link set eth0 down",
        "link set eth0 address 02:ff:ff:ff:ff:ff",
        "link set eth0 name wan0",
        "link add dummy-ish type veth peer name own",
    ] {
        scene.scratch.ip(&netns, disguise).unwrap();
    }
    drop(netns);
    scene.builder.tear_down(&spec.slot).await.unwrap();
    let macs: Vec<String> = scene.links(scene.scratch.host()).into_iter().map(|l| l.1).collect();
    assert_eq!(macs, [MAC.to_string()], "the ENI and nothing that the task made");
}

#[tokio::test]
async fn names_on_the_host_do_not_clash() {
    let scene = Scene::new().await;
    let spec = scene.spec();
    drop(scene.builder.build(&spec).await.unwrap());
    for taken in ["link add eth0 type veth peer name eth1", "link add ens6 type veth peer name eth2"] {
        scene.scratch.ip(scene.scratch.host(), taken).unwrap();
    }
    scene.builder.tear_down(&spec.slot).await.unwrap();
    assert!(scene.links(scene.scratch.host()).iter().any(|(_, mac)| *mac == MAC.to_string()));
}

#[tokio::test]
async fn a_new_agent_sweeps_what_is_left_of_a_slot_whose_name_was_removed() {
    let mut scene = Scene::new().await;
    let spec = scene.spec();
    let built = scene.builder.build(&spec).await.unwrap();
    ns::remove_named(&built.netns_path).unwrap();
    scene.restart().await;
    assert!(!built.files.hosts.exists());
    assert_eq!(fs::read_dir(scene.scratch.run_dir().join("bpf")).unwrap().count(), 0);
}
