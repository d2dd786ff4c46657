//! Images that go and images that stay, seen by containerd's own tool.

use crate::rig::{IMAGE, Rig, settings};
use berth_containerd::{CleanupConfig, normalize};
use berth_testkit::registry::{ImageSource, Options, Registry, noise};
use berth_types::{
    Timestamp,
    ports::{ContainerErrorKind, Containers},
};
use std::{
    fs,
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

/// An image that was pulled long ago is labelled so.
const LONG_AGO: &str = "berth.pulled-at=2020-01-01T00:00:00Z";
/// Launches against clean-ups: about half of them lose their image.
const ROUNDS: u32 = 20;
const SNAPSHOTS: [&str; 3] = ["snapshots", "--snapshotter=overlayfs", "ls"];

/// Everything that may go, goes.
fn full_disk() -> CleanupConfig {
    CleanupConfig { pressure_high: Some(0), pressure_low: 0, root: "/".into(), ..CleanupConfig::default() }
}

impl Rig {
    /// Makes an image of one file and says that it was pulled long ago.
    async fn pulled(&self, name: &str, bytes: &[u8]) -> String {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, "file", bytes).unwrap();
        let file = self.containerd.dir().join("small.tar");
        fs::write(&file, tar.into_inner().unwrap()).unwrap();
        self.api.import_image(name, &file, settings()).await.unwrap();
        self.ctr(&["images", "label", &normalize(name), LONG_AGO]);
        normalize(name)
    }

    /// What containerd's own tool lists, without its heading.
    fn listed(&self, arguments: &[&str]) -> Vec<String> {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.containerd.socket()).args(["--namespace", "berth"]).args(arguments);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with("KEY") && !line.starts_with("REF"));
        lines.map(str::to_owned).collect()
    }

    fn blobs(&self) -> usize {
        self.listed(&["content", "ls", "-q"]).len()
    }

    fn snapshots(&self) -> usize {
        self.listed(&SNAPSHOTS).len()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_image_goes_with_all_that_it_was_made_of_and_one_with_a_container_stays() {
    let mut rig = Rig::start().await;
    rig.ctr(&["images", "label", &normalize(IMAGE), LONG_AGO]);
    let (blobs, snapshots) = (rig.blobs(), rig.snapshots());
    let old = rig.pulled("old:1", b"old").await;
    rig.ctr(&["images", "tag", &old, "docker.io/library/old:2"]);
    assert_eq!((rig.blobs(), rig.snapshots()), (blobs + 3, snapshots + 1));
    let container = rig.container("web", |_| ());
    rig.api.create(&container).await.unwrap();
    rig.reconnect();
    let report = rig.api.clean_images(&CleanupConfig::default()).await.unwrap();
    assert_eq!(report.removed, [old, "docker.io/library/old:2".into()]);
    // Gone by now, not some time later; and the container's own snapshot has come.
    assert_eq!((rig.blobs(), rig.snapshots()), (blobs, snapshots + 1));
    rig.api.remove(&container.id).await.unwrap();
    rig.reconnect();
    let report = rig.api.clean_images(&CleanupConfig::default()).await.unwrap();
    assert_eq!(report.removed, [normalize(IMAGE)]);
    assert_eq!((rig.blobs(), rig.snapshots()), (0, 0));
    rig.api.remove_task(&rig.task).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_full_disk_takes_young_images_and_none_takes_what_was_imported() {
    let mut rig = Rig::start().await;
    let young = rig.pulled("young:1", b"young").await;
    let now = format!("berth.pulled-at={}", Timestamp::now());
    rig.ctr(&["images", "label", &young, &now]);
    rig.reconnect();
    assert!(rig.api.clean_images(&CleanupConfig::default()).await.unwrap().removed.is_empty());
    let off = CleanupConfig { pressure_high: None, ..full_disk() };
    assert!(rig.api.relieve_disk(&off).await.unwrap().removed.is_empty());
    let report = rig.api.relieve_disk(&full_disk()).await.unwrap();
    assert_eq!((report.removed, report.still_full), (vec![young], true));
    assert_eq!(rig.listed(&["images", "ls", "-q"]), [normalize(IMAGE)]);
    let untracked = CleanupConfig { untracked: true, ..full_disk() };
    assert_eq!(rig.api.relieve_disk(&untracked).await.unwrap().removed, [normalize(IMAGE)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_a_launch_has_asked_for_stays_until_its_container_holds_it() {
    let mut rig = Rig::start().await;
    rig.ctr(&["images", "label", &normalize(IMAGE), LONG_AGO]);
    rig.reconnect();
    rig.api.image(IMAGE).await.unwrap();
    assert!(rig.api.relieve_disk(&full_disk()).await.unwrap().removed.is_empty());
    let container = rig.container("web", |_| ());
    rig.api.create(&container).await.unwrap();
    rig.reconnect();
    assert!(rig.api.relieve_disk(&full_disk()).await.unwrap().removed.is_empty());
    rig.api.remove(&container.id).await.unwrap();
    rig.api.remove_task(&rig.task).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_stays_while_a_container_of_somebody_else_is_made_of_it() {
    let mut rig = Rig::start().await;
    let old = rig.pulled("old:1", b"old").await;
    rig.ctr(&["containers", "create", &old, "foreign"]);
    // Neither by this name any more: its snapshot is the other way to see it.
    rig.ctr(&["images", "tag", &old, "docker.io/library/renamed:1"]);
    rig.ctr(&["images", "rm", &old]);
    rig.reconnect();
    assert!(rig.api.clean_images(&CleanupConfig::default()).await.unwrap().removed.is_empty());
    rig.ctr(&["containers", "rm", "foreign"]);
    let removed = rig.api.clean_images(&CleanupConfig::default()).await.unwrap().removed;
    assert_eq!(removed, ["docker.io/library/renamed:1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_images_and_remove_those_that_nothing_runs_on() {
    let rig = Rig::start().await;
    let old = rig.pulled("old:1", &[7; 100_000]).await;
    let container = rig.container("web", |_| ());
    rig.api.create(&container).await.unwrap();
    let images = rig.api.images().await.unwrap();
    let shown: Vec<_> = images.iter().map(|i| (&i.name, i.containers, i.pulled_at.is_some())).collect();
    assert_eq!(shown, [(&normalize(IMAGE), 1, false), (&old, 0, true)]);
    assert!(images[1].bytes > 100_000 && images[1].digest.starts_with("sha256:"), "{images:?}");
    let error = rig.api.remove_image(IMAGE).await.unwrap_err();
    assert!(matches!(error.kind, ContainerErrorKind::Invalid(_)), "{error}");
    assert!(rig.api.remove_image("old:1").await.unwrap());
    assert!(!rig.api.remove_image("old:1").await.unwrap());
    rig.api.remove(&container.id).await.unwrap();
    rig.api.remove_task(&rig.task).await.unwrap();
    assert!(rig.api.remove_image(IMAGE).await.unwrap());
    assert_eq!((rig.blobs(), rig.snapshots()), (0, 0));
    let error = rig.api.image(IMAGE).await.unwrap_err();
    assert!(!matches!(error.kind, ContainerErrorKind::Unavailable(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_loses_images_only_until_there_is_room() {
    let mut rig = Rig::start().await;
    let disk = SmallDisk::under(&mut rig, 48);
    // Each is 4 MiB of layer and 4 MiB of snapshot.
    let mut names = Vec::new();
    for seed in 1..=5 {
        let name = rig.pulled(&format!("image:{seed}"), &noise(4 << 20, seed)).await;
        rig.ctr(&["images", "label", &name, &format!("berth.used-at=2020-01-0{}T00:00:00Z", 6 - seed)]);
        names.push(name);
    }
    rig.reconnect();
    let config = CleanupConfig {
        pressure_high: Some(80),
        pressure_low: 60,
        root: disk.0.clone(),
        ..CleanupConfig::default()
    };
    let report = rig.api.relieve_disk(&config).await.unwrap();
    names.reverse();
    assert_eq!((&report.removed[..], report.still_full), (&names[..2], false));
    assert!(rig.api.relieve_disk(&config).await.unwrap().removed.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn half_written_blobs_of_ours_are_given_up_after_a_day_and_at_once_when_the_disk_is_full() {
    let mut rig = Rig::start().await;
    for reference in ["berth-pull-old", "somebody-elses", "berth-pull-young"] {
        half_written(&rig, reference);
        if reference != "berth-pull-young" {
            age(&rig, "2020-01-01T00:00:00Z".parse().unwrap());
        }
    }
    rig.reconnect();
    let report = rig.api.clean_images(&CleanupConfig::default()).await.unwrap();
    assert_eq!(report.half_blobs, 1);
    let left = rig.listed(&["content", "active"]).join("\n");
    assert!(!left.contains("berth-pull-old") && left.contains("somebody-elses"), "{left}");
    assert!(left.contains("berth-pull-young"), "{left}");
    let some_minutes = jiff::SignedDuration::from_mins(5);
    age(&rig, Timestamp::now() - some_minutes);
    assert_eq!(rig.api.clean_images(&CleanupConfig::default()).await.unwrap().half_blobs, 0);
    assert_eq!(rig.api.relieve_disk(&full_disk()).await.unwrap().half_blobs, 1);
    let left = rig.listed(&["content", "active"]).join("\n");
    assert!(!left.contains("berth-pull-young") && left.contains("somebody-elses"), "{left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loop_cleans_up_until_it_is_told_to_stop() {
    let mut rig = Rig::start().await;
    let old = rig.pulled("old:1", b"old").await;
    rig.reconnect();
    let stop = tokio_util::sync::CancellationToken::new();
    let config = CleanupConfig { interval: Duration::ZERO, ..CleanupConfig::default() };
    let (api, token) = (rig.api.clone(), stop.clone());
    let cleanup = tokio::spawn(async move { api.run_image_cleanup(config, token).await });
    let gone = async || {
        let images = rig.api.images().await.unwrap();
        (!images.iter().any(|i| i.name == old)).then_some(())
    };
    crate::rig::eventually("the old image is gone", gone).await;
    stop.cancel();
    cleanup.await.unwrap();
    let off = CleanupConfig { enabled: false, ..CleanupConfig::default() };
    rig.api.run_image_cleanup(off, tokio_util::sync::CancellationToken::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_pulled_goes_whole_and_comes_back_when_a_task_asks_for_it() {
    let mut rig = Rig::start().await;
    let registry = Registry::start(&Options::default()).unwrap();
    registry.push("web", "1", &web()).unwrap();
    let reference = registry.reference("web", "1");
    let (blobs, snapshots) = (rig.blobs(), rig.snapshots());
    let before = rig.api.image(&reference).await.unwrap();
    rig.reconnect();
    let now = CleanupConfig { minimum_age: Duration::ZERO, ..CleanupConfig::default() };
    let removed = rig.api.clean_images(&now).await.unwrap().removed;
    assert!(removed.contains(&reference), "{removed:?}");
    assert_eq!((rig.blobs(), rig.snapshots()), (blobs, snapshots));
    assert_eq!(rig.api.image(&reference).await.unwrap(), before);
    rig.reconnect();
    // The same for a container that has waited for another of its task until the image was gone.
    assert!(!rig.api.relieve_disk(&full_disk()).await.unwrap().removed.is_empty());
    let container = rig.container("late", |spec| spec.image = reference.clone());
    rig.api.create(&container).await.unwrap();
    rig.api.remove(&container.id).await.unwrap();
    rig.api.remove_task(&rig.task).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_that_races_with_the_clean_up_gets_its_container() {
    let mut rig = Rig::start().await;
    let registry = Registry::start(&Options::default()).unwrap();
    registry.push("web", "1", &web()).unwrap();
    let reference = registry.reference("web", "1");
    for round in 0..ROUNDS {
        // A new agent has forgotten what was asked for: nothing but the launch itself holds the image.
        rig.reconnect();
        let container = rig.container("web", |spec| spec.image = reference.clone());
        let launch = async {
            // A little later each time, in steps of what the clean-up's own questions take.
            for _ in 0..round {
                rig.api.version().await?;
            }
            rig.api.image(&reference).await?;
            rig.api.create(&container).await
        };
        let config = full_disk();
        let (launched, cleaned) = tokio::join!(launch, rig.api.relieve_disk(&config));
        launched.unwrap();
        cleaned.unwrap();
        rig.api.remove(&container.id).await.unwrap();
    }
    rig.api.remove_task(&rig.task).await.unwrap();
}

fn web() -> ImageSource {
    ImageSource::new().config(serde_json::json!({"Cmd": ["/file"]})).file("file", b"web").unwrap()
}

/// A file system of its own for containerd's root, which goes with containerd's directory.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn under(rig: &mut Rig, mebibytes: u64) -> Self {
        rig.containerd.kill().unwrap();
        let root = rig.containerd.dir().join("root");
        let size = format!("size={mebibytes}m");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&root).status();
        assert!(mount.unwrap().success());
        rig.containerd.run().unwrap();
        rig.reconnect();
        Self(root)
    }
}

/// A blob that ends before it is whole.
fn half_written(rig: &Rig, reference: &str) {
    let mut command = Command::new("ctr");
    command.arg("--address").arg(rig.containerd.socket()).args(["--namespace", "berth"]);
    command.args(["content", "ingest", "--expected-size", "100", reference]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"half").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success(), "the blob is whole");
}

/// Makes everything that is being written look as if nobody had touched it since. containerd takes the later of two notes.
fn age(rig: &Rig, since: Timestamp) {
    let ingests = rig.containerd.dir().join("root/io.containerd.content.v1.content/ingest");
    for entry in fs::read_dir(ingests).unwrap() {
        let ingest = entry.unwrap().path();
        fs::write(ingest.join("updatedat"), since.to_string()).unwrap();
        let data = fs::File::options().write(true).open(ingest.join("data")).unwrap();
        data.set_modified(since.into()).unwrap();
    }
}
