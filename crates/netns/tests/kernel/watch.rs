//! The link watcher: arrivals and removals, in the agent's own namespace.

use crate::scene::{MAC, OTHER_MAC, SOON, Scene};
use berth_types::{eni::LinkTable, ports::Network};
use std::sync::Arc;
use tokio::{sync::watch, time::timeout};

async fn until(
    links: &mut watch::Receiver<Arc<LinkTable>>,
    what: &str,
    holds: impl FnMut(&Arc<LinkTable>) -> bool,
) {
    timeout(SOON, links.wait_for(holds))
        .await
        .unwrap_or_else(|_| panic!("{what}: not within {SOON:?}"))
        .unwrap();
}

#[tokio::test]
async fn links_are_seen_as_they_come_and_go() {
    let scene = Scene::new().await;
    let mut links = scene.builder.links();
    assert_eq!(links.borrow()[&MAC].name, "ens6", "there from the start");
    assert_eq!(links.borrow().len(), 1, "without loopback");

    scene.scratch.attach("ens7", OTHER_MAC).unwrap();
    until(&mut links, "arrival", |t| t.contains_key(&OTHER_MAC)).await;
    scene.scratch.detach("ens7").unwrap();
    until(&mut links, "removal", |t| !t.contains_key(&OTHER_MAC)).await;
}

#[tokio::test]
async fn a_link_leaves_with_its_build_and_returns_with_its_tear_down() {
    let scene = Scene::new().await;
    let mut links = scene.builder.links();
    let spec = scene.spec();
    drop(scene.builder.build(&spec).await.unwrap());
    until(&mut links, "leaving", |t| t.is_empty()).await;
    scene.builder.tear_down(&spec.slot).await.unwrap();
    until(&mut links, "return", |t| t.contains_key(&MAC)).await;
}

#[tokio::test]
async fn of_links_with_one_mac_the_one_with_the_shortest_name_counts() {
    let scene = Scene::new().await;
    scene.scratch.attach("ens6.100", MAC).unwrap();
    scene.scratch.attach("ens7", OTHER_MAC).unwrap();
    let mut links = scene.builder.links();
    until(&mut links, "arrival", |t| t.contains_key(&OTHER_MAC)).await;
    assert_eq!(links.borrow()[&MAC].name, "ens6");
}

#[tokio::test]
async fn many_arrivals_are_all_seen() {
    let scene = Scene::new().await;
    let mut links = scene.builder.links();
    for i in 0..20 {
        let mac = berth_types::ids::MacAddr([2, 0, 0, 0, 0x20, i]);
        scene.scratch.attach(&format!("ens{}", 10 + i), mac).unwrap();
    }
    until(&mut links, "all arrivals", |t| t.len() == 21).await;
}

#[tokio::test]
async fn it_ends_when_told() {
    let scene = Scene::new().await;
    let mut links = scene.builder.links();
    scene.stop.cancel();
    timeout(SOON, async { while links.changed().await.is_ok() {} }).await.unwrap();
}
