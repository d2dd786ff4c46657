//! Where EC2 and IMDS are and how long they may take; makes the SDK's clients.

use crate::failure;
use aws_config::{
    environment::EnvironmentVariableCredentialsProvider,
    imds::{self, credentials::ImdsCredentialsProvider},
    meta::credentials::CredentialsProviderChain,
    provider_config::ProviderConfig,
};
use aws_sdk_ec2::config::{AppName, BehaviorVersion, Region};
use aws_smithy_http_client::{Builder as HttpBuilder, tls};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_types::{retry::RetryConfig, timeout::TimeoutConfig};
use berth_types::ports::{CloudError, CloudErrorKind};
use std::time::Duration;

/// Longest wait for one call's answer. EC2 answers in 0.1 to 3 s; under pressure it throttles rather than stalls.
pub const DEFAULT_CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest wait for a connection: within a region it takes milliseconds, two lost SYNs cost three seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// Longest wait for one answer of IMDS, which is on this host.
const IMDS_TIMEOUT: Duration = Duration::from_secs(2);
/// Attempts of a read of IMDS: it drops requests when it is asked too fast.
const IMDS_ATTEMPTS: u32 = 3;
/// Attempts of a read of EC2: the second one hides a connection that went stale in the pool.
const READ_ATTEMPTS: u32 = 2;
/// Connections kept for the next call. Calls come a few at a time, and each idle TLS connection holds tens of kilobytes.
const IDLE_CONNECTIONS: usize = 2;
/// How long they are kept: EC2 closes idle connections after about a minute.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// Where the cloud is. What is not given is found as the AWS SDKs find it.
#[derive(Debug, Clone)]
pub struct Ec2Config {
    /// EC2's URL; the region's public endpoint unless given.
    pub ec2_endpoint: Option<String>,
    /// IMDS's URL; `AWS_EC2_METADATA_SERVICE_ENDPOINT`, else 169.254.169.254 unless given.
    pub imds_endpoint: Option<String>,
    /// The region; `AWS_REGION`, `AWS_DEFAULT_REGION`, else the instance's own unless given.
    pub region: Option<String>,
    /// Longest wait for one call's answer.
    pub call_timeout: Duration,
}

impl Default for Ec2Config {
    fn default() -> Self {
        Self { ec2_endpoint: None, imds_endpoint: None, region: None, call_timeout: DEFAULT_CALL_TIMEOUT }
    }
}

impl Ec2Config {
    /// Makes the clients' common parts; refuses endpoints that are no HTTP URLs.
    pub(crate) fn check(&self) -> Result<(), CloudError> {
        for (name, endpoint) in [("EC2 endpoint", &self.ec2_endpoint), ("IMDS endpoint", &self.imds_endpoint)]
        {
            let Some(endpoint) = endpoint else { continue };
            let rest = endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://"));
            if rest.is_none_or(|rest| rest.is_empty() || rest.contains(char::is_whitespace)) {
                let reason = "an http:// or https:// URL is expected".to_string();
                return Err(failure::error(
                    "use",
                    format!("{name} `{endpoint}`"),
                    CloudErrorKind::Refused(reason),
                ));
            }
        }
        Ok(())
    }

    /// The IMDS client. IMDS speaks plain HTTP, so no trust store is read for it.
    pub(crate) fn imds_client(&self) -> Result<imds::Client, CloudError> {
        let provider = provider_config(plain_http());
        let mut builder = imds::Client::builder()
            .configure(&provider)
            .max_attempts(IMDS_ATTEMPTS)
            .connect_timeout(IMDS_TIMEOUT)
            .read_timeout(IMDS_TIMEOUT)
            .operation_attempt_timeout(IMDS_TIMEOUT)
            .operation_timeout(IMDS_TIMEOUT * IMDS_ATTEMPTS);
        if let Some(endpoint) = &self.imds_endpoint {
            builder = builder.endpoint(endpoint).map_err(|source| CloudError {
                op: "use",
                target: format!("IMDS endpoint `{endpoint}`"),
                kind: CloudErrorKind::Refused("it is not a URL".into()),
                source: Some(source),
            })?;
        }
        Ok(builder.build())
    }

    /// The region that is configured or in the environment.
    pub(crate) fn known_region(&self) -> Option<String> {
        let from_environment = || {
            ["AWS_REGION", "AWS_DEFAULT_REGION"]
                .iter()
                .filter_map(|name| std::env::var(name).ok())
                .find(|region| !region.is_empty())
        };
        self.region.clone().or_else(from_environment)
    }

    /// The EC2 client. Acts get one attempt; reads ask for more by [`read_overrides`].
    pub(crate) fn ec2_client(&self, region: String, imds: imds::Client) -> aws_sdk_ec2::Client {
        let http = match &self.ec2_endpoint {
            Some(endpoint) if endpoint.starts_with("http://") => plain_http(),
            _ => https(),
        };
        let credentials =
            CredentialsProviderChain::first_try("environment", EnvironmentVariableCredentialsProvider::new())
                .or_else("instance role", ImdsCredentialsProvider::builder().imds_client(imds).build());
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .operation_attempt_timeout(self.call_timeout)
            .operation_timeout(self.call_timeout * READ_ATTEMPTS)
            .build();
        let mut config = aws_sdk_ec2::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(http)
            .region(Region::new(region))
            .credentials_provider(credentials)
            .timeout_config(timeouts)
            .retry_config(RetryConfig::disabled());
        config.set_app_name(AppName::new("berth").ok());
        config.set_endpoint_url(self.ec2_endpoint.clone());
        aws_sdk_ec2::Client::from_conf(config.build())
    }
}

/// What a read asks for beyond the client's settings.
pub(crate) fn read_overrides() -> aws_sdk_ec2::config::Builder {
    aws_sdk_ec2::Config::builder().retry_config(RetryConfig::standard().with_max_attempts(READ_ATTEMPTS))
}

fn provider_config(http: SharedHttpClient) -> ProviderConfig {
    ProviderConfig::without_region().with_http_client(http)
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
