//! Images from a real registry, under every behaviour.

use crate::rig::{Rig, rootfs_tar};
use berth_containerd::{Containerd, PullBehavior, RegistryAuth, normalize};
use berth_testkit::{
    containerd::PrivateContainerd,
    registry::{BadRegistry, Fault, ImageSource, Login, Options, PASSWORD, Registry, Target, USER, noise},
};
use berth_types::ports::{ContainerErrorKind, Containers};
use futures::future::join_all;
use serde_json::json;
use std::time::{Duration, Instant};

/// busybox in a layer, the tag's own text in another.
fn shell(text: &str) -> ImageSource {
    let command = json!({"Env": ["PATH=/bin"], "Cmd": ["cat", "/text"]});
    ImageSource::new().layer(rootfs_tar()).file("text", text.as_bytes()).unwrap().config(command)
}

/// A small image that nobody runs.
fn small(text: &str) -> ImageSource {
    ImageSource::new().file("text", text.as_bytes()).unwrap()
}

fn that(containerd: &PrivateContainerd, behavior: PullBehavior) -> Containerd {
    Rig::client_that(containerd, |pull| pull.behavior = behavior)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pulled_by_tag_and_by_digest_and_runs() {
    let mut rig = Rig::start().await;
    let registry = Registry::start(&Options::default()).unwrap();
    let digest = registry.push("team/web", "1", &shell("from a registry\n")).unwrap();
    let reference = registry.reference("team/web", "1");
    let image = rig.api.image(&reference).await.unwrap();
    assert_eq!(image.digest, digest);
    let container = rig.container("web", |spec| spec.image.clone_from(&reference));
    assert_eq!(rig.run(&container).await.stdout, "from a registry\n");
    // With the registry gone, the digest still means this image, under any behaviour.
    drop(registry);
    let pinned = reference.replace(":1", &format!("@{digest}"));
    for behavior in [PullBehavior::Default, PullBehavior::Always, PullBehavior::Once] {
        assert_eq!(that(&rig.containerd, behavior).image(&pinned).await.unwrap().image_id, image.image_id);
    }
    let ended = rig.api.pulls().borrow().ended.clone();
    assert_eq!((ended.len(), ended[0].reference.clone()), (1, normalize(&reference)));
    assert!(ended[0].bytes > 500_000 && ended[0].problem.is_none(), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_alone_is_pulled_from_dockers_form_of_an_image() {
    let containerd = PrivateContainerd::start().unwrap();
    let registry = Registry::start(&Options::default()).unwrap();
    let digest = registry.push("web", "1", &small("x").docker()).unwrap();
    let api = that(&containerd, PullBehavior::Default);
    let pinned = registry.reference("web", "1").replace(":1", &format!("@{digest}"));
    assert_eq!(api.image(&pinned).await.unwrap().digest, digest);
    let wrong = pinned.replace(&digest, &format!("sha256:{}", "0".repeat(64)));
    let error = api.image(&wrong).await.unwrap_err();
    assert!(error.to_string().contains("manifest unknown"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_index_only_the_image_for_this_machine_is_brought() {
    let containerd = PrivateContainerd::start().unwrap();
    let registry = BadRegistry::start().await.unwrap();
    let foreign = small("foreign").architecture("s390x");
    let images = [foreign.clone(), small("mine")];
    let digest = registry.add_index("web", "1", &images).unwrap();
    let api = that(&containerd, PullBehavior::Default);
    let image = api.image(&registry.reference("web", "1")).await.unwrap();
    assert_eq!(image.digest, digest);
    assert_eq!(image.image_id, small("mine").build().unwrap().config.digest);
    let foreign = foreign.build().unwrap();
    for blob in foreign.blobs().chain([&foreign.manifest]) {
        assert_eq!(registry.fetches(&blob.digest), [], "{}", blob.media_type);
    }
    registry.add("foreign", "1", &small("x").architecture("s390x")).unwrap();
    let error = api.image(&registry.reference("foreign", "1")).await.unwrap_err();
    assert!(error.to_string().contains("the image is for linux/s390x"), "{error}");
    assert!(matches!(error.kind, ContainerErrorKind::CannotPull(_)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_asks_who_we_are_is_shown_the_credentials_that_are_set_for_it() {
    let containerd = PrivateContainerd::start().unwrap();
    let registry = Registry::start(&Options { login: Login::Htpasswd, ..Options::default() }).unwrap();
    registry.push("web", "1", &small("x")).unwrap();
    let reference = registry.reference("web", "1");
    let error = that(&containerd, PullBehavior::Default).image(&reference).await.unwrap_err().to_string();
    assert!(error.contains("unauthorized: authentication required (no credentials are set"), "{error}");
    let auth = |host: &str, password: &str| {
        let text = format!(r#"{{"http://{host}/v1/":{{"username":"{USER}","password":"{password}"}}}}"#);
        RegistryAuth::parse("docker", &text).unwrap()
    };
    let with = |auth| Rig::client_that(&containerd, |pull| pull.auth = auth);
    let host = registry.address().to_string();
    let error = with(auth(&host, "guess")).image(&reference).await.unwrap_err();
    assert!(error.to_string().contains("unauthorized") && !error.to_string().contains("guess"), "{error}");
    assert!(matches!(error.kind, ContainerErrorKind::CannotResolve(_)), "{error:?}");
    with(auth(&host, PASSWORD)).image(&reference).await.unwrap();
    // And by tokens, which are got with the same credentials.
    let registry = BadRegistry::start().await.unwrap();
    registry.add("web", "1", &small("y")).unwrap();
    registry.require_token();
    let api = with(auth(&registry.address().to_string(), PASSWORD));
    api.image(&registry.reference("web", "1")).await.unwrap();
    assert_eq!(registry.fetches("/token").len(), 1, "the token is used for everything");
    registry.require_token();
    api.image(&registry.reference("web", "1")).await.unwrap();
    assert_eq!(registry.fetches("/token").len(), 2, "a token that is not taken any more is renewed");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_behaviour_takes_what_is_here_or_asks_as_the_official_agent_does() {
    let containerd = PrivateContainerd::start().unwrap();
    let registry = BadRegistry::start().await.unwrap();
    let id = |text: &str| small(text).build().unwrap().config.digest;
    // What each has after the tag was moved, and whether it can do without the registry.
    for (name, behavior, moved, alone) in [
        ("default", PullBehavior::Default, "new", true),
        ("always", PullBehavior::Always, "new", false),
        ("once", PullBehavior::Once, "old", true),
        ("cached", PullBehavior::PreferCached, "old", true),
    ] {
        registry.add(name, "1", &small("old")).unwrap();
        let reference = registry.reference(name, "1");
        let api = that(&containerd, behavior);
        assert_eq!(api.image(&reference).await.unwrap().image_id, id("old"), "{name}");
        registry.add(name, "1", &small("new")).unwrap();
        assert_eq!(api.image(&reference).await.unwrap().image_id, id(moved), "{name}");
        // A new agent remembers by what is noted with the image.
        let api = that(&containerd, behavior);
        registry.fail(Target::Everything, Fault::Denied);
        let image = api.image(&reference).await;
        assert_eq!(image.is_ok(), alone, "{name}: {image:?}");
        registry.heal();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_imported_image_starts_fast_where_there_is_no_registry() {
    let rig = Rig::start().await;
    let tar = rig.containerd.dir().join("rootfs.tar");
    // Nobody listens on port 1.
    rig.api.import_image("127.0.0.1:1/web", &tar, crate::rig::settings()).await.unwrap();
    let before = Instant::now();
    that(&rig.containerd, PullBehavior::Default).image("127.0.0.1:1/web").await.unwrap();
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
    for behavior in [PullBehavior::Always, PullBehavior::Once] {
        let error = that(&rig.containerd, behavior).image("127.0.0.1:1/web").await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "pull 127.0.0.1:1/web: 127.0.0.1:1: manifest of web:latest: connection refused"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_many_want_at_once_is_downloaded_and_unpacked_once() {
    let containerd = PrivateContainerd::start().unwrap();
    let registry = BadRegistry::start().await.unwrap();
    let shared = noise(300_000, 7);
    let image = |n: u8| ImageSource::new().file("shared", &shared).unwrap().file("own", &[n]).unwrap();
    let built: Vec<_> = (0..4).map(|n| registry.add(&format!("web{n}"), "1", &image(n)).unwrap()).collect();
    let api = that(&containerd, PullBehavior::Always);
    let calls = (0..12).map(|n| {
        let (api, reference) = (api.clone(), registry.reference(&format!("web{}", n % 4), "1"));
        tokio::spawn(async move { api.image(&reference).await })
    });
    for image in join_all(calls).await {
        image.unwrap().unwrap();
    }
    for blob in built.iter().flat_map(|image| image.blobs()) {
        assert_eq!(registry.fetches(&blob.digest).len(), 1, "{}", blob.media_type);
    }
    for image in &built {
        let manifests = registry.fetches(&format!("manifests/{}", image.manifest.digest)).len();
        assert_eq!(manifests, 1, "calls for one reference share its pull");
    }
    assert_eq!(api.pulls().borrow().ended.len(), 4);
    assert!(api.pulls().borrow().active.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_image_under_many_names_is_brought_once() {
    let containerd = PrivateContainerd::start().unwrap();
    let registry = BadRegistry::start().await.unwrap();
    let source = small("x").file("noise", &noise(200_000, 5)).unwrap();
    let built: Vec<_> = (0..5).map(|n| registry.add("web", &n.to_string(), &source).unwrap()).collect();
    let api = that(&containerd, PullBehavior::Default);
    let calls = (0..5).map(|n| {
        let (api, reference) = (api.clone(), registry.reference("web", &n.to_string()));
        tokio::spawn(async move { api.image(&reference).await })
    });
    for image in join_all(calls).await {
        assert_eq!(image.unwrap().unwrap().digest, built[0].manifest.digest);
    }
    for blob in built[0].blobs() {
        assert_eq!(registry.fetches(&blob.digest).len(), 1, "{}", blob.media_type);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_goes_on_without_its_first_caller_and_ends_with_its_last() {
    let containerd = PrivateContainerd::start().unwrap();
    let registry = BadRegistry::start().await.unwrap();
    registry.add("web", "1", &small("x")).unwrap();
    registry.fail(Target::Blobs, Fault::Stall(0));
    let api = that(&containerd, PullBehavior::Default);
    let reference = registry.reference("web", "1");
    let call = || {
        let (api, reference) = (api.clone(), reference.clone());
        tokio::spawn(async move { api.image(&reference).await })
    };
    let (first, second) = (call(), call());
    let mut pulls = api.pulls();
    pulls.wait_for(|pulls| pulls.active.iter().any(|pull| pull.blobs > 0)).await.unwrap();
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    assert_eq!(pulls.borrow().active.len(), 1);
    second.abort();
    tokio::time::timeout(crate::rig::DEADLINE, pulls.wait_for(|pulls| pulls.active.is_empty()))
        .await
        .unwrap()
        .unwrap();
    registry.heal();
    call().await.unwrap().unwrap();
}
