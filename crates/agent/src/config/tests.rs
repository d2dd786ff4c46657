//! What can be set, what is refused, and in which words.

mod cluster;
mod images;

use super::*;
use std::net::IpAddr;

fn from(text: &str) -> Result<Config, ConfigError> {
    let mut source = Source::default();
    source.add_lines(text, "test.config");
    Config::from_source(source)
}

#[test]
fn an_empty_file_gives_the_defaults() {
    let config = from("").unwrap();
    assert_eq!((config.cluster.as_str(), config.pool.warm, config.pool.mtu), ("default", 1, 9001));
    assert!(config.pool.block_imds);
    assert_eq!(config.paths.admin_socket, Path::new("/run/berth/admin.sock"));
}

#[test]
fn a_file_of_the_official_agent_is_read() {
    let config = from(
        "# my cluster\nECS_CLUSTER=arn:aws:ecs:us-west-2:111122223333:cluster/prod\nECS_CONTAINER_STOP_TIMEOUT=1m30s\n\
         ECS_AVAILABLE_LOGGING_DRIVERS=[\"json-file\"]\nECS_LOGLEVEL=debug\nHTTP_PROXY=http://proxy:3128\nECS_AWSVPC_BLOCK_IMDS=F\n\
         ECS_ENABLE_SPOT_INSTANCE_DRAINING=true\n",
    )
    .unwrap();
    assert_eq!(config.cluster, "arn:aws:ecs:us-west-2:111122223333:cluster/prod");
    assert_eq!(config.cluster_name.as_str(), "prod");
    assert_eq!(config.stop_timeout, Duration::from_secs(90));
    assert_eq!(config.log_level, tracing::Level::DEBUG);
    assert!(!config.pool.block_imds);
    assert_eq!(config.unused, ["ECS_ENABLE_SPOT_INSTANCE_DRAINING"]);
    assert_eq!(config.warnings, [] as [&str; 0]);
}

#[test]
fn the_settings_that_people_have_in_their_files_start() {
    // Collected from public user data scripts; what is not acted on is named once, and nothing of it is an error.
    let config = from(
        "AWS_DEFAULT_REGION=us-west-2\nECS_CLUSTER=builders\nECS_ENABLE_TASK_IAM_ROLE=true\nECS_ENABLE_TASK_IAM_ROLE_NETWORK_HOST=true\n\
         ECS_ENABLE_TASK_ENI=true\nECS_DATADIR=/data\nECS_LOGFILE=/log/ecs-agent.log\nECS_CONTAINER_START_TIMEOUT=15m\n\
         ECS_AVAILABLE_LOGGING_DRIVERS=[\"awslogs\",\"json-file\",\"journald\",\"logentries\",\"splunk\",\"syslog\"]\n\
         ECS_RESERVED_PORTS=[22, 2375, 2376, 51678, 51679]\nECS_ENGINE_TASK_CLEANUP_WAIT_DURATION=1m\nECS_IMAGE_CLEANUP_INTERVAL=10m\n\
         ECS_IMAGE_MINIMUM_CLEANUP_AGE=1m\nNON_ECS_IMAGE_MINIMUM_CLEANUP_AGE=1m\nECS_NUM_IMAGES_DELETE_PER_CYCLE=100\n\
         ECS_IMAGE_PULL_BEHAVIOR=always\nECS_IMAGE_PULL_INACTIVITY_TIMEOUT=60m\nECS_EXCLUDE_UNTRACKED_IMAGE=[\"alpine:latest\"]\n\
         ECS_CONTAINER_INSTANCE_PROPAGATE_TAGS_FROM=ec2_instance\nECS_CONTAINER_INSTANCE_TAGS={\"Name\": \"builder\"}\n\
         ECS_INSTANCE_ATTRIBUTES={\"stack\":\"prod\"}\nECS_TASK_METADATA_RPS_LIMIT=100,150\nECS_ENABLE_CONTAINER_METADATA=true\n\
         ECS_RESERVED_MEMORY=4096\nECS_LOGLEVEL=warn\nECS_ENGINE_AUTH_TYPE=\nECS_ENGINE_AUTH_DATA=\nDOCKER_HOST=unix:///var/run/docker.sock\n\
         NO_PROXY=169.254.169.254,169.254.170.2,/var/run/docker.sock\n",
    )
    .unwrap();
    assert_eq!((config.cluster.as_str(), config.region.as_deref()), ("builders", Some("us-west-2")));
    assert_eq!(config.images.cleanup.exclude, ["alpine:latest"]);
    assert!(config.unused.contains(&"ECS_ENABLE_TASK_IAM_ROLE".to_owned()), "{:?}", config.unused);
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
}

