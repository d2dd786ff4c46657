//! ECS under real clients: boto3 and the AWS CLI as they come from PyPI, signatures on, every reply read strictly against botocore's
//! own model of ECS, with an agent in an instance that signs with the credentials of its IMDS.

mod common;

use common::{Running, VPCBOX, python};
use std::{path::PathBuf, process::Command};

/// Runs a script against a box of its own; what it said.
#[allow(clippy::unwrap_used, reason = "a test helper that fails ends its test")]
fn said_by(script: &str) -> String {
    let python = python();
    let running = Running::start(true, 0);
    let status = running.file.with_file_name("ready.json");
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/boto").join(script);
    let output = Command::new(python).arg("-B").arg(script).arg(status).arg(VPCBOX).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    out.into_owned()
}

#[test]
fn boto3_drives_every_operation_and_every_reply_is_as_the_model_says() {
    let said = said_by("ecs.py");
    // The agent makes the other three of the thirty: it registers, reports its tasks, and reads their definitions.
    assert!(said.contains("27 operations, 8 errors"), "{said}");
}

#[test]
fn a_task_runs_and_stops_under_the_aws_cli_and_its_waiters() {
    assert!(said_by("ecs_cli.py").contains("a task ran and was stopped"));
}
