//! Settings of images.

use super::*;
use berth_containerd::{CleanupConfig, PullBehavior, RegistryAuth};
use std::os::unix::fs::PermissionsExt;

const PASSWORD: &str = "correct-horse-battery";

/// Credentials in the form `docker`.
fn auth_data() -> String {
    format!(
        "{{\"https://registry.example.com/v1/\": {{\"username\": \"me\", \"password\": \"{PASSWORD}\", \"email\": \"\"}}}}"
    )
}

#[test]
fn the_defaults_are_the_official_agents() {
    let images = from("").unwrap().images;
    let minutes = |m: u64| Duration::from_secs(m * 60);
    assert_eq!(images.behavior, PullBehavior::Default);
    assert_eq!(
        (images.pull_timeout, images.inactivity_timeout, images.manifest_timeout),
        (minutes(120), minutes(1), minutes(1))
    );
    assert!(images.auth == RegistryAuth::default() && images.insecure_registries.is_empty());
    assert_eq!(images.concurrent_pulls, 3);
    let cleanup = images.cleanup;
    assert!(cleanup.enabled && !cleanup.untracked && cleanup.exclude.is_empty());
    assert_eq!((cleanup.interval, cleanup.minimum_age), (minutes(30), minutes(60)));
    assert_eq!((cleanup.untracked_minimum_age, cleanup.per_cycle), (minutes(60), 5));
    assert_eq!((cleanup.pressure_high, cleanup.pressure_low), (Some(85), 80));
    assert_eq!(cleanup.root, Path::new("/var/lib/containerd"));
    assert_eq!(cleanup, CleanupConfig::default());
}

#[test]
fn everything_about_images_can_be_set() {
    let config = from(
        "ECS_IMAGE_PULL_BEHAVIOR=prefer-cached\nECS_IMAGE_PULL_TIMEOUT=30m\nECS_IMAGE_PULL_INACTIVITY_TIMEOUT=3m\n\
         ECS_MANIFEST_PULL_TIMEOUT=30s\nBERTH_INSECURE_REGISTRIES=10.0.1.1:5000, registry.local\nBERTH_CONCURRENT_PULLS=8\n\
         ECS_DISABLE_IMAGE_CLEANUP=true\nECS_IMAGE_CLEANUP_INTERVAL=10m\nECS_IMAGE_MINIMUM_CLEANUP_AGE=5m\n\
         ECS_NUM_IMAGES_DELETE_PER_CYCLE=2\nECS_ENABLE_UNTRACKED_IMAGE_CLEANUP=true\nNON_ECS_IMAGE_MINIMUM_CLEANUP_AGE=2h\n\
         ECS_EXCLUDE_UNTRACKED_IMAGE=base:1,base:2\nBERTH_IMAGE_PRESSURE_HIGH=70\nBERTH_IMAGE_PRESSURE_LOW=50\n\
         BERTH_CONTAINERD_ROOT=/data/containerd\n",
    )
    .unwrap();
    let images = config.images;
    assert_eq!(images.behavior, PullBehavior::PreferCached);
    assert_eq!(images.insecure_registries, ["10.0.1.1:5000", "registry.local"]);
    assert_eq!((images.concurrent_pulls, images.manifest_timeout), (8, Duration::from_secs(30)));
    let cleanup = images.cleanup;
    assert!(!cleanup.enabled && cleanup.untracked);
    assert_eq!(
        (cleanup.per_cycle, cleanup.exclude.as_slice()),
        (2, &["base:1".to_owned(), "base:2".to_owned()][..])
    );
    assert_eq!(cleanup.untracked_minimum_age, Duration::from_secs(7200));
    assert_eq!((cleanup.pressure_high, cleanup.pressure_low), (Some(70), 50));
    assert_eq!(cleanup.root, Path::new("/data/containerd"));
    assert_eq!(config.unused, [] as [&str; 0]);
}

