//! A containerd, an image, a network namespace, and what the engine would do with them.

use berth_containerd::{
    Containerd, ContainerdConfig, ImageSettings, PullBehavior, PullConfig, RetryPolicy, logs,
};
use berth_testkit::{containerd::PrivateContainerd, samples};
use berth_types::{
    eni::SlotFiles,
    ids::{ContainerId, TaskArn},
    ports::{ContainerEvent, Containers, CreateContainer},
    task::ContainerSpec,
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

/// A container starts in 0.1 s; with eight of them at once on two processors, in a few seconds.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const IMAGE: &str = "berth/test";

pub(crate) struct Rig {
    pub(crate) api: Containerd,
    pub(crate) events: mpsc::Receiver<ContainerEvent>,
    pub(crate) task: TaskArn,
    pub(crate) netns: Netns,
    // The last two: containerd goes when everything that talks to it has gone, and the cgroups when nothing runs in them.
    pub(crate) containerd: PrivateContainerd,
    _cgroups: TaskCgroups,
}

/// A test that fails in its middle leaves no cgroup either.
struct TaskCgroups(TaskArn);

impl Drop for TaskCgroups {
    fn drop(&mut self) {
        let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|e| e.path());
        for hierarchy in hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]) {
            let root = hierarchy.join(cgroup_root());
            fs::remove_dir(root.join(self.0.id())).ok();
            fs::remove_dir(root).ok();
        }
    }
}

pub(crate) struct Exit {
    pub(crate) code: u32,
    pub(crate) oom: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Rig {
    pub(crate) async fn start() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let containerd = PrivateContainerd::start().unwrap();
        let api = Self::client(&containerd);
        let rootfs = containerd.dir().join("rootfs.tar");
        fs::write(&rootfs, rootfs_tar()).unwrap();
        api.import_image(IMAGE, &rootfs, settings()).await.unwrap();
        let events = api.events();
        let id = format!("{:08x}{:08x}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let task: TaskArn = format!("arn:aws:ecs:us-west-2:111122223333:task/test/{id}").parse().unwrap();
        let cgroups = TaskCgroups(task.clone());
        Self { api, events, task, netns: Netns::new(), containerd, _cgroups: cgroups }
    }

    /// Most tests run an image that no registry has: they ask none for what is here.
    pub(crate) fn client(containerd: &PrivateContainerd) -> Containerd {
        Self::client_that(containerd, |pull| pull.behavior = PullBehavior::PreferCached)
    }

    /// A client that pulls in its own way, and does not take long over what fails.
    pub(crate) fn client_that(
        containerd: &PrivateContainerd,
        change: impl FnOnce(&mut PullConfig),
    ) -> Containerd {
        let mut config = ContainerdConfig::new(containerd.socket(), env!("CARGO_BIN_EXE_berth-logger"));
        config.cgroup_root = cgroup_root();
        let pause = Duration::from_millis(10);
        config.pull.retries = RetryPolicy { tries: 3, first_pause: pause, last_pause: pause };
        change(&mut config.pull);
        Containerd::connect(config).unwrap()
    }

    /// A second agent, as after a restart.
    pub(crate) fn reconnect(&mut self) {
        self.api = Self::client(&self.containerd);
        self.events = self.api.events();
    }

    pub(crate) fn container(&self, name: &str, change: impl FnOnce(&mut ContainerSpec)) -> CreateContainer {
        let mut spec = samples::container(name, IMAGE);
        change(&mut spec);
        let dir = self.containerd.dir();
        for (file, text) in [
            ("resolv.conf", "nameserver 10.0.0.2\n"),
            ("hosts", "127.0.0.1 localhost\n"),
            ("hostname", "ip-10-0-0-7\n"),
        ] {
            fs::write(dir.join(file), text).unwrap();
        }
        CreateContainer {
            id: ContainerId::derive(&self.task, name, 0),
            task: self.task.clone(),
            spec: Arc::new(spec),
            injected_environment: vec![("INJECTED".into(), "yes".into())],
            labels: BTreeMap::from([("com.amazonaws.ecs.cluster".to_owned(), "test".to_owned())]),
            netns_path: self.netns.path(),
            hostname: "ip-10-0-0-7".into(),
            files: SlotFiles {
                resolv_conf: dir.join("resolv.conf"),
                hosts: dir.join("hosts"),
                hostname: dir.join("hostname"),
            },
            volumes: vec![],
            log_path: dir.join("logs").join(format!("{name}.log")),
            task_cpu: None,
            task_memory: None,
            record: format!("record of {name}").into_bytes(),
        }
    }

    /// A shell script in a container, from create to remove.
    pub(crate) async fn sh(&mut self, script: &str) -> Exit {
        self.sh_with(script, |_| ()).await
    }

    pub(crate) async fn sh_with(&mut self, script: &str, change: impl FnOnce(&mut ContainerSpec)) -> Exit {
        let container = self.container("sh", |spec| {
            spec.command = Some(vec!["sh".into(), "-c".into(), script.into()]);
            change(spec);
        });
        self.run(&container).await
    }

    /// From create to remove.
    pub(crate) async fn run(&mut self, container: &CreateContainer) -> Exit {
        self.begin(container).await;
        let (code, oom) = self.exit_of(&container.id).await;
        self.api.remove(&container.id).await.unwrap();
        self.api.remove_task(&self.task).await.unwrap();
        // The logger has ended with the task: the log is whole. The next container of this name starts a new one.
        let (stdout, stderr) = (text(&container.log_path, "stdout"), text(&container.log_path, "stderr"));
        fs::remove_file(&container.log_path).ok();
        Exit { code, oom, stdout, stderr }
    }

    pub(crate) async fn begin(&self, container: &CreateContainer) -> u32 {
        self.api.create(container).await.unwrap();
        self.api.start(&container.id).await.unwrap().0
    }

    pub(crate) async fn exit_of(&mut self, id: &ContainerId) -> (u32, bool) {
        let found = timeout(DEADLINE, async {
            loop {
                match self.events.recv().await.unwrap() {
                    ContainerEvent::Exited { id: ended, code, oom, .. } if ended == *id => {
                        return (code, oom);
                    }
                    _ => {}
                }
            }
        });
        found.await.expect("the exit is told in time")
    }

    /// containerd's own tool, for what an operator (or the garbage collector) may do behind our back.
    pub(crate) fn ctr(&self, arguments: &[&str]) {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.containerd.socket()).args(["--namespace", "berth"]).args(arguments);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    pub(crate) async fn next(&mut self) -> ContainerEvent {
        timeout(DEADLINE, self.events.recv()).await.expect("an event in time").unwrap()
    }
}

pub(crate) fn cgroup_root() -> String {
    format!("berth_it_{}", std::process::id())
}

pub(crate) fn text(log: &Path, stream: &str) -> String {
    let lines = logs::read(log, logs::MAX_TAIL, None).unwrap();
    lines.into_iter().filter(|l| l.stream == stream).map(|l| l.log).collect()
}

/// Looks until the answer is there, or fails.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn settings() -> ImageSettings {
    ImageSettings {
        env: Some(vec!["PATH=/bin".into(), "FROM_IMAGE=1".into(), "BOTH=image".into()]),
        cmd: Some(vec!["sh".into(), "-c".into(), "echo from image".into()]),
        working_dir: Some("/srv/made/by/runc".into()),
        ..ImageSettings::default()
    }
}

