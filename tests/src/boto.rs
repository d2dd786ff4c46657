//! boto3, unmodified from PyPI, as a long-lived child: for tests that make more calls than the AWS CLI, which takes most of a second for
//! each, could.

use crate::aws::python;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// What the child runs.
const SCRIPT: &str = include_str!("boto.py");

/// The child. Dropped, it is killed.
#[derive(Debug)]
pub struct Boto {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Boto {
    /// Clients with somebody's keys.
    pub fn start(endpoint: &str, region: &str, access_key: &str, secret_key: &str) -> Result<Self> {
        let mut child = Command::new(python("aws")?.join("python"))
            .args(["-c", SCRIPT, endpoint, region, access_key, secret_key])
            .env("HOME", "/nonexistent")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start python with boto3")?;
        let (to, from) = (child.stdin.take(), child.stdout.take());
        let (to, from) = to.zip(from).context("the child has no pipes")?;
        Ok(Self { child, to, from: BufReader::new(from) })
    }

    /// `boto3.client(SERVICE).OPERATION(**ARGUMENTS)`.
    pub fn call(&mut self, service: &str, operation: &str, arguments: &Value) -> Result<Value> {
        let call = json!([service, operation, arguments]);
        writeln!(self.to, "{call}").with_context(|| format!("ask boto3 for {operation}"))?;
        let mut line = String::new();
        self.from.read_line(&mut line).with_context(|| format!("hear boto3's answer to {operation}"))?;
        let mut answer: Value =
            serde_json::from_str(&line).with_context(|| format!("read boto3's answer to {operation}"))?;
        match answer.get("error") {
            Some(error) => bail!("{operation} {arguments}: {error}"),
            None => Ok(answer["ok"].take()),
        }
    }
}

impl Drop for Boto {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
