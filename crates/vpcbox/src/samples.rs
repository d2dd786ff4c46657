//! A small VPC for the unit tests of several modules.

use crate::config::Config;
use std::path::Path;

/// One subnet, one instance; everything happens at once, and nothing is signed.
pub(crate) const ONE_INSTANCE: &str = r#"
name = "unittest"
region = "us-west-2"
account = "123456789012"
listen = "127.0.0.1:0"
auth = false
[operator]
access_key = "AKIDBOX"
secret_key = "secret"
[vpc]
cidr = "10.0.0.0/16"
[[subnet]]
id = "subnet-0123456789abcdef0"
name = "a"
zone = "us-west-2a"
cidr = "10.0.1.0/24"
[[security_group]]
name = "default"
[[instance]]
id = "i-0123456789abcdef0"
name = "one"
type = "m5.large"
subnet = "a"
security_groups = ["default"]
role = "node"
[delays]
attach_ms = 0
detach_ms = 0
link_ms = 0
"#;

/// The configuration of a text.
pub(crate) fn config(text: &str) -> Config {
    Config::parse(text, Path::new("vpc.toml")).unwrap()
}
