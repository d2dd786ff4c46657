//! A containerd of a test's own: own root, state and socket in a directory of its own, gone with everything that it started when
//! the value is dropped. It disturbs no other containerd of the machine.

use nix::{
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::{self, File},
    io,
    os::unix::{fs::DirBuilderExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// How long containerd may take to answer or to end; it takes a third of a second.
const DEADLINE: Duration = Duration::from_secs(30);
/// Between two looks at whether it has.
const PAUSE: Duration = Duration::from_millis(10);

/// A running containerd; stopped and cleaned up on drop.
#[derive(Debug)]
pub struct PrivateContainerd {
    dir: PathBuf,
    child: Option<Child>,
}

impl PrivateContainerd {
    /// Starts one. Needs root and the `containerd` and `runc` programs.
    pub fn start() -> io::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("berth-ctrd-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        fs::DirBuilder::new().mode(0o700).create(&dir)?;
        let mut this = Self { dir, child: None };
        fs::write(this.dir.join("config.toml"), this.config())?;
        this.run()?;
        Ok(this)
    }

    /// Its gRPC socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("containerd.sock")
    }

    /// Its directory: root, state, socket, log, and whatever a test wants to put there.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it has logged, for a failed test.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("containerd.log")).unwrap_or_default()
    }

    /// kill -9. What it has started lives on.
    pub fn kill(&mut self) -> io::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Starts it again after [`kill`](Self::kill), on the same state.
    pub fn run(&mut self) -> io::Result<()> {
        let log = File::options().create(true).append(true).open(self.dir.join("containerd.log"))?;
        let child = Command::new("containerd")
            .arg("--config")
            .arg(self.dir.join("config.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        let answers = || {
            UnixStream::connect(self.socket()).is_ok()
                && self.log().contains("containerd successfully booted")
        };
        if until(answers) {
            return Ok(());
        }
        let log = self.log();
        Err(io::Error::other(format!("containerd does not answer; it says:\n{log}")))
    }

    fn config(&self) -> String {
        let dir = self.dir.display();
        // Without CRI (it would set up networks) and without snapshotters that look for devices.
        format!(
            r#"version = 2
root = "{dir}/root"
state = "{dir}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "{dir}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{dir}/opt"
"#
        )
    }

    /// Bundles of all containers: `state/io.containerd.runtime.v2.task/NAMESPACE/ID`.
    fn bundles(&self) -> Vec<PathBuf> {
        let list = |dir: &Path| {
            fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect::<Vec<_>>()
        };
        list(&self.dir.join("state/io.containerd.runtime.v2.task"))
            .iter()
            .flat_map(|namespace| list(namespace))
            .collect()
    }

    /// Processes with this directory on their command line: the shims.
    fn shims(&self) -> Vec<Pid> {
        let socket = self.socket();
        let socket = socket.to_string_lossy();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).into_owned();
            if command.contains("containerd-shim") && command.contains(&*socket) {
                found.push(Pid::from_raw(pid));
            }
        }
        found
    }
}

impl Drop for PrivateContainerd {
    fn drop(&mut self) {
        let bundles = self.bundles();
        for bundle in &bundles {
            let pid =
                fs::read_to_string(bundle.join("init.pid")).ok().and_then(|text| text.trim().parse().ok());
            if let Some(pid) = pid {
                kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
            }
        }
        self.kill().ok();
        for shim in self.shims() {
            kill(shim, Signal::SIGKILL).ok();
        }
        until(|| self.shims().is_empty());
        for bundle in &bundles {
            forget(bundle);
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let dir = self.dir.to_string_lossy().into_owned();
        let inside = |line: &&str| line.split(' ').nth(1).is_some_and(|place| place.starts_with(&dir));
        for line in mounts.lines().filter(inside).collect::<Vec<_>>().into_iter().rev() {
            if let Some(place) = line.split(' ').nth(1) {
                umount2(place, MntFlags::MNT_DETACH).ok();
            }
        }
        fs::remove_dir_all(&self.dir).ok();
    }
}

/// Removes what a container that was never deleted leaves outside of our directory: the shim's socket, runc's state, its cgroups.
fn forget(bundle: &Path) {
    let address = fs::read_to_string(bundle.join("address")).unwrap_or_default();
    if let Some(socket) = address.trim().strip_prefix("unix://") {
        fs::remove_file(socket).ok();
    }
    let mut parts = bundle.components().rev().map(|c| c.as_os_str());
    if let (Some(id), Some(namespace)) = (parts.next(), parts.next()) {
        let runc = Path::new("/run/containerd/runc").join(namespace);
        fs::remove_dir_all(runc.join(id)).ok();
        fs::remove_dir(runc).ok();
    }
    let spec = fs::read_to_string(bundle.join("config.json")).unwrap_or_default();
    let path = spec.split("\"cgroupsPath\":\"/").nth(1).and_then(|rest| rest.split('"').next());
    let Some(path) = path else { return };
    let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|e| e.path());
    for hierarchy in hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]) {
        let leaf = hierarchy.join(path);
        until(|| !leaf.exists() || fs::remove_dir(&leaf).is_ok());
        // Its parents only if they are empty, and never the hierarchy itself.
        for parent in leaf.ancestors().skip(1).take_while(|p| *p != hierarchy) {
            fs::remove_dir(parent).ok();
        }
    }
}

/// Looks until it is so, or too late.
fn until(mut so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + DEADLINE;
    while !so() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(PAUSE);
    }
    true
}
