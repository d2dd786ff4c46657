//! What is refused: a change to a definition that ECS takes, the exception's name, and a part of its message.

use super::*;

/// Registers a definition that ECS takes with one change after the other. A row is `PLACE | VALUE | PART OF THE MESSAGE`; a place
/// that begins with a dot is in the first container.
fn all_refused(base: &Value, code: &str, table: &str) {
    register(&mut none(), base).unwrap();
    for row in table.lines().map(str::trim).filter(|row| !row.is_empty()) {
        let [place, value, part] = row.splitn(3, " | ").collect::<Vec<_>>()[..] else { panic!("{row}") };
        let place =
            place.replacen('.', if place.starts_with('.') { "containerDefinitions.0." } else { "." }, 1);
        let value = serde_json::from_str(value).unwrap_or_else(|error| panic!("{row}: {error}"));
        refused(&with(base.clone(), &[(&place, value)]), code, part);
    }
}

fn refused(input: &Value, code: &str, part: &str) {
    let error = match register(&mut none(), input) {
        Ok(_) => panic!("{input} was taken, expected {part}"),
        Err(error) => error,
    };
    assert_eq!(error.code, code, "{input}: {error}");
    assert!(error.message.contains(part), "{input}: {error}, expected {part}");
}

#[test]
fn values_of_other_types_are_serialization_exceptions() {
    let table = r#"
        family | 1 | NUMBER_VALUE can not be converted to a String
        cpu | 256 | can not be converted to a String
        containerDefinitions | {} | can not be converted to a list
        containerDefinitions | [null] | NULL_VALUE
        .memory | "64" | STRING_VALUE can not be converted to an Integer
        .memory | 64.5 | DECIMAL_VALUE
        .memory | 2147483648 | range of an Integer
        .essential | "true" | can not be converted to a Boolean
        .command | ["a", 1] | can not be converted to a String
        .dockerLabels | {"a": 1} | can not be converted to a String
        .healthCheck | [] | can not be converted to a structure
        .restartPolicy | {"enabled": true, "ignoredExitCodes": ["1"]} | can not be converted to an Integer
    "#;
    all_refused(&pair(), "SerializationException", table);
}

