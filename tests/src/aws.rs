//! The AWS CLI, unmodified from PyPI, as a stranger would use it against the box (or against any other endpoint).

use crate::process::run;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The directory of the programs of a Python of the test's own: `aws` has the AWS CLI, `moto` has moto's server. Made when it is first
/// asked for; fails loudly when it cannot be.
pub fn python(which: &str) -> Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/python.sh");
    let printed = run(Command::new(script).arg(which)).context("make a Python with the AWS clients")?;
    Ok(PathBuf::from(printed.trim()))
}

/// The AWS CLI with an endpoint and somebody's keys.
#[derive(Debug, Clone)]
pub struct Aws {
    program: PathBuf,
    /// Of all services.
    pub endpoint: String,
    region: String,
    keys: (String, String),
    netns: Option<String>,
}

impl Aws {
    /// The CLI as its user would have it.
    pub fn new(endpoint: &str, region: &str, access_key: &str, secret_key: &str) -> Result<Self> {
        Ok(Self {
            program: python("aws")?.join("aws"),
            endpoint: endpoint.into(),
            region: region.into(),
            keys: (access_key.into(), secret_key.into()),
            netns: None,
        })
    }

    /// The same in a network namespace.
    #[must_use]
    pub fn within(&self, netns: &str) -> Self {
        Self { netns: Some(netns.into()), ..self.clone() }
    }

    /// The same with other keys.
    #[must_use]
    pub fn with_keys(&self, access_key: &str, secret_key: &str) -> Self {
        Self { keys: (access_key.into(), secret_key.into()), ..self.clone() }
    }

    /// Lines for a shell in which `aws` is then this client, and `berth` and `vpcbox` are the programs of this build.
    pub fn exports(&self) -> Result<Vec<String>> {
        let of =
            |program: &Path| program.parent().map(Path::to_path_buf).context("a program without a directory");
        let berth = crate::process::program("berth")?;
        Ok(vec![
            format!("export PATH={}:{}:$PATH", of(&self.program)?.display(), of(&berth)?.display()),
            format!("export AWS_ENDPOINT_URL={} AWS_DEFAULT_REGION={}", self.endpoint, self.region),
            format!("export AWS_ACCESS_KEY_ID={} AWS_SECRET_ACCESS_KEY={}", self.keys.0, self.keys.1),
            // The keys above are the box's; none of the machine's own are to be looked for.
            "export AWS_EC2_METADATA_DISABLED=true; unset AWS_SESSION_TOKEN AWS_PROFILE".into(),
        ])
    }

    /// A command of the CLI.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = match &self.netns {
            None => Command::new(&self.program),
            Some(netns) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", netns]).arg(&self.program);
                command
            }
        };
        command
            .args(["--endpoint-url", &self.endpoint, "--output", "json"])
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            // No settings of the machine's user.
            .env("HOME", "/nonexistent")
            .env("AWS_DEFAULT_REGION", &self.region)
            .env("AWS_ACCESS_KEY_ID", &self.keys.0)
            .env("AWS_SECRET_ACCESS_KEY", &self.keys.1)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command; its answer, `null` if it prints none.
    pub fn call(&self, args: &[&str]) -> Result<Value> {
        let printed = run(&mut self.command(args))?;
        if printed.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&printed).with_context(|| format!("read the answer of aws {args:?}: {printed}"))
    }

    /// Runs a command that is to be refused; what the CLI says then.
    pub fn refused(&self, args: &[&str]) -> Result<String> {
        let output = self.command(args).output()?;
        if output.status.success() {
            bail!("aws {args:?} was not refused: {}", String::from_utf8_lossy(&output.stdout));
        }
        Ok(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}
