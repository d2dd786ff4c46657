//! Cgroups: the one that all containers of a task share, and what the kernel counts in a container's own.
//!
//! ```text
//!  cgroup v1 and v2, by files:  /berth/TASK            limits of the task, made here before its first container
//!                               /berth/TASK/CONTAINER  made by runc
//!  cgroup v2, by systemd:       berth-TASK.slice       made here through systemctl
//!                               berth-CONTAINER.scope  made by runc
//! ```

use crate::{
    config::CgroupDriver,
    error::{Fault, Result},
};
use berth_types::ids::{ContainerId, TaskArn};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const MOUNT: &str = "/sys/fs/cgroup";
/// Period of the CPU quota: the official agent's ECS_CGROUP_CPU_PERIOD.
const CPU_PERIOD_US: u64 = 100_000;
/// The task's cgroup is made below a directory that another task's removal may take away at that moment: try so often.
const CREATE_TRIES: usize = 3;
/// The kernel gives a cgroup's directory back a moment after its last process has gone; so often is it asked again.
const REMOVE_TRIES: usize = 20;
/// Between two of those: 20 of them are half a second.
const REMOVE_PAUSE: std::time::Duration = std::time::Duration::from_millis(25);

/// Task limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TaskLimits {
    /// CPU units, 1024 of them one processor.
    pub(crate) cpu: Option<u32>,
    /// MiB.
    pub(crate) memory: Option<u64>,
}

/// How this host arranges cgroups.
#[derive(Debug, Clone)]
pub(crate) struct Cgroups {
    kind: Kind,
    root: String,
}

#[derive(Debug, Clone)]
enum Kind {
    /// Controllers by mount: `["cpu", "cpuacct"]` at one place.
    V1(Vec<(Vec<String>, PathBuf)>),
    V2,
    V2Systemd,
}

impl Cgroups {
    /// Looks at the host.
    pub(crate) fn detect(driver: CgroupDriver, root: &str) -> io::Result<Self> {
        let unified = statfs(MOUNT).map_err(io::Error::from)?.filesystem_type() == CGROUP2_SUPER_MAGIC;
        let systemd = match driver {
            CgroupDriver::Auto => Path::new("/run/systemd/system").is_dir(),
            CgroupDriver::Systemd => true,
            CgroupDriver::Cgroupfs => false,
        };
        let kind = match (unified, systemd) {
            (false, _) => Kind::V1(v1_mounts(&fs::read_to_string("/proc/self/mounts")?)),
            (true, false) => Kind::V2,
            (true, true) => Kind::V2Systemd,
        };
        Ok(Self { kind, root: root.to_owned() })
    }

    pub(crate) fn is_v2(&self) -> bool {
        !matches!(self.kind, Kind::V1(_))
    }

    pub(crate) fn is_systemd(&self) -> bool {
        matches!(self.kind, Kind::V2Systemd)
    }

    /// Whether the kernel can limit swap per cgroup.
    pub(crate) fn limits_swap(&self) -> bool {
        match &self.kind {
            Kind::V1(_) => {
                self.v1_dir("memory").is_some_and(|dir| dir.join("memory.memsw.limit_in_bytes").exists())
            }
            // The file exists only below the root.
            Kind::V2 | Kind::V2Systemd => {
                let below = fs::read_dir(MOUNT).into_iter().flatten().flatten();
                below.into_iter().any(|entry| entry.path().join("memory.swap.max").exists())
            }
        }
    }

    /// `linux.cgroupsPath`.
    pub(crate) fn path_of(&self, task: &TaskArn, id: &ContainerId) -> String {
        match self.kind {
            Kind::V2Systemd => format!("{}:{}:{id}", self.slice(task), self.root),
            _ => format!("/{}/{}/{id}", self.root, task.id()),
        }
    }

