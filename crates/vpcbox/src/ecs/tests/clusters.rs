//! Clusters.

use super::*;

#[test]
fn a_cluster_is_created_once_whatever_it_is_created_with() {
    let mut site = Site::new();
    let tags = json!([{ "key": "team", "value": "red" }]);
    let first = site.ok("CreateCluster", json!({ "clusterName": "prod", "tags": tags }));
    assert_eq!(first["cluster"]["clusterArn"], "arn:aws:ecs:us-west-2:123456789012:cluster/prod");
    let again = site.ok("CreateCluster", json!({ "clusterName": "prod" }));
    assert_eq!(again["cluster"]["tags"], tags);
    assert_eq!(site.ok("CreateCluster", json!({}))["cluster"]["clusterName"], "default");
    let listed = site.ok("ListClusters", json!({}));
    assert_eq!(listed["clusterArns"].as_array().unwrap().len(), 3, "with the configuration's own");
}

#[test]
fn a_cluster_that_is_not_there_is_a_failure_and_not_an_error() {
    let mut site = Site::new();
    let reply = site.ok("DescribeClusters", json!({ "clusters": ["demo", "other"] }));
    assert_eq!(reply["clusters"][0]["clusterName"], "demo");
    let arn = "arn:aws:ecs:us-west-2:123456789012:cluster/other";
    assert_eq!(reply["failures"], json!([{ "arn": arn, "reason": "MISSING" }]));
}

#[test]
fn a_cluster_in_use_stays_and_a_deleted_one_takes_no_calls() {
    let (mut site, instance) = Site::ready();
    let task = site.run();
    let delete = || json!({ "cluster": "demo" });
    let error = site.refused("DeleteCluster", delete());
    assert_eq!(error.code, "ClusterContainsContainerInstancesException");
    site.ok(
        "DeregisterContainerInstance",
        json!({ "cluster": "demo", "containerInstance": instance, "force": true }),
    );
    assert_eq!(site.task(&task)["lastStatus"], "STOPPED");
    assert_eq!(site.ok("DeleteCluster", delete())["cluster"]["status"], "INACTIVE");
    let error = site.refused("ListTasks", json!({ "cluster": "demo" }));
    assert_eq!(error.message, "The referenced cluster was inactive.");
    assert_eq!(site.ok("ListClusters", json!({}))["clusterArns"], json!([]));
    assert_eq!(site.ok("CreateCluster", json!({ "clusterName": "demo" }))["cluster"]["status"], "ACTIVE");
}

#[test]
fn every_kind_of_resource_carries_tags() {
    let (mut site, instance) = Site::ready();
    let task = site.run();
    let cluster = "arn:aws:ecs:us-west-2:123456789012:cluster/demo".to_owned();
    let definition = "arn:aws:ecs:us-west-2:123456789012:task-definition/web:1".to_owned();
    for arn in [cluster, instance, task, definition] {
        let tags = json!([{ "key": "a", "value": "1" }, { "key": "b", "value": "2" }]);
        site.ok("TagResource", json!({ "resourceArn": arn, "tags": tags }));
        assert_eq!(site.ok("ListTagsForResource", json!({ "resourceArn": arn }))["tags"], tags, "{arn}");
        site.ok("UntagResource", json!({ "resourceArn": arn, "tagKeys": ["a"] }));
        let left = site.ok("ListTagsForResource", json!({ "resourceArn": arn }));
        assert_eq!(left["tags"], json!([{ "key": "b", "value": "2" }]));
    }
    let nothing = json!({ "resourceArn": "arn:aws:ecs:us-west-2:123456789012:task/demo/none" });
    assert_eq!(site.refused("ListTagsForResource", nothing.clone()).code, "InvalidParameterException");
    assert_eq!(site.refused("UntagResource", nothing).code, "ResourceNotFoundException");
    let reserved = json!({ "resourceArn": "x", "tags": [{ "key": "aws:x", "value": "" }] });
    assert_eq!(site.refused("TagResource", reserved).code, "InvalidParameterException");
}

#[test]
fn a_cluster_shows_its_settings_and_statistics_to_those_who_ask() {
    let (mut site, _) = Site::ready();
    site.run();
    let with = |value: &str| json!({ "clusterName": value, "settings": [{ "name": "containerInsights", "value": value }] });
    let made = site.ok("CreateCluster", with("enhanced"));
    assert_eq!(made["cluster"]["settings"][0]["value"], "enhanced");
    assert_eq!(site.refused("CreateCluster", with("loud")).code, "InvalidParameterException");
    let unknown = json!({ "clusterName": "x", "settings": [{ "name": "volume", "value": "enabled" }] });
    assert_eq!(site.refused("CreateCluster", unknown).code, "InvalidParameterException");
    let bare = site.ok("DescribeClusters", json!({ "clusters": ["demo"] }));
    assert_eq!(
        (&bare["clusters"][0]["settings"], &bare["clusters"][0]["statistics"]),
        (&json!([]), &json!([]))
    );
    let all = json!({ "clusters": ["demo"], "include": ["SETTINGS", "STATISTICS"] });
    let all = site.ok("DescribeClusters", all);
    assert_eq!(all["clusters"][0]["settings"][0]["value"], "disabled");
    let pending = json!({ "name": "pendingEC2TasksCount", "value": "1" });
    assert!(all["clusters"][0]["statistics"].as_array().unwrap().contains(&pending), "{all}");
}

#[test]
fn a_tag_has_only_characters_that_the_model_allows_and_is_found_in_its_own_cluster_only() {
    let (mut site, instance) = Site::ready();
    let tag = |arn: &str, key: &str, value: &str| json!({ "resourceArn": arn, "tags": [{ "key": key, "value": value }] });
    site.ok("TagResource", tag(&instance, "Größe 漢字_.:/=+-@7", "a b"));
    for (key, value) in [("a#", "v"), ("a", "<v>"), ("tab\t", "v"), ("a", "😀"), ("a\n", "")] {
        let error = site.refused("TagResource", tag(&instance, key, value));
        assert!(error.message.contains("invalid characters"), "{key:?} {value:?}: {error}");
    }
    let elsewhere = instance.replace("/demo/", "/other/");
    assert_eq!(site.refused("TagResource", tag(&elsewhere, "a", "b")).code, "ResourceNotFoundException");
    let short = instance.replace("/demo/", "/");
    site.ok("TagResource", tag(&short, "old", "form"));
}
