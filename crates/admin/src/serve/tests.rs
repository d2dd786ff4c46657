//! The API over a real socket, in front of owners that behave.

mod cluster;
mod events;
mod images;

use super::*;
use crate::{
    Backend, ClusterControl, ControlPlane, LogQuery, Refusal,
    samples::{at, instance, snapshot},
    view::LogLine,
};
use async_trait::async_trait;
use berth_types::{
    Timestamp,
    assignment::{Assignment, AssignmentError},
    cluster::{ClusterSnapshot, InstanceStatus, ReportsSnapshot},
    eni::EniSnapshot,
    ids::TaskArn,
    image::{ImageView, PullsSnapshot},
    task::{EngineSnapshot, TaskStatus},
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio::sync::{mpsc, watch};

#[derive(Debug, Default)]
struct Pool(Mutex<Vec<(Option<u32>, Option<u32>)>>);

#[async_trait]
impl Backend for Pool {
    async fn resize(&self, warm: Option<u32>, max: Option<u32>) -> Result<(), String> {
        self.0.lock().unwrap().push((warm, max));
        Ok(())
    }
    async fn forget(&self, task: &TaskArn) -> Result<(), String> {
        Err(format!("{} is kept", task.id()))
    }
    async fn logs(&self, file: &Path, query: LogQuery) -> Result<Vec<LogLine>, String> {
        let line = |i: usize| LogLine {
            time: Timestamp::from_second(i as i64).unwrap(),
            stream: "stdout".into(),
            log: format!("{} {i}\n", file.display()),
            container: String::new(),
        };
        Ok((0..query.tail).map(line).collect())
    }
    async fn images(&self) -> Result<Vec<ImageView>, Refusal> {
        let image = ImageView {
            name: "docker.io/library/used:1".into(),
            digest: "sha256:ab".into(),
            bytes: 1,
            pulled_at: None,
            used_at: None,
            containers: 1,
        };
        Ok(vec![image])
    }
    async fn remove_image(&self, name: &str) -> Result<bool, Refusal> {
        match name {
            "docker.io/library/used:1" => Err(Refusal::Conflict("1 container is made of it".into())),
            "old" => Ok(true),
            _ => Ok(false),
        }
    }
    fn full_reference(&self, image: &str) -> String {
        format!("docker.io/library/{image}:latest")
    }
}

/// A control plane that does as it is told while it answers.
#[derive(Debug)]
struct Plane {
    cluster: watch::Sender<Arc<ClusterSnapshot>>,
    reports: watch::Sender<Arc<ReportsSnapshot>>,
}

#[async_trait]
impl ClusterControl for Plane {
    async fn drain(&self, draining: bool) -> Result<(), Refusal> {
        let mut now = (**self.cluster.borrow()).clone();
        if let Some(problem) = &now.problem {
            return Err(Refusal::Unavailable(problem.clone()));
        }
        now.status = if draining { InstanceStatus::Draining } else { InstanceStatus::Active };
        self.cluster.send_replace(Arc::new(now));
        Ok(())
    }
}

/// A node whose engine takes every task and keeps it at NONE.
struct Node {
    socket: PathBuf,
    backend: Arc<Pool>,
    plane: Arc<Plane>,
    pulls: watch::Sender<Arc<PullsSnapshot>>,
    _dir: tempfile::TempDir,
    shutdown: CancellationToken,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

async fn engine(mut assignments: mpsc::Receiver<Assignment>, publish: watch::Sender<Arc<EngineSnapshot>>) {
    while let Some(assignment) = assignments.recv().await {
        let mut now = (**publish.borrow()).clone();
        match assignment {
            Assignment::Run { spec, reply } => {
                now.tasks.insert(spec.arn.clone(), Arc::new(snapshot(*spec)));
                publish.send_replace(Arc::new(now));
                reply.send(Ok(())).unwrap();
            }
            Assignment::Stop { task, reason, reply, .. } => {
                let Some(old) = now.tasks.get(&task) else {
                    reply.send(Err(AssignmentError::NoSuchTask(task))).unwrap();
                    continue;
                };
                let mut stopped = (**old).clone();
                (stopped.known, stopped.desired) = (TaskStatus::Stopped, TaskStatus::Stopped);
                stopped.stopped_reason = Some(reason);
                now.tasks.insert(task, Arc::new(stopped));
                publish.send_replace(Arc::new(now));
                reply.send(Ok(())).unwrap();
            }
        }
    }
}

async fn node() -> Node {
    node_with(true).await
}

/// A node, with a control plane or without.
async fn node_with(control_plane: bool) -> Node {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("run/admin.sock");
    let listener = bind(&socket).await.unwrap();
    let (assignments, queue) = mpsc::channel(8);
    let ready = EngineSnapshot { recovered: true, runtime_ok: true, ..Default::default() };
    let (publish, engine_snapshot) = watch::channel(Arc::new(ready));
    let (_, enis) = watch::channel(Arc::new(EniSnapshot { recovered: true, ..Default::default() }));
    tokio::spawn(engine(queue, publish));
    let backend = Arc::new(Pool::default());
    let registered = ClusterSnapshot {
        cluster: "demo".into(),
        status: InstanceStatus::Active,
        container_instance_arn: Some("arn:i".into()),
        ..Default::default()
    };
    let (cluster, cluster_watch) = watch::channel(Arc::new(registered));
    let (reports, reports_watch) = watch::channel(Arc::default());
    let (pulls, pulls_watch) = watch::channel(Arc::default());
    let plane = Arc::new(Plane { cluster, reports });
    let admin = Admin {
        engine: engine_snapshot,
        enis,
        pulls: pulls_watch,
        control_plane: control_plane.then(|| ControlPlane {
            cluster: cluster_watch,
            reports: reports_watch,
            control: plane.clone(),
        }),
        assignments,
        backend: backend.clone(),
        instance: Arc::new(instance()),
        cluster: "demo".into(),
        cluster_name: "demo".parse().unwrap(),
        privileged: true,
        version: "1.2.3",
        started_at: Timestamp::UNIX_EPOCH,
        now: || Timestamp::UNIX_EPOCH,
    };
    let shutdown = CancellationToken::new();
    tokio::spawn(serve(listener, admin, shutdown.clone()));
    Node { socket, backend, plane, pulls, _dir: dir, shutdown }
}

impl Node {
    async fn send(&self, method: &str, path: &str, body: impl Into<Bytes>) -> http::Response<Incoming> {
        let stream = UnixStream::connect(&self.socket).await.unwrap();
        let (mut send, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "berth")
            .body(Full::new(body.into()))
            .unwrap();
        send.send_request(request).await.unwrap()
    }

    async fn call(&self, method: &str, path: &str, body: impl Into<Bytes>) -> (u16, Value) {
        let response = self.send(method, path, body).await;
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() })
    }

    async fn run(&self) -> String {
        let definition = json!({"family": "web", "networkMode": "awsvpc", "containerDefinitions": [{"name": "a", "image": "x", "memory": 8}, {"name": "b", "image": "x", "memory": 8}]});
        let (status, answer) =
            self.call("POST", "/v1/tasks", json!({"taskDefinition": definition}).to_string()).await;
        assert_eq!(status, 201, "{answer}");
        answer["task"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_task_is_run_listed_inspected_by_prefix_and_stopped() {
    let node = node().await;
    let arn = node.run().await;
    let id = arn.rsplit('/').next().unwrap().to_owned();
    let (_, list) = node.call("GET", "/v1/tasks", "").await;
    assert_eq!(list["tasks"][0]["taskArn"], json!(arn));
    let (status, task) = node.call("GET", &format!("/v1/tasks/{}", &id[..8]), "").await;
    assert_eq!(
        (status, &task["lastStatus"], &task["waiting"]),
        (200, &json!("PROVISIONING"), &json!("an ENI"))
    );
    let (status, task) =
        node.call("POST", &format!("/v1/tasks/{id}/stop"), json!({"reason": "enough"}).to_string()).await;
    assert_eq!(
        (status, &task["lastStatus"], &task["stoppedReason"]),
        (200, &json!("STOPPED"), &json!("enough"))
    );
    let (status, _) = node.call("GET", &format!("/v1/tasks/{id}?wait=STOPPED&timeout=1"), "").await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn bad_input_is_answered_with_the_field_and_what_was_expected() {
    let node = node().await;
    let definition = json!({"family": "web", "networkMode": "awsvpc", "containerDefinitions": [{"name": "a", "image": "x", "memory": "8"}]});
    let table = [
        ("POST", "/v1/tasks", "{".to_owned(), 400, "request body"),
        (
            "POST",
            "/v1/tasks",
            json!({"taskDefinition": definition}).to_string(),
            400,
            "containerDefinitions[0].memory",
        ),
        ("POST", "/v1/tasks", json!({"taskDefinition": {}, "count": 2}).to_string(), 400, "count"),
        ("POST", "/v1/tasks", json!({"taskDefinition": {}, "subnet": "net-1"}).to_string(), 400, "subnet-"),
        ("GET", "/v1/tasks/nothing", String::new(), 404, "nothing"),
        ("GET", "/v1/nothing", String::new(), 404, "/v1/tasks"),
        ("PATCH", "/v1/pool", String::new(), 405, "PATCH"),
        ("PUT", "/v1/pool", "{}".to_owned(), 400, "warm"),
        ("PUT", "/v1/pool", json!({"warm": -1}).to_string(), 400, "u32"),
        ("PUT", "/v1/pool", json!({"hot": 1}).to_string(), 400, "hot"),
    ];
    for (method, path, body, status, text) in table {
        let (got, answer) = node.call(method, path, body.clone()).await;
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert_eq!(got, status, "{method} {path} {body}: {answer}");
        assert!(message.contains(text), "{method} {path} {body}: {message}");
    }
    let (status, answer) = node.call("POST", "/v1/tasks", vec![b'x'; 300 * 1024]).await;
    assert_eq!((status, &answer["error"]["code"]), (413, &json!("BadRequest")));
    let (status, answer) = node.call("GET", "/v1/tasks/x/logs?tail=many", "").await;
    assert_eq!(status, 400);
    assert!(answer["error"]["message"].as_str().unwrap().contains("tail"), "{answer}");
}

#[tokio::test]
async fn logs_of_all_containers_are_merged_by_time_and_cut_to_the_tail() {
    let node = node().await;
    let id = node.run().await.rsplit('/').next().unwrap().to_owned();
    let (_, all) = node.call("GET", &format!("/v1/tasks/{id}/logs?tail=3"), "").await;
    let lines: Vec<&str> =
        all["lines"].as_array().unwrap().iter().map(|l| l["log"].as_str().unwrap()).collect();
    assert_eq!(lines, ["/log/b 1\n", "/log/a 2\n", "/log/b 2\n"]);
    assert!(all["note"].is_null());
    let (_, cut) = node.call("GET", &format!("/v1/tasks/{id}/logs?tail=1500"), "").await;
    assert_eq!(cut["lines"].as_array().unwrap().len(), 1000);
    assert_eq!(
        cut["note"],
        json!("1500 lines were asked for; these are the latest 1000, the most that one answer holds")
    );
    let (status, error) = node.call("GET", &format!("/v1/tasks/{id}/logs?container=c"), "").await;
    assert_eq!(status, 404);
    assert!(error["error"]["message"].as_str().unwrap().contains("a, b"));
}

#[tokio::test]
async fn the_pool_is_resized_and_running_tasks_are_not_forgotten() {
    let node = node().await;
    assert_eq!(node.call("PUT", "/v1/pool", json!({"warm": 0}).to_string()).await.0, 200);
    assert_eq!(*node.backend.0.lock().unwrap(), [(Some(0), None)]);
    let id = node.run().await.rsplit('/').next().unwrap().to_owned();
    assert_eq!(node.call("DELETE", &format!("/v1/tasks/{id}"), "").await.0, 409);
    let (status, health) = node.call("GET", "/v1/health", "").await;
    assert_eq!((status, &health["healthy"]), (200, &json!(true)));
    assert_eq!(node.call("GET", "/v1/instance", "").await.1["runningTasks"], json!(1));
}

#[tokio::test]
async fn a_dead_agents_socket_is_replaced_and_a_living_ones_is_not() {
    let node = node().await;
    assert!(matches!(bind(&node.socket).await, Err(ServeError::InUse(_))));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    bind(&path).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let file = dir.path().join("f");
    std::fs::write(&file, "x").unwrap();
    assert!(matches!(bind(&file).await, Err(ServeError::NotASocket(_))));
}
