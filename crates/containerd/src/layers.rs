//! Reads single files out of an image's layers where they lie on disk, without mounting anything: a mount that a kill -9 leaves
//! behind would have to be found and undone, and unmounting waits for the kernel's grace periods.
//!
//! The rules are those of overlayfs: the upper layer's entry hides the lower's, a character device 0:0 hides it and puts nothing in
//! its place, an opaque directory hides everything below. Symbolic links are resolved inside the image. Layers are outside data.

use crate::error::{Fault, Result};
use containerd_client::types::Mount;
use std::{
    fs::{self, File, Metadata},
    io::Read,
    os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    path::{Component, Path, PathBuf},
};

/// Symbolic links followed in one lookup, as many as the kernel follows.
const MAX_LINKS: usize = 40;

/// The directories of a snapshot's layers, the top first.
pub(crate) fn directories(mounts: &[Mount]) -> Result<Vec<PathBuf>> {
    let [mount] = mounts else {
        return Err(Fault::Broken(format!("a snapshot of {} mounts, expected one", mounts.len())));
    };
    match mount.r#type.as_str() {
        "bind" => Ok(vec![mount.source.clone().into()]),
        "overlay" => {
            let option = |name: &str| mount.options.iter().find_map(|o| o.strip_prefix(name));
            let upper = option("upperdir=").map(PathBuf::from);
            let lower = option("lowerdir=")
                .unwrap_or_default()
                .split(':')
                .filter(|d| !d.is_empty())
                .map(PathBuf::from);
            Ok(upper.into_iter().chain(lower).collect())
        }
        other => Err(Fault::Broken(format!(
            "a snapshot mounted as {other}: use the overlayfs or the native snapshotter"
        ))),
    }
}

/// The file's text, cut at `limit` bytes; `None` when it is not there or not a regular file. Blocks.
pub(crate) fn read_text(layers: &[PathBuf], path: &str, limit: u64) -> Result<Option<String>> {
    let Some((place, meta)) = lookup(layers, Path::new(path))? else { return Ok(None) };
    if !meta.is_file() {
        return Ok(None);
    }
    // O_NOFOLLOW: the lookup has resolved all links; one that appears now is not the image's.
    let file = File::options()
        .read(true)
        .custom_flags((nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK).bits())
        .open(&place);
    let file = file.map_err(Fault::io(format!("open {}", place.display())))?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).map_err(Fault::io(format!("read {}", place.display())))?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Where the path's last component really lies.
fn lookup(layers: &[PathBuf], path: &Path) -> Result<Option<(PathBuf, Metadata)>> {
    let mut links = 0;
    // What is still to be walked, the next component last.
    let mut todo = components(path);
    let mut walked = PathBuf::new();
    let mut found = None;
    // Layers in which the directory walked so far exists and is visible.
    let mut visible: Vec<&PathBuf> = layers.iter().collect();
    while let Some(part) = todo.pop() {
        let next = walked.join(&part);
        let Some((place, meta, below)) = entry(&visible, &next)? else { return Ok(None) };
        if meta.is_symlink() {
            links += 1;
            if links > MAX_LINKS {
                return Ok(None);
            }
            let target =
                fs::read_link(&place).map_err(Fault::io(format!("read link {}", place.display())))?;
            // From the top again: the link may point anywhere in the image, and `..` ends at its root.
            let from = if target.is_absolute() { PathBuf::from("/") } else { Path::new("/").join(&walked) };
            let mut rest: PathBuf = from.join(target);
            rest.extend(todo.iter().rev());
            todo = components(&rest);
            walked = PathBuf::new();
            visible = layers.iter().collect();
            continue;
        }
        walked = next;
        visible = below;
        found = Some((place, meta));
    }
    Ok(found)
}

/// Normal components, the last first, with `..` resolved by text: nothing leaves the root.
fn components(path: &Path) -> Vec<PathBuf> {
    let mut parts: Vec<PathBuf> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.into()),
            Component::ParentDir => drop(parts.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    parts.reverse();
    parts
}

type Entry<'a> = (PathBuf, Metadata, Vec<&'a PathBuf>);

