//! How a node comes into its cluster, whatever is in the way.

use super::{instance, rig::Rig};
use crate::port::EcsErrorKind;
use berth_types::{
    cluster::InstanceStatus,
    ports::{Journal, Table},
    task::TaskStatus,
};
use tokio::time::{Duration, Instant};

async fn registered(rig: &mut Rig) -> String {
    let snapshot =
        rig.wait_for("registered", |s| s.status == InstanceStatus::Active && s.polled_at.is_some()).await;
    assert_eq!(snapshot.problem, None);
    snapshot.container_instance_arn.clone().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_node_registers_with_what_it_has_and_records_its_arn_durably() {
    let mut rig = Rig::new();
    rig.config.attributes.insert("team".into(), "a".into());
    rig.config.tags.insert("owner".into(), "us".into());
    rig.start().await;
    let arn = registered(&mut rig).await;
    assert!(rig.journal.is_durable(Table::Registration, "container-instance"));
    let world = rig.ecs.world();
    let sent = &world.registrations[0];
    assert_eq!((sent.cpu, sent.memory, sent.container_instance_arn.as_ref()), (2048, 1000, None));
    assert_eq!(sent.reserved_ports, [22, 2375, 2376, 51678, 51679]);
    assert!(sent.identity.document.contains(instance().instance_id.as_str()));
    assert!(sent.attributes.contains(&("team".into(), Some("a".into()))));
    assert_eq!(sent.tags, [("owner".into(), "us".into())]);
    assert!(world.instances.contains_key(&arn));
}

#[tokio::test(start_paused = true)]
async fn a_restart_registers_under_the_same_arn_without_the_operators_attributes() {
    let mut rig = Rig::new();
    rig.config.attributes.insert("team".into(), "a".into());
    rig.start().await;
    let arn = registered(&mut rig).await;
    rig.kill().await;
    rig.ecs.world().forgetful = true;
    rig.start().await;
    assert_eq!(registered(&mut rig).await, arn);
    let world = rig.ecs.world();
    assert_eq!(world.registrations[1].container_instance_arn.as_ref(), Some(&arn));
    assert!(!world.registrations[1].attributes.iter().any(|(name, _)| name == "team"));
}

#[tokio::test(start_paused = true)]
async fn a_drained_node_is_still_drained_after_a_restart() {
    let mut rig = Rig::started().await;
    let arn = registered(&mut rig).await;
    rig.kill().await;
    rig.ecs.world().instances.insert(arn, "DRAINING");
    rig.start().await;
    // Nobody ever sees it take tasks.
    let seen = rig.wait_for("registered", |s| s.status != InstanceStatus::Unregistered).await;
    assert_eq!(seen.status, InstanceStatus::Draining);
}

#[tokio::test(start_paused = true)]
async fn an_arn_that_was_deregistered_or_is_unknown_gives_way_to_a_new_one() {
    for gone in [Some("INACTIVE"), None] {
        let mut rig = Rig::started().await;
        let old = registered(&mut rig).await;
        rig.kill().await;
        match gone {
            Some(status) => drop(rig.ecs.world().instances.insert(old.clone(), status)),
            None => {
                let mut world = rig.ecs.world();
                world.instances.remove(&old);
                world.instances.insert("somebody else's".into(), "INACTIVE");
            }
        }
        rig.start().await;
        assert_ne!(registered(&mut rig).await, old);
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_outwaited_and_shown() {
    let mut rig = Rig::new();
    rig.ecs.world().outage = true;
    rig.start().await;
    rig.wait_for("a problem", |s| s.problem.as_ref().is_some_and(|p| p.contains("no answer"))).await;
    rig.pass(600).await;
    let tries = rig.ecs.calls("register");
    assert!((30..60).contains(&tries), "{tries} tries in ten minutes");
    rig.ecs.world().outage = false;
    registered(&mut rig).await;
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_must_mend_is_tried_slowly_and_comes_up_by_itself() {
    for kind in [
        EcsErrorKind::Unauthorized("AccessDeniedException".into()),
        EcsErrorKind::InvalidParameter("?".into()),
        EcsErrorKind::Refused("Container instance type changes are not supported.".into()),
    ] {
        let mut rig = Rig::new();
        rig.ecs.world().refused.insert("register", kind.clone());
        rig.start().await;
        rig.wait_for("a problem", |s| s.problem.as_ref().is_some_and(|p| p.contains(&kind.to_string())))
            .await;
        rig.pass(3600).await;
        let tries = rig.ecs.calls("register");
        assert!((10..25).contains(&tries), "{tries} tries in an hour");
        rig.ecs.world().refused.clear();
        let begin = Instant::now();
        registered(&mut rig).await;
        assert!(begin.elapsed() < Duration::from_secs(400));
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_was_named_is_waited_for_and_never_made() {
    let mut rig = Rig::of("later");
    rig.start().await;
    rig.wait_for("a problem", |s| s.problem.as_ref().is_some_and(|p| p.contains("no such cluster"))).await;
    assert_eq!(rig.ecs.calls("create_cluster"), 0);
    rig.ecs.world().clusters.insert("later".into());
    registered(&mut rig).await;
}

#[tokio::test(start_paused = true)]
async fn the_default_cluster_is_made_once_if_none_was_configured() {
    let mut rig = Rig::of("default");
    rig.config.create_cluster = true;
    rig.start().await;
    registered(&mut rig).await;
    assert_eq!(rig.ecs.calls("create_cluster"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_cannot_be_written_keeps_no_node_from_its_cluster() {
    let mut rig = Rig::new();
    rig.start().await;
    rig.journal.set_broken(true);
    registered(&mut rig).await;
    assert!(rig.journal.load(Table::Registration).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_deregistered_stays_out_and_keeps_its_tasks_until_a_restart() {
    let mut rig = Rig::started().await;
    let task = super::arn("1");
    rig.ecs.run(&task);
    rig.wait_engine("the task", |s| s.tasks.contains_key(&task)).await;
    let arn = registered(&mut rig).await;
    rig.ecs.world().instances.insert(arn, "INACTIVE");
    rig.ecs.world().tasks.clear();
    rig.wait_for("inactive", |s| s.status == InstanceStatus::Inactive).await;
    let polls = rig.ecs.calls("list_tasks");
    rig.pass(1800).await;
    assert_eq!(rig.ecs.calls("list_tasks"), polls, "nobody asks for tasks any more");
    assert!(rig.told().stopped.is_empty());
    assert!(rig.cluster.borrow().problem.as_ref().is_some_and(|p| p.contains("deregistered")));
    assert_eq!(rig.ecs.calls("register"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_control_plane_that_has_forgotten_the_node_gets_it_again() {
    let mut rig = Rig::started().await;
    let old = registered(&mut rig).await;
    {
        let mut world = rig.ecs.world();
        world.instances.clear();
        world.instances.insert("another".into(), "INACTIVE");
    }
    let new = rig
        .wait_for("registered anew", |s| s.container_instance_arn.as_ref().is_some_and(|arn| *arn != old))
        .await;
    assert!(new.container_instance_arn.is_some());
    assert_eq!(rig.ecs.calls("register"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_may_not_look_at_itself_polls_all_the_same_and_says_so() {
    let mut rig = Rig::new();
    rig.ecs.world().refused.insert("describe_instance", EcsErrorKind::Unauthorized("no".into()));
    rig.start().await;
    let task = super::arn("1");
    rig.ecs.run(&task);
    rig.wait_engine("the task", |s| s.tasks.contains_key(&task)).await;
    rig.wait_for("a problem", |s| s.problem.as_ref().is_some_and(|p| p.contains("not authorized"))).await;
    rig.ecs.stop(&task, "enough");
    rig.wait_engine("its end", |s| s.tasks[&task].desired == TaskStatus::Stopped).await;
}

#[tokio::test(start_paused = true)]
async fn the_arn_of_an_earlier_start_shows_while_the_control_plane_is_silent() {
    let mut rig = Rig::started().await;
    let arn = registered(&mut rig).await;
    rig.kill().await;
    rig.ecs.world().outage = true;
    rig.start().await;
    let snapshot = rig.wait_for("a problem", |s| s.problem.is_some()).await;
    assert_eq!(snapshot.container_instance_arn, Some(arn));
    assert_eq!(snapshot.status, InstanceStatus::Unregistered);
}
