//! Directories of volumes on the host: task-scoped ones under `DATA/volumes/TASK/NAME`, host paths made when they are missing, as
//! Docker does. Names that come from a task definition become single path components or are refused.

use crate::config::EngineConfig;
use berth_types::task::TaskSpec;
use std::{
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Component, Path, PathBuf},
};

/// A directory that must be there before the task's containers are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Empty at first, removed with the task.
    TaskScoped(PathBuf),
    /// The user's, made when missing, never removed.
    Host(PathBuf),
}

/// A definition whose volumes cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DefinitionError {
    #[error("container {container} mounts volume {volume}, which the task does not have")]
    Unknown { container: String, volume: String },
    #[error("`{name}` cannot be the name of a volume: expected letters, digits, dashes and underscores")]
    Name { name: String },
    #[error("host path {} of a volume is not absolute or climbs with `..`", path.display())]
    HostPath { path: PathBuf },
}

/// A volume that cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    #[error(transparent)]
    Definition(DefinitionError),
    #[error("make directory {}", path.display())]
    Make {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("remove directory {}", path.display())]
    Remove {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the thread that works on the directories ended early")]
    Thread(#[source] tokio::task::JoinError),
}

/// The directories that a task needs, each once, or why it cannot have them.
pub(crate) fn wanted(config: &EngineConfig, spec: &TaskSpec) -> Result<Vec<Wanted>, DefinitionError> {
    for container in &spec.containers {
        for point in &container.mount_points {
            if spec.volumes.iter().all(|v| v.name != point.volume) {
                return Err(DefinitionError::Unknown {
                    container: container.name.clone(),
                    volume: point.volume.clone(),
                });
            }
        }
    }
    let mut wanted = Vec::with_capacity(spec.volumes.len());
    for volume in &spec.volumes {
        if file_name(&volume.name) != volume.name {
            return Err(DefinitionError::Name { name: volume.name.clone() });
        }
        wanted.push(match &volume.host_path {
            None => Wanted::TaskScoped(task_scoped(config, spec, &volume.name)),
            Some(path) if is_plain(path) => Wanted::Host(path.clone()),
            Some(path) => return Err(DefinitionError::HostPath { path: path.clone() }),
        });
    }
    Ok(wanted)
}

/// Whether there is anything to make, or to refuse.
pub(crate) fn are_used(spec: &TaskSpec) -> bool {
    !spec.volumes.is_empty() || spec.containers.iter().any(|c| !c.mount_points.is_empty())
}

/// Where a task-scoped volume lies.
pub(crate) fn task_scoped(config: &EngineConfig, spec: &TaskSpec, name: &str) -> PathBuf {
    directory(config, spec).join(file_name(name))
}

/// The directory of all task-scoped volumes of a task.
pub(crate) fn directory(config: &EngineConfig, spec: &TaskSpec) -> PathBuf {
    config.data_dir.join("volumes").join(spec.arn.id())
}

/// A name as a single path component: what is not a letter, digit, dash, underscore or inner dot becomes an underscore.
pub(crate) fn file_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
    let name: String = name.chars().map(plain).collect();
    if name.is_empty() || name.starts_with('.') { format!("_{name}") } else { name }
}

fn is_plain(path: &Path) -> bool {
    path.is_absolute() && !path.components().any(|c| c == Component::ParentDir)
}

/// Makes the directories.
pub(crate) async fn make(wanted: Result<Vec<Wanted>, DefinitionError>) -> Result<(), VolumeError> {
    let wanted = wanted.map_err(VolumeError::Definition)?;
    blocking(move || wanted.iter().try_for_each(make_one)).await
}

fn make_one(wanted: &Wanted) -> Result<(), VolumeError> {
    let make = |path: &Path, mode| {
        let made = std::fs::DirBuilder::new().recursive(true).mode(mode).create(path);
        made.map_err(|source| VolumeError::Make { path: path.to_owned(), source })
    };
    match wanted {
        Wanted::TaskScoped(path) => {
            // Only root may walk there on the host; inside, the modes are those of Docker's local volumes.
            if let Some(parent) = path.parent() {
                make(parent, 0o700)?;
            }
            make(path, 0o755)?;
            let mode = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755));
            mode.map_err(|source| VolumeError::Make { path: path.clone(), source })
        }
        // A host path may be a file or a socket that is there already.
        Wanted::Host(path) if path.exists() => Ok(()),
        Wanted::Host(path) => make(path, 0o755),
    }
}

/// Removes directories with all that is in them; links are removed, never followed. What is not there is removed.
pub(crate) async fn remove(directories: Vec<PathBuf>) -> Result<(), VolumeError> {
    let remove_one = |path: PathBuf| match std::fs::remove_dir_all(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(VolumeError::Remove { path, source }),
        Ok(()) | Err(_) => Ok(()),
    };
    blocking(move || directories.into_iter().try_for_each(remove_one)).await
}

async fn blocking(
    work: impl FnOnce() -> Result<(), VolumeError> + Send + 'static,
) -> Result<(), VolumeError> {
    tokio::task::spawn_blocking(work).await.map_err(VolumeError::Thread)?
}

#[cfg(test)]
mod tests;
