//! A container's life: how it is made, runs, ends, and leaves nothing behind.

use crate::rig::{IMAGE, Rig, cgroup_root, eventually, text};
use berth_types::{
    ports::{ContainerErrorKind, Containers, RuntimeState, Signal},
    task::{LogDriver, VolumeView},
};
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_streams_and_the_images_own_command() {
    let mut rig = Rig::start().await;
    let image = rig.api.image(IMAGE).await.unwrap();
    assert!(image.image_id.starts_with("sha256:") && image.digest != image.image_id);
    let own = rig.container("own", |_| ());
    let exit = rig.run(&own).await;
    assert_eq!((exit.code, exit.stdout.as_str(), exit.stderr.as_str()), (0, "from image\n", ""));
    let exit = rig.sh("echo out; echo err >&2; printf unfinished; exit 3").await;
    assert_eq!((exit.code, exit.stdout.as_str(), exit.stderr.as_str()), (3, "out\nunfinished", "err\n"));
    assert!(!exit.oom);
    // The directory of the image is made when it is missing; the environment is image, definition, agent.
    let script = "pwd; echo $FROM_IMAGE $BOTH $MINE $INJECTED $HOSTNAME; hostname; cat /etc/resolv.conf";
    let set =
        vec![("BOTH".into(), "task".into()), ("MINE".into(), "1".into()), ("INJECTED".into(), "no".into())];
    let exit = rig.sh_with(script, |spec| spec.environment = set).await;
    assert_eq!(
        exit.stdout,
        "/srv/made/by/runc\n1 task 1 yes ip-10-0-0-7\nip-10-0-0-7\nnameserver 10.0.0.2\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_stops_by_its_signal_or_is_killed() {
    let mut rig = Rig::start().await;
    let polite = rig.container("polite", |spec| {
        spec.command = Some(vec![
            "sh".into(),
            "-c".into(),
            "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.05; done".into(),
        ]);
    });
    rig.begin(&polite).await;
    eventually("it is ready", async || text(&polite.log_path, "stdout").contains("ready").then_some(()))
        .await;
    rig.api.signal(&polite.id, Signal::Stop).await.unwrap();
    assert_eq!(rig.exit_of(&polite.id).await, (5, false));
    let stubborn = rig.container("stubborn", |spec| spec.command = Some(vec!["sleep".into(), "1000".into()]));
    rig.begin(&stubborn).await;
    // Process 1 of a container ignores what it does not handle.
    rig.api.signal(&stubborn.id, Signal::Stop).await.unwrap();
    rig.api.signal(&stubborn.id, Signal::Kill).await.unwrap();
    assert_eq!(rig.exit_of(&stubborn.id).await, (137, false));
    for id in [&polite.id, &stubborn.id] {
        rig.api.signal(id, Signal::Stop).await.unwrap();
        rig.api.signal(id, Signal::Kill).await.unwrap();
        rig.api.remove(id).await.unwrap();
        rig.api.signal(id, Signal::Stop).await.unwrap();
        rig.api.signal(id, Signal::Kill).await.unwrap();
    }
    assert_eq!(text(&polite.log_path, "stdout"), "ready\nbye\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_step_is_repeatable_and_everything_is_gone_after_remove() {
    let mut rig = Rig::start().await;
    let container = rig.container("again", |spec| spec.command = Some(vec!["sleep".into(), "1000".into()]));
    let created = rig.api.create(&container).await.unwrap();
    assert_eq!(rig.api.create(&container).await.unwrap(), created);
    let listed = rig.api.list().await.unwrap();
    assert_eq!(
        (listed.len(), &listed[0].state, listed[0].name.as_str()),
        (1, &RuntimeState::Created, "again")
    );
    assert_eq!((&listed[0].task, listed[0].record.as_slice()), (&rig.task, &b"record of again"[..]));
    let (pid, started) = rig.api.start(&container.id).await.unwrap();
    let (again, started_again) = rig.api.start(&container.id).await.unwrap();
    assert_eq!(pid, again);
    assert!(started.duration_since(started_again).as_secs().abs() < 2, "{started} {started_again}");
    assert_eq!(rig.api.list().await.unwrap()[0].state, RuntimeState::Running { pid });
    let task_cgroup = Path::new("/sys/fs/cgroup").join(if Path::new("/sys/fs/cgroup/memory").exists() {
        "memory"
    } else {
        ""
    });
    let task_cgroup = task_cgroup.join(cgroup_root()).join(rig.task.id());
    assert!(task_cgroup.join(container.id.as_str()).is_dir());
    // A running one is killed by its removal.
    rig.api.remove(&container.id).await.unwrap();
    rig.api.remove(&container.id).await.unwrap();
    assert_eq!(rig.exit_of(&container.id).await.0, 137);
    rig.api.remove_task(&rig.task).await.unwrap();
    rig.api.remove_task(&rig.task).await.unwrap();
    assert_eq!(rig.api.list().await.unwrap(), []);
    assert!(!task_cgroup.exists() && !Path::new(&format!("/proc/{pid}")).exists());
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(container.id.as_str()));
    let bundle =
        rig.containerd.dir().join("state/io.containerd.runtime.v2.task/berth").join(container.id.as_str());
    assert!(!bundle.exists());
    let missing = rig.api.start(&container.id).await.unwrap_err();
    assert!(matches!(missing.kind, ContainerErrorKind::Runtime(_)), "{missing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_was_cut_off_at_any_moment_is_taken_over_and_starts_once() {
    let mut rig = Rig::start().await;
    for cut_ms in [5, 15, 30, 45, 60, 80, 100, 130] {
        let name = format!("cut{cut_ms}");
        let container = rig.container(&name, |spec| {
            spec.command = Some(vec!["sh".into(), "-c".into(), "echo begun; exec sleep 1000".into()]);
        });
        rig.api.create(&container).await.unwrap();
        let cut = Duration::from_millis(cut_ms);
        // The call is dropped with its connection, as by kill -9, and the next agent asks at once.
        drop(tokio::time::timeout(cut, rig.api.start(&container.id)).await);
        rig.reconnect();
        let (pid, _) = rig.api.start(&container.id).await.unwrap_or_else(|e| panic!("cut at {cut:?}: {e:?}"));
        let states: Vec<_> = rig.api.list().await.unwrap().into_iter().map(|c| c.state).collect();
        assert_eq!(states, [RuntimeState::Running { pid }], "cut at {cut:?}");
        let out = eventually("its output", async || {
            Some(text(&container.log_path, "stdout")).filter(|text| !text.is_empty())
        });
        assert_eq!(out.await, "begun\n", "cut at {cut:?}");
        rig.api.remove(&container.id).await.unwrap();
    }
    rig.api.remove_task(&rig.task).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_definition_gets_wrong_is_said_and_leaves_nothing() {
    let rig = Rig::start().await;
    let image = rig.container("image", |spec| spec.image = "no/such:thing".into());
    let error = rig.api.create(&image).await.unwrap_err();
    assert!(
        matches!(&error.kind, ContainerErrorKind::ImageNotFound(text) if text.contains("no/such:thing is not in containerd's store"))
    );
    assert!(rig.api.image("no/such:thing").await.is_err());
    let user = rig.container("user", |spec| spec.user = Some("ghost".into()));
    let error = rig.api.create(&user).await.unwrap_err();
    assert_eq!(
        error.kind,
        ContainerErrorKind::Invalid("user ghost is not in the image's /etc/passwd".into())
    );
    let program = rig.container("program", |spec| spec.entry_point = Some(vec!["/no/such/program".into()]));
    rig.api.create(&program).await.unwrap();
    let error = rig.api.start(&program.id).await.unwrap_err();
    assert!(
        matches!(&error.kind, ContainerErrorKind::Invalid(text) if text.contains("/no/such/program")),
        "{error}"
    );
    // The failed start has left no task behind: the container is as it was.
    assert_eq!(rig.api.list().await.unwrap()[0].state, RuntimeState::Created);
    rig.api.remove(&program.id).await.unwrap();
    let mut no_network = rig.container("network", |_| ());
    no_network.netns_path = "/run/netns/berth-none".into();
    rig.api.create(&no_network).await.unwrap();
    assert!(rig.api.start(&no_network.id).await.is_err());
    rig.api.remove(&no_network.id).await.unwrap();
    assert_eq!(rig.api.list().await.unwrap(), []);
    rig.api.remove_task(&rig.task).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_network_namespace_is_joined_and_the_others_are_not_shared() {
    let mut rig = Rig::start().await;
    let exit = rig.sh("readlink /proc/self/ns/net; echo $$; ls /proc | grep -c '^[0-9]'; cat /proc/sys/net/ipv4/ip_unprivileged_port_start").await;
    let lines: Vec<_> = exit.stdout.lines().collect();
    assert_eq!(lines[0], rig.netns.id());
    assert_eq!(lines[1], "1");
    assert!(lines[2].parse::<u32>().unwrap() < 6);
    assert_eq!(lines[3], "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_are_mounted_for_reading_or_for_writing() {
    let mut rig = Rig::start().await;
    let source = rig.containerd.dir().join("volume");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("there"), "before").unwrap();
    let mut container = rig.container("volumes", |spec| {
        let script = "cat /ro/there; echo after > /rw/there; (echo x > /ro/new) 2>&1; exit 0";
        spec.command = Some(vec!["sh".into(), "-c".into(), script.into()]);
    });
    let view = |destination: &str| VolumeView {
        docker_name: "v".into(),
        source: source.clone(),
        destination: destination.into(),
    };
    container.volumes = vec![(view("/ro"), true), (view("/rw"), false)];
    let exit = rig.run(&container).await;
    assert!(
        exit.stdout.starts_with("before") && exit.stdout.contains("Read-only file system"),
        "{}",
        exit.stdout
    );
    assert_eq!(fs::read_to_string(source.join("there")).unwrap(), "after\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_rotated_survive_and_can_be_switched_off() {
    let mut rig = Rig::start().await;
    let container = rig.container("chatty", |spec| {
        let script = "i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); done";
        spec.command = Some(vec!["sh".into(), "-c".into(), script.into()]);
        spec.log.options =
            [("max-size".to_owned(), "4k".to_owned()), ("max-file".to_owned(), "3".to_owned())].into();
    });
    rig.begin(&container).await;
    assert_eq!(rig.exit_of(&container.id).await.0, 0);
    rig.api.remove(&container.id).await.unwrap();
    let all = text(&container.log_path, "stdout");
    assert!(all.ends_with("line 198\nline 199\n") && !all.contains("line 0\n"), "{all}");
    let dir = container.log_path.parent().unwrap();
    let names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    let silent = rig.container("silent", |spec| spec.log.driver = LogDriver::None);
    rig.begin(&silent).await;
    assert_eq!(rig.exit_of(&silent.id).await.0, 0);
    rig.api.remove(&silent.id).await.unwrap();
    assert!(!silent.log_path.exists());
    let terminal = rig.container("terminal", |spec| {
        spec.command = Some(vec!["sh".into(), "-c".into(), "test -t 1 && echo terminal $TERM".into()]);
        spec.pseudo_terminal = true;
    });
    assert_eq!(rig.run(&terminal).await.stdout.trim(), "terminal xterm");
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_a_container_takes_no_longer_than_killing_it() {
    let rig = Rig::start().await;
    let container = rig.container("quick", |spec| spec.command = Some(vec!["sleep".into(), "1000".into()]));
    rig.begin(&container).await;
    let before = Instant::now();
    rig.api.remove(&container.id).await.unwrap();
    // The logger ends with its streams; one that waited for a signal would take the shim's twelve seconds.
    assert!(before.elapsed() < Duration::from_secs(8), "{:?}", before.elapsed());
    rig.api.remove_task(&rig.task).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_the_garbage_collector_took_is_made_again() {
    let mut rig = Rig::start().await;
    let container = rig.container("collected", |_| ());
    rig.api.create(&container).await.unwrap();
    rig.ctr(&["snapshots", "rm", container.id.as_str()]);
    rig.api.start(&container.id).await.unwrap();
    assert_eq!(rig.exit_of(&container.id).await.0, 0);
    rig.api.remove(&container.id).await.unwrap();
    rig.api.remove_task(&rig.task).await.unwrap();
}