/// busybox with all its names, an account, and an empty /tmp.
pub(crate) fn rootfs_tar() -> Vec<u8> {
    let busybox = fs::read("/bin/busybox").expect("busybox-static is installed");
    let applets = Command::new("/bin/busybox").arg("--list").output().unwrap().stdout;
    let mut tar = tar::Builder::new(Vec::new());
    let header = |kind, mode, size| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_mtime(0);
        header
    };
    for dir in ["bin", "etc", "tmp", "proc", "sys", "dev"] {
        tar.append_data(&mut header(tar::EntryType::Directory, 0o755, 0), dir, &[][..]).unwrap();
    }
    let size = busybox.len() as u64;
    tar.append_data(&mut header(tar::EntryType::Regular, 0o755, size), "bin/busybox", &busybox[..]).unwrap();
    for applet in String::from_utf8(applets).unwrap().lines().filter(|a| *a != "busybox") {
        tar.append_link(&mut header(tar::EntryType::Symlink, 0o777, 0), format!("bin/{applet}"), "busybox")
            .unwrap();
    }
    for (name, text) in [
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001:Web:/:/bin/sh\n"),
        ("etc/group", "root:x:0:\nweb:x:1001:\nlogs:x:2000:web\n"),
    ] {
        let size = text.len() as u64;
        tar.append_data(&mut header(tar::EntryType::Regular, 0o644, size), name, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

/// A network namespace, held by a process that sleeps in it.
pub(crate) struct Netns(Child);

impl Netns {
    fn new() -> Self {
        let mut child =
            Command::new("unshare").args(["-n", "sleep", "1000"]).stdin(Stdio::null()).spawn().unwrap();
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        let deadline = std::time::Instant::now() + DEADLINE;
        while fs::read_link(format!("/proc/{}/ns/net", child.id())).is_ok_and(|ns| ns == own) {
            assert!(
                child.try_wait().unwrap().is_none() && std::time::Instant::now() < deadline,
                "unshare does not work"
            );
            std::thread::yield_now();
        }
        Self(child)
    }

    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.0.id()).into()
    }

    pub(crate) fn id(&self) -> String {
        fs::read_link(self.path()).unwrap().to_string_lossy().into_owned()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
