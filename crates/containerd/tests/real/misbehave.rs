//! A registry that lies, stalls, breaks off or vanishes: every pull ends with a reason that a person can act on, and works again as soon
//! as the registry does.

use crate::rig::{DEADLINE, Rig};
use berth_containerd::Containerd;
use berth_testkit::{
    containerd::PrivateContainerd,
    registry::{BadRegistry, Fault, ImageSource, Target, noise},
};
use berth_types::ports::{ContainerErrorKind, Containers};
use std::time::Duration;
use tokio::time::timeout;

const LAYER: usize = 200_000;

fn image() -> ImageSource {
    ImageSource::new().file("noise", &noise(LAYER, 3)).unwrap()
}

fn client(containerd: &PrivateContainerd) -> Containerd {
    Rig::client_that(containerd, |pull| {
        pull.inactivity_timeout = Duration::from_millis(200);
        pull.manifest_timeout = Duration::from_secs(2);
    })
}

/// Why the pull fails, with what is different each time taken out.
async fn why(api: &Containerd, reference: &str) -> (ContainerErrorKind, String) {
    let pulled = timeout(DEADLINE, api.image(reference)).await.expect("an end in time");
    let error = pulled.expect_err("a failure");
    let text = error.to_string();
    assert!(text.starts_with(&format!("pull {reference}: ")) && text.len() < 600, "{text}");
    (error.kind, text)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_misbehaviour_has_a_reason_of_its_own_and_none_is_for_ever() {
    let containerd = PrivateContainerd::start().unwrap();
    let registry = BadRegistry::start().await.unwrap();
    let built = registry.add("web", "1", &image()).unwrap();
    let (layer, reference) = (Target::Digest(built.layers[0].digest.clone()), registry.reference("web", "1"));
    let layer_size = built.layers[0].bytes.len();
    let sent =
        format!("blob {} of web:1: the registry sent bytes with digest sha256:", built.layers[0].digest);
    let api = client(&containerd);
    for (target, fault, resolve, reason) in [
        (Target::Manifests, Fault::WrongBytes, true, "the registry sent a manifest with digest sha256:"),
        (Target::Manifests, Fault::WrongDigestHeader, true, "manifest unknown"),
        (Target::Manifests, Fault::Denied, true, "denied: requested access to the resource is denied"),
        (Target::Manifests, Fault::Unknown, true, "manifest unknown: manifest unknown"),
        (Target::Manifests, Fault::LoginLoop, true, "unauthorized: authentication required"),
        (Target::Manifests, Fault::Status(500), true, "the registry answered 500 Internal Server Error"),
        (
            Target::Manifests,
            Fault::TooMany(0),
            true,
            "toomanyrequests: You have reached your pull rate limit.",
        ),
        (Target::Manifests, Fault::Huge, true, "the manifest is larger than 4 MiB"),
        (Target::Manifests, Fault::Endless, true, "the manifest is larger than 4 MiB"),
        (Target::Manifests, Fault::Truncated(10), true, "the connection was lost"),
        (Target::Manifests, Fault::Stall(10), true, "no answer within 2s"),
        (layer.clone(), Fault::WrongBytes, false, &sent),
        (layer.clone(), Fault::Truncated(1000), false, "the connection was lost"),
        (layer.clone(), Fault::Reset(1000), false, "the connection was lost"),
        (layer.clone(), Fault::Stall(1000), false, "no bytes for 0.2s"),
        (layer.clone(), Fault::Endless, false, "the registry sends more than the"),
        (layer.clone(), Fault::Denied, false, "denied: requested access to the resource is denied"),
        (layer.clone(), Fault::Unknown, false, "blob unknown: blob unknown to registry"),
        (layer.clone(), Fault::Status(503), false, "the registry answered 503 Service Unavailable"),
    ] {
        registry.fail(target, fault);
        let (kind, text) = why(&api, &reference).await;
        assert!(text.contains(reason), "{fault:?}: {text}");
        assert_eq!(matches!(kind, ContainerErrorKind::CannotResolve(_)), resolve, "{fault:?}: {kind:?}");
        assert_eq!(matches!(kind, ContainerErrorKind::CannotPull(_)), !resolve, "{fault:?}: {kind:?}");
        registry.heal();
        let ended = api.pulls().borrow().ended.last().cloned().unwrap();
        assert!(ended.problem.unwrap().contains(reason), "{fault:?}");
    }
    assert!(layer_size > 100_000);
    assert_eq!(
        timeout(DEADLINE, api.image(&reference)).await.unwrap().unwrap().digest,
        built.manifest.digest
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_that_pass_are_got_over() {
    let containerd = PrivateContainerd::start().unwrap();
    let registry = BadRegistry::start().await.unwrap();
    let api = client(&containerd);
    for (n, (target, fault)) in [
        (Target::Manifests, Fault::Status(502)),
        (Target::Manifests, Fault::TooMany(0)),
        (Target::Manifests, Fault::Reset(5)),
        (Target::Blobs, Fault::Status(500)),
        (Target::Blobs, Fault::Reset(70_000)),
        (Target::Blobs, Fault::Stall(100)),
        (Target::Blobs, Fault::Truncated(100)),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("web{n}");
        let source = image().file("n", &[u8::try_from(n).unwrap()]).unwrap();
        let source = source.file("more", &noise(100_000, 100 + n as u64)).unwrap();
        registry.add(&name, "1", &source).unwrap();
        registry.fail_times(target, fault, 2);
        timeout(DEADLINE, api.image(&registry.reference(&name, "1"))).await.unwrap().unwrap();
        registry.heal();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_vanishes_is_named_and_its_half_layer_is_used_when_it_is_back() {
    let containerd = PrivateContainerd::start().unwrap();
    let mut registry = BadRegistry::start().await.unwrap();
    let built = registry.add("web", "1", &image()).unwrap();
    let (layer, reference) = (&built.layers[0].digest, registry.reference("web", "1"));
    registry.fail(Target::Digest(layer.clone()), Fault::Vanish(100_000));
    let api = client(&containerd);
    let (kind, text) = why(&api, &reference).await;
    assert!(matches!(kind, ContainerErrorKind::CannotPull(_)), "{kind:?}");
    assert!(text.contains(&format!("blob {layer} of web:1: connection refused")), "{text}");
    registry.heal();
    registry.come_back().await.unwrap();
    api.image(&reference).await.unwrap();
    let last = registry.fetches(layer).last().cloned().unwrap();
    assert_eq!((last.range.as_deref(), last.status), (Some("bytes=100000-"), 206));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_drips_ends_with_its_time_out() {
    let containerd = PrivateContainerd::start().unwrap();
    let registry = BadRegistry::start().await.unwrap();
    registry.add("web", "1", &image()).unwrap();
    registry.fail(Target::Blobs, Fault::Drip(1, Duration::from_millis(20)));
    let limit = Duration::from_secs(1);
    let api = Rig::client_that(&containerd, |pull| pull.pull_timeout = limit);
    let (kind, _) = why(&api, &registry.reference("web", "1")).await;
    assert_eq!(kind, ContainerErrorKind::TimedOut(limit));
    assert!(api.pulls().borrow().active.is_empty());
}
