//! Importing archives, and finding what was imported under the names that users write.

use crate::rig::{IMAGE, Rig, rootfs_tar, settings};
use berth_containerd::normalize;
use berth_testkit::registry::ImageSource;
use berth_types::ports::{ContainerErrorKind, Containers};
use std::{fs, process::Command};

#[tokio::test(flavor = "multi_thread")]
async fn an_exported_image_can_be_imported_again_and_runs() {
    let mut rig = Rig::start().await;
    let before = rig.api.image(IMAGE).await.unwrap();
    let file = rig.containerd.dir().join("exported.tar");
    rig.ctr(&["images", "export", file.to_str().unwrap(), &normalize(IMAGE)]);
    rig.ctr(&["images", "rm", "--sync", &normalize(IMAGE)]);
    let error = rig.api.image(IMAGE).await.unwrap_err();
    assert!(matches!(error.kind, ContainerErrorKind::CannotResolve(_)), "{error}");
    let imported = rig.api.import_archive(&file, None).await.unwrap();
    assert_eq!((imported.len(), imported[0].reference.as_str()), (1, normalize(IMAGE).as_str()));
    assert_eq!(imported[0].image_id, before.image_id);
    assert_eq!(rig.api.image(IMAGE).await.unwrap(), before);
    assert_eq!(rig.sh("echo again").await.stdout, "again\n");
    let other = rig.api.import_archive(&file, Some("other:v1")).await.unwrap();
    assert_eq!(other[0].reference, "docker.io/library/other:v1");
    assert_eq!(rig.api.image("other:v1").await.unwrap().image_id, before.image_id);
    let pinned = format!("anything@{}", other[0].digest);
    assert_eq!(rig.api.image(&pinned).await.unwrap().image_id, before.image_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_docker_archive_with_a_compressed_layer_is_imported() {
    let mut rig = Rig::start().await;
    let layer = rootfs_tar();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &layer).unwrap();
    let gzip = gzip.finish().unwrap();
    let archive = |diff_id: &str| {
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{"Env":["PATH=/bin"],"Cmd":["echo","docker"],"User":"web","StopSignal":"SIGINT"}},
               "rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#
        );
        let manifest = br#"[{"Config":"config.json","RepoTags":["docker-made:1"],"Layers":["1/layer.tar"]}]"#;
        let mut tar = tar::Builder::new(Vec::new());
        for (name, bytes) in
            [("1/layer.tar", &gzip[..]), ("config.json", config.as_bytes()), ("manifest.json", manifest)]
        {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, bytes).unwrap();
        }
        tar.into_inner().unwrap()
    };
    let file = rig.containerd.dir().join("docker.tar");
    fs::write(&file, archive(&format!("sha256:{}", "0".repeat(64)))).unwrap();
    let error = rig.api.import_archive(&file, None).await.unwrap_err();
    assert!(error.to_string().contains("digest mismatch"), "{error}");
    let rootfs = rig.containerd.dir().join("rootfs.tar");
    let sum = Command::new("sha256sum").arg(&rootfs).output().unwrap().stdout;
    let sum = String::from_utf8(sum).unwrap();
    fs::write(&file, archive(&format!("sha256:{}", &sum[..64]))).unwrap();
    let imported = rig.api.import_archive(&file, None).await.unwrap();
    assert_eq!(imported[0].reference, "docker.io/library/docker-made:1");
    let container = rig.container("docker", |spec| spec.image = "docker-made:1".into());
    assert_eq!(rig.run(&container).await.stdout, "docker\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_imported_again_under_its_name_is_the_one_that_runs() {
    let mut rig = Rig::start().await;
    let rootfs = rig.containerd.dir().join("rootfs.tar");
    let mut changed = settings();
    changed.cmd = Some(vec!["echo".into(), "second".into()]);
    rig.api.import_image(IMAGE, &rootfs, changed).await.unwrap();
    let container = rig.container("second", |_| ());
    assert_eq!(rig.run(&container).await.stdout, "second\n");
    assert!(rig.api.import_image("no spaces", &rootfs, settings()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_for_another_machine_is_not_imported() {
    let rig = Rig::start().await;
    let foreign = ImageSource::new().architecture("s390x").file("a", b"a").unwrap().build().unwrap();
    let mut members = vec![];
    for blob in foreign.blobs().chain([&foreign.manifest]) {
        members.push((format!("blobs/{}", blob.digest.replacen(':', "/", 1)), blob.bytes.to_vec()));
    }
    let index = format!(r#"{{"manifests":[{}]}}"#, foreign.manifest.descriptor());
    members.push(("index.json".into(), index.into_bytes()));
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in &members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    let file = rig.containerd.dir().join("foreign.tar");
    fs::write(&file, tar.into_inner().unwrap()).unwrap();
    let error = rig.api.import_archive(&file, Some("foreign")).await.unwrap_err().to_string();
    assert!(error.contains("the image is for linux/s390x, this machine is linux/"), "{error}");
}
