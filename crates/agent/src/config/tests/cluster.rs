//! Settings of the control plane.

use super::*;
use berth_types::task::LogDriver;

#[test]
fn without_settings_the_node_belongs_to_the_default_cluster_of_ecs() {
    let control = from("").unwrap().control;
    assert_eq!(control.control_plane, ControlPlane::Ecs);
    assert!(control.default_cluster && control.endpoint.is_none() && !control.disable_privileged);
    assert_eq!(control.reserved_ports, [22, 2375, 2376, 51678, 51679]);
    assert_eq!((control.reserved_memory, control.reserved_udp_ports.len()), (0, 0));
    assert_eq!((control.poll_min, control.poll_max), (Duration::from_secs(1), Duration::from_secs(5)));
    assert_eq!(control.polls_per_minute, 100);
    assert_eq!(control.log_drivers, [LogDriver::JsonFile, LogDriver::None]);
    assert_eq!(control.os_family, "LINUX");
}

#[test]
fn everything_that_a_cluster_is_told_can_be_set() {
    let control = from(
        "ECS_CLUSTER=prod\nBERTH_CONTROL_PLANE=none\nECS_INSTANCE_ATTRIBUTES={\"rack\": \"a1\"}\n\
         ECS_CONTAINER_INSTANCE_TAGS={\"team\": \"web\"}\nECS_RESERVED_MEMORY=256\nECS_RESERVED_PORTS=[22, 8080]\n\
         ECS_RESERVED_PORTS_UDP=[53]\nECS_DISABLE_PRIVILEGED=true\nBERTH_POLL_MIN_INTERVAL=500ms\nBERTH_POLL_MAX_INTERVAL=1m\n\
         BERTH_POLLS_PER_MINUTE=30\nECS_DETAILED_OS_FAMILY=debian_12\n",
    )
    .unwrap()
    .control;
    assert_eq!(control.control_plane, ControlPlane::None);
    assert_eq!((control.attributes["rack"].as_str(), control.tags["team"].as_str()), ("a1", "web"));
    assert_eq!((control.reserved_memory, control.reserved_ports), (256, vec![22, 8080]));
    assert_eq!(control.reserved_udp_ports, [53]);
    assert!(control.disable_privileged && !control.default_cluster);
    assert_eq!((control.poll_min, control.poll_max), (Duration::from_millis(500), Duration::from_secs(60)));
    assert_eq!((control.polls_per_minute, control.os_family.as_str()), (30, "debian_12"));
}

#[test]
fn a_backend_host_has_a_scheme_or_gets_https() {
    for (host, url) in [
        ("127.0.0.1:4566", "https://127.0.0.1:4566"),
        ("http://127.0.0.1:4566", "http://127.0.0.1:4566"),
        ("https://ecs.example.com", "https://ecs.example.com"),
    ] {
        let control = from(&format!("ECS_BACKEND_HOST={host}")).unwrap().control;
        assert_eq!(control.endpoint.as_deref(), Some(url));
    }
}

#[test]
fn a_long_shortest_interval_makes_the_default_longest_one_longer() {
    let control = from("BERTH_POLL_MIN_INTERVAL=30s").unwrap().control;
    assert_eq!(control.poll_max, Duration::from_secs(30));
}

#[test]
fn log_drivers_that_are_not_served_are_left_out_with_a_warning() {
    let config =
        from("ECS_AVAILABLE_LOGGING_DRIVERS=[\"json-file\",\"syslog\",\"awslogs\",\"json-file\"]").unwrap();
    assert_eq!(config.control.log_drivers, [LogDriver::JsonFile]);
    assert_eq!(config.warnings.len(), 1);
    assert!(config.warnings[0].contains("syslog, awslogs"), "{}", config.warnings[0]);
}

#[test]
fn what_cannot_be_told_to_a_cluster_is_refused() {
    refused(&[
        ("BERTH_CONTROL_PLANE=swarm", "BERTH_CONTROL_PLANE (test.config line 1): is `swarm`", "ecs, none"),
        ("ECS_BACKEND_HOST=ftp://x", "ECS_BACKEND_HOST", "http://"),
        ("ECS_BACKEND_HOST=https://", "ECS_BACKEND_HOST", "a host"),
        ("ECS_INSTANCE_ATTRIBUTES={rack: a1}", "ECS_INSTANCE_ATTRIBUTES", "JSON object"),
        ("ECS_INSTANCE_ATTRIBUTES={\"rack\": 1}", "ECS_INSTANCE_ATTRIBUTES", "expected a string"),
        ("ECS_CONTAINER_INSTANCE_TAGS=[]", "ECS_CONTAINER_INSTANCE_TAGS", "JSON object"),
        ("ECS_RESERVED_MEMORY=65536", "ECS_RESERVED_MEMORY", "0 to 65535"),
        ("ECS_RESERVED_PORTS=22", "ECS_RESERVED_PORTS", "JSON list of ports"),
        ("ECS_RESERVED_PORTS=[0]", "ECS_RESERVED_PORTS", "1 to 65535"),
        ("ECS_RESERVED_PORTS_UDP=[70000]", "ECS_RESERVED_PORTS_UDP", "1 to 65535"),
        ("ECS_DISABLE_PRIVILEGED=no", "ECS_DISABLE_PRIVILEGED", "true or false"),
        (
            "ECS_AVAILABLE_LOGGING_DRIVERS=[\"json-file\",\"paper\"]",
            "ECS_AVAILABLE_LOGGING_DRIVERS",
            "journald",
        ),
        ("BERTH_POLL_MIN_INTERVAL=1ms", "BERTH_POLL_MIN_INTERVAL", "at least 100ms"),
        ("BERTH_POLL_MIN_INTERVAL=10s\nBERTH_POLL_MAX_INTERVAL=5s", "BERTH_POLL_MAX_INTERVAL", "not shorter"),
        ("BERTH_POLLS_PER_MINUTE=0", "BERTH_POLLS_PER_MINUTE", "10 to 6000"),
        ("ECS_DETAILED_OS_FAMILY=a b", "ECS_DETAILED_OS_FAMILY", "letters"),
    ]);
}