    /// Makes the task's cgroup with its limits. Repeatable; blocks.
    pub(crate) fn ensure_task(&self, task: &TaskArn, limits: TaskLimits) -> Result<()> {
        match &self.kind {
            Kind::V1(_) => {
                let cpu = self.v1_dir("cpu").map(|mount| self.task_dir(mount, task));
                let memory = self.v1_dir("memory").map(|mount| self.task_dir(mount, task));
                if let Some(dir) = cpu {
                    make(&dir)?;
                    if let Some(quota) = quota(limits) {
                        set(&dir, "cpu.cfs_period_us", CPU_PERIOD_US)?;
                        set(&dir, "cpu.cfs_quota_us", quota)?;
                    }
                }
                if let Some(dir) = memory {
                    make(&dir)?;
                    if let Some(bytes) = bytes(limits) {
                        set(&dir, "memory.limit_in_bytes", bytes)?;
                    }
                }
                Ok(())
            }
            Kind::V2 => {
                let dir = self.task_dir(Path::new(MOUNT), task);
                make(&dir)?;
                for parent in [Path::new(MOUNT), &Path::new(MOUNT).join(&self.root)] {
                    for controller in ["+cpu", "+memory", "+pids"] {
                        // One that this host does not have matters only to a limit, and then the limit's own file is missing.
                        fs::write(parent.join("cgroup.subtree_control"), controller).ok();
                    }
                }
                if let Some(quota) = quota(limits) {
                    set(&dir, "cpu.max", format!("{quota} {CPU_PERIOD_US}"))?;
                }
                if let Some(bytes) = bytes(limits) {
                    set(&dir, "memory.max", bytes)?;
                }
                Ok(())
            }
            Kind::V2Systemd => self.ensure_slice(task, limits),
        }
    }

    fn ensure_slice(&self, task: &TaskArn, limits: TaskLimits) -> Result<()> {
        let slice = self.slice(task);
        systemctl(&["start", &slice])?;
        let mut properties = Vec::new();
        if let Some(cpu) = limits.cpu {
            // Percent of one processor.
            properties.push(format!("CPUQuota={}%", (u64::from(cpu) * 100).div_ceil(1024).max(1)));
        }
        if let Some(bytes) = bytes(limits) {
            properties.push(format!("MemoryMax={bytes}"));
        }
        if properties.is_empty() {
            return Ok(());
        }
        let mut arguments = vec!["--runtime", "set-property", &slice];
        arguments.extend(properties.iter().map(String::as_str));
        systemctl(&arguments)
    }

    /// Removes the task's cgroup, and the root when it was the last. Repeatable; blocks.
    pub(crate) fn remove_task(&self, task: &TaskArn) -> Result<()> {
        match &self.kind {
            Kind::V1(mounts) => {
                for (_, mount) in mounts {
                    remove(&self.task_dir(mount, task))?;
                    remove_if_empty(&mount.join(&self.root));
                }
                Ok(())
            }
            Kind::V2 => {
                remove(&self.task_dir(Path::new(MOUNT), task))?;
                remove_if_empty(&Path::new(MOUNT).join(&self.root));
                Ok(())
            }
            Kind::V2Systemd => systemctl(&["stop", &self.slice(task)]),
        }
    }

    /// Processes of the container that the kernel killed for want of memory; `None` when its cgroup is not there (any more).
    pub(crate) fn oom_kills(&self, task: &TaskArn, id: &ContainerId) -> Option<u64> {
        let file = if self.is_v2() { "memory.events" } else { "memory.oom_control" };
        let counts = fs::read_to_string(self.container_dir(task, id)?.join(file)).ok()?;
        counter(&counts, "oom_kill")
    }

    /// Whether a process lives in the container's cgroup.
    pub(crate) fn is_populated(&self, task: &TaskArn, id: &ContainerId) -> bool {
        let Some(dir) = self.container_dir(task, id) else { return false };
        if self.is_v2() {
            let events = fs::read_to_string(dir.join("cgroup.events")).unwrap_or_default();
            return counter(&events, "populated") == Some(1);
        }
        fs::read_to_string(dir.join("cgroup.procs")).is_ok_and(|pids| !pids.trim().is_empty())
    }

    /// The container's own cgroup, in the memory hierarchy.
    fn container_dir(&self, task: &TaskArn, id: &ContainerId) -> Option<PathBuf> {
        Some(match &self.kind {
            Kind::V1(_) => self.task_dir(self.v1_dir("memory")?, task).join(id.as_str()),
            Kind::V2 => self.task_dir(Path::new(MOUNT), task).join(id.as_str()),
            Kind::V2Systemd => {
                let slices = Path::new(MOUNT).join(format!("{}.slice", self.root)).join(self.slice(task));
                slices.join(format!("{}-{id}.scope", self.root))
            }
        })
    }

    fn v1_dir(&self, controller: &str) -> Option<&Path> {
        let Kind::V1(mounts) = &self.kind else { return None };
        mounts.iter().find(|(names, _)| names.iter().any(|n| n == controller)).map(|(_, dir)| dir.as_path())
    }

    fn task_dir(&self, mount: &Path, task: &TaskArn) -> PathBuf {
        mount.join(&self.root).join(task.id())
    }

