//! kill -9 in the middle of a pull: the next agent takes over what is there.

use crate::rig::{DEADLINE, Rig, eventually};
use berth_containerd::{Containerd, ContainerdConfig};
use berth_testkit::{
    containerd::PrivateContainerd,
    registry::{BadRegistry, BuiltImage, Fault, ImageSource, Target, noise},
};
use berth_types::ports::Containers;
use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// The layer that is cut off stalls after so many bytes: they have been written when the next request comes.
const CUT: usize = 600_000;

fn image() -> ImageSource {
    let first = ImageSource::new().file("first", &noise(50_000, 1)).unwrap();
    first.file("second", &noise(1_000_000, 2)).unwrap()
}

/// Tells the test program that it is the agent that is killed: socket and reference.
const TASK: &str = "BERTH_TEST_PULL";

/// A pull in a process of its own; killed on drop.
struct Other(Child);

impl Other {
    fn pulls(containerd: &PrivateContainerd, reference: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "resume::an_agent_of_its_own_pulls"])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command.env(TASK, format!("{} {reference}", containerd.socket().display()));
        Self(command.spawn().unwrap())
    }

    fn kill_9(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// By itself it starts itself again in another process, which does the pull.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_of_its_own_pulls() {
    if let Ok(task) = std::env::var(TASK) {
        let (socket, reference) = task.split_once(' ').unwrap();
        let api = Containerd::connect(ContainerdConfig::new(socket, "/nonexistent")).unwrap();
        api.image(reference).await.unwrap();
        return;
    }
    let containerd = PrivateContainerd::start().unwrap();
    let registry = BadRegistry::start().await.unwrap();
    let built = registry.add("web", "1", &image()).unwrap();
    let mut other = Other::pulls(&containerd, &registry.reference("web", "1"));
    let ended = eventually("the pull's end", async || other.0.try_wait().unwrap()).await;
    assert!(ended.success());
    assert!(built.blobs().all(|blob| committed(&containerd, &blob.digest)));
}

struct Scene {
    containerd: PrivateContainerd,
    registry: BadRegistry,
    built: BuiltImage,
    reference: String,
    /// So much containerd has of the second layer at least.
    there: u64,
}

/// An agent was killed when it had one layer and a part of the other.
async fn cut_off() -> Scene {
    let containerd = PrivateContainerd::start().unwrap();
    let registry = BadRegistry::start().await.unwrap();
    let built = registry.add("web", "1", &image()).unwrap();
    let reference = registry.reference("web", "1");
    let second = built.layers[1].digest.clone();
    registry.fail(Target::Digest(second.clone()), Fault::Stall(CUT));
    let other = Other::pulls(&containerd, &reference);
    eventually("a part of the layer", async || ingested(&containerd, &second).filter(|n| *n > 0)).await;
    let first = built.layers[0].digest.clone();
    eventually("the other layer", async || committed(&containerd, &first).then_some(())).await;
    other.kill_9();
    // At least: a piece that was on its way at that moment may still be written.
    let there = ingested(&containerd, &second).unwrap();
    registry.heal();
    registry.forget();
    Scene { containerd, registry, built, reference, there }
}

fn data(containerd: &PrivateContainerd) -> PathBuf {
    containerd.dir().join("root/io.containerd.content.v1.content")
}

/// Bytes of a blob that is being written.
fn ingested(containerd: &PrivateContainerd, digest: &str) -> Option<u64> {
    let ingests = std::fs::read_dir(data(containerd).join("ingest")).ok()?;
    ingests.flatten().find_map(|ingest| {
        let reference = std::fs::read_to_string(ingest.path().join("ref")).ok()?;
        let data = std::fs::metadata(ingest.path().join("data")).ok()?;
        reference.contains(digest).then_some(data.len())
    })
}

fn committed(containerd: &PrivateContainerd, digest: &str) -> bool {
    data(containerd).join("blobs").join(digest.replacen(':', "/", 1)).exists()
}

fn next_agent(scene: &Scene) -> Containerd {
    Rig::client_that(&scene.containerd, |pull| pull.inactivity_timeout = Duration::from_secs(5))
}

