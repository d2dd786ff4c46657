//! Task definitions under a real client: boto3, signatures on, every reply read strictly against botocore's own model of ECS.

mod common;

use common::{Running, python};
use std::{path::PathBuf, process::Command};

fn python_with(script: &str) -> Command {
    let mut command = Command::new(python());
    command.arg("-B").arg(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/boto").join(script));
    command
}

#[allow(clippy::unwrap_used, reason = "a test helper that fails ends its test")]
fn said_by(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    out.into_owned()
}

#[test]
fn boto3_drives_task_definitions_and_every_reply_is_as_the_model_says() {
    let running = Running::start(true, 0);
    let status = running.file.with_file_name("ready.json");
    let said = said_by(python_with("definitions.py").arg(status));
    assert!(said.contains("9 operations, 3 errors"), "{said}");
}

#[test]
fn the_cli_registers_a_definition_and_shows_it() {
    let running = Running::start(true, 0);
    let aws = |arguments: &[&str]| {
        let mut command = python_with("aws_strict.py");
        command.args(["ecs", "--endpoint-url", running.endpoint(), "--region", "us-west-2"]).args(arguments);
        command
            .env("AWS_ACCESS_KEY_ID", "AKIDVPCBOXTEST")
            .env("AWS_SECRET_ACCESS_KEY", "a-secret/with+signs=");
        said_by(&mut command)
    };
    let container =
        r#"[{"name": "app", "image": "busybox", "memory": 16, "portMappings": [{"containerPort": 80}]}]"#;
    let registered = aws(&[
        "register-task-definition",
        "--family",
        "web",
        "--network-mode",
        "awsvpc",
        "--container-definitions",
        container,
    ]);
    assert!(registered.contains("task-definition/web:1"), "{registered}");
    let query = "taskDefinition.containerDefinitions[0].portMappings[0].hostPort";
    assert_eq!(aws(&["describe-task-definition", "--task-definition", "web", "--query", query]).trim(), "80");
    assert!(aws(&["list-task-definitions", "--family-prefix", "web"]).contains("task-definition/web:1"));
}

#[test]
fn the_checker_of_replies_finds_every_lie_that_is_put_before_it() {
    let said = said_by(&mut python_with("definitions_checker.py"));
    assert!(said.contains("23 lies found"), "{said}");
}