#[test]
fn images_that_are_pulled_only_once_missing_are_kept() {
    assert!(!from("ECS_IMAGE_PULL_BEHAVIOR=prefer-cached").unwrap().images.cleanup.enabled);
    assert!(from("ECS_IMAGE_PULL_BEHAVIOR=once").unwrap().images.cleanup.enabled);
}

#[test]
fn disk_pressure_can_be_switched_off() {
    assert_eq!(from("BERTH_IMAGE_PRESSURE_HIGH=0").unwrap().images.cleanup.pressure_high, None);
    assert_eq!(from("BERTH_IMAGE_PRESSURE_HIGH=60").unwrap().images.cleanup.pressure_low, 60);
}

#[test]
fn a_pull_behavior_that_nobody_knows_is_the_default_with_a_warning() {
    let config = from("ECS_IMAGE_PULL_BEHAVIOR=sometimes").unwrap();
    assert_eq!(config.images.behavior, PullBehavior::Default);
    assert!(config.warnings[0].contains("`sometimes`"), "{:?}", config.warnings);
}

#[test]
fn what_is_less_than_the_official_agents_least_is_replaced_as_it_does() {
    let config = from(
        "ECS_IMAGE_CLEANUP_INTERVAL=5m\nECS_IMAGE_PULL_INACTIVITY_TIMEOUT=59s\nECS_MANIFEST_PULL_TIMEOUT=1s\n\
         ECS_NUM_IMAGES_DELETE_PER_CYCLE=0\nECS_CONTAINER_STOP_TIMEOUT=100ms\nECS_ENGINE_TASK_CLEANUP_WAIT_DURATION=1ns\n",
    )
    .unwrap();
    let (seconds, images) = (Duration::from_secs, config.images);
    assert_eq!((images.cleanup.interval, images.cleanup.per_cycle), (seconds(1800), 5));
    assert_eq!((images.inactivity_timeout, images.manifest_timeout), (seconds(60), seconds(30)));
    assert_eq!((config.stop_timeout, config.cleanup_wait), (seconds(1), seconds(3 * 3600)));
    assert_eq!(config.warnings.len(), 6, "{:?}", config.warnings);
    let said = config
        .warnings
        .iter()
        .any(|w| w == "ECS_IMAGE_CLEANUP_INTERVAL: 300s is less than 600s; 1800s is taken, the default");
    assert!(said, "{:?}", config.warnings);
    // Nothing at all is what is not set.
    assert_eq!(from("ECS_CONTAINER_STOP_TIMEOUT=0s").unwrap().stop_timeout, seconds(30));
    assert_eq!(from("ECS_NUM_IMAGES_DELETE_PER_CYCLE=-3").unwrap().images.cleanup.per_cycle, 5);
}

#[test]
fn what_cannot_be_set_is_refused() {
    refused(&[
        ("ECS_IMAGE_PULL_TIMEOUT=soon", "ECS_IMAGE_PULL_TIMEOUT", "duration"),
        ("BERTH_CONCURRENT_PULLS=0", "BERTH_CONCURRENT_PULLS", "1 to 16"),
        ("BERTH_INSECURE_REGISTRIES=http://x", "BERTH_INSECURE_REGISTRIES", "without scheme"),
        ("ECS_IMAGE_MINIMUM_CLEANUP_AGE=x", "ECS_IMAGE_MINIMUM_CLEANUP_AGE", "duration"),
        ("ECS_NUM_IMAGES_DELETE_PER_CYCLE=all", "ECS_NUM_IMAGES_DELETE_PER_CYCLE", "1 to 1000"),
        ("ECS_NUM_IMAGES_DELETE_PER_CYCLE=1001", "ECS_NUM_IMAGES_DELETE_PER_CYCLE", "1 to 1000"),
        ("ECS_DISABLE_IMAGE_CLEANUP=maybe", "ECS_DISABLE_IMAGE_CLEANUP", "true or false"),
        ("ECS_ENABLE_UNTRACKED_IMAGE_CLEANUP=x", "ECS_ENABLE_UNTRACKED_IMAGE_CLEANUP", "true or false"),
        ("NON_ECS_IMAGE_MINIMUM_CLEANUP_AGE=1", "NON_ECS_IMAGE_MINIMUM_CLEANUP_AGE", "duration"),
        ("BERTH_IMAGE_PRESSURE_HIGH=101", "BERTH_IMAGE_PRESSURE_HIGH", "0 to 100"),
        ("BERTH_IMAGE_PRESSURE_HIGH=50\nBERTH_IMAGE_PRESSURE_LOW=60", "BERTH_IMAGE_PRESSURE_LOW", "at most"),
        ("BERTH_CONTAINERD_ROOT=containerd", "BERTH_CONTAINERD_ROOT", "absolute path"),
        ("ECS_ENGINE_AUTH_TYPE=plain", "ECS_ENGINE_AUTH_TYPE", "docker or dockercfg"),
        ("ECS_ENGINE_AUTH_TYPE=docker", "ECS_ENGINE_AUTH_TYPE", "ECS_ENGINE_AUTH_DATA"),
    ]);
}

