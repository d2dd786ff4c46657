//! The node in its cluster, as the API shows it.

use super::*;
use berth_types::cluster::WaitingReports;

#[tokio::test]
async fn a_node_is_drained_and_activated_again() {
    let node = node().await;
    let (status, before) = node.call("GET", "/v1/cluster", "").await;
    assert_eq!((status, &before["status"], &before["controlPlane"]), (200, &json!("ACTIVE"), &json!("ecs")));
    let (status, drained) = node.call("POST", "/v1/drain", "").await;
    assert_eq!((status, &drained["status"]), (200, &json!("DRAINING")));
    let (status, active) = node.call("POST", "/v1/activate", "").await;
    assert_eq!((status, &active["status"]), (200, &json!("ACTIVE")));
}

#[tokio::test]
async fn a_node_without_a_control_plane_says_so() {
    let node = node_with(false).await;
    let (status, view) = node.call("GET", "/v1/cluster", "").await;
    assert_eq!((status, &view["controlPlane"]), (200, &json!("none")));
    let (status, answer) = node.call("POST", "/v1/drain", "").await;
    assert_eq!(status, 409);
    assert!(answer["error"]["message"].as_str().unwrap().contains("BERTH_CONTROL_PLANE"), "{answer}");
    assert_eq!(node.call("GET", "/v1/health", "").await.1["warnings"], json!([]));
}

#[tokio::test]
async fn an_outage_of_the_control_plane_is_a_warning_and_the_node_stays_healthy() {
    let node = node().await;
    let arn: TaskArn = node.run().await.parse().unwrap();
    let waiting = WaitingReports {
        task: arn.clone(),
        reports: 2,
        since: at(0),
        attempts: 3,
        problem: Some("connection refused".into()),
    };
    let reports = ReportsSnapshot { waiting: vec![waiting], ..Default::default() };
    node.plane.reports.send_replace(Arc::new(reports));
    let out = ClusterSnapshot { problem: Some("no answer".into()), ..Default::default() };
    node.plane.cluster.send_replace(Arc::new(out));

    let (status, health) = node.call("GET", "/v1/health", "").await;
    assert_eq!((status, &health["healthy"]), (200, &json!(true)));
    let warnings = health["warnings"].to_string();
    for expected in ["not registered in cluster demo", "no answer", "connection refused"] {
        assert!(warnings.contains(expected), "{warnings}");
    }
    let (status, answer) = node.call("POST", "/v1/drain", "").await;
    assert_eq!((status, &answer["error"]["message"]), (503, &json!("no answer")));
    let (_, task) = node.call("GET", &format!("/v1/tasks/{}", arn.id()), "").await;
    assert_eq!(task["reports"]["waiting"], json!(2));
    assert_eq!(task["reports"]["problem"], json!("connection refused"));
    assert_eq!(task["origin"]["by"], json!("OPERATOR"));
    assert_eq!(node.call("GET", "/v1/cluster", "").await.1["reports"][0]["attempts"], json!(3));
}
