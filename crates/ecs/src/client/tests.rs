//! The client against a small HTTP peer that answers as each test tells it to: exact bodies, exact errors, silence and garbage. What
//! a real server makes of the calls is for vpcbox and moto to show.

use super::EcsClient;
use crate::{
    config::EcsConfig,
    port::{ContainerNews, ControlPlane, EcsErrorKind, News, Registration, Report, TaskNews},
    tests::arn,
};
use berth_types::{Timestamp, ports::IdentityDocument};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Status and body for an operation and its input; `None` hangs up.
type Script = Arc<dyn Fn(&str, &Value) -> Option<(u16, String)> + Send + Sync>;

struct Peer {
    client: EcsClient,
    config: EcsConfig,
    calls: Arc<Mutex<Vec<(String, Value)>>>,
}

async fn peer(script: impl Fn(&str, &Value) -> Option<(u16, String)> + Send + Sync + 'static) -> Peer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let calls = Arc::new(Mutex::new(Vec::new()));
    let (seen, script): (_, Script) = (Arc::clone(&calls), Arc::new(script));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&script), Arc::clone(&seen)));
        }
    });
    let config = EcsConfig {
        endpoint: Some(url.clone()),
        imds_endpoint: Some(url),
        region: Some("us-west-2".into()),
        ..EcsConfig::new("demo")
    };
    Peer { client: EcsClient::new(&config, "us-west-2").unwrap(), config, calls }
}

/// A client with the peer's credentials for an endpoint elsewhere.
fn elsewhere(peer: &Peer, endpoint: &str) -> EcsClient {
    let config = EcsConfig { endpoint: Some(endpoint.to_owned()), ..peer.config.clone() };
    EcsClient::new(&config, "us-west-2").unwrap()
}

/// One request on one connection.
async fn serve(mut stream: TcpStream, script: Script, seen: Arc<Mutex<Vec<(String, Value)>>>) {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..head_end]).to_ascii_lowercase();
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse::<usize>().ok());
    while bytes.len() < head_end + length.unwrap_or(0) {
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let target = String::from_utf8_lossy(&bytes[..head_end]).into_owned();
    let op = target
        .lines()
        .find_map(|line| line.to_ascii_lowercase().starts_with("x-amz-target").then(|| line.to_owned()));
    let answer = match op {
        Some(line) => {
            assert!(head.contains("authorization: aws4-hmac-sha256") && head.contains("app/berth"), "{head}");
            let op = line.rsplit('.').next().unwrap().to_owned();
            let input: Value = serde_json::from_slice(&bytes[head_end..]).unwrap();
            seen.lock().unwrap().push((op.clone(), input.clone()));
            script(&op, &input)
        }
        None => Some(imds(head.split(' ').nth(1).unwrap_or_default())),
    };
    let Some((status, body)) = answer else { return };
    let reply = format!(
        "HTTP/1.1 {status} X\r\nconnection: close\r\nx-aws-ec2-metadata-token-ttl-seconds: 21600\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    // The client may have given up.
    drop(stream.write_all(reply.as_bytes()).await);
}

/// IMDS with a role.
fn imds(path: &str) -> (u16, String) {
    let body = match path {
        "/latest/api/token" => "token",
        "/latest/meta-data/iam/security-credentials/" => "role",
        "/latest/meta-data/iam/security-credentials/role" => {
            r#"{"Code":"Success","Type":"AWS-HMAC","AccessKeyId":"AKIDEXAMPLE","SecretAccessKey":"secret","Token":"session",
                "Expiration":"2199-01-01T00:00:00Z","LastUpdated":"2026-01-01T00:00:00Z"}"#
        }
        _ => return (404, "not here".into()),
    };
    (200, body.into())
}

fn refusal(code: &str, message: &str) -> Option<(u16, String)> {
    Some((400, json!({"__type": code, "message": message}).to_string()))
}

