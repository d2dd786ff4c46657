//! Directories on a real file system.

use super::*;
use crate::tests::fixtures::{config, container, task};
use berth_types::task::VolumeSpec;
use proptest::prelude::*;

fn with(volumes: &[(&str, Option<&str>)]) -> TaskSpec {
    let mut spec = task("t", vec![container("web")]);
    spec.volumes = volumes
        .iter()
        .map(|(name, host)| VolumeSpec { name: (*name).to_owned(), host_path: host.map(PathBuf::from) })
        .collect();
    spec
}

#[test]
fn names_and_paths_that_could_leave_their_place_are_refused() {
    for name in ["..", "a/b", "", ".hidden", "a b"] {
        assert_eq!(
            wanted(&config(), &with(&[(name, None)])),
            Err(DefinitionError::Name { name: name.to_owned() })
        );
    }
    for path in ["relative", "/srv/../etc"] {
        let refused = wanted(&config(), &with(&[("v", Some(path))]));
        assert_eq!(refused, Err(DefinitionError::HostPath { path: path.into() }));
    }
}

#[tokio::test]
async fn directories_are_made_and_removed_and_both_can_be_repeated() {
    let root = tempfile::tempdir().unwrap();
    let (own, host, file) =
        (root.path().join("v/t/own"), root.path().join("host/deep"), root.path().join("socket"));
    std::fs::write(&file, "").unwrap();
    let all = vec![Wanted::TaskScoped(own.clone()), Wanted::Host(host.clone()), Wanted::Host(file.clone())];
    for _ in 0..2 {
        make(Ok(all.clone())).await.unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&own), mode(own.parent().unwrap())), (0o755, 0o700));
        assert!(host.is_dir() && file.is_file());
    }
    std::os::unix::fs::symlink(&host, own.join("link")).unwrap();
    std::fs::write(host.join("kept"), "").unwrap();
    for _ in 0..2 {
        remove(vec![root.path().join("v/t")]).await.unwrap();
    }
    assert!(!own.exists() && host.join("kept").exists(), "a link is removed, not followed");
}

#[tokio::test]
async fn a_path_that_cannot_be_made_is_named() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = make(Ok(vec![Wanted::Host(file.join("below"))])).await.unwrap_err();
    assert!(error.to_string().contains("file/below"), "{error}");
}

proptest! {
    #[test]
    fn a_file_name_is_always_one_plain_component(name in "\\PC*") {
        let plain = file_name(&name);
        let mut components = Path::new(&plain).components();
        prop_assert!(matches!(components.next(), Some(Component::Normal(_))));
        prop_assert!(components.next().is_none());
    }
}