/// The topmost entry at this path, and the layers that show through at it.
fn entry<'a>(layers: &[&'a PathBuf], path: &Path) -> Result<Option<Entry<'a>>> {
    let mut top: Option<(PathBuf, Metadata)> = None;
    let mut visible = Vec::new();
    for &layer in layers {
        let place = layer.join(path);
        let meta = match fs::symlink_metadata(&place) {
            Ok(meta) => meta,
            Err(e)
                if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
            {
                continue;
            }
            Err(e) => return Err(Fault::io(format!("look at {}", place.display()))(e)),
        };
        let whiteout = meta.file_type().is_char_device() && meta.rdev() == 0;
        // A file below a directory is hidden by it, and so is everything further down.
        if whiteout || (top.is_some() && !meta.is_dir()) {
            break;
        }
        let directory = meta.is_dir();
        visible.push(layer);
        if top.is_none() {
            top = Some((place.clone(), meta));
        }
        if !directory || is_opaque(&place) {
            break;
        }
    }
    Ok(top.map(|(place, meta)| (place, meta, visible)))
}

/// Whether a directory hides what lower layers have at its place. A file system without such attributes has no such directories.
fn is_opaque(dir: &Path) -> bool {
    xattr::get(dir, "trusted.overlay.opaque").ok().flatten().is_some_and(|value| value == b"y")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn layers() -> (tempfile::TempDir, Vec<PathBuf>) {
        let dir = tempfile::tempdir().unwrap();
        let layers: Vec<_> = ["top", "bottom"].iter().map(|l| dir.path().join(l)).collect();
        for layer in &layers {
            fs::create_dir_all(layer.join("etc")).unwrap();
        }
        (dir, layers)
    }

    fn read(layers: &[PathBuf], path: &str) -> Option<String> {
        read_text(layers, path, 1 << 20).unwrap()
    }

    #[test]
    fn the_upper_layer_hides_the_lower() {
        let (_dir, layers) = layers();
        fs::write(layers[1].join("etc/passwd"), "bottom").unwrap();
        assert_eq!(read(&layers, "/etc/passwd").as_deref(), Some("bottom"));
        fs::write(layers[0].join("etc/passwd"), "top").unwrap();
        assert_eq!(read(&layers, "/etc/passwd").as_deref(), Some("top"));
        assert_eq!(read(&layers, "/etc/group"), None);
    }

    #[test]
    fn a_whiteout_hides_without_replacing() {
        let (_dir, layers) = layers();
        fs::write(layers[1].join("etc/passwd"), "bottom").unwrap();
        let node = layers[0].join("etc/passwd");
        nix::sys::stat::mknod(&node, nix::sys::stat::SFlag::S_IFCHR, nix::sys::stat::Mode::S_IRUSR, 0)
            .unwrap();
        assert_eq!(read(&layers, "/etc/passwd"), None);
    }

    #[test]
    fn an_opaque_directory_hides_all_below_it() {
        let (_dir, layers) = layers();
        fs::write(layers[1].join("etc/passwd"), "bottom").unwrap();
        xattr::set(layers[0].join("etc"), "trusted.overlay.opaque", b"y").unwrap();
        assert_eq!(read(&layers, "/etc/passwd"), None);
    }

    #[test]
    fn links_never_lead_out_of_the_image() {
        let (dir, layers) = layers();
        fs::write(dir.path().join("secret"), "host").unwrap();
        symlink("../../../secret", layers[0].join("etc/passwd")).unwrap();
        assert_eq!(read(&layers, "/etc/passwd"), None);
        symlink("/usr/etc/group", layers[0].join("etc/group")).unwrap();
        fs::create_dir_all(layers[1].join("usr/lib")).unwrap();
        symlink("lib", layers[1].join("usr/etc")).unwrap();
        fs::write(layers[1].join("usr/lib/group"), "group").unwrap();
        assert_eq!(read(&layers, "/etc/group").as_deref(), Some("group"));
        symlink("loop", layers[0].join("etc/loop")).unwrap();
        assert_eq!(read(&layers, "/etc/loop"), None);
    }
}
