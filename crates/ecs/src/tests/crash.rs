//! Death at every call of the node's first minutes, before its effect and after, and a restart: one container instance, every task
//! begun once, the ARN on record.

use super::{arn, rig::Rig};
use berth_testkit::crash::Side;
use berth_types::{cluster::InstanceStatus, ports::Table};
use std::time::Duration;
use tokio::time::timeout;

/// More calls than a node makes until everything is in place; the last ones are never reached.
const CALLS: u64 = 16;

#[tokio::test(start_paused = true)]
async fn a_node_that_dies_at_any_call_comes_back_to_the_same_place() {
    let mut reached = 0;
    for call in 0..CALLS {
        for side in [Side::Before, Side::After] {
            let mut rig = Rig::new();
            let (first, second) = (arn("1"), arn("2"));
            rig.ecs.run(&first);
            rig.ecs.run(&second);
            rig.crash.crash_after(call, side);
            rig.start().await;
            if timeout(Duration::from_secs(5), rig.crash.died()).await.is_ok() {
                reached += 1;
            }
            rig.kill().await;
            rig.crash.revive();
            rig.start().await;
            rig.wait_for("in the cluster", |s| s.status == InstanceStatus::Active && s.polled_at.is_some())
                .await;
            rig.wait_engine("both tasks", |s| s.tasks.len() == 2).await;
            rig.pass(60).await;
            assert!(rig.told().begun.values().all(|begun| *begun == 1), "call {call}, {side:?}");
            assert_eq!(rig.ecs.world().instances.len(), 1, "call {call}, {side:?}");
            assert!(rig.journal.is_durable(Table::Registration, "container-instance"));
        }
    }
    assert!(reached >= 12, "only {reached} crash points were reached");
}
