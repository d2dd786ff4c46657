//! From the request to a running process: through our port, and through the bare calls that containerd needs for the same thing, in
//! alternating rounds of one run. The promise is a ratio of the medians of at most 1.2.
//!
//! Two bare launches, because a container that is started carelessly starts faster: one with the specification and the logger that
//! the port uses, one with the least that runs at all (no filter, no limits, output to nowhere).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    reason = "a benchmark ends at the first thing that fails"
)]

use berth_containerd::{Containerd, ContainerdConfig, ImageSettings};
use berth_testkit::containerd::PrivateContainerd;
use berth_types::{
    eni::SlotFiles,
    ids::{ContainerId, TaskArn},
    ports::{Containers, CreateContainer},
    task::ContainerSpec,
};
use containerd_client::{
    Client,
    services::v1::{
        Container, CreateContainerRequest, CreateTaskRequest, DeleteContainerRequest, DeleteTaskRequest,
        GetContainerRequest, KillRequest, StartRequest, WaitRequest, container,
        snapshots::{PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest},
    },
    tonic::{Request, metadata::AsciiMetadataValue},
};
use prost_types::Any;
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
    process::{Child, Command},
    sync::Arc,
    time::{Duration, Instant},
};

/// Rounds of each kind: the median of 21 moves by less than a tenth from run to run on a quiet machine.
const ROUNDS: u32 = 21;

