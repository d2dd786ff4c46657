//! The whole node, release build: run request to RUNNING against what containerd itself needs for the same container in the same run,
//! cold slot build, and resident memory of an idle agent. Prints a table and a JSON line.
//!
//! The box takes as long as EC2 does to attach an ENI, so that the refill of the pool falls where it falls in production.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    reason = "a benchmark ends at the first thing that fails"
)]

use containerd_client::{
    Client,
    services::v1::{
        Container, CreateContainerRequest, CreateTaskRequest, DeleteContainerRequest, DeleteTaskRequest,
        GetContainerRequest, KillRequest, StartRequest, WaitRequest, container,
        snapshots::{PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest},
    },
    tonic::{Request, metadata::AsciiMetadataValue},
};
use e2e::{
    image,
    lab::{Agent, Lab, Settings, arn},
    process::program,
};
use prost_types::Any;
use serde_json::{Value, json};
use std::{collections::HashMap, fs, path::PathBuf, time::Instant};

/// Rounds: the median of 15 moves by less than a tenth from run to run on a quiet machine.
const ROUNDS: usize = 15;

fn main() {
    let mut settings = Settings::new(std::env::temp_dir().join("berth-bench"), "bt-bench");
    // A real ENI: attached after 1.8 s (aws/amazon-vpc-cni-k8s issue 1872), its link a little before.
    settings.vpc = "[delays]\nattach_ms = 1800\ndetach_ms = 1000\nlink_ms = 1500\n".into();
    let mut lab = Lab::start(settings).unwrap();
    let idle = memory(&lab.agents[1]);
    let bare = Bare::new(&lab);
    let (mut launches, mut floors, mut builds) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let agent = &mut lab.agents[0];
        agent.wait_warm().unwrap();
        builds.push(agent.json(&["slots"]).unwrap()["slots"][0]["build_micros"].as_u64().unwrap());
        let (task, _) = agent.run(&sleeper()).unwrap();
        let floor = bare.launch(&task, round);
        agent.text(&["stop", arn(&task).unwrap()]).unwrap();
        // The first round warms caches.
        if round > 0 {
            launches.push(task["launchMicros"].as_u64().unwrap());
            floors.push(floor);
        }
    }
    let [launch, floor, build] = [launches, floors, builds].map(median);
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let ratio = launch as f64 / floor as f64;
    println!("whole node, medians of {ROUNDS} rounds");
    println!("  run request to RUNNING                 {:>8.1} ms", ms(launch));
    println!(
        "  containerd alone, the same container   {:>8.1} ms   ratio {ratio:.2} (promised: at most 1.20)",
        ms(floor)
    );
    println!("  cold slot build                        {:>8.1} ms", ms(build));
    println!(
        "  idle agent, resident (anonymous)       {:>8.1} MiB ({:.1})   (promised: below 20)",
        idle.0, idle.1
    );
    println!(
        "{}",
        json!({"bench": "node", "launch_micros": launch, "floor_micros": floor, "ratio": ratio, "cold_build_micros": build, "idle_rss_mib": idle.0, "idle_anon_mib": idle.1})
    );
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values[values.len() / 2]
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn ms(micros: u64) -> f64 {
    micros as f64 / 1e3
}

fn sleeper() -> Value {
    json!({"family": "bench", "networkMode": "awsvpc", "containerDefinitions": [
        {"name": "main", "image": image::IMAGE, "memory": 64, "entryPoint": ["sh", "-c"], "command": ["exec sleep 1000"], "stopTimeout": 1}]})
}

