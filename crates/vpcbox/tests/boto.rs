//! The API under a real client: boto3, signatures on, every reply read strictly against botocore's own model of EC2.

mod common;

use common::{Running, python};
use std::{path::PathBuf, process::Command};

fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/boto").join(name)
}

#[allow(clippy::unwrap_used, reason = "a test helper that fails ends its test")]
fn passed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    out.into_owned()
}

#[test]
fn boto3_drives_every_action_and_every_reply_is_as_the_model_says() {
    let python = python();
    let running = Running::start(true, 1000);
    let status = running.file.with_file_name("ready.json");
    let said = passed(Command::new(python).args(["-B"]).arg(script("drive.py")).arg(status));
    assert!(said.contains("16 actions"), "{said}");
}

#[test]
fn an_agent_in_an_instance_signs_with_the_credentials_of_its_imds() {
    let python = python();
    let running = Running::start(true, 0);
    let local = format!("http://127.0.0.1:{}", running.port());
    let router = format!("http://10.0.1.1:{}", running.port());
    for endpoint in [local, router] {
        let script = script("in_instance.py");
        let command = [python.to_str().unwrap(), "-B", script.to_str().unwrap(), &endpoint];
        assert_eq!(running.exec("one", &command).trim(), "2", "through {endpoint}");
    }
}