#[tokio::main]
async fn main() {
    let containerd = PrivateContainerd::start().unwrap();
    let bench = Bench::new(&containerd).await;
    let mut times: [Vec<Duration>; 3] = Default::default();
    for round in 0..=ROUNDS {
        let ours = bench.ours(round).await;
        let same = bench.bare(round, &bench.same_spec, &bench.same_log).await;
        let least = bench.bare(round, &bench.least_spec, "").await;
        // The first round warms caches.
        if round > 0 {
            for (list, time) in times.iter_mut().zip([ours, same, least]) {
                list.push(time);
            }
        }
    }
    let [ours, same, least] = times.map(median);
    let ratio = |other: Duration| ours.as_secs_f64() / other.as_secs_f64();
    println!("create to running, medians of {ROUNDS} alternating rounds");
    println!("  through the port                         {ours:>10.1?}");
    println!(
        "  bare calls, same specification and log   {same:>10.1?}   ratio {:.2} (promised: at most 1.20)",
        ratio(same)
    );
    println!("  bare calls, least specification, no log  {least:>10.1?}   ratio {:.2}", ratio(least));
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

struct Bench {
    api: Containerd,
    bare: Client,
    task: TaskArn,
    template: CreateContainer,
    parent: String,
    same_spec: Vec<u8>,
    same_log: String,
    least_spec: Vec<u8>,
    _netns: Netns,
}

/// A process that holds a network namespace.
struct Netns(Child);

impl Drop for Netns {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Bench {
    async fn new(containerd: &PrivateContainerd) -> Self {
        let dir = containerd.dir();
        let mut config = ContainerdConfig::new(containerd.socket(), env!("CARGO_BIN_EXE_berth-logger"));
        config.cgroup_root = format!("berth_bench_{}", std::process::id());
        let api = Containerd::connect(config).unwrap();
        let rootfs = dir.join("rootfs.tar");
        fs::write(&rootfs, rootfs_tar()).unwrap();
        api.import_image("bench", &rootfs, ImageSettings::default()).await.unwrap();
        let netns = Netns(Command::new("unshare").args(["-n", "sleep", "10000"]).spawn().unwrap());
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        let path = format!("/proc/{}/ns/net", netns.0.id());
        while fs::read_link(&path).is_ok_and(|ns| ns == own) {
            std::thread::yield_now();
        }
        let task: TaskArn =
            format!("arn:aws:ecs:us-west-2:111122223333:task/bench/{}", std::process::id()).parse().unwrap();
        let template = template(dir, &task, &path);
        let bare = Client::from_path(containerd.socket()).await.unwrap();
        let mut bench = Self {
            api,
            bare,
            task,
            template,
            parent: String::new(),
            same_spec: vec![],
            same_log: String::new(),
            least_spec: vec![],
            _netns: netns,
        };
        bench.learn().await;
        bench
    }

    /// Takes parent snapshot and specification from a container that the port has made.
    async fn learn(&mut self) {
        self.api.create(&self.template).await.unwrap();
        let id = self.template.id.to_string();
        let request = StatSnapshotRequest { snapshotter: "overlayfs".into(), key: id.clone() };
        self.parent =
            self.bare.snapshots().stat(ask(request)).await.unwrap().into_inner().info.unwrap().parent;
        let record = self
            .bare
            .containers()
            .get(ask(GetContainerRequest { id }))
            .await
            .unwrap()
            .into_inner()
            .container
            .unwrap();
        self.same_spec = record.spec.unwrap().value;
        let log = self.template.log_path.with_file_name("bare.log");
        let logger = env!("CARGO_BIN_EXE_berth-logger");
        self.same_log = format!("binary://{logger}?path={}&max-size=1000000&max-files=2", log.display());
        self.least_spec = least(&self.same_spec);
        self.api.remove(&self.template.id).await.unwrap();
    }

    async fn ours(&self, round: u32) -> Duration {
        let mut container = self.template.clone();
        container.id = ContainerId::derive(&self.task, "ours", round);
        let start = Instant::now();
        self.api.create(&container).await.unwrap();
        self.api.start(&container.id).await.unwrap();
        let time = start.elapsed();
        self.api.remove(&container.id).await.unwrap();
        time
    }

    async fn bare(&self, round: u32, spec: &[u8], log: &str) -> Duration {
        let id = ContainerId::derive(&self.task, "bare", round).to_string();
        let start = Instant::now();
        let request = PrepareSnapshotRequest {
            snapshotter: "overlayfs".into(),
            key: id.clone(),
            parent: self.parent.clone(),
            // Or the garbage collector, busy with the rounds before, takes the snapshot away before its container refers to it.
            labels: HashMap::from([("containerd.io/gc.root".to_owned(), "bench".to_owned())]),
        };
        let rootfs = self.bare.snapshots().prepare(ask(request)).await.unwrap().into_inner().mounts;
        let record = Container {
            id: id.clone(),
            runtime: Some(container::Runtime { name: "io.containerd.runc.v2".into(), options: None }),
            spec: Some(Any {
                type_url: "types.containerd.io/opencontainers/runtime-spec/1/Spec".into(),
                value: spec.to_vec(),
            }),
            snapshotter: "overlayfs".into(),
            snapshot_key: id.clone(),
            ..Container::default()
        };
        self.bare.containers().create(ask(CreateContainerRequest { container: Some(record) })).await.unwrap();
        let (stdout, stderr) = (log.to_owned(), log.to_owned());
        let request = CreateTaskRequest {
            container_id: id.clone(),
            rootfs,
            stdout,
            stderr,
            ..CreateTaskRequest::default()
        };
        self.bare.tasks().create(ask(request)).await.unwrap();
        self.bare
            .tasks()
            .start(ask(StartRequest { container_id: id.clone(), exec_id: String::new() }))
            .await
            .unwrap();
        let time = start.elapsed();
        self.remove_bare(id).await;
        time
    }

    async fn remove_bare(&self, id: String) {
        let kill = KillRequest { container_id: id.clone(), exec_id: String::new(), signal: 9, all: true };
        self.bare.tasks().kill(ask(kill)).await.unwrap();
        self.bare
            .tasks()
            .wait(ask(WaitRequest { container_id: id.clone(), exec_id: String::new() }))
            .await
            .unwrap();
        self.bare.tasks().delete(ask(DeleteTaskRequest { container_id: id.clone() })).await.unwrap();
        self.bare.containers().delete(ask(DeleteContainerRequest { id: id.clone() })).await.unwrap();
        let snapshot = RemoveSnapshotRequest { snapshotter: "overlayfs".into(), key: id };
        self.bare.snapshots().remove(ask(snapshot)).await.unwrap();
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // The bare containers went into the same cgroup.
        let (api, task) = (self.api.clone(), self.task.clone());
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(api.remove_task(&task)))
            .unwrap();
    }
}

fn ask<T>(body: T) -> Request<T> {
    let mut request = Request::new(body);
    request.metadata_mut().insert("containerd-namespace", AsciiMetadataValue::from_static("berth"));
    request
}

/// The specification without filter, masks, limits and mounts beyond those that runc itself needs.
fn least(spec: &[u8]) -> Vec<u8> {
    let mut spec: serde_json::Value = serde_json::from_slice(spec).unwrap();
    let linux = spec["linux"].as_object_mut().unwrap();
    for key in ["seccomp", "maskedPaths", "readonlyPaths", "resources", "sysctl"] {
        linux.remove(key);
    }
    let kept = ["/proc", "/dev"];
    spec["mounts"].as_array_mut().unwrap().retain(|m| kept.iter().any(|k| m["destination"] == *k));
    serde_json::to_vec(&spec).unwrap()
}

fn template(dir: &Path, task: &TaskArn, netns: &str) -> CreateContainer {
    let spec = serde_json::json!({
        "name": "bench", "endpoint_id": "00000000-0000-4000-8000-000000000000", "image": "bench", "essential": true, "cpu": 0,
        "entry_point": ["/bin/busybox", "sleep", "1000"], "environment": [], "readonly_root_filesystem": false, "privileged": false,
        "capabilities_add": [], "capabilities_drop": [], "ulimits": [], "tmpfs": [], "mount_points": [], "port_mappings": [],
        "depends_on": [], "log": { "driver": "json-file", "options": {} }, "docker_labels": {}, "no_new_privileges": false,
        "pseudo_terminal": false
    });
    let spec: ContainerSpec = serde_json::from_value(spec).unwrap();
    let file = |name: &str| {
        let path = dir.join(name);
        fs::write(&path, "").unwrap();
        path
    };
    CreateContainer {
        id: ContainerId::derive(task, "template", 0),
        task: task.clone(),
        spec: Arc::new(spec),
        injected_environment: vec![],
        labels: BTreeMap::new(),
        netns_path: netns.into(),
        hostname: "bench".into(),
        files: SlotFiles {
            resolv_conf: file("resolv.conf"),
            hosts: file("hosts"),
            hostname: file("hostname"),
        },
        volumes: vec![],
        log_path: dir.join("bench.log"),
        task_cpu: None,
        task_memory: None,
        record: vec![0; 4096],
    }
}

fn rootfs_tar() -> Vec<u8> {
    let busybox = fs::read("/bin/busybox").expect("busybox-static is installed");
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(busybox.len() as u64);
    header.set_mode(0o755);
    tar.append_data(&mut header, "bin/busybox", &busybox[..]).unwrap();
    tar.into_inner().unwrap()
}
