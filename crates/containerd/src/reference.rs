//! Image references as users write them, and the names under which containerd stores images.
//!
//! Docker's rules, because task definitions rely on them: `busybox` means `docker.io/library/busybox:latest`.

use crate::image::documents::is_digest;

/// Longest reference that is looked up: a registry host is at most 255 bytes, a repository 255, a tag 128, a digest 71.
const MAX_LENGTH: usize = 1024;

/// The names to look for in the image store, the likeliest first; empty for a text that cannot be a reference.
pub(crate) fn candidates(reference: &str) -> Vec<String> {
    let printable = reference.bytes().all(|b| b.is_ascii_graphic());
    if reference.is_empty() || reference.len() > MAX_LENGTH || !printable {
        return Vec::new();
    }
    let full = normalize(reference);
    // An image that was imported under a name of another form is found exactly as stored.
    if full == reference { vec![full] } else { vec![full, reference.to_owned()] }
}

/// The digest that the reference pins, if it does.
pub(crate) fn pinned_digest(reference: &str) -> Option<&str> {
    reference.split_once('@').map(|(_, digest)| digest).filter(|d| d.starts_with("sha256:"))
}

/// The full form: registry, repository, tag or digest.
pub fn normalize(reference: &str) -> String {
    let (name, digest) = match reference.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (reference, None),
    };
    let (registry, path) = match name.split_once('/') {
        // A first part is a host only if it looks like one; `team/app` is a repository of Docker Hub.
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        _ => ("docker.io", name),
    };
    let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
    let library = if registry == "docker.io" && !path.contains('/') { "library/" } else { "" };
    match digest {
        Some(digest) => format!("{registry}/{library}{path}@{digest}"),
        None if path.rsplit('/').next().is_some_and(|last| last.contains(':')) => {
            format!("{registry}/{library}{path}")
        }
        None => format!("{registry}/{library}{path}:latest"),
    }
}

/// Hosts under which Docker Hub is known; it answers as `registry-1.docker.io`.
pub(crate) const DOCKER_HUB: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// A reference taken apart, fit to become parts of a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parts {
    /// `host` or `host:port`.
    pub(crate) registry: String,
    /// Path in the registry.
    pub(crate) repository: String,
    /// The tag; of no account where there is a digest.
    pub(crate) tag: String,
    pub(crate) digest: Option<String>,
}

impl Parts {
    /// `None` for a text that no registry could be asked for.
    pub(crate) fn of(reference: &str) -> Option<Self> {
        if reference.len() > MAX_LENGTH {
            return None;
        }
        let full = normalize(reference);
        let (name, digest) = match full.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (full.as_str(), None),
        };
        let (registry, path) = name.split_once('/')?;
        let (repository, tag) = match path.rsplit_once(':') {
            Some((repository, tag)) => (repository, tag),
            None => (path, "latest"),
        };
        let fits = is_host(registry)
            && repository.split('/').all(is_path_part)
            && is_tag(tag)
            && digest.is_none_or(is_digest);
        fits.then(|| Self {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            tag: tag.to_owned(),
            digest: digest.map(str::to_owned),
        })
    }

    /// Without the registry, for people: `web:1`, `web@sha256:...`.
    pub(crate) fn short(&self) -> String {
        match &self.digest {
            Some(digest) => format!("{}@{digest}", self.repository),
            None => format!("{}:{}", self.repository, self.tag),
        }
    }
}

fn is_host(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b))
}

fn is_path_part(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    text.bytes().all(plain) && text.starts_with(|c: char| c.is_ascii_alphanumeric())
}

fn is_tag(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    (1..=128).contains(&text.len()) && text.bytes().all(plain) && !text.starts_with(['.', '-'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_mean_docker_hub() {
        for (short, full) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("team/app", "docker.io/team/app:latest"),
            ("docker.io/busybox", "docker.io/library/busybox:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/app:v1", "localhost:5000/app:v1"),
            (
                "111122223333.dkr.ecr.us-west-2.amazonaws.com/web",
                "111122223333.dkr.ecr.us-west-2.amazonaws.com/web:latest",
            ),
            ("app@sha256:00", "docker.io/library/app@sha256:00"),
        ] {
            assert_eq!(normalize(short), full);
        }
    }

    #[test]
    fn an_image_is_also_looked_for_under_the_name_as_written() {
        assert_eq!(candidates("berth/demo"), ["docker.io/berth/demo:latest", "berth/demo"]);
        assert!(candidates("no spaces").is_empty());
        assert!(candidates("").is_empty());
    }

    #[test]
    fn a_reference_is_taken_apart_as_registries_are_asked() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for (text, registry, repository, tag, pinned) in [
            ("busybox", "docker.io", "library/busybox", "latest", None),
            ("10.0.1.1:5000/team/web:1", "10.0.1.1:5000", "team/web", "1", None),
            (&format!("localhost:5000/web@{digest}"), "localhost:5000", "web", "latest", Some(&digest)),
            (&format!("localhost:5000/web:2@{digest}"), "localhost:5000", "web", "2", Some(&digest)),
        ] {
            let parts = Parts::of(text).unwrap();
            assert_eq!((&*parts.registry, &*parts.repository, &*parts.tag), (registry, repository, tag));
            assert_eq!(parts.digest.as_ref(), pinned);
        }
        for bad in ["a/../b", "a//b", "UPPER/case", "a:", "web@sha256:00", "a?b", "a b", "", "/", "a/%2e"] {
            assert_eq!(Parts::of(bad), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_taken_apart_is_safe_in_a_url(text in "\\PC{0,80}") {
            if let Some(parts) = Parts::of(&text) {
                let url = format!("https://{}/v2/{}/manifests/{}", parts.registry, parts.repository, parts.tag);
                proptest::prop_assert!(url.bytes().all(|b| b.is_ascii_graphic() && !b"?#%@\\".contains(&b)));
                proptest::prop_assert!(!url.contains("/../") && !url.contains("/./"));
            }
        }

        #[test]
        fn a_full_name_stays_as_it_is(text in "[a-z0-9.:/@-]{1,60}") {
            let once = normalize(&text);
            if !text.contains('@') && text.split('/').all(|part| !part.is_empty() && !part.ends_with(':')) {
                proptest::prop_assert_eq!(normalize(&once), once);
            }
        }
    }
}