#[tokio::test(flavor = "multi_thread")]
async fn after_kill_9_a_layer_is_continued_and_what_was_whole_is_not_asked_for_again() {
    let scene = cut_off().await;
    let image = next_agent(&scene).image(&scene.reference).await.unwrap();
    assert_eq!(image.digest, scene.built.manifest.digest);
    let [first, second] = [0, 1].map(|n| scene.registry.fetches(&scene.built.layers[n].digest));
    assert_eq!(first, []);
    let from: u64 =
        second[0].range.as_deref().unwrap()["bytes=".len()..].trim_end_matches('-').parse().unwrap();
    assert_eq!(second.len(), 1);
    assert!((scene.there..=CUT as u64).contains(&from), "{from}, {} are there", scene.there);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_registry_knows_no_ranges_the_layer_is_begun_again() {
    let scene = cut_off().await;
    scene.registry.fail(Target::Blobs, Fault::NoRanges);
    next_agent(&scene).image(&scene.reference).await.unwrap();
    let second = scene.registry.fetches(&scene.built.layers[1].digest);
    assert_eq!((second.len(), second[0].status), (1, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_layer_that_is_damaged_is_thrown_away() {
    let mut scene = cut_off().await;
    scene.containerd.kill().unwrap();
    let ingests = std::fs::read_dir(data(&scene.containerd).join("ingest")).unwrap();
    for ingest in ingests.flatten() {
        let file = ingest.path().join("data");
        let length = std::fs::metadata(&file).map_or(0, |m| m.len());
        std::fs::write(&file, vec![0; usize::try_from(length).unwrap()]).ok();
    }
    scene.containerd.run().unwrap();
    let api = next_agent(&scene);
    api.image(&scene.reference).await.unwrap();
    let second = scene.registry.fetches(&scene.built.layers[1].digest);
    let ranges: Vec<_> = second.iter().map(|asked| asked.range.is_some()).collect();
    assert_eq!(ranges, [true, false], "first the rest, and when that does not fit, all of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_agents_lease_held_is_kept_by_the_next_and_nothing_is_left_in_the_end() {
    let scene = cut_off().await;
    let api = next_agent(&scene);
    // The registry is away: this pull fails after it has taken the lease over.
    scene.registry.fail(Target::Blobs, Fault::Denied);
    assert!(api.image(&scene.reference).await.is_err());
    assert_eq!(leases(&scene.containerd), 1, "one lease, however often it is tried");
    scene.registry.heal();
    tokio::time::timeout(DEADLINE, api.image(&scene.reference)).await.unwrap().unwrap();
    assert_eq!(leases(&scene.containerd), 0);
    assert_eq!(ingested(&scene.containerd, "sha256:"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_at_any_moment_leaves_what_the_next_can_complete() {
    let containerd = PrivateContainerd::start().unwrap();
    let registry = BadRegistry::start().await.unwrap();
    let api = Rig::client_that(&containerd, |_| ());
    // From before the first request to after the last: a pull takes a quarter of a second.
    for (round, cut) in (0..300).step_by(25).enumerate() {
        let name = format!("web{round}");
        let source = image().file("round", name.as_bytes()).unwrap();
        let source = source.file("own", &noise(200_000, 1000 + round as u64)).unwrap();
        let built = registry.add(&name, "1", &source).unwrap();
        let other = Other::pulls(&containerd, &registry.reference(&name, "1"));
        tokio::time::sleep(Duration::from_millis(cut)).await;
        other.kill_9();
        let pulled =
            tokio::time::timeout(DEADLINE, api.image(&registry.reference(&name, "1"))).await.unwrap();
        assert_eq!(pulled.unwrap().digest, built.manifest.digest, "cut at {cut} ms");
    }
    assert_eq!(leases(&containerd), 0);
    assert_eq!(ingested(&containerd, "sha256:"), None);
}

/// Of pulls; those of unpacking last for an hour when they are cut off, and hold nothing that an image does not.
fn leases(containerd: &PrivateContainerd) -> usize {
    ctr(containerd, &["leases", "ls"]).lines().filter(|line| line.contains("berth.pull")).count()
}

fn ctr(containerd: &PrivateContainerd, arguments: &[&str]) -> String {
    let mut command = Command::new("ctr");
    command.arg("--address").arg(containerd.socket()).args(["--namespace", "berth"]).args(arguments);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
