//! Port 80 belongs to the task, and 169.254.170.2:80 to the agent, whatever either of them does.

use crate::scene::{Scene, Server, ask, eventually, serve};
use berth_types::{ids::SlotId, ports::Network};
use std::{io::ErrorKind, net::TcpListener};

const METADATA: &str = "169.254.170.2:80";

/// A web server of the task on an address of its namespace.
fn web(scene: &Scene, slot: &SlotId, address: &str) -> Server {
    let netns = scene.netns(slot);
    let mut bound = None;
    // A process that another test is just starting has a copy of every descriptor until its exec, of a closed listener too.
    eventually("the task's bind", || {
        bound = netns.run(|| TcpListener::bind(address)).unwrap().ok();
        bound.is_some()
    });
    serve(bound.unwrap(), "task")
}

#[tokio::test]
async fn a_task_serves_on_both_wildcards_while_metadata_answers() {
    let scene = Scene::new().await;
    let spec = scene.dual_stack();
    let built = scene.builder.build(&spec).await.unwrap();
    let netns = scene.netns(&spec.slot);
    let _metadata = serve(built.listener, "metadata");

    for wildcard in ["0.0.0.0:80", "[::]:80"] {
        let _web = web(&scene, &spec.slot, wildcard);
        assert_eq!(ask(&netns, METADATA).as_deref(), Ok("metadata"), "with {wildcard}");
        assert_eq!(ask(&netns, "[::ffff:169.254.170.2]:80").as_deref(), Ok("metadata"), "with {wildcard}");
        assert_eq!(ask(&netns, "127.0.0.1:80").as_deref(), Ok("task"), "with {wildcard}");
        assert_eq!(ask(&netns, "10.0.1.7:80").as_deref(), Ok("task"), "with {wildcard}");
        // From another machine in the subnet.
        assert_eq!(ask(scene.scratch.fabric(), "10.0.1.7:80").as_deref(), Ok("task"), "with {wildcard}");
    }
}

#[tokio::test]
async fn a_dead_agent_means_refused_and_never_the_tasks_own_server() {
    let mut scene = Scene::new().await;
    let spec = scene.spec();
    let built = scene.builder.build(&spec).await.unwrap();
    let netns = scene.netns(&spec.slot);
    let _web = web(&scene, &spec.slot, "0.0.0.0:80");

    drop(built);
    eventually("refusal", || {
        let answer = ask(&netns, METADATA);
        assert_ne!(answer.as_deref(), Ok("task"));
        // A process that another test is just starting has a copy of every descriptor until its exec: then a connection is reset.
        answer == Err(ErrorKind::ConnectionRefused)
    });
    assert_eq!(ask(&netns, "127.0.0.1:80").as_deref(), Ok("task"));

    scene.restart().await;
    let built = scene.builder.build(&spec).await.unwrap();
    let _metadata = serve(built.listener, "metadata");
    assert_eq!(ask(&netns, METADATA).as_deref(), Ok("metadata"));
}

#[tokio::test]
async fn a_task_that_takes_the_listeners_port_while_the_agent_is_dead_does_not_keep_it_out() {
    let mut scene = Scene::new().await;
    let spec = scene.spec();
    let built = scene.builder.build(&spec).await.unwrap();
    let port = built.listener.local_addr().unwrap().port();
    drop(built);
    let squatter = web(&scene, &spec.slot, &format!("0.0.0.0:{port}"));

    scene.restart().await;
    let built = scene.builder.build(&spec).await.unwrap();
    assert_ne!(built.listener.local_addr().unwrap().port(), squatter.address.port());
    let _metadata = serve(built.listener, "metadata");
    assert_eq!(ask(&scene.netns(&spec.slot), METADATA).as_deref(), Ok("metadata"));
}

#[tokio::test]
async fn a_neighbour_in_the_subnet_does_not_reach_the_metadata() {
    let scene = Scene::new().await;
    let spec = scene.spec();
    let built = scene.builder.build(&spec).await.unwrap();
    let port = built.listener.local_addr().unwrap().port();
    let _metadata = serve(built.listener, "metadata");
    let _web = web(&scene, &spec.slot, "0.0.0.0:80");

    let fabric = scene.scratch.fabric();
    scene.scratch.ip(fabric, "route add 169.254.170.2/32 via 10.0.1.7").unwrap();
    assert_eq!(ask(fabric, "10.0.1.7:80").as_deref(), Ok("task"), "packets do arrive");
    for address in [METADATA.to_owned(), format!("169.254.170.2:{port}")] {
        assert!(ask(fabric, &address).is_err(), "{address} answered");
    }
    assert_eq!(ask(&scene.netns(&spec.slot), METADATA).as_deref(), Ok("metadata"));
}

#[tokio::test]
async fn two_slots_answer_each_with_their_own() {
    let scene = Scene::new().await;
    scene.scratch.attach("ens7", crate::scene::OTHER_MAC).unwrap();
    let one = scene.spec();
    let two = berth_types::eni::SlotSpec {
        mac: crate::scene::OTHER_MAC,
        addresses: vec!["10.0.1.9/24".parse().unwrap()],
        ..scene.spec()
    };
    let first = serve(scene.builder.build(&one).await.unwrap().listener, "one");
    let second = serve(scene.builder.build(&two).await.unwrap().listener, "two");
    assert_eq!(ask(&scene.netns(&one.slot), METADATA).as_deref(), Ok("one"));
    assert_eq!(ask(&scene.netns(&two.slot), METADATA).as_deref(), Ok("two"));
    drop((first, second));
}