/// Resident and anonymous memory of an agent, in MiB.
fn memory(agent: &Agent) -> (f64, f64) {
    let pid = agent.process.as_ref().unwrap().pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| -> f64 {
        let line = status.lines().find(|l| l.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    };
    (field("VmRSS:"), field("RssAnon:"))
}

/// The calls that containerd needs for a container, and nothing else.
struct Bare {
    runtime: tokio::runtime::Runtime,
    client: Client,
    dir: PathBuf,
}

impl Bare {
    fn new(lab: &Lab) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = runtime.block_on(Client::from_path(lab.settings.dir.join("containerd.sock"))).unwrap();
        Self { runtime, client, dir: lab.settings.dir.clone() }
    }

    /// Launches the task's container once more: same image, specification, namespace and logger. Microseconds.
    fn launch(&self, task: &Value, round: usize) -> u64 {
        self.runtime.block_on(self.launch_async(task, round))
    }

    async fn launch_async(&self, task: &Value, round: usize) -> u64 {
        let twin = task["containers"][0]["runtimeId"].as_str().unwrap().to_owned();
        let id = format!("bare{round}");
        let stat = StatSnapshotRequest { snapshotter: "overlayfs".into(), key: twin.clone() };
        let parent = self.client.snapshots().stat(ask(stat)).await.unwrap().into_inner().info.unwrap().parent;
        let twin = self
            .client
            .containers()
            .get(ask(GetContainerRequest { id: twin }))
            .await
            .unwrap()
            .into_inner()
            .container
            .unwrap();
        let mut spec: Value = serde_json::from_slice(&twin.spec.unwrap().value).unwrap();
        let cgroup = spec["linux"]["cgroupsPath"].as_str().unwrap();
        spec["linux"]["cgroupsPath"] = json!(format!("{}/{id}", cgroup.rsplit_once('/').unwrap().0));
        let spec = Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/Spec".into(),
            value: spec.to_string().into_bytes(),
        };
        let logger = program("berth-logger").unwrap();
        let log = format!(
            "binary://{}?path={}/bare.log&max-size=1000000&max-files=2",
            logger.display(),
            self.dir.display()
        );

        let start = Instant::now();
        // Or the garbage collector takes the snapshot away before its container refers to it.
        let labels = HashMap::from([("containerd.io/gc.root".to_owned(), "bench".to_owned())]);
        let prepare =
            PrepareSnapshotRequest { snapshotter: "overlayfs".into(), key: id.clone(), parent, labels };
        let rootfs = self.client.snapshots().prepare(ask(prepare)).await.unwrap().into_inner().mounts;
        let record = Container {
            id: id.clone(),
            runtime: Some(container::Runtime { name: "io.containerd.runc.v2".into(), options: None }),
            spec: Some(spec),
            snapshotter: "overlayfs".into(),
            snapshot_key: id.clone(),
            ..Container::default()
        };
        self.client
            .containers()
            .create(ask(CreateContainerRequest { container: Some(record) }))
            .await
            .unwrap();
        let create = CreateTaskRequest {
            container_id: id.clone(),
            rootfs,
            stdout: log.clone(),
            stderr: log,
            ..Default::default()
        };
        self.client.tasks().create(ask(create)).await.unwrap();
        self.client
            .tasks()
            .start(ask(StartRequest { container_id: id.clone(), exec_id: String::new() }))
            .await
            .unwrap();
        let time = u64::try_from(start.elapsed().as_micros()).unwrap();
        self.remove(id).await;
        time
    }

    async fn remove(&self, id: String) {
        let kill = KillRequest { container_id: id.clone(), exec_id: String::new(), signal: 9, all: true };
        self.client.tasks().kill(ask(kill)).await.unwrap();
        self.client
            .tasks()
            .wait(ask(WaitRequest { container_id: id.clone(), exec_id: String::new() }))
            .await
            .unwrap();
        self.client.tasks().delete(ask(DeleteTaskRequest { container_id: id.clone() })).await.unwrap();
        self.client.containers().delete(ask(DeleteContainerRequest { id: id.clone() })).await.unwrap();
        let snapshot = RemoveSnapshotRequest { snapshotter: "overlayfs".into(), key: id };
        self.client.snapshots().remove(ask(snapshot)).await.unwrap();
    }
}

fn ask<T>(body: T) -> Request<T> {
    let mut request = Request::new(body);
    request.metadata_mut().insert("containerd-namespace", AsciiMetadataValue::from_static("berth-one"));
    request
}
