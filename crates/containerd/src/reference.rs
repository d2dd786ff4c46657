//! Image references as users write them, and the names under which containerd stores images.
//!
//! Docker's rules, because task definitions rely on them: `busybox` means `docker.io/library/busybox:latest`.

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

    proptest::proptest! {
        #[test]
        fn a_full_name_stays_as_it_is(text in "[a-z0-9.:/@-]{1,60}") {
            let once = normalize(&text);
            if !text.contains('@') && text.split('/').all(|part| !part.is_empty() && !part.ends_with(':')) {
                proptest::prop_assert_eq!(normalize(&once), once);
            }
        }
    }
}
