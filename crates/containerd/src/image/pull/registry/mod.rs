//! What a registry can be asked, by the OCI distribution protocol: which digest a tag has, a manifest, a blob from some byte on.
//!
//! ```text
//!  head, manifest, blob ──► ask ──401──► token (challenge, credentials) ──► ask again, once
//!                            └──► http (connections, TLS, redirects)
//! ```
//!
//! Nothing here tries again and nothing trusts: every body that is taken into memory has a limit, blobs are handed on frame by frame.

mod http;
mod token;

use self::{
    http::{Http, is_loopback},
    token::{Challenge, Remembered},
};
use super::{
    auth::Login,
    config::PullConfig,
    failure::{Failure, legible},
};
use crate::{
    error::Fault,
    image::{content::MAX_DOCUMENT, documents::is_digest},
    reference::{DOCKER_HUB, Parts},
};
use ::http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, RANGE, RETRY_AFTER, USER_AGENT},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use std::time::Duration;
use tokio::time::timeout;

/// Manifests that we can make something of. Those of schema 1 are not asked for; a registry that has nothing else sends them all the
/// same, and is then told so by name.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("berth/", env!("CARGO_PKG_VERSION")));
/// Texts of failures and answers of token services: tokens of 4 KB have been seen.
const MAX_TEXT: usize = 64 << 10;
/// A registry that asks for more patience than this is not given it.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);

/// A place in a registry that manifests and blobs are asked from.
#[derive(Debug, Clone)]
pub(super) struct Repository {
    /// `scheme://host/v2/path`.
    base: String,
    /// The path alone, as tokens are asked for.
    path: String,
    /// The registry as users write it.
    pub(super) registry: String,
    plain: bool,
    login: Option<Login>,
}

impl Repository {
    pub(super) fn new(parts: &Parts, config: &PullConfig) -> Result<Self, Fault> {
        let invalid = |_| Fault::Invalid(format!("`{}` is not a registry", parts.registry));
        let host =
            if DOCKER_HUB.contains(&&*parts.registry) { "registry-1.docker.io" } else { &parts.registry };
        let authority: ::http::uri::Authority = host.parse().map_err(invalid)?;
        let near = is_loopback(&authority) && authority.port_u16() != Some(443);
        let plain = near || config.insecure_registries.iter().any(|insecure| insecure == &parts.registry);
        let scheme = if plain { "http" } else { "https" };
        Ok(Self {
            base: format!("{scheme}://{authority}/v2/{}", parts.repository),
            path: parts.repository.clone(),
            registry: parts.registry.clone(),
            plain,
            login: config.auth.login(parts).cloned(),
        })
    }

    /// What an operator may want to know of a refusal.
    pub(super) fn hint(&self, failure: &Failure) -> &'static str {
        match failure {
            Failure::Answer { status: StatusCode::UNAUTHORIZED, .. } if self.login.is_none() => {
                " (no credentials are set for this registry)"
            }
            _ => "",
        }
    }
}

/// What a tag points at, by a registry's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) digest: String,
    pub(super) media_type: String,
}

/// A manifest as it came.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) bytes: Bytes,
    pub(super) media_type: String,
    /// The digest that the registry says it has.
    pub(super) said: Option<String>,
}

/// A blob on its way.
#[derive(Debug)]
pub(super) struct Download {
    /// Where in the blob the first byte belongs: what was asked for, or 0 where the registry knows no ranges.
    pub(super) start: u64,
    body: Incoming,
}