    /// A dash in a slice's name is a level of its own, so the id's dashes become underscores.
    fn slice(&self, task: &TaskArn) -> String {
        format!("{}-{}.slice", self.root, task.id().replace('-', "_"))
    }
}

fn quota(limits: TaskLimits) -> Option<u64> {
    limits.cpu.map(|units| (u64::from(units) * CPU_PERIOD_US / 1024).max(1000))
}

fn bytes(limits: TaskLimits) -> Option<u64> {
    limits.memory.map(|mib| mib.saturating_mul(1 << 20))
}

/// Every cgroup v1 hierarchy (and the unified one that hybrid hosts mount beside them).
fn v1_mounts(mounts: &str) -> Vec<(Vec<String>, PathBuf)> {
    let parse = |line: &str| {
        let mut fields = line.split(' ');
        let (_, place, kind, options) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let names = options.split(',').map(str::to_owned).collect();
        matches!(kind, "cgroup" | "cgroup2").then(|| (names, PathBuf::from(place)))
    };
    mounts.lines().filter_map(parse).collect()
}

fn counter(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.split_once(' ').filter(|(key, _)| *key == name)?.1.trim().parse().ok())
}

fn make(dir: &Path) -> Result<()> {
    let mut tries = 0;
    loop {
        tries += 1;
        match fs::create_dir_all(dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && tries < CREATE_TRIES => {}
            done => return done.map_err(Fault::io(format!("make cgroup {}", dir.display()))),
        }
    }
}

fn set(dir: &Path, file: &str, value: impl ToString) -> Result<()> {
    let path = dir.join(file);
    fs::write(&path, value.to_string()).map_err(Fault::io(format!("write {}", path.display())))
}

/// Removes a cgroup with its children: runc leaves none, a kill -9 of the shim may.
fn remove(dir: &Path) -> Result<()> {
    for child in fs::read_dir(dir).into_iter().flatten().flatten() {
        if child.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&child.path())?;
        }
    }
    let mut tries = 0;
    loop {
        tries += 1;
        match fs::remove_dir(dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy && tries < REMOVE_TRIES => {
                std::thread::sleep(REMOVE_PAUSE)
            }
            done => return done.map_err(Fault::io(format!("remove cgroup {}", dir.display()))),
        }
    }
}

fn remove_if_empty(dir: &Path) {
    // Other tasks live in it as a rule.
    if fs::remove_dir(dir).is_ok() {
        tracing::debug!(dir = %dir.display(), "last task's cgroup removed");
    }
}

fn systemctl(arguments: &[&str]) -> Result<()> {
    let what = format!("systemctl {}", arguments.join(" "));
    let output =
        Command::new("systemctl").args(arguments).stdin(Stdio::null()).output().map_err(Fault::io(&what))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Fault::Broken(format!("{what}: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> TaskArn {
        "arn:aws:ecs:us-west-2:111122223333:task/demo/01-ab".parse().unwrap()
    }

    #[test]
    fn paths_follow_the_driver() {
        let id = ContainerId::derive(&task(), "web", 0);
        let at = |kind| Cgroups { kind, root: "berth".into() }.path_of(&task(), &id);
        assert_eq!(at(Kind::V2), format!("/berth/01-ab/{id}"));
        assert_eq!(at(Kind::V2Systemd), format!("berth-01_ab.slice:berth:{id}"));
    }

    #[test]
    fn hierarchies_are_found_by_controller() {
        let mounts = v1_mounts(
            "proc /proc proc rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu,cpuacct 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n",
        );
        let cgroups = Cgroups { kind: Kind::V1(mounts), root: "berth".into() };
        assert_eq!(cgroups.v1_dir("cpu"), Some(Path::new("/sys/fs/cgroup/cpu")));
        assert_eq!(cgroups.v1_dir("memory"), None);
    }

    #[test]
    fn a_quarter_of_a_processor_is_a_quarter_of_the_period() {
        assert_eq!(quota(TaskLimits { cpu: Some(256), memory: None }), Some(25_000));
        assert_eq!(counter("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "oom_kill"), Some(3));
    }

    #[test]
    fn a_tasks_cgroup_is_made_twice_and_removed_twice() {
        let root = format!("berth_unit_{}", std::process::id());
        let cgroups = Cgroups::detect(CgroupDriver::Cgroupfs, &root).unwrap();
        let limits = TaskLimits { cpu: Some(512), memory: Some(64) };
        for _ in 0..2 {
            cgroups.ensure_task(&task(), limits).unwrap();
        }
        for _ in 0..2 {
            cgroups.remove_task(&task()).unwrap();
        }
    }
}
