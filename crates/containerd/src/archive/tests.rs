//! Good archives of both kinds, and every way in which a bad one is told from them.

use super::*;
use std::io::Write;
use tempfile::NamedTempFile;

fn tar(members: &[(&str, &[u8])]) -> NamedTempFile {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        // Not through set_path, which refuses the names that are tested here.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        builder.append(&header, *bytes).unwrap();
    }
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(&builder.into_inner().unwrap()).unwrap();
    file
}

fn images(file: &NamedTempFile) -> Result<Vec<Found>> {
    layout::images(&Archive::open(file.path())?)
}

fn why(members: &[(&str, &[u8])]) -> String {
    images(&tar(members)).unwrap_err().to_string()
}

const LAYER: &[u8] = b"not really a tar, nobody looks";

fn config() -> String {
    format!(
        r#"{{"architecture":"{}","os":"linux","config":{{"Cmd":["sh"]}},"rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        go_arch(),
        digest(LAYER)
    )
}

fn blob_path(bytes: &[u8]) -> String {
    format!("blobs/{}", digest(bytes).replacen(':', "/", 1))
}

fn oci(annotations: &str) -> Vec<(String, Vec<u8>)> {
    let config = config().into_bytes();
    let blob = |bytes: &[u8]| format!(r#"{{"digest":"{}","size":{}}}"#, digest(bytes), bytes.len());
    let manifest = format!(r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#, blob(&config), blob(LAYER))
        .into_bytes();
    let index = format!(
        r#"{{"manifests":[{{"mediaType":"{OCI_MANIFEST}","digest":"{}","size":{},"annotations":{{{annotations}}}}}]}}"#,
        digest(&manifest),
        manifest.len()
    );
    vec![
        (blob_path(&config), config),
        (blob_path(LAYER), LAYER.to_vec()),
        (blob_path(&manifest), manifest),
        ("index.json".into(), index.into_bytes()),
    ]
}

fn borrowed(members: &[(String, Vec<u8>)]) -> Vec<(&str, &[u8])> {
    members.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect()
}

#[test]
fn an_oci_layout_is_read() {
    let found =
        images(&tar(&borrowed(&oci(r#""io.containerd.image.name":"docker.io/library/x:1""#)))).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].names[0].as_str(), found[0].layers[0].size),
        ("docker.io/library/x:1", LAYER.len() as u64)
    );
    let tag_only = images(&tar(&borrowed(&oci(r#""org.opencontainers.image.ref.name":"latest""#)))).unwrap();
    assert!(tag_only[0].names.is_empty());
}

#[test]
fn a_docker_archive_is_read() {
    let manifest = br#"[{"Config":"c.json","RepoTags":["demo:1"],"Layers":["l/layer.tar"]}]"#;
    let config = config();
    let found =
        images(&tar(&[("c.json", config.as_bytes()), ("l/layer.tar", LAYER), ("manifest.json", manifest)]))
            .unwrap();
    assert_eq!(
        (found[0].names[0].as_str(), found[0].manifest.layers[0].digest.clone()),
        ("demo:1", digest(LAYER))
    );
    assert_eq!(found[0].manifest.config.digest, digest(config.as_bytes()));
}

#[test]
fn a_bad_archive_says_what_is_wrong() {
    let config = config();
    let config = config.as_bytes();
    let docker = br#"[{"Config":"c.json","Layers":["l.tar"]}]"#;
    assert!(why(&[("x", b"")]).contains("neither index.json nor manifest.json"));
    assert!(why(&[("manifest.json", b"{")]).contains("manifest.json does not parse"));
    assert!(why(&[("manifest.json", b"[]")]).contains("holds no image"));
    assert!(why(&[("manifest.json", docker)]).contains("names `c.json`, which is not in it"));
    assert!(
        why(&[("manifest.json", docker), ("c.json", config), ("l.tar", b"other")])
            .contains("digest mismatch")
    );
    assert!(why(&[("../manifest.json", docker)]).contains("leads out of the archive"));
    assert!(why(&[("/manifest.json", docker)]).contains("leads out of the archive"));
    let traversal = br#"[{"Config":"../../etc/shadow","Layers":[]}]"#;
    assert!(why(&[("manifest.json", traversal)]).contains("which is not in it"));
    let digests = br#"{"manifests":[{"digest":"sha256:../../etc/passwd","size":1}]}"#;
    assert!(why(&[("index.json", digests)]).contains("not a sha256 digest"));
}

#[test]
fn a_changed_or_missing_blob_of_a_layout_is_found_out() {
    let mut members = oci("");
    let original = members[2].1.clone();
    members[2].1[0] = b' ';
    assert!(why(&borrowed(&members)).contains("digest mismatch"));
    members[2].1 = original[..10].to_vec();
    assert!(why(&borrowed(&members)).contains("has 10 bytes and should have"));
    members.remove(1);
    members[1].1 = original;
    assert!(why(&borrowed(&members)).contains("it lacks the blob"));
}

#[test]
fn what_is_no_tar_or_is_cut_off_is_told() {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(b"hello, this is not an archive").unwrap();
    assert!(images(&file).unwrap_err().to_string().contains("cannot be imported"));
    let mut gzip = NamedTempFile::new().unwrap();
    gzip.write_all(&[0x1f, 0x8b, 8, 0]).unwrap();
    assert!(images(&gzip).unwrap_err().to_string().contains("it is compressed"));
    let whole = tar(&[("manifest.json", &[b' '; 5000])]);
    whole.as_file().set_len(1000).unwrap();
    assert!(images(&whole).is_err());
    assert!(Archive::open(Path::new("/dev/null")).unwrap_err().to_string().contains("not a regular file"));
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(at in 0usize..2048, byte: u8) {
        let members = oci("");
        let file = tar(&borrowed(&members));
        let mut bytes = std::fs::read(file.path()).unwrap();
        let at = at % bytes.len();
        bytes[at] = byte;
        std::fs::write(file.path(), bytes).unwrap();
        drop(images(&file));
    }
}