impl Download {
    /// The next bytes; `None` at the end.
    pub(super) async fn next(&mut self, patience: Duration) -> Result<Option<Bytes>, Failure> {
        loop {
            let frame = timeout(patience, self.body.frame()).await.map_err(|_| Failure::Stalled(patience))?;
            match frame {
                None => return Ok(None),
                Some(Err(e)) => return Err(Failure::broken(&e)),
                // Trailers are passed over.
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }
}

/// All registries; one for the whole agent, so that connections and tokens are shared.
#[derive(Debug)]
pub(super) struct Registries {
    http: Http,
    remembered: Remembered,
}

impl Registries {
    pub(super) fn new() -> Self {
        Self { http: Http::new(), remembered: Remembered::default() }
    }

    /// Which digest a tag has; `None` where the registry does not tell by this way and must be asked for the manifest.
    pub(super) async fn head(&self, at: &Repository, tag: &str) -> Result<Option<Head>, Failure> {
        let answer = self.ask(at, &Method::HEAD, &format!("manifests/{tag}"), accept(MANIFESTS)).await?;
        if !answer.status().is_success() {
            // The answer to a HEAD has no text; the one to a GET says why.
            return Ok(None);
        }
        let digest = header(answer.headers(), &CONTENT_DIGEST).filter(|d| is_digest(d));
        Ok(digest.map(|digest| Head { digest, media_type: media_type(answer.headers()) }))
    }

    /// A manifest by tag or digest. Its bytes are not checked here.
    pub(super) async fn manifest(&self, at: &Repository, wanted: &str) -> Result<Received, Failure> {
        let answer = self.ask(at, &Method::GET, &format!("manifests/{wanted}"), accept(MANIFESTS)).await?;
        let answer = checked(answer).await?;
        let (said, media_type) = (header(answer.headers(), &CONTENT_DIGEST), media_type(answer.headers()));
        let limit = usize::try_from(MAX_DOCUMENT).unwrap_or(usize::MAX);
        let bytes = collect(answer.into_body(), limit).await?.ok_or_else(|| {
            Failure::Unusable(format!("the manifest is larger than {} MiB", MAX_DOCUMENT >> 20))
        })?;
        Ok(Received { bytes, media_type, said })
    }

    /// A blob from some byte on.
    pub(super) async fn blob(&self, at: &Repository, digest: &str, offset: u64) -> Result<Download, Failure> {
        let mut headers = accept("*/*");
        if offset > 0 {
            let range = HeaderValue::try_from(format!("bytes={offset}-"));
            headers.extend(range.ok().map(|range| (RANGE, range)));
        }
        let answer = self.ask(at, &Method::GET, &format!("blobs/{digest}"), headers).await?;
        if offset > 0 && answer.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            let text = format!("the registry says that it has no more than {offset} bytes of it");
            return Err(Failure::Unusable(text));
        }
        let answer = checked(answer).await?;
        let start = match answer.status() {
            StatusCode::PARTIAL_CONTENT => range_start(answer.headers())
                .ok_or_else(|| Failure::Unusable("the registry sent a part and did not say which".into()))?,
            _ => 0,
        };
        if start != 0 && start != offset {
            let text =
                format!("the registry sent bytes from {start} on and was asked for those from {offset} on");
            return Err(Failure::Unusable(text));
        }
        Ok(Download { start, body: answer.into_body() })
    }

    /// One question, asked again once as somebody if it may not be asked as nobody.
    async fn ask(
        &self,
        at: &Repository,
        method: &Method,
        path: &str,
        mut headers: HeaderMap,
    ) -> Result<Response<Incoming>, Failure> {
        let text = format!("{}/{path}", at.base);
        let target: Uri = text.parse().map_err(|_| Failure::Unusable(format!("`{text}` is not a URL")))?;
        headers.insert(USER_AGENT, AGENT);
        if let Some(authorization) = self.remembered.get(&at.base) {
            headers.insert(AUTHORIZATION, authorization);
        }
        let answer = self.http.send(method, &target, headers.clone()).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let Some(challenge) = Challenge::of(answer.headers()) else { return Ok(answer) };
        let Some(lasting) = self.authorize(at, &challenge).await? else { return Ok(answer) };
        headers.insert(AUTHORIZATION, lasting.0.clone());
        let answer = self.http.send(method, &target, headers).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            self.remembered.put(&at.base, lasting);
        }
        Ok(answer)
    }

