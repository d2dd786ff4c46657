use super::*;
use crate::{Backend, LogQuery, view::LogLine};
use async_trait::async_trait;
use berth_types::{
    Timestamp,
    assignment::{Assignment, AssignmentError},
    eni::{EniSnapshot, InstanceFacts},
    ids::TaskArn,
    task::{ContainerSnapshot, ContainerStatus, EngineSnapshot, TaskSnapshot, TaskSpec, TaskStatus},
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
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
}

/// A node whose engine takes every task and keeps it at NONE.
struct Node {
    socket: PathBuf,
    backend: Arc<Pool>,
    _dir: tempfile::TempDir,
    shutdown: CancellationToken,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn snapshot(spec: TaskSpec) -> TaskSnapshot {
    let container = |(index, c): (usize, &berth_types::task::ContainerSpec)| ContainerSnapshot {
        index,
        name: c.name.clone(),
        id: None,
        docker_name: String::new(),
        image_id: None,
        image_digest: None,
        desired: ContainerStatus::Running,
        known: ContainerStatus::None,
        pid: None,
        exit_code: None,
        reason: None,
        created_at: None,
        started_at: None,
        finished_at: None,
        volumes: vec![],
        log_path: Some(format!("/log/{}", c.name).into()),
    };
    TaskSnapshot {
        desired: TaskStatus::Running,
        known: TaskStatus::None,
        containers: spec.containers.iter().enumerate().map(container).collect(),
        spec: Arc::new(spec),
        lease: None,
        waiting: Some("an ENI".into()),
        stopped_reason: None,
        stop_code: None,
        lease_micros: None,
        pull_started_at: None,
        pull_stopped_at: None,
        started_at: None,
        execution_stopped_at: None,
        stopped_at: None,
        version: 1,
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

fn instance() -> InstanceFacts {
    InstanceFacts {
        instance_id: "i-0123456789abcdef0".parse().unwrap(),
        instance_type: "m5.large".into(),
        region: "us-west-2".into(),
        availability_zone: "us-west-2a".into(),
        availability_zone_id: None,
        account: "111122223333".into(),
        vpc: "vpc-12345678".parse().unwrap(),
        subnet: "subnet-12345678".parse().unwrap(),
        security_groups: vec![],
        primary_mac: "02:00:00:00:00:01".parse().unwrap(),
        private_ipv4: "10.0.0.4".parse().unwrap(),
        max_enis: 3,
        max_ipv4_per_eni: 10,
    }
}

async fn node() -> Node {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("run/admin.sock");
    let listener = bind(&socket).await.unwrap();
    let (assignments, queue) = mpsc::channel(8);
    let ready = EngineSnapshot { recovered: true, runtime_ok: true, ..Default::default() };
    let (publish, engine_snapshot) = watch::channel(Arc::new(ready));
    let (_, enis) = watch::channel(Arc::new(EniSnapshot { recovered: true, ..Default::default() }));
    tokio::spawn(engine(queue, publish));
    let backend = Arc::new(Pool::default());
    let admin = Admin {
        engine: engine_snapshot,
        enis,
        assignments,
        backend: backend.clone(),
        instance: Arc::new(instance()),
        cluster: "demo".into(),
        cluster_name: "demo".parse().unwrap(),
        version: "1.2.3",
        started_at: Timestamp::UNIX_EPOCH,
        now: || Timestamp::UNIX_EPOCH,
    };
    let shutdown = CancellationToken::new();
    tokio::spawn(serve(listener, admin, shutdown.clone()));
    Node { socket, backend, _dir: dir, shutdown }
}

impl Node {
    async fn call(&self, method: &str, path: &str, body: impl Into<Bytes>) -> (u16, Value) {
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
        let response = send.send_request(request).await.unwrap();
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
