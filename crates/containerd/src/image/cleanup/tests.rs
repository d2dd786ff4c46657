//! The plan of the clean-up: what never goes, what goes, and in which order.

use super::{
    CleanupConfig,
    plan::{Candidate, by_age, by_pressure},
};
use berth_types::Timestamp;
use proptest::{collection::vec, option, prelude::*};
use std::time::Duration;

/// Seconds since the epoch at which the plans are made.
const NOW: i64 = 1_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn image(number: usize) -> Candidate {
    Candidate {
        digest: format!("sha256:{number:064}"),
        names: vec![format!("registry.test/image:{number}")],
        chains: vec![],
        bytes: 1,
        pulled_at: Some(at(0)),
        used_at: None,
        created_at: Some(at(0)),
        containers: 0,
        asked: false,
    }
}

fn config() -> CleanupConfig {
    CleanupConfig { minimum_age: Duration::from_secs(3600), per_cycle: 2, ..CleanupConfig::default() }
}

fn going(images: &[Candidate], config: &CleanupConfig) -> Vec<String> {
    by_age(images, config, at(NOW)).iter().map(|image| image.names[0].clone()).collect()
}

#[test]
fn the_least_recently_used_go_first_and_a_few_at_a_time() {
    let mut images: Vec<Candidate> = (0..4).map(image).collect();
    for (image, used) in images.iter_mut().zip([40, 10, 30, 20]) {
        image.used_at = Some(at(used));
    }
    assert_eq!(going(&images, &config()), ["registry.test/image:1", "registry.test/image:3"]);
    assert_eq!(by_pressure(&images, &config()).len(), 4);
}

#[test]
fn a_young_image_stays_until_the_disk_is_full() {
    let mut young = image(0);
    young.pulled_at = Some(at(NOW - 3599));
    assert!(going(&[young.clone()], &config()).is_empty());
    assert_eq!(by_pressure(&[young.clone()], &config()), [&young]);
    young.pulled_at = Some(at(NOW - 3600));
    assert_eq!(going(&[young.clone()], &config()).len(), 1);
    young.pulled_at = Some(at(NOW + 3600));
    assert!(going(&[young], &config()).is_empty(), "the clock was set back");
}

#[test]
fn an_image_that_is_used_or_asked_for_stays_even_when_the_disk_is_full() {
    let (mut used, mut asked) = (image(0), image(1));
    (used.containers, asked.asked) = (1, true);
    assert!(by_pressure(&[used, asked], &config()).is_empty());
}

#[test]
fn an_excluded_image_stays_under_the_name_that_users_write() {
    let mut busybox = image(0);
    busybox.names = vec!["docker.io/library/other:1".into(), "docker.io/library/busybox:latest".into()];
    assert_eq!(going(&[busybox.clone()], &config()).len(), 1);
    for written in ["busybox", "busybox:latest", "docker.io/library/busybox:latest"] {
        let config = CleanupConfig { exclude: vec!["x:1".into(), written.into()], ..config() };
        assert!(by_pressure(&[busybox.clone()], &config).is_empty(), "{written}");
    }
}

#[test]
fn what_this_agent_did_not_pull_goes_only_if_that_is_wanted() {
    let mut imported = image(0);
    imported.pulled_at = None;
    assert!(by_pressure(&[imported.clone()], &config()).is_empty());
    let wanted = CleanupConfig { untracked: true, ..config() };
    assert_eq!(going(&[imported.clone()], &wanted).len(), 1);
    let later = CleanupConfig { untracked_minimum_age: Duration::from_secs(2_000_000), ..wanted };
    assert!(going(&[imported.clone()], &later).is_empty());
    imported.created_at = None;
    assert!(by_pressure(&[imported], &later).is_empty(), "nobody knows how old it is");
}

fn moment() -> impl Strategy<Value = Option<Timestamp>> {
    option::of((0..NOW + 100).prop_map(at))
}

prop_compose! {
    fn any_image()(
        name in 0..20_usize, bytes in 0..3_u64, pulled_at in moment(), used_at in moment(), created_at in moment(),
        containers in 0..2_u32, asked in any::<bool>(),
    ) -> Candidate {
        Candidate { bytes, pulled_at, used_at, created_at, containers, asked, ..image(name) }
    }
}

prop_compose! {
    fn any_config()(
        age in 0..NOW as u64 + 100, untracked_age in 0..NOW as u64 + 100, per_cycle in 1..6_usize, untracked in any::<bool>(),
        excluded in 0..20_usize,
    ) -> CleanupConfig {
        CleanupConfig {
            minimum_age: Duration::from_secs(age),
            untracked_minimum_age: Duration::from_secs(untracked_age),
            per_cycle,
            untracked,
            exclude: vec![format!("registry.test/image:{excluded}")],
            ..CleanupConfig::default()
        }
    }
}

proptest! {
    #[test]
    fn nothing_goes_that_somebody_needs(images in vec(any_image(), 0..30), config in any_config()) {
        let by_age = by_age(&images, &config, at(NOW));
        let by_pressure = by_pressure(&images, &config);
        for image in by_age.iter().chain(&by_pressure) {
            prop_assert!(image.containers == 0 && !image.asked);
            prop_assert!(image.pulled_at.is_some() || config.untracked);
            prop_assert!(!config.exclude.contains(&image.names[0]));
        }
        for image in &by_age {
            let (since, minimum) = match image.pulled_at {
                Some(pulled) => (pulled, config.minimum_age),
                None => (image.created_at.unwrap(), config.untracked_minimum_age),
            };
            prop_assert!(at(NOW).as_second() - since.as_second() >= i64::try_from(minimum.as_secs()).unwrap());
        }
    }

    #[test]
    fn a_cycle_is_bounded_and_a_part_of_what_a_full_disk_takes(images in vec(any_image(), 0..30), config in any_config()) {
        let by_age = by_age(&images, &config, at(NOW));
        prop_assert!(by_age.len() <= config.per_cycle);
        let by_pressure = by_pressure(&images, &config);
        prop_assert!(by_age.iter().all(|image| by_pressure.contains(image)));
    }

    #[test]
    fn no_image_goes_before_one_that_was_used_earlier(images in vec(any_image(), 0..30), config in any_config()) {
        let last_use = |image: &Candidate| image.used_at.max(image.pulled_at).or(image.created_at);
        let order = by_pressure(&images, &config);
        prop_assert!(order.windows(2).all(|pair| last_use(pair[0]) <= last_use(pair[1])));
        let free = |i: &&Candidate| i.containers == 0 && !i.asked && i.pulled_at.is_some();
        let free = images.iter().filter(free).filter(|i| !config.exclude.contains(&i.names[0]));
        prop_assert!(free.count() <= order.len(), "all that is free is in the order");
    }
}