#[test]
fn lists_of_ids_are_parsed() {
    let config =
        from("BERTH_SUBNETS=subnet-12345678, subnet-abcdef01\nBERTH_DNS_SERVERS=[\"10.0.0.2\"]").unwrap();
    assert_eq!(config.pool.subnets.len(), 2);
    assert_eq!(config.pool.dns_servers, ["10.0.0.2".parse::<IpAddr>().unwrap()]);
}

#[test]
fn each_bad_value_names_its_key_its_line_and_what_was_expected() {
    let table = [
        (
            "BERTH_WARM_SLOTS=many",
            "BERTH_WARM_SLOTS (test.config line 1): is `many`",
            "whole number from 0 to 120",
        ),
        ("\nBERTH_WARM_SLOTS=-1", "test.config line 2", "whole number"),
        ("BERTH_MTU=100000", "BERTH_MTU", "1280 to 9001"),
        ("BERTH_LEASE_TIMEOUT=5", "BERTH_LEASE_TIMEOUT", "duration such as 30s"),
        ("ECS_CONTAINER_STOP_TIMEOUT=soon", "ECS_CONTAINER_STOP_TIMEOUT", "a duration such as 30s"),
        ("ECS_CLUSTER=a b", "ECS_CLUSTER", "a cluster name"),
        ("ECS_LOGLEVEL=loud", "ECS_LOGLEVEL", "crit, error, warn, info, debug"),
        ("ECS_AWSVPC_BLOCK_IMDS=maybe", "ECS_AWSVPC_BLOCK_IMDS", "true or false"),
        ("BERTH_SUBNETS=net-1", "BERTH_SUBNETS", "subnet-"),
        ("BERTH_RUN_DIR=run", "BERTH_RUN_DIR", "absolute path"),
        ("BERTH_EC2_ENDPOINT=localhost:1", "BERTH_EC2_ENDPOINT", "http://"),
        ("BERTH_CONTAINERD_NAMESPACE=a/b", "BERTH_CONTAINERD_NAMESPACE", "letters"),
        ("BERTH_WARM=1", "BERTH_WARM", "BERTH_WARM_SLOTS"),
        ("warm slots: 1", "test.config line 1", "KEY=VALUE"),
    ];
    refused(&table);
}

#[test]
fn all_problems_are_reported_at_once() {
    assert_eq!(from("BERTH_MTU=1\nBERTH_WARM_SLOTS=x\nnonsense").unwrap_err().0.len(), 3);
}

/// Every problem of a table's settings names its key and what was expected.
fn refused(table: &[(&str, &str, &str)]) {
    for (text, place, expected) in table {
        let error = from(text).expect_err(text).to_string();
        assert!(error.contains(place) && error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn the_environment_wins_over_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("berth.config");
    std::fs::write(&file, "BERTH_WARM_SLOTS=3\nECS_CLUSTER=file\n").unwrap();
    let environment = [("ECS_CLUSTER".into(), "env".into()), ("OTHER".into(), "x".into())];
    let config = Config::from_source(read(Some(&file), environment).unwrap()).unwrap();
    assert_eq!((config.cluster.as_str(), config.pool.warm), ("env", 3));
    let missing = read(Some(&dir.path().join("none")), []).unwrap_err().to_string();
    assert!(missing.contains("No such file"), "{missing}");
    std::fs::write(&file, [0xff, 0xfe]).unwrap();
    assert!(read(Some(&file), []).unwrap_err().to_string().contains("UTF-8"));
}

#[test]
fn durations_are_read_as_go_reads_them() {
    let table = [
        ("0", Some(0)),
        ("10s", Some(10_000)),
        ("1h30m", Some(5_400_000)),
        ("1.5h", Some(5_400_000)),
        ("300ms", Some(300)),
        ("5", None),
        ("", None),
        ("-1s", None),
        ("1d", None),
        ("2562047h", Some(9_223_369_200_000)),
        ("2562048h", None),
        ("s", None),
    ];
    for (text, millis) in table {
        assert_eq!(value::duration(text), millis.map(Duration::from_millis), "{text}");
    }
}
