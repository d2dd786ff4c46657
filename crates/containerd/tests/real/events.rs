//! Hints over lost connections: the agent restarted, containerd restarted, containerd not there at all.

use crate::rig::{Rig, eventually};
use berth_types::ports::{ContainerErrorKind, ContainerEvent, Containers, RuntimeState, Signal};

#[tokio::test(flavor = "multi_thread")]
async fn a_new_agent_finds_running_containers_and_hears_of_their_exit() {
    let mut rig = Rig::start().await;
    let container = rig.container("lasting", |spec| spec.command = Some(vec!["sleep".into(), "1000".into()]));
    let pid = rig.begin(&container).await;
    rig.reconnect();
    assert_eq!(rig.next().await, ContainerEvent::Resync);
    assert_eq!(rig.api.list().await.unwrap()[0].state, RuntimeState::Running { pid });
    rig.api.signal(&container.id, Signal::Kill).await.unwrap();
    assert_eq!(rig.exit_of(&container.id).await, (137, false));
    rig.reconnect();
    let state = rig.api.list().await.unwrap()[0].state.clone();
    assert!(matches!(state, RuntimeState::Exited { code: 137, oom: false, .. }), "{state:?}");
    rig.api.remove(&container.id).await.unwrap();
    rig.api.remove_task(&rig.task).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn containerd_may_be_restarted_under_running_containers() {
    let mut rig = Rig::start().await;
    assert_eq!(rig.next().await, ContainerEvent::Resync);
    let container = rig.container("lasting", |spec| spec.command = Some(vec!["sleep".into(), "1000".into()]));
    let pid = rig.begin(&container).await;
    rig.containerd.kill().unwrap();
    assert_eq!(rig.next().await, ContainerEvent::Disconnected);
    let error = rig.api.list().await.unwrap_err();
    assert!(matches!(error.kind, ContainerErrorKind::Unavailable(_)), "{error:?}");
    let next = rig.container("next", |_| ());
    let error = rig.api.create(&next).await.unwrap_err();
    assert!(matches!(error.kind, ContainerErrorKind::Unavailable(_)), "{error:?}");
    rig.containerd.run().unwrap();
    assert_eq!(rig.next().await, ContainerEvent::Resync);
    assert_eq!(rig.api.list().await.unwrap()[0].state, RuntimeState::Running { pid });
    rig.api.signal(&container.id, Signal::Kill).await.unwrap();
    assert_eq!(rig.exit_of(&container.id).await.0, 137);
    rig.api.remove(&container.id).await.unwrap();
    // The image is where it was, and what could not be done then can be done now.
    assert_eq!(rig.run(&next).await.stdout, "from image\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_while_containerd_is_away_is_found_by_looking() {
    let mut rig = Rig::start().await;
    assert_eq!(rig.next().await, ContainerEvent::Resync);
    let container = rig.container("short", |spec| {
        spec.command =
            Some(vec!["sh".into(), "-c".into(), "while [ ! -e /go ]; do sleep 0.02; done; exit 7".into()]);
    });
    let pid = rig.begin(&container).await;
    rig.containerd.kill().unwrap();
    assert_eq!(rig.next().await, ContainerEvent::Disconnected);
    std::fs::write(format!("/proc/{pid}/root/go"), "").unwrap();
    let gone = async || (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(());
    eventually("it has ended", gone).await;
    rig.containerd.run().unwrap();
    assert_eq!(rig.next().await, ContainerEvent::Resync);
    let state = eventually("its end is known", async || {
        let state = rig.api.list().await.ok()?.pop()?.state;
        matches!(state, RuntimeState::Exited { .. }).then_some(state)
    });
    let state = state.await;
    assert!(matches!(state, RuntimeState::Exited { code: 7, .. }), "{state:?}");
    rig.api.remove(&container.id).await.unwrap();
    rig.api.remove_task(&rig.task).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_containerd_that_is_not_there_yet_is_waited_for() {
    let mut rig = Rig::start().await;
    rig.containerd.kill().unwrap();
    rig.reconnect();
    assert_eq!(rig.next().await, ContainerEvent::Disconnected);
    rig.containerd.run().unwrap();
    assert_eq!(rig.next().await, ContainerEvent::Resync);
    assert!(!rig.api.version().await.unwrap().is_empty());
}
