//! How to reach containerd and what to make containers with: given by the agent's configuration, fixed for the agent's life.

use crate::PullConfig;
use std::path::PathBuf;

/// Where containerd is and what Berth's containers are made with.
#[derive(Debug, Clone)]
pub struct ContainerdConfig {
    /// containerd's gRPC socket.
    pub socket: PathBuf,
    /// containerd's namespace that holds everything of ours, for example `berth`. Nothing else may use it.
    pub namespace: String,
    /// Which snapshotter makes the root file systems.
    pub snapshotter: String,
    /// Which shim runs the containers.
    pub runtime: String,
    /// The program `berth-logger`: an absolute path, because the shim starts it.
    pub logger: PathBuf,
    /// Name of the cgroup that holds the tasks' cgroups. One word of letters, digits and underscores: with systemd it names a
    /// slice, where a dash would mean another level.
    pub cgroup_root: String,
    /// Who makes cgroups.
    pub cgroup_driver: CgroupDriver,
    /// `nofile` of containers that set none.
    pub default_nofile: Nofile,
    /// How images are brought from registries.
    pub pull: PullConfig,
}

impl ContainerdConfig {
    /// The usual settings for a socket and a logger.
    pub fn new(socket: impl Into<PathBuf>, logger: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            namespace: "berth".into(),
            snapshotter: "overlayfs".into(),
            runtime: "io.containerd.runc.v2".into(),
            logger: logger.into(),
            cgroup_root: "berth".into(),
            cgroup_driver: CgroupDriver::Auto,
            default_nofile: Nofile::default(),
            pull: PullConfig::default(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let word = |t: &str, extra: &[u8]| {
            (1..=64).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_alphanumeric() || extra.contains(&b))
        };
        if !self.socket.is_absolute() {
            return Err(ConfigError::NotAbsolute { field: "socket", value: self.socket.clone() });
        }
        if !self.logger.is_absolute() {
            return Err(ConfigError::NotAbsolute { field: "logger", value: self.logger.clone() });
        }
        if !word(&self.namespace, b"-_.") {
            return Err(ConfigError::NotAWord { field: "namespace", value: self.namespace.clone() });
        }
        if !word(&self.cgroup_root, b"_") {
            return Err(ConfigError::NotAWord { field: "cgroup_root", value: self.cgroup_root.clone() });
        }
        Ok(())
    }
}

/// Who makes cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CgroupDriver {
    /// systemd where it runs on the unified hierarchy, else the files themselves.
    #[default]
    Auto,
    /// The files under /sys/fs/cgroup.
    Cgroupfs,
    /// Slices and scopes of systemd.
    Systemd,
}

/// A soft and a hard limit on open files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nofile {
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

impl Default for Nofile {
    // What the ECS-optimized images configure; tasks are tuned to it.
    fn default() -> Self {
        Self { soft: 32_768, hard: 65_536 }
    }
}

/// Settings that cannot work.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A relative path where processes with other working directories must find it.
    #[error("containerd.{field}: `{}` is not an absolute path", value.display())]
    NotAbsolute {
        /// Which setting.
        field: &'static str,
        /// What it was.
        value: PathBuf,
    },
    /// A name with letters that mean something to containerd, systemd or the file system.
    #[error("containerd.{field}: `{value}` is not a plain name")]
    NotAWord {
        /// Which setting.
        field: &'static str,
        /// What it was.
        value: String,
    },
    /// No channel can be made to this socket.
    #[error("containerd.socket: `{}` cannot be used", value.display())]
    Socket {
        /// What it was.
        value: PathBuf,
        /// The transport's reason.
        #[source]
        source: tonic::transport::Error,
    },
    /// What the host offers could not be read.
    #[error("read what this host offers to containers")]
    Host(#[source] std::io::Error),
}
