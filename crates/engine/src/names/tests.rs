//! Names, labels, environment.

use super::*;
use crate::tests::fixtures::{config, container, task};

#[test]
fn docker_names_are_derived_and_plain() {
    let spec = task("t", vec![container("web_1")]);
    let name = docker_name(&spec, "web_1");
    assert!(
        name.starts_with("ecs-web-7-web1-") && name.len() == "ecs-web-7-web1-".len() + NAME_DIGITS,
        "{name}"
    );
    assert_eq!(name, docker_name(&spec, "web_1"));
    assert_ne!(name, docker_name(&spec, "web1"), "names that look alike are still two");
}

#[test]
fn the_agents_labels_win_over_the_users() {
    let mut web = container("web");
    web.docker_labels.insert("team".to_owned(), "blue".to_owned());
    web.docker_labels.insert("com.amazonaws.ecs.cluster".to_owned(), "mine".to_owned());
    let labels = labels(&task("t", vec![web.clone()]), &web);
    assert_eq!((labels["team"].as_str(), labels["com.amazonaws.ecs.cluster"].as_str()), ("blue", "demo"));
    assert_eq!(labels["com.amazonaws.ecs.task-definition-version"], "7");
    assert_eq!(labels.len(), 6);
}

#[test]
fn the_region_yields_to_the_task_and_the_metadata_urls_do_not() {
    let get =
        |env: &[(String, String)], name: &str| env.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let mut web = container("web");
    let mut config = config();
    config.environment =
        vec![("EXTRA".to_owned(), "agent".to_owned()), ("AWS_REGION".to_owned(), "other".to_owned())];
    let plain = environment(&config, &web);
    assert_eq!(get(&plain, "AWS_REGION").as_deref(), Some("us-west-2"));
    assert_eq!(get(&plain, "AWS_DEFAULT_REGION").as_deref(), Some("us-west-2"));
    assert_eq!(get(&plain, "EXTRA").as_deref(), Some("agent"));
    assert_eq!(get(&plain, "AWS_EXECUTION_ENV").as_deref(), Some("AWS_ECS_EC2"));
    assert_eq!(get(&plain, "ECS_AGENT_URI"), Some(format!("http://169.254.170.2/api/{}", web.endpoint_id)));

    config.environment.pop();
    for (name, value) in
        [("AWS_DEFAULT_REGION", "eu-west-1"), ("ECS_CONTAINER_METADATA_URI_V4", "mine"), ("EXTRA", "task")]
    {
        web.environment.push((name.to_owned(), value.to_owned()));
    }
    let own = environment(&config, &web);
    assert_eq!(
        (get(&own, "AWS_REGION"), get(&own, "AWS_DEFAULT_REGION"), get(&own, "EXTRA")),
        (None, None, None)
    );
    assert!(get(&own, "ECS_CONTAINER_METADATA_URI_V4").unwrap().starts_with("http://169.254.170.2/v4/"));
}

#[test]
fn the_eni_is_tagged_with_cluster_task_and_family() {
    let mut spec = task("t", vec![container("web")]);
    spec.network.tags.insert("own".to_owned(), "kept".to_owned());
    let needs = lease_needs(&spec);
    assert_eq!(
        (needs.tags[TAG_TASK].as_str(), needs.tags[TAG_CLUSTER].as_str()),
        (spec.arn.as_str(), "demo")
    );
    assert_eq!((needs.tags[TAG_FAMILY].as_str(), needs.tags["own"].as_str()), ("web", "kept"));
}

#[test]
fn logs_lie_under_the_task_whatever_the_container_is_called() {
    let path = log_path(&config(), &task("t", vec![container("../../etc")]), &container("../../etc"));
    assert_eq!(path, PathBuf::from("/nonexistent/berth/logs/t/_.._.._etc/_.._.._etc.log"));
}