#[tokio::test]
async fn errors_of_the_wire_are_sorted() {
    type Sort = fn(&EcsErrorKind) -> bool;
    let table: [(&str, u16, Sort); 6] = [
        (r#"{"__type":"ThrottlingException","message":"Rate exceeded"}"#, 400, |k| {
            matches!(k, EcsErrorKind::Throttled(_))
        }),
        (r#"{"__type":"ServerException","message":"x"}"#, 500, |k| matches!(k, EcsErrorKind::Unavailable(_))),
        ("<html>Bad gateway</html>", 502, |k| matches!(k, EcsErrorKind::Unavailable(_))),
        ("<html>Welcome to the hotel</html>", 200, |k| matches!(k, EcsErrorKind::Unavailable(_))),
        (
            r#"{"__type":"com.amazonaws.ecs#ClusterNotFoundException","message":"Cluster not found."}"#,
            400,
            |k| *k == EcsErrorKind::ClusterNotFound("ClusterNotFoundException: Cluster not found.".into()),
        ),
        (r#"{"__type":"AccessDeniedException","message":"no"}"#, 400, |k| {
            matches!(k, EcsErrorKind::Unauthorized(_))
        }),
    ];
    for (body, status, sort) in table {
        let peer = peer(move |_, _| Some((status, body.to_owned()))).await;
        let error = peer.client.list_tasks("i").await.unwrap_err();
        assert!(sort(&error.kind), "{body}: {error:?}");
    }
}

