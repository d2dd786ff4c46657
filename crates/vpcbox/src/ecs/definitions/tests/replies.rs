//! What is answered to a registration that is taken.

use super::*;

#[test]
fn a_reply_says_what_was_given_and_what_ecs_adds() {
    let mut definitions = none();
    let input = with(
        pair(),
        &[
            ("containerDefinitions.0.portMappings", json!([{ "containerPort": 80 }])),
            ("containerDefinitions.0.unheardOf", json!(1)),
            ("containerDefinitions.0.user", Value::Null),
            ("tags", json!([{ "key": "team", "value": "red" }])),
        ],
    );
    let reply = register(&mut definitions, &input).unwrap();
    let container = |name: &str, essential: bool, ports: Value| {
        json!({
            "name": name, "image": "busybox:1", "memory": 64, "cpu": 0, "essential": essential, "environment": [],
            "mountPoints": [], "portMappings": ports, "systemControls": [], "volumesFrom": [],
        })
    };
    let port = json!([{ "containerPort": 80, "hostPort": 80, "protocol": "tcp" }]);
    let expected = json!({
        "taskDefinitionArn": format!("{PREFIX}web:1"), "family": "web", "revision": 1, "status": "ACTIVE",
        "networkMode": "awsvpc", "cpu": "256", "memory": "512", "volumes": [], "placementConstraints": [],
        "containerDefinitions": [container("app", true, port), container("side", false, json!([]))],
        "requiresAttributes": [
            { "name": "com.amazonaws.ecs.capability.docker-remote-api.1.18" },
            { "name": "ecs.capability.task-eni" },
        ],
        "compatibilities": ["EC2", "FARGATE"], "registeredAt": 1_800_000_000.0, "registeredBy": CALLER,
    });
    assert_eq!(reply["taskDefinition"], expected);
    assert_eq!(reply["tags"], json!([{ "key": "team", "value": "red" }]));

    let definition = definitions.find("web").unwrap();
    assert_eq!((definition.cpu, definition.memory), (Some(256), Some(512)));
    assert_eq!(definition.network_mode, "awsvpc");
    let containers: Vec<_> =
        definition.containers.iter().map(|c| (&*c.name, c.essential, c.memory)).collect();
    assert_eq!(containers, [("app", true, Some(64)), ("side", false, Some(64))]);
}

#[test]
fn sizes_are_kept_as_plain_numbers_however_they_are_written() {
    for (cpu, memory, expected) in [
        ("1 vCPU", "2GB", ("1024", "2048")),
        (".25vcpu", "0.5 gb", ("256", "512")),
        (" 512 ", "1024", ("512", "1024")),
        ("2 vcpu", "4.5 GB", ("2048", "4608")),
    ] {
        let document = registered(&with(pair(), &[("cpu", json!(cpu)), ("memory", json!(memory))]));
        let found = (document["cpu"].as_str().unwrap(), document["memory"].as_str().unwrap());
        assert_eq!(found, expected, "{cpu} {memory}");
    }
}

#[test]
fn a_definition_for_a_bridge_has_no_eni_and_lets_the_host_choose_ports() {
    let input = json!({
        "family": "old", "volumes": [{ "name": "scratch" }],
        "containerDefinitions": [{
            "name": "app", "image": "busybox", "memoryReservation": 32, "portMappings": [{ "containerPort": 53, "protocol": "udp" }],
            "mountPoints": [{ "sourceVolume": "scratch", "containerPath": "/tmp" }],
            "healthCheck": { "command": ["CMD", "true"] },
        }],
    });
    let document = registered(&input);
    assert_eq!(document.get("networkMode"), None);
    assert_eq!(document["compatibilities"], json!(["EXTERNAL", "EC2"]));
    assert_eq!(document["volumes"], json!([{ "name": "scratch", "host": {} }]));
    let container = &document["containerDefinitions"][0];
    assert_eq!(container["portMappings"], json!([{ "containerPort": 53, "hostPort": 0, "protocol": "udp" }]));
    assert_eq!(
        container["healthCheck"],
        json!({ "command": ["CMD", "true"], "interval": 30, "timeout": 5, "retries": 3 })
    );
}