#[test]
fn credentials_of_registries_are_never_repeated() {
    let data = auth_data();
    let good = from(&format!("ECS_ENGINE_AUTH_TYPE=docker\nECS_ENGINE_AUTH_DATA={data}")).unwrap();
    assert_eq!(good.images.auth, RegistryAuth::parse("docker", &data).unwrap());
    assert!(!format!("{good:?}").contains(PASSWORD));
    for text in [
        // Without its type, of a wrong type, under a name that is mistyped, and cut in two by a line's end.
        format!("ECS_ENGINE_AUTH_DATA={data}"),
        format!("ECS_ENGINE_AUTH_TYPE=x\nECS_ENGINE_AUTH_DATA={data}"),
        format!("BERTH_ENGINE_AUTH_DATA={data}"),
        format!("ECS_ENGINE_AUTH_DATA=\n{data}"),
        format!("ECS_ENGINE_AUTH_DATA={{\n\"auth\": \"{PASSWORD}==\"}}"),
        format!("ECS_ENGINE_AUTH_TYPE=docker\nECS_ENGINE_AUTH_DATA={{\"x\": \"{PASSWORD}\""),
        format!("ECS_ENGINE_AUTH_TYPE=docker\nECS_ENGINE_AUTH_DATA={{\"https://x/\": \"{PASSWORD}\"}}"),
        format!(
            "ECS_ENGINE_AUTH_TYPE=dockercfg\nECS_ENGINE_AUTH_DATA={{\"https://x/\": {{\"auth\": \"{PASSWORD}\"}}}}"
        ),
    ] {
        let mut source = Source::default();
        source.add_lines(&text, "test.config");
        assert!(!format!("{source:?}").contains(PASSWORD));
        let error = Config::from_source(source).expect_err(&text).to_string();
        assert!(error.contains("AUTH_DATA") || error.contains("KEY=VALUE"), "{error}");
        assert!(!error.contains("horse"), "{error}");
    }
}

#[test]
fn a_file_with_credentials_that_everyone_can_read_is_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("berth.config");
    let data = auth_data();
    std::fs::write(&file, format!("ECS_ENGINE_AUTH_TYPE=docker\nECS_ENGINE_AUTH_DATA={data}\n")).unwrap();
    for (mode, warnings) in [(0o644, 1), (0o600, 0), (0o640, 0)] {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        let config = Config::from_source(read(Some(&file), []).unwrap()).unwrap();
        assert_eq!(config.warnings.len(), warnings, "{mode:o}: {:?}", config.warnings);
    }
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(&file, "ECS_CLUSTER=x\n").unwrap();
    assert!(Config::from_source(read(Some(&file), []).unwrap()).unwrap().warnings.is_empty());
}
