//! Requests as they come over HTTP: signatures, knobs, faults.

use super::{control::KNOBS, *};
use crate::{
    knobs::Knobs,
    samples::{ONE_INSTANCE, config},
};

const CREATE: &str = "Action=CreateNetworkInterface&SubnetId=subnet-0123456789abcdef0&ClientToken=t";
const DESCRIBE: &str = "Action=DescribeNetworkInterfaces";

fn service(auth: bool) -> Service {
    let config = Config { auth, ..config(ONE_INSTANCE) };
    Service::new(config, "seed", Timestamp::now()).unwrap()
}

fn request(method: &str, path: &str, body: &str) -> Request<Full<Bytes>> {
    Request::builder().method(method).uri(path).body(Full::new(Bytes::from(body.to_owned()))).unwrap()
}

async fn ask(service: &Service, request: Request<Full<Bytes>>) -> Result<(StatusCode, String), ReplyLost> {
    let response = service.handle(Origin::Machine, request).await?;
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    Ok((status, String::from_utf8(body.to_vec()).unwrap()))
}

async fn call(service: &Service, body: &str) -> Result<(StatusCode, String), ReplyLost> {
    ask(service, request("POST", "/", body)).await
}

async fn turn(service: &Service, knobs: serde_json::Value) -> (StatusCode, String) {
    ask(service, request("POST", KNOBS, &knobs.to_string())).await.unwrap()
}

/// ENIs besides the instance's primary.
fn created(service: &Service) -> usize {
    service.inventory().enis.len() - 1
}

#[tokio::test]
async fn throttling_ends_after_the_calls_that_it_was_meant_for() {
    let service = service(false);
    turn(&service, serde_json::json!({ "throttle": 2 })).await;
    for _ in 0..2 {
        let (status, body) = call(&service, CREATE).await.unwrap();
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.contains("<Code>RequestLimitExceeded</Code>"));
    }
    assert_eq!(created(&service), 0);
    assert_eq!(call(&service, CREATE).await.unwrap().0, StatusCode::OK);
}

#[tokio::test]
async fn a_lost_reply_is_acted_on_and_its_repetition_finds_the_same_eni() {
    let service = service(false);
    turn(&service, serde_json::json!({ "lose_reply": [{ "action": "CreateNetworkInterface" }] })).await;
    assert_eq!(call(&service, DESCRIBE).await.unwrap().0, StatusCode::OK, "another action is not meant");
    assert_eq!(call(&service, CREATE).await, Err(ReplyLost));
    assert_eq!(created(&service), 1);
    assert_eq!(call(&service, CREATE).await.unwrap().0, StatusCode::OK);
    assert_eq!(created(&service), 1);
}

