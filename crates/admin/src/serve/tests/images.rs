//! Images and pulls over the API.

use super::*;
use crate::samples::pull;

#[tokio::test]
async fn images_are_listed_with_their_pulls_and_removed_by_name() {
    let node = node().await;
    let active = vec![pull("docker.io/library/x:latest")];
    node.pulls.send_replace(Arc::new(PullsSnapshot { version: 1, active, ended: vec![] }));
    let (status, list) = node.call("GET", "/v1/images", "").await;
    assert_eq!(status, 200);
    assert_eq!(list["images"][0]["containers"], json!(1));
    assert_eq!(list["pulls"]["active"][0]["blobsDone"], json!(3));
    assert_eq!(node.call("GET", "/v1/pulls", "").await.1, list["pulls"]);
    for (path, status, text) in [
        ("/v1/images?name=docker.io/library/used:1", 409, "1 container"),
        ("/v1/images?name=none", 404, "none"),
        ("/v1/images", 400, "name"),
    ] {
        let (got, answer) = node.call("DELETE", path, "").await;
        let message = answer["error"]["message"].as_str().unwrap();
        assert_eq!(got, status, "{path}: {answer}");
        assert!(message.contains(text), "{path}: {message}");
    }
    assert_eq!(node.call("DELETE", "/v1/images?name=old", "").await.0, 204);
}

#[tokio::test]
async fn a_task_shows_the_pull_of_its_image() {
    let node = node().await;
    let id = node.run().await.rsplit('/').next().unwrap().to_owned();
    let active = vec![pull("docker.io/library/other:latest"), pull("docker.io/library/x:latest")];
    node.pulls.send_replace(Arc::new(PullsSnapshot { version: 1, active, ended: vec![] }));
    let (_, task) = node.call("GET", &format!("/v1/tasks/{id}"), "").await;
    for container in 0..2 {
        assert_eq!(
            task["containers"][container]["pull"]["reference"],
            json!("docker.io/library/x:latest"),
            "{task}"
        );
    }
    node.call("POST", &format!("/v1/tasks/{id}/stop"), "").await;
    let (_, task) = node.call("GET", &format!("/v1/tasks/{id}"), "").await;
    assert!(task["containers"][0]["pull"].is_null(), "{task}");
}