#[test]
fn words_and_members_that_the_model_does_not_allow_are_refused() {
    let table = r#"
        networkMode | "overlay" | networkMode should be one of [bridge,host,awsvpc,none].
        requiresCompatibilities | ["LAMBDA"] | requiresCompatibilities should be one of [EC2,FARGATE
        pidMode | "pod" | pidMode should be one of
        ipcMode | "pod" | ipcMode should be one of
        runtimePlatform | {"cpuArchitecture": "Z80"} | cpuArchitecture should be one of [X86_64,ARM64].
        .portMappings | [{"containerPort": 1, "protocol": "sctp"}] | protocol should be one of [tcp,udp].
        .logConfiguration | {"logDriver": "paper"} | logDriver should be one of
        .logConfiguration | {} | LogConfiguration.logDriver should not be null or empty.
        .ulimits | [{"name": "patience", "softLimit": 1, "hardLimit": 1}] | name should be one of [core,cpu
        .ulimits | [{"name": "nofile", "softLimit": 1}] | Ulimit.hardLimit should not be null or empty.
        .dependsOn | [{"containerName": "side"}] | ContainerDependency.condition should not be null
        .dependsOn | [{"containerName": "side", "condition": "SOON"}] | condition should be one of
        .healthCheck | {} | HealthCheck.command should not be null or empty.
        volumes | [{"name": "v", "efsVolumeConfiguration": {}}] | EFSVolumeConfiguration.fileSystemId should not
    "#;
    all_refused(&pair(), "ClientException", table);
}

#[test]
fn tasks_that_make_no_sense_are_refused() {
    let table = r#"
        family | "" | Family can not be blank.
        family | null | Family can not be blank.
        family | "a b" | Family contains invalid characters.
        containerDefinitions | [] | Container list cannot be empty.
        containerDefinitions | null | Container list cannot be empty.
        .essential | false | at least one essential container
        .name | "side" | Container names must be unique: 'side'
        .name | "" | Container.name should not be null or empty.
        .name | "a.b" | Container.name contains invalid characters.
        .image | null | Container.image should not be null or empty.
        .image | "bus box" | Container.image contains invalid characters.
        taskRoleArn | "arn:aws:s3:::x" | Role is not valid
        executionRoleArn | "a role" | Role is not valid
        cpu | "127" | Invalid 'cpu' setting for task.
        cpu | "a lot" | Invalid 'cpu' setting for task.
        cpu | "vCPU" | Invalid 'cpu' setting for task.
        cpu | "1.00001 vCPU" | Invalid 'cpu' setting for task.
        memory | "1 TB" | Invalid 'memory' setting for task.
        memory | "99999999999999999999" | Invalid 'memory' setting for task.
        memory | "99999999999 GB" | Invalid 'memory' setting for task.
        memory | "100" | The sum of all container 'memory' values cannot be greater than the value of the task 'memory'.
        .cpu | 257 | The sum of all container 'cpu' values cannot be greater than the value of the task 'cpu'.
        placementConstraints | [{"type": "memberOf"}] | PlacementConstraint.expression should not be null or empty.
        proxyConfiguration | {"containerName": "ghost"} | 'ghost' of the proxyConfiguration does not exist
        ephemeralStorage | {"sizeInGiB": 30} | only supported for Fargate
        requiresCompatibilities | ["EXTERNAL"] | does not support networkMode awsvpc
    "#;
    all_refused(&pair(), "ClientException", table);
    let container = |n: u32| json!({ "name": format!("c{n}"), "image": "busybox", "memory": 6 });
    let many: Vec<Value> = (0..11).map(container).collect();
    refused(
        &with(pair(), &[("containerDefinitions", json!(many))]),
        "ClientException",
        "at most 10 containers",
    );
    let family = json!("x".repeat(256));
    refused(&with(pair(), &[("family", family)]), "ClientException", "Family contains invalid characters.");
    let command = json!(["x".repeat(70_000)]);
    let large = with(pair(), &[("containerDefinitions.0.command", command)]);
    refused(&large, "ClientException", "Max allowed length is '65536' bytes.");
}

#[test]
fn volumes_that_cannot_be_are_refused() {
    let table = r#"
        volumes | [{"name": ""}] | Volume.name should not be null or empty.
        volumes | [{"name": "a/b"}] | Volume.name contains invalid characters.
        volumes | [{"name": "v"}, {"name": "v"}] | Volume names must be unique: 'v'
        volumes | [{"name": "v", "host": {"sourcePath": ""}}] | host.sourcePath should not be blank.
        volumes | [{"name": "v", "host": {}, "dockerVolumeConfiguration": {}}] | at most one configuration
        volumes | [{"name": "v", "dockerVolumeConfiguration": {"autoprovision": true}}] | Autoprovision is only supported
        volumes | [{"name": "v", "efsVolumeConfiguration": {"fileSystemId": "x"}}] | Invalid 'fileSystemId' setting
        volumes | [{"name": "v", "efsVolumeConfiguration": {"fileSystemId": "fs-1", "transitEncryptionPort": 1}}] | must be enabled
        volumes | [{"name": "v", "efsVolumeConfiguration": {"fileSystemId": "fs-1", "authorizationConfig": {"iam": "ENABLED"}}}] | must be enabled
        .mountPoints | [{"sourceVolume": "v", "containerPath": "/v"}] | Unknown volume 'v'.
        .mountPoints | [{"containerPath": "/v"}] | Unknown volume 'null'.
        .volumesFrom | [{"sourceContainer": "ghost"}] | Unknown container 'ghost' in volumesFrom.
        .volumesFrom | [{"sourceContainer": "side"}, {"sourceContainer": "side"}] | names container 'side' more than once
        .volumesFrom | [{"sourceContainer": "app"}] | volumesFrom should not have a cycle
    "#;
    all_refused(&pair(), "ClientException", table);
    let one = with(pair(), &[("volumes", json!([{ "name": "v" }]))]);
    let table = r#"
        .mountPoints | [{"sourceVolume": "v"}] | MountPoint.containerPath should not be null or empty.
        .mountPoints | [{"sourceVolume": "v", "containerPath": "/v"}, {"sourceVolume": "v", "containerPath": "/v"}] | more than once
    "#;
    all_refused(&one, "ClientException", table);
}

#[test]
fn containers_that_make_no_sense_are_refused() {
    let table = r#"
        .memory | 5 | 'memory' must be at least 6 MiB.
        .memoryReservation | 65 | 'memory' must be greater than or equal to 'memoryReservation'.
        .memoryReservation | 0 | 'memoryReservation' must be at least 6 MiB.
        .cpu | -1 | Invalid 'cpu' setting for container 'app'.
        .links | ["side"] | Links are not supported when networkMode=awsvpc.
        .extraHosts | [{"hostname": "a", "ipAddress": "1.1.1.1"}] | Extra hosts are not supported when networkMode=awsvpc.
        .dnsServers | ["1.1.1.1"] | DNS servers and search domains are not supported when networkMode=awsvpc.
        .hostname | "a" | Hostnames are not supported when networkMode=awsvpc.
        .environment | [{"value": "b"}] | KeyValuePair.name should not be null or empty.
        .environmentFiles | [{"type": "s3", "value": "x.env"}] | must be the ARN
        .secrets | [{"name": "A", "valueFrom": "a"}] | When you are specifying container secrets, you must also specify a value for 'executionRoleArn'.
        .logConfiguration | {"logDriver": "awslogs", "options": {"awslogs-region": "r"}} | Log driver awslogs requires options: awslogs-group
        .logConfiguration | {"logDriver": "awslogs"} | Log driver awslogs requires options: awslogs-region, awslogs-group
        .logConfiguration | {"logDriver": "awsfirelens"} | one container has to have a firelensConfiguration object.
        .firelensConfiguration | {"type": "fluentbit"} | at least one container has to be configured with the awsfirelens log driver.
        .healthCheck | {"command": []} | HealthCheck.command should not be null or empty.
        .healthCheck | {"command": ["CMD", "true"], "interval": 4} | 'interval' must be between 5 and 300.
        .healthCheck | {"command": ["CMD", "true"], "timeout": 121} | 'timeout' must be between 2 and 120.
        .healthCheck | {"command": ["CMD", "true"], "retries": 11} | 'retries' must be between 1 and 10.
        .healthCheck | {"command": ["CMD", "true"], "startPeriod": 301} | 'startPeriod' must be between 0 and 300.
        .ulimits | [{"name": "nofile", "softLimit": 2, "hardLimit": 1}] | soft limit of ulimit 'nofile' must not be greater
        .ulimits | [{"name": "cpu", "softLimit": 1, "hardLimit": 1}, {"name": "cpu", "softLimit": 1, "hardLimit": 1}] | more than once
        .linuxParameters | {"capabilities": {"add": ["FLY"]}} | Unknown capability 'FLY'.
        .linuxParameters | {"swappiness": 101} | 'swappiness' must be between 0 and 100.
        .linuxParameters | {"tmpfs": [{"containerPath": "/t", "size": 0}]} | 'size' must be between 1
        .stopTimeout | -1 | 'stopTimeout' must be between 0
        .restartPolicy | {"enabled": true, "restartAttemptPeriod": 59} | 'restartAttemptPeriod' must be between 60 and 1800.
    "#;
    all_refused(&pair(), "ClientException", table);

    let file = json!({ "type": "s3", "value": "arn:aws:s3:::b/x.env" });
    let files = with(pair(), &[("containerDefinitions.0.environmentFiles", vec![file; 11].into())]);
    refused(&files, "ClientException", "At most 10 environment files");

    let alone = with(pair(), &[("memory", Value::Null), ("cpu", Value::Null)]);
    let table = ".memory | null | Invalid setting for container 'app'. At least one of 'memory' or 'memoryReservation' must be specified.";
    all_refused(&alone, "ClientException", table);

    let variable = ("containerDefinitions.0.environment", json!([{ "name": "A" }]));
    let role = with(pair(), &[("executionRoleArn", json!("role")), variable]);
    let table = r#".secrets | [{"name": "A", "valueFrom": "a"}] | on the container, such as 'A'."#;
    all_refused(&role, "ClientException", table);
}

#[test]
fn ports_that_cannot_be_are_refused() {
    let table = r#"
        .portMappings | [{"hostPort": 80}] | Invalid 'containerPort' setting for container 'app'.
        .portMappings | [{"containerPort": 0}] | Invalid 'containerPort' setting for container 'app'.
        .portMappings | [{"containerPort": 65536}] | Invalid 'containerPort' setting for container 'app'.
        .portMappings | [{"containerPort": 80, "hostPort": 65536}] | Invalid 'hostPort' setting for container 'app'.
        .portMappings | [{"containerPort": 80, "hostPort": 81}] | When networkMode=awsvpc, the host ports and container ports in port mappings must match.
        .portMappings | [{"containerPort": 80, "hostPort": 0}] | the host ports and container ports in port mappings must match.
        .portMappings | [{"containerPort": 80}, {"containerPort": 80}] | TCP host port '80' is mapped multiple times in task.
        .portMappings | [{"containerPortRange": "80-70"}] | Invalid 'containerPortRange' setting for container 'app'.
        .portMappings | [{"containerPortRange": "80-90", "hostPort": 1}] | 'containerPortRange' excludes
        .portMappings | [{"containerPortRange": "80-90"}, {"containerPort": 85}] | TCP host port '85' is mapped multiple times
        .portMappings | [{"containerPort": 80, "name": "a b"}] | Port mapping name of container 'app' contains invalid characters.
        .portMappings | [{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}] | 'a' is used more than once
    "#;
    all_refused(&pair(), "ClientException", table);
    let ports = "containerDefinitions.0.portMappings";
    let many = vec![json!({ "containerPort": 80 }); 101];
    refused(&with(pair(), &[(ports, many.into())]), "ClientException", "At most 100 port mappings");

    let other = with(pair(), &[("containerDefinitions.1.portMappings", json!([{ "containerPort": 80 }]))]);
    let table = r#".portMappings | [{"containerPort": 80}] | mapped multiple times in task."#;
    all_refused(&other, "ClientException", table);
    let udp = json!([{ "containerPort": 80, "protocol": "udp" }]);
    register(&mut none(), &with(other, &[(ports, udp)])).unwrap();
    let bridge = json!([{ "containerPort": 80 }, { "containerPort": 80, "hostPort": 0 }, { "containerPort": 80, "hostPort": 8080 }]);
    register(&mut none(), &with(pair(), &[("networkMode", Value::Null), (ports, bridge)])).unwrap();
}

#[test]
fn containers_that_wait_for_what_never_comes_are_refused() {
    let table = r#"
        .dependsOn | [{"containerName": "ghost", "condition": "START"}] | Cannot depend on container + 'ghost' because it does not exist
        .dependsOn | [{"containerName": "app", "condition": "START"}] | A container cannot depend on itself.
        .dependsOn | [{"containerName": "side", "condition": "HEALTHY"}] | must have a healthCheck: 'side'
        containerDefinitions.1.dependsOn | [{"containerName": "app", "condition": "SUCCESS"}] | SUCCESS or COMPLETE condition cannot be an essential container
        containerDefinitions.1.dependsOn | [{"containerName": "app", "condition": "COMPLETE"}] | cannot be an essential container
    "#;
    all_refused(&pair(), "ClientException", table);
    let waits = json!([{ "containerName": "side", "condition": "SUCCESS" }]);
    let waits = with(pair(), &[("containerDefinitions.0.dependsOn", waits)]);
    let table = r#"containerDefinitions.1.dependsOn | [{"containerName": "app", "condition": "START"}] | should not have a cycle"#;
    all_refused(&waits, "ClientException", table);

    let linked = ("containerDefinitions.0.links", json!(["side:s"]));
    let bridge = with(pair(), &[("networkMode", Value::Null), linked]);
    let table = r#"
        containerDefinitions.1.links | ["ghost"] | Cannot link to container 'ghost'
        containerDefinitions.1.links | ["app"] | Container links should not have a cycle
    "#;
    all_refused(&bridge, "ClientException", table);
}

#[test]
fn what_fargate_does_not_run_is_refused_when_fargate_is_asked_for() {
    let fargate = with(pair(), &[("requiresCompatibilities", json!(["EC2", "FARGATE"]))]);
    let table = r#"
        networkMode | "host" | Fargate only supports network mode ‘awsvpc’.
        cpu | null | Fargate requires that 'cpu' be defined at the task level.
        memory | null | Fargate requires that 'memory' be defined at the task level.
        cpu | "300" | No Fargate configuration exists for given values.
        memory | "600" | No Fargate configuration exists for given values.
        memory | "4 GB" | No Fargate configuration exists for given values.
        ipcMode | "task" | Tasks using the Fargate launch type do not support ipcMode.
        pidMode | "host" | do not support pidMode 'host'
        ephemeralStorage | {"sizeInGiB": 20} | between 21 and 200 GiB
        volumes | [{"name": "v", "host": {"sourcePath": "/x"}}] | do not support host paths
        .privileged | true | do not support privileged containers
        .logConfiguration | {"logDriver": "syslog"} | Fargate does not support log driver syslog.
        .logConfiguration | {"logDriver": "awslogs", "options": {"awslogs-region": "r", "awslogs-group": "g"}} | Fargate requires task definition to have execution role ARN to support log driver awslogs.
        .image | "1.dkr.ecr.r.amazonaws.com/a" | Fargate requires task definition to have execution role ARN to support ECR images.
        .stopTimeout | 121 | 'stopTimeout' must be between 0 and 120.
        .linuxParameters | {"swappiness": 1} | do not support swappiness
    "#;
    all_refused(&fargate, "ClientException", table);
}

#[test]
fn tags_that_aws_does_not_take_are_refused() {
    let table = r#"
        tags | [] | Tags can not be empty.
        tags | [{"key": ""}] | key
        tags | [{"key": "aws:x", "value": ""}] | aws:
        tags | [{"key": "k", "value": ""}, {"key": "k", "value": ""}] | Duplicate tag keys found
    "#;
    all_refused(&pair(), "InvalidParameterException", table);
    let many: Vec<Value> = (0..51).map(|n| json!({ "key": format!("k{n}"), "value": "" })).collect();
    for (tags, part) in [
        (json!(many), "50"),
        (json!([{ "key": "k".repeat(129), "value": "" }]), "128"),
        (json!([{ "key": "k", "value": "v".repeat(257) }]), "256"),
    ] {
        refused(&with(pair(), &[("tags", tags)]), "InvalidParameterException", part);
    }
}