#[tokio::test]
async fn a_failure_has_the_code_it_was_given_and_acts_only_when_told() {
    let service = service(false);
    let fail = serde_json::json!({ "fail": [
        { "action": "CreateNetworkInterface", "code": "InsufficientFreeAddressesInSubnet" },
        { "action": "*", "code": "InternalError", "acts": true, "times": 1 },
    ] });
    turn(&service, fail).await;
    let (status, body) = call(&service, CREATE).await.unwrap();
    assert_eq!((status, created(&service)), (StatusCode::BAD_REQUEST, 0), "{body}");
    assert!(body.contains("<Code>InsufficientFreeAddressesInSubnet</Code>"));
    assert_eq!(call(&service, CREATE).await.unwrap().0, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(created(&service), 1, "it was created all the same");
}

#[tokio::test]
async fn knobs_are_all_turned_or_none() {
    let service = service(false);
    let bad = [
        serde_json::json!({ "attach_ms": 5, "link_ms": 3_600_001u64 }),
        serde_json::json!({ "attach_ms": 5, "fail": [{ "action": "MakeCoffee", "code": "x" }] }),
        serde_json::json!({ "attach_ms": 5, "pull": ["eni-00000000"] }),
        serde_json::json!({ "attach_ms": 5, "speed": 1 }),
    ];
    let before = service.inventory().knobs;
    for knobs in bad {
        let (status, body) = turn(&service, knobs).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    }
    assert_eq!(service.inventory().knobs, before);
    turn(&service, serde_json::json!({ "attach_ms": 5, "throttle": 9, "read_lag_ms": 50 })).await;
    let (_, body) = turn(&service, serde_json::json!({ "reset": true })).await;
    let after: Knobs = serde_json::from_str(&body).unwrap();
    assert_eq!((after.attach_ms, after.throttle, after.read_lag_ms), (Some(5), Some(0), Some(0)));
}

#[tokio::test]
async fn knobs_cannot_be_turned_from_inside_the_vpc() {
    let service = service(false);
    let response = service.handle(Origin::Vpc, request("POST", KNOBS, r#"{"throttle":9}"#)).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_eq!(service.inventory().knobs.throttle, Some(0));
}

#[tokio::test]
async fn an_unsigned_call_is_refused_when_signatures_are_checked() {
    let service = service(true);
    let (status, body) = call(&service, CREATE).await.unwrap();
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(body.contains("<Code>MissingAuthenticationToken</Code>"));
    assert_eq!(created(&service), 0);
}

#[tokio::test]
async fn get_and_post_are_the_same_call() {
    let service = service(false);
    let (status, _) = ask(&service, request("GET", &format!("/?{CREATE}"), "")).await.unwrap();
    assert_eq!((status, created(&service)), (StatusCode::OK, 1));
}

#[tokio::test]
async fn every_reply_names_its_request_and_its_type() {
    let service = service(false);
    let response = service.handle(Origin::Vpc, request("POST", "/", DESCRIBE)).await.unwrap();
    let id = response.headers()[REQUEST_ID].to_str().unwrap().to_owned();
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/xml;charset=UTF-8");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(uuid::Uuid::parse_str(&id).is_ok());
    assert!(String::from_utf8(body.to_vec()).unwrap().contains(&format!("<requestId>{id}</requestId>")));
}

async fn ecs(
    service: &Service,
    operation: &str,
    input: &str,
) -> Result<(StatusCode, serde_json::Value), ReplyLost> {
    let mut request = request("POST", "/", input);
    let target = format!("AmazonEC2ContainerServiceV20141113.{operation}");
    request.headers_mut().insert(TARGET, HeaderValue::from_str(&target).unwrap());
    let (status, body) = ask(service, request).await?;
    Ok((status, serde_json::from_str(&body).unwrap()))
}

#[tokio::test]
async fn behind_the_json_door_is_ecs_and_nobody_else() {
    let service = service(false);
    let (status, reply) = ecs(&service, "CreateCluster", r#"{"clusterName":"demo"}"#).await.unwrap();
    assert_eq!((status, reply["cluster"]["status"].as_str()), (StatusCode::OK, Some("ACTIVE")));
    for (operation, input, code) in [
        ("MakeCoffee", "{}", "UnknownOperationException"),
        ("ListTasks", "{", "SerializationException"),
        ("ListTasks", r#"{"cluster":1}"#, "SerializationException"),
        ("ListTasks", r#"{"cluster":"other"}"#, "ClusterNotFoundException"),
    ] {
        let (status, reply) = ecs(&service, operation, input).await.unwrap();
        assert_eq!((status, reply["__type"].as_str()), (StatusCode::BAD_REQUEST, Some(code)));
    }
    let (status, reply) = ecs(&self::service(true), "ListClusters", "{}").await.unwrap();
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert_eq!(reply["__type"], "MissingAuthenticationTokenException");
}

#[tokio::test]
async fn faults_of_ecs_leave_ec2_alone_and_the_other_way_round() {
    let service = service(false);
    turn(&service, serde_json::json!({ "throttle": 1, "ecs": { "throttle": 1 } })).await;
    let (_, reply) = ecs(&service, "ListClusters", "{}").await.unwrap();
    assert_eq!(reply["__type"], "ThrottlingException");
    assert_eq!(ecs(&service, "ListClusters", "{}").await.unwrap().0, StatusCode::OK);
    assert_eq!(call(&service, DESCRIBE).await.unwrap().0, StatusCode::SERVICE_UNAVAILABLE);
    let fail = serde_json::json!([{ "action": "ecs:*", "code": "ServerException" }]);
    turn(&service, serde_json::json!({ "fail": fail, "lose_reply": [{ "action": "CreateCluster" }] })).await;
    assert_eq!(call(&service, DESCRIBE).await.unwrap().0, StatusCode::OK);
    let (status, reply) = ecs(&service, "ListClusters", "{}").await.unwrap();
    assert_eq!((status, &reply["__type"]), (StatusCode::INTERNAL_SERVER_ERROR, &"ServerException".into()));
    assert_eq!(ecs(&service, "CreateCluster", "{}").await, Err(ReplyLost));
    let (_, reply) = ecs(&service, "ListClusters", "{}").await.unwrap();
    assert_eq!(reply["clusterArns"].as_array().map(Vec::len), Some(1), "it was created all the same");
}

#[tokio::test]
async fn an_outage_of_ecs_closes_connections_and_acts_on_nothing() {
    let service = service(false);
    turn(&service, serde_json::json!({ "ecs": { "outage": true } })).await;
    assert_eq!(ecs(&service, "CreateCluster", "{}").await, Err(ReplyLost));
    assert_eq!(call(&service, DESCRIBE).await.unwrap().0, StatusCode::OK);
    turn(&service, serde_json::json!({ "ecs": { "outage": false } })).await;
    let (_, reply) = ecs(&service, "ListClusters", "{}").await.unwrap();
    assert_eq!(reply["clusterArns"], serde_json::json!([]));
}

#[test]
fn an_identity_document_is_sealed_by_this_box_only() {
    let (one, other) = (service(true), service(true));
    let seal = one.seal("document");
    assert!(one.lock().keys.is_sealed("document", &seal));
    assert!(!one.lock().keys.is_sealed("another", &seal));
    assert!(!other.lock().keys.is_sealed("document", &seal));
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let body = "x".repeat(MAX_BODY + 1);
    let (status, body) = call(&service(false), &body).await.unwrap();
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(body.contains("RequestEntityTooLarge"));
}

#[tokio::test]
async fn a_call_of_a_json_api_that_is_malformed_is_refused_in_json() {
    let service = service(false);
    let (status, reply) = ecs(&service, "ListTasks", &"x".repeat(MAX_BODY + 1)).await.unwrap();
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(reply["__type"], "RequestEntityTooLargeException");
    let mut nameless = request("POST", "/", "{}");
    let kind = HeaderValue::from_static("application/x-amz-json-1.1");
    nameless.headers_mut().insert(header::CONTENT_TYPE, kind);
    let (status, body) = ask(&service, nameless).await.unwrap();
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let reply: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(reply["__type"], "UnknownOperationException");
}

#[test]
fn imds_credentials_are_keys_that_sign() {
    let service = service(true);
    let credentials = service.issue_credentials("i-0123456789abcdef0").unwrap();
    assert!(service.lock().keys.find(&credentials.access_key_id).is_some());
    assert!(service.issue_credentials("i-00000000").is_none());
}