    /// What meets the challenge; `None` if nothing that we have does.
    async fn authorize(
        &self,
        at: &Repository,
        challenge: &Challenge,
    ) -> Result<Option<token::Lasting>, Failure> {
        let (realm, service, scope) = match challenge {
            Challenge::Basic => return Ok(at.login.as_ref().and_then(token::basic)),
            Challenge::Bearer { realm, service, scope } => (realm, service.as_deref(), scope.clone()),
        };
        let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", at.path));
        let target = token::address(realm, service, &scope, at.plain)
            .map_err(|why| Failure::Unusable(why.to_owned()))?;
        let mut headers = accept("application/json");
        headers.insert(USER_AGENT, AGENT);
        headers.extend(at.login.as_ref().and_then(Login::basic).map(|basic| (AUTHORIZATION, basic)));
        let answer = checked(self.http.send(&Method::GET, &target, headers).await?).await;
        let answer = answer.map_err(|failure| match failure {
            Failure::Answer { status, text, retry_after } => {
                let host = target.host().unwrap_or_default();
                Failure::Answer { status, text: format!("no token from {host}: {text}"), retry_after }
            }
            other => other,
        })?;
        let body = collect(answer.into_body(), MAX_TEXT).await?.unwrap_or_default();
        let token = token::read(&body);
        token.map(Some).ok_or_else(|| Failure::Unusable("the registry's token service sent no token".into()))
    }
}

fn accept(types: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(types))])
}

fn header(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// `Content-Type` without its parameters.
fn media_type(headers: &HeaderMap) -> String {
    let text = header(headers, &CONTENT_TYPE).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().to_owned()
}

/// The first byte of `Content-Range: bytes 5-9/10`.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    header(headers, &CONTENT_RANGE)?.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}

/// The answer if it is one of success, else what it says.
async fn checked(answer: Response<Incoming>) -> Result<Response<Incoming>, Failure> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let seconds = header(answer.headers(), &RETRY_AFTER).and_then(|text| text.trim().parse().ok());
    let retry_after = seconds.map(|s| Duration::from_secs(s).min(MAX_RETRY_AFTER));
    // What cannot be read does not change what the status says.
    let body = collect(answer.into_body(), MAX_TEXT).await.ok().flatten().unwrap_or_default();
    Err(Failure::answer(status, &body, retry_after))
}

/// A whole body; `None` if it is larger than allowed.
async fn collect(mut body: Incoming, limit: usize) -> Result<Option<Bytes>, Failure> {
    if body.size_hint().lower() > limit as u64 {
        return Ok(None);
    }
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(|e| Failure::broken(&e))?.into_data() {
            if bytes.len() + data.len() > limit {
                return Ok(None);
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(Some(bytes.freeze()))
}

/// A media type as people may read it.
pub(super) fn shown(media_type: &str) -> String {
    if media_type.is_empty() { "no type".to_owned() } else { legible(media_type) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(reference: &str, insecure: &[&str]) -> String {
        let insecure_registries = insecure.iter().map(|&s| s.to_owned()).collect();
        let config = PullConfig { insecure_registries, ..PullConfig::default() };
        Repository::new(&Parts::of(reference).unwrap(), &config).unwrap().base
    }

    #[test]
    fn only_loopback_and_what_is_named_so_is_spoken_to_without_tls() {
        assert_eq!(base("busybox", &[]), "https://registry-1.docker.io/v2/library/busybox");
        assert_eq!(base("10.0.0.1:5000/web", &[]), "https://10.0.0.1:5000/v2/web");
        assert_eq!(base("10.0.0.1:5000/web", &["10.0.0.1:5000"]), "http://10.0.0.1:5000/v2/web");
        assert_eq!(base("10.0.0.1:5000/web", &["10.0.0.1"]), "https://10.0.0.1:5000/v2/web");
        assert_eq!(base("localhost:5000/a/b", &[]), "http://localhost:5000/v2/a/b");
        assert_eq!(base("127.0.0.1:443/web", &[]), "https://127.0.0.1:443/v2/web");
    }

    #[test]
    fn the_start_of_a_part_is_read() {
        let start = |text: &'static str| {
            range_start(&HeaderMap::from_iter([(CONTENT_RANGE, HeaderValue::from_static(text))]))
        };
        assert_eq!(start("bytes 5-9/10"), Some(5));
        assert_eq!(start("bytes 5-9/*"), Some(5));
        assert_eq!(start("items 5-9/10"), None);
        assert_eq!(start("bytes */10"), None);
    }
}