#[test]
fn what_a_definition_uses_is_required_of_the_instance() {
    // The members that are set, and the ends of the attributes' names.
    let table = r#"
        {"taskRoleArn": "role"} | task-iam-role docker-remote-api.1.19
        {"taskRoleArn": "role", "networkMode": "host"} | task-iam-role-network-host
        {"executionRoleArn": "role", ".logConfiguration": {"logDriver": "awslogs", "options": {"awslogs-region": "r", "awslogs-group": "g"}}} | logging-driver.awslogs execution-role-awslogs
        {".logConfiguration": {"logDriver": "json-file"}} | logging-driver.json-file
        {".image": "1.dkr.ecr.us-west-2.amazonaws.com/app:1"} | ecr-auth
        {"executionRoleArn": "role", ".image": "1.dkr.ecr.us-west-2.amazonaws.com/app:1"} | ecr-auth execution-role-ecr-pull
        {"executionRoleArn": "role", ".secrets": [{"name": "A", "valueFrom": "parameter"}]} | secrets.ssm.environment-variables
        {"executionRoleArn": "role", ".secrets": [{"name": "A", "valueFrom": "arn:aws:secretsmanager:r:1:secret:a"}]} | secrets.asm.environment-variables
        {".privileged": true} | privileged-container
        {".memoryReservation": 32} | docker-remote-api.1.21
        {".stopTimeout": 5} | container-ordering
        {".dependsOn": [{"containerName": "side", "condition": "START"}]} | container-ordering
        {".healthCheck": {"command": ["CMD", "true"], "startPeriod": 1}} | container-health-check docker-remote-api.1.29
        {".linuxParameters": {"initProcessEnabled": true}} | docker-remote-api.1.25
        {".portMappings": [{"containerPortRange": "80-90"}]} | network.container-port-range
        {".restartPolicy": {"enabled": true}} | container-restart-policy
        {"pidMode": "task"} | pid-ipc-namespace-sharing
        {"enableFaultInjection": true} | fault-injection
        {"volumes": [{"name": "v", "efsVolumeConfiguration": {"fileSystemId": "fs-1", "transitEncryption": "ENABLED"}}]} | efs efsAuth
    "#;
    for row in table.lines().map(str::trim).filter(|row| !row.is_empty()) {
        let (changes, expected) = row.split_once(" | ").unwrap();
        let changes: serde_json::Map<String, Value> = serde_json::from_str(changes).unwrap();
        let mut input = pair();
        for (place, value) in changes {
            let place = place
                .strip_prefix('.')
                .map_or(place.clone(), |member| format!("containerDefinitions.0.{member}"));
            input = with(input, &[(&place, value)]);
        }
        let document = registered(&input);
        let names =
            document["requiresAttributes"].as_array().unwrap().iter().map(|a| a["name"].as_str().unwrap());
        let names: Vec<_> = names.collect();
        for end in expected.split(' ') {
            assert!(
                names.iter().any(|name| name.ends_with(&format!("capability.{end}"))),
                "{row}: {names:?}"
            );
        }
    }
}

#[test]
fn fargate_is_named_only_where_it_fits() {
    let compatibilities =
        |changes: &[(&str, Value)]| registered(&with(pair(), changes))["compatibilities"].clone();
    assert_eq!(compatibilities(&[]), json!(["EC2", "FARGATE"]));
    assert_eq!(compatibilities(&[("cpu", Value::Null)]), json!(["EC2"]));
    assert_eq!(compatibilities(&[("cpu", json!("300"))]), json!(["EC2"]));
    assert_eq!(compatibilities(&[("memory", json!("4096"))]), json!(["EC2"]));
    assert_eq!(compatibilities(&[("containerDefinitions.0.privileged", json!(true))]), json!(["EC2"]));
    let asked = registered(&with(pair(), &[("requiresCompatibilities", json!(["FARGATE"]))]));
    assert_eq!(asked["requiresCompatibilities"], json!(["FARGATE"]));
}