#[tokio::test]
async fn a_peer_that_hangs_up_is_unavailable_after_a_second_attempt() {
    let peer = peer(|_, _| None).await;
    let error = peer.client.describe_instance("i").await.unwrap_err();
    assert!(matches!(error.kind, EcsErrorKind::Unavailable(_)), "{error:?}");
    assert_eq!(peer.calls.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn all_pages_of_a_listing_are_read() {
    let peer = peer(|_, input| {
        let next = input["nextToken"].as_str().map_or(0, |t| t.parse::<u32>().unwrap());
        let more = (next < 2).then(|| (next + 1).to_string());
        Some((
            200,
            json!({"taskArns": [arn(&next.to_string()).as_str(), "not an arn"], "nextToken": more})
                .to_string(),
        ))
    })
    .await;
    assert_eq!(peer.client.list_tasks("i").await.unwrap(), [arn("0"), arn("1"), arn("2")]);
    assert_eq!(peer.calls.lock().unwrap()[0].1["desiredStatus"], "RUNNING");
}

#[tokio::test]
async fn a_listing_without_end_is_not_taken_for_a_whole_one() {
    let peer = peer(|_, _| Some((200, json!({"taskArns": [], "nextToken": "again"}).to_string()))).await;
    assert!(matches!(peer.client.list_tasks("i").await.unwrap_err().kind, EcsErrorKind::Malformed(_)));
}

#[tokio::test]
async fn tasks_come_with_their_overrides_and_attachment_as_they_were_sent() {
    let peer = peer(|_, _| {
        let task = json!({
            "taskArn": arn("1").as_str(), "clusterArn": "c", "taskDefinitionArn": "d:1", "desiredStatus": "RUNNING", "lastStatus": "PENDING",
            "launchType": "EC2", "group": "family:web", "createdAt": 1767323045.5, "containers": [{"name": "app"}],
            "overrides": {"containerOverrides": [{"name": "app", "newMember": 1}]},
            "attachments": [{"id": "x", "type": "Service Connect"}, {"id": "a", "type": "ElasticNetworkInterface", "status": "PRECREATED",
                "details": [{"name": "subnetId", "value": "subnet-12345678"}]}],
        });
        Some((200, json!({"tasks": [task], "failures": [{"arn": arn("2").as_str(), "reason": "MISSING"}]}).to_string()))
    })
    .await;
    let tasks = peer.client.describe_tasks(&[arn("1"), arn("2")]).await.unwrap().tasks;
    let [task] = tasks.as_slice() else { panic!("{tasks:?}") };
    let overrides: Value = serde_json::from_slice(task.overrides.as_ref().unwrap()).unwrap();
    assert_eq!(overrides["containerOverrides"][0]["newMember"], 1);
    assert_eq!(task.attachment.as_ref().unwrap().id, "a");
    assert_eq!(task.created_at.unwrap().to_string(), "2026-01-02T03:04:05.5Z");
    assert_eq!(
        (task.group.as_deref(), task.containers.as_slice()),
        (Some("family:web"), ["app".to_owned()].as_slice())
    );
}

#[tokio::test]
async fn a_failure_that_is_not_missing_is_no_answer_about_the_task() {
    let peer = peer(|_, _| {
        Some((200, json!({"tasks": [], "failures": [{"arn": "x", "reason": "TIMEOUT"}]}).to_string()))
    })
    .await;
    let error = peer.client.describe_tasks(&[arn("1")]).await.unwrap_err();
    assert!(error.to_string().contains("x: TIMEOUT"), "{error}");
}

#[tokio::test]
async fn only_a_task_that_is_said_to_be_missing_is_missing() {
    let peer = peer(|_, _| {
        Some((200, json!({"tasks": [], "failures": [{"arn": arn("1"), "reason": "MISSING"}]}).to_string()))
    })
    .await;
    let said = peer.client.describe_tasks(&[arn("1"), arn("2")]).await.unwrap();
    assert_eq!((said.missing, said.tasks.len()), ([arn("1")].into(), 0));
}

#[tokio::test]
async fn a_definition_comes_byte_for_byte() {
    let peer =
        peer(|_, _| Some((200, r#"{"taskDefinition":{"family":"web", "newMember":[]},"tags":[]}"#.into())))
            .await;
    assert_eq!(
        peer.client.describe_task_definition("web:1").await.unwrap(),
        br#"{"family":"web", "newMember":[]}"#
    );
}

#[tokio::test]
async fn an_instance_that_is_missing_is_none_and_one_that_is_there_has_its_status() {
    let peer = peer(|_, input| {
        let there = input["containerInstances"][0] == "there";
        let instances = if there { json!([{"status": "DRAINING"}]) } else { json!([]) };
        let failures = if there { json!([]) } else { json!([{"arn": "x", "reason": "MISSING"}]) };
        Some((200, json!({"containerInstances": instances, "failures": failures}).to_string()))
    })
    .await;
    assert_eq!(peer.client.describe_instance("there").await.unwrap().as_deref(), Some("DRAINING"));
    assert_eq!(peer.client.describe_instance("gone").await.unwrap(), None);
    assert!(peer.client.set_instance_state("gone", true).await.is_err(), "a failure is not a success");
}

fn registration() -> Registration {
    Registration {
        container_instance_arn: Some("arn:aws:ecs:us-west-2:111122223333:container-instance/demo/1".into()),
        identity: IdentityDocument { document: "{}".into(), signature: "c2ln".into() },
        attributes: vec![("a".into(), None), ("b".into(), Some("1".into())), ("c".into(), Some("2".into()))],
        cpu: 2048,
        memory: 900,
        reserved_ports: vec![22],
        reserved_udp_ports: Vec::new(),
        tags: Vec::new(),
    }
}

#[tokio::test]
async fn a_registration_says_everything_and_hears_what_was_lost() {
    let peer = peer(|_, _| {
        let instance = json!({"containerInstanceArn": "arn:1", "attributes": [{"name": "b", "value": "1"}, {"name": "c", "value": "?"}]});
        Some((200, json!({"containerInstance": instance}).to_string()))
    })
    .await;
    let registered = peer.client.register(&registration()).await.unwrap();
    assert_eq!(
        (registered.container_instance_arn.as_str(), registered.lost_attributes),
        ("arn:1", vec!["c".to_owned()])
    );
    let calls = peer.calls.lock().unwrap();
    let (op, input) = &calls[0];
    assert_eq!(op, "RegisterContainerInstance");
    assert_eq!(input["cluster"], "demo");
    assert_eq!(input["instanceIdentityDocumentSignature"], "c2ln");
    assert_eq!(input["totalResources"][0]["integerValue"], 2048);
    assert_eq!(input["totalResources"][2]["type"], "STRINGSET");
    assert_eq!(input["totalResources"][2]["stringSetValue"], json!(["22"]));
    assert!(input.get("tags").is_none());
}

#[tokio::test]
async fn an_answer_without_an_arn_is_malformed() {
    let peer = peer(|_, _| Some((200, r#"{"containerInstance":{}}"#.into()))).await;
    assert!(matches!(
        peer.client.register(&registration()).await.unwrap_err().kind,
        EcsErrorKind::Malformed(_)
    ));
}

#[tokio::test]
async fn reports_are_sent_as_the_official_agent_sends_them() {
    let peer = peer(|_, _| Some((200, r#"{"acknowledgment":"ACK"}"#.into()))).await;
    let at: Timestamp = "2026-01-02T03:04:05.5Z".parse().unwrap();
    let container = ContainerNews {
        name: "app".into(),
        runtime_id: Some("f2".into()),
        image_digest: None,
        status: "STOPPED".into(),
        exit_code: Some(0),
        reason: None,
    };
    let news = TaskNews {
        status: "STOPPED".into(),
        reason: String::new(),
        pull_started_at: Some(at),
        pull_stopped_at: None,
        execution_stopped_at: None,
        containers: vec![container],
    };
    for news in [News::Attached { attachment: "arn:a".into() }, News::Task(news)] {
        let report = Report { task: arn("1"), cluster: "demo".into(), at, news };
        peer.client.submit(&report).await.unwrap();
    }
    let calls = peer.calls.lock().unwrap();
    let attached = json!({"cluster": "demo", "task": arn("1").as_str(), "attachments": [{"attachmentArn": "arn:a", "status": "ATTACHED"}]});
    assert_eq!(calls[0].1, attached);
    let container = json!({"containerName": "app", "runtimeId": "f2", "exitCode": 0, "networkBindings": [], "status": "STOPPED"});
    let stopped = json!({"cluster": "demo", "task": arn("1").as_str(), "status": "STOPPED", "reason": "", "containers": [container],
        "pullStartedAt": 1_767_323_045.5});
    assert_eq!(calls[1].1, stopped);
}

#[tokio::test]
async fn a_refused_report_says_of_which_task() {
    let peer = peer(|_, _| refusal("InvalidParameterException", "The task is stopped.")).await;
    let report = Report {
        task: arn("1"),
        cluster: "demo".into(),
        at: Timestamp::UNIX_EPOCH,
        news: News::Attached { attachment: "arn:a".into() },
    };
    let error = peer.client.submit(&report).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "submit state of {}: invalid parameter: InvalidParameterException: The task is stopped.",
            arn("1")
        )
    );
}

#[tokio::test]
async fn what_broke_a_connection_is_said_in_plain_words() {
    let hangs_up = peer(|_, _| None).await;
    let error = hangs_up.client.describe_tasks(&[arn("1")]).await.unwrap_err();
    let text = berth_types::Chain(&error).to_string();
    let expected = format!(
        "describe {}: no answer: the connection failed: connection closed before message completed",
        arn("1")
    );
    assert_eq!(text, expected);
    // Credentials come from the peer, and ECS is where nobody listens.
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client = elsewhere(&hangs_up, &format!("http://{nobody}"));
    let error = client.list_tasks("one").await.unwrap_err();
    let text = berth_types::Chain(&error).to_string();
    assert_eq!(text, "list tasks of one: no answer: the connection failed: connection refused");
}
