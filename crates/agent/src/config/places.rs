//! Where things lie: directories, the admin socket, containerd.

use super::Source;
use std::path::PathBuf;

/// Name of the logger, which lies beside the agent.
const LOGGER: &str = "berth-logger";

/// Where things lie.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Paths {
    /// Journal, volumes, logs: survives a reboot.
    pub(crate) data_dir: PathBuf,
    /// Slot files, admin socket: does not.
    pub(crate) run_dir: PathBuf,
    pub(crate) netns_dir: PathBuf,
    pub(crate) bpf_dir: PathBuf,
    pub(crate) admin_socket: PathBuf,
}

/// Settings of the container runtime.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ContainerdSettings {
    pub(crate) socket: PathBuf,
    pub(crate) namespace: String,
    pub(crate) snapshotter: String,
    pub(crate) runtime: String,
    pub(crate) logger: PathBuf,
    pub(crate) cgroup_root: String,
    /// `BERTH_CONTAINERD_ROOT`: containerd's own root directory. Its file system is watched for want of space.
    pub(crate) root: PathBuf,
}

pub(super) fn paths(s: &mut Source) -> Paths {
    let run_dir = s.path("BERTH_RUN_DIR", "/run/berth");
    let admin_socket = s.path("BERTH_ADMIN_SOCKET", &run_dir.join("admin.sock").to_string_lossy());
    let bpf_dir = s.path("BERTH_BPF_DIR", &run_dir.join("bpf").to_string_lossy());
    Paths {
        data_dir: s.path("BERTH_DATA_DIR", "/var/lib/berth"),
        run_dir,
        netns_dir: s.path("BERTH_NETNS_DIR", "/run/netns"),
        bpf_dir,
        admin_socket,
    }
}

pub(super) fn containerd(s: &mut Source) -> ContainerdSettings {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(LOGGER)));
    let logger = beside.unwrap_or_else(|| PathBuf::from("/usr/bin").join(LOGGER));
    ContainerdSettings {
        socket: s.path("BERTH_CONTAINERD_SOCKET", "/run/containerd/containerd.sock"),
        namespace: s.word("BERTH_CONTAINERD_NAMESPACE", "berth"),
        snapshotter: s.word("BERTH_SNAPSHOTTER", "overlayfs"),
        runtime: s.word("BERTH_CONTAINERD_RUNTIME", "io.containerd.runc.v2"),
        logger: s.path("BERTH_LOGGER", &logger.to_string_lossy()),
        cgroup_root: s.word("BERTH_CGROUP_ROOT", "berth"),
        root: s.path("BERTH_CONTAINERD_ROOT", "/var/lib/containerd"),
    }
}
