//! Makes the SDK's client: where ECS is, who we are there, how long a call may take. The same choices as for EC2 in `crates/ec2`; the
//! two crates see no common sibling, and neither SDK's types would fit the other.

use crate::{
    config::EcsConfig,
    failure,
    port::{EcsError, EcsErrorKind},
};
use aws_config::{
    environment::EnvironmentVariableCredentialsProvider,
    imds::{self, credentials::ImdsCredentialsProvider},
    meta::credentials::CredentialsProviderChain,
    provider_config::ProviderConfig,
};
use aws_sdk_ecs::config::{AppName, BehaviorVersion, Region};
use aws_smithy_http_client::{Builder as HttpBuilder, tls};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_types::{retry::RetryConfig, timeout::TimeoutConfig};
use std::time::Duration;

/// Longest wait for one attempt of a call. ECS answers in 0.05 to 1 s.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// Attempts of a call: the second one hides a connection that went stale in the pool. The loops above do the rest.
const ATTEMPTS: u32 = 2;
/// Longest wait for a connection: within a region it takes milliseconds, two lost SYNs cost three seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// Longest wait for one answer of IMDS, which is on this host.
const IMDS_TIMEOUT: Duration = Duration::from_secs(2);
/// Attempts of a read of IMDS: it drops requests when it is asked too fast.
const IMDS_ATTEMPTS: u32 = 3;
/// Connections kept for the next call: one for the poller, one for the outbox.
const IDLE_CONNECTIONS: usize = 2;
/// How long they are kept: past the longest interval between polls, less than ECS's own minute.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// The client.
pub(super) fn client(config: &EcsConfig, instance_region: &str) -> Result<aws_sdk_ecs::Client, EcsError> {
    let endpoint = config.endpoint.as_deref().map(endpoint).transpose()?;
    let plain = endpoint.as_ref().is_some_and(|url| url.starts_with("http://"));
    let region = known_region(config).unwrap_or_else(|| instance_region.to_owned());
    let imds = imds_client(config.imds_endpoint.as_deref())?;
    let credentials =
        CredentialsProviderChain::first_try("environment", EnvironmentVariableCredentialsProvider::new())
            .or_else("instance role", ImdsCredentialsProvider::builder().imds_client(imds).build());
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .operation_timeout(ATTEMPT_TIMEOUT * ATTEMPTS)
        .build();
    let mut builder = aws_sdk_ecs::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(if plain { plain_http() } else { https() })
        .region(Region::new(region))
        .credentials_provider(credentials)
        .timeout_config(timeouts)
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS));
    builder.set_app_name(AppName::new("berth").ok());
    builder.set_endpoint_url(endpoint);
    Ok(aws_sdk_ecs::Client::from_conf(builder.build()))
}

/// The endpoint as a URL. The official agent takes a bare host name for HTTPS.
fn endpoint(given: &str) -> Result<String, EcsError> {
    let url = if given.contains("://") { given.to_owned() } else { format!("https://{given}") };
    let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    if host.is_none_or(|host| host.is_empty() || host.contains(char::is_whitespace)) {
        let reason = "a host or an http:// or https:// URL is expected".to_owned();
        return Err(failure::error("use", format!("ECS endpoint `{given}`"), EcsErrorKind::Refused(reason)));
    }
    Ok(url)
}

fn known_region(config: &EcsConfig) -> Option<String> {
    let from_environment = || {
        ["AWS_REGION", "AWS_DEFAULT_REGION"]
            .iter()
            .filter_map(|name| std::env::var(name).ok())
            .find(|region| !region.is_empty())
    };
    config.region.clone().or_else(from_environment)
}

/// The IMDS client, for the instance role. IMDS speaks plain HTTP, so no trust store is read for it.
fn imds_client(endpoint: Option<&str>) -> Result<imds::Client, EcsError> {
    let provider = ProviderConfig::without_region().with_http_client(plain_http());
    let mut builder = imds::Client::builder()
        .configure(&provider)
        .max_attempts(IMDS_ATTEMPTS)
        .connect_timeout(IMDS_TIMEOUT)
        .read_timeout(IMDS_TIMEOUT)
        .operation_attempt_timeout(IMDS_TIMEOUT)
        .operation_timeout(IMDS_TIMEOUT * IMDS_ATTEMPTS);
    if let Some(endpoint) = endpoint {
        builder = builder.endpoint(endpoint).map_err(|source| EcsError {
            op: "use",
            target: format!("IMDS endpoint `{endpoint}`"),
            kind: EcsErrorKind::Refused("it is not a URL".into()),
            source: Some(source),
        })?;
    }
    Ok(builder.build())
}

fn plain_http() -> SharedHttpClient {
    HttpBuilder::new().pool_max_idle_per_host(IDLE_CONNECTIONS).pool_idle_timeout(IDLE_TIMEOUT).build_http()
}

/// The trust store is read when the first connection is made.
fn https() -> SharedHttpClient {
    HttpBuilder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .build_https()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_without_a_scheme_is_https() {
        assert_eq!(endpoint("ecs.example.com").unwrap(), "https://ecs.example.com");
        assert_eq!(endpoint("http://127.0.0.1:9").unwrap(), "http://127.0.0.1:9");
        for wrong in ["", "ftp://x", "http://", "a b"] {
            assert!(endpoint(wrong).is_err(), "{wrong}");
        }
    }
}
