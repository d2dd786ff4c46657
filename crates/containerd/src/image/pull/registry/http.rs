//! HTTP to registries: connections, TLS with the platform's roots, the proxy of the environment, redirects.
//!
//! hyper and not the crate `oci-client`: that one takes manifests, tokens and error texts of any length into memory, does not say what
//! a failed answer's headers were, and puts whole URLs, signed ones included, into its errors. hyper and its TLS are in the agent
//! already, with the AWS SDK.

use crate::image::pull::failure::Failure;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{
    HeaderMap, Method, Request, Response, StatusCode, Uri,
    header::{AUTHORIZATION, LOCATION},
    uri::{Authority, Scheme},
};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::{
        legacy::{
            Client,
            connect::{HttpConnector, proxy::Tunnel},
        },
        proxy::matcher::{Intercept, Matcher},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use std::{
    io,
    net::IpAddr,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{net::TcpStream, sync::OnceCell, time::timeout};
use tower::{Service, ServiceExt};

/// How long a name's look-up and the connection may take. Short, because a task may be waiting whose image is here.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that nobody uses are kept for the next of a row of launches, and not longer: each costs 10 KB and more.
const IDLE: Duration = Duration::from_secs(20);
/// Of these, at most so many for each registry: what one pull uses at a time.
const IDLE_EACH: usize = 3;
/// Redirects that are followed; registries send to their storage with one or two.
const MAX_REDIRECTS: usize = 5;

/// Connections to registries.
#[derive(Debug)]
pub(super) struct Http {
    connector: Connector,
    plain: Client<Connector, Empty<Bytes>>,
    /// Made when the first registry with TLS is asked: the roots take some hundred KB.
    tls: OnceCell<Client<HttpsConnector<Connector>, Empty<Bytes>>>,
}

impl Http {
    pub(super) fn new() -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let connector = Connector { tcp, proxies: Arc::new(Matcher::from_env()) };
        let plain = builder().build(connector.clone());
        Self { connector, plain, tls: OnceCell::new() }
    }

    /// One request, through redirects, without a body. The answer's head must come by itself in time: the caller sets the limit.
    pub(super) async fn send(
        &self,
        method: &Method,
        target: &Uri,
        mut headers: HeaderMap,
    ) -> Result<Response<Incoming>, Failure> {
        let mut at = target.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.once(method, &at, headers.clone()).await?;
            let Some(next) = location(&at, &response)? else { return Ok(response) };
            if (at.scheme(), at.authority()) != (next.scheme(), next.authority()) {
                // The storage behind a registry has its own signature in the URL; the registry's token is none of its business.
                headers.remove(AUTHORIZATION);
            }
            at = next;
        }
        Err(Failure::Unusable(format!("the registry redirects more than {MAX_REDIRECTS} times")))
    }

    async fn once(
        &self,
        method: &Method,
        at: &Uri,
        headers: HeaderMap,
    ) -> Result<Response<Incoming>, Failure> {
        let mut request = Request::new(Empty::new());
        *request.method_mut() = method.clone();
        *request.uri_mut() = at.clone();
        *request.headers_mut() = headers;
        let sent = if at.scheme() == Some(&Scheme::HTTPS) {
            self.tls().await?.request(request).await
        } else {
            self.plain.request(request).await
        };
        sent.map_err(|e| if e.is_connect() { Failure::connecting(&e) } else { Failure::broken(&e) })
    }

    async fn tls(&self) -> Result<&Client<HttpsConnector<Connector>, Empty<Bytes>>, Failure> {
        let make = async {
            // Reads the files of all roots.
            let roots = tokio::task::spawn_blocking(|| {
                HttpsConnectorBuilder::new()
                    .with_provider_and_native_roots(rustls::crypto::ring::default_provider())
            });
            let roots = roots.await.map_err(|e| Failure::Unusable(format!("read the TLS roots: {e}")))?;
            let roots =
                roots.map_err(|e| Failure::Unusable(format!("read the TLS roots of this machine: {e}")))?;
            let connector = roots.https_only().enable_http1().wrap_connector(self.connector.clone());
            Ok(builder().build(connector))
        };
        self.tls.get_or_try_init(|| make).await
    }
}

fn builder() -> hyper_util::client::legacy::Builder {
    let mut builder = Client::builder(TokioExecutor::new());
    builder.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).pool_max_idle_per_host(IDLE_EACH);
    builder
}

/// Where an answer sends us, if it does.
fn location(at: &Uri, response: &Response<Incoming>) -> Result<Option<Uri>, Failure> {
    let redirects = [
        StatusCode::MOVED_PERMANENTLY,
        StatusCode::FOUND,
        StatusCode::SEE_OTHER,
        StatusCode::TEMPORARY_REDIRECT,
        StatusCode::PERMANENT_REDIRECT,
    ];
    if !redirects.contains(&response.status()) {
        return Ok(None);
    }
    let bad = || Failure::Unusable("the registry redirects to no address".to_owned());
    let text = response.headers().get(LOCATION).and_then(|v| v.to_str().ok()).ok_or_else(bad)?;
    let mut parts = text.parse::<Uri>().map_err(|_| bad())?.into_parts();
    if parts.authority.is_none() {
        parts.scheme = at.scheme().cloned();
        parts.authority = at.authority().cloned();
    }
    let next = Uri::from_parts(parts).map_err(|_| bad())?;
    if at.scheme() == Some(&Scheme::HTTPS) && next.scheme() != Some(&Scheme::HTTPS) {
        return Err(Failure::Unusable("the registry redirects from HTTPS to plain HTTP".to_owned()));
    }
    Ok(Some(next))
}

/// Whether a host is this machine.
pub(super) fn is_loopback(authority: &Authority) -> bool {
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// TCP, directly or through the proxy that HTTPS_PROXY and NO_PROXY say. Plain HTTP goes directly: registries without TLS are near by.
#[derive(Debug, Clone)]
struct Connector {
    tcp: HttpConnector,
    proxies: Arc<Matcher>,
}

impl Connector {
    fn proxy(&self, target: &Uri) -> Option<Intercept> {
        let far = target.scheme() == Some(&Scheme::HTTPS) && !target.authority().is_some_and(is_loopback);
        far.then(|| self.proxies.intercept(target)).flatten()
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let (tcp, proxy) = (self.tcp.clone(), self.proxy(&target));
        Box::pin(async move {
            let connected = timeout(CONNECT_TIMEOUT, connect(tcp, proxy, target)).await;
            connected.map_err(|_| {
                let text = format!("no connection within {}s", CONNECT_TIMEOUT.as_secs());
                io::Error::new(io::ErrorKind::TimedOut, text)
            })?
        })
    }
}

async fn connect(
    tcp: HttpConnector,
    proxy: Option<Intercept>,
    target: Uri,
) -> Result<TokioIo<TcpStream>, Box<dyn std::error::Error + Send + Sync>> {
    let Some(proxy) = proxy else { return Ok(tcp.oneshot(target).await?) };
    let mut tunnel = Tunnel::new(proxy.uri().clone(), tcp);
    if let Some(login) = proxy.basic_auth() {
        tunnel = tunnel.with_auth(login.clone());
    }
    Ok(tunnel.oneshot(target).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, header::RANGE};
    use std::{net::SocketAddr, sync::Mutex};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    /// Answers every request with the same text; the requests are kept.
    async fn server(answer: impl Fn(SocketAddr) -> String) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (answer, seen) = (answer(address), Arc::new(Mutex::new(Vec::new())));
        let requests = seen.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 4096];
                let length = stream.read(&mut request).await.unwrap();
                requests.lock().unwrap().push(String::from_utf8_lossy(&request[..length]).to_lowercase());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        (address, seen)
    }

    fn redirect(to: &str) -> String {
        format!(
            "HTTP/1.1 307 Temporary Redirect\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
    }

    async fn get(address: SocketAddr) -> Result<StatusCode, Failure> {
        let headers = [(AUTHORIZATION, "Bearer secret"), (RANGE, "bytes=5-")];
        let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
        let target = format!("http://{address}/v2/web/blobs/x").parse().unwrap();
        let answer = Http::new().send(&Method::GET, &target, HeaderMap::from_iter(headers)).await;
        answer.map(|answer| answer.status())
    }

    #[tokio::test]
    async fn a_redirect_is_followed_and_the_storage_behind_it_is_not_shown_the_token() {
        let found = |_| "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned();
        let (storage, at_storage) = server(found).await;
        let (registry, at_registry) = server(|_| redirect(&format!("http://{storage}/blob?sig=1"))).await;
        assert_eq!(get(registry).await.unwrap(), StatusCode::OK);
        assert!(at_registry.lock().unwrap()[0].contains("authorization: bearer secret"));
        let request = at_storage.lock().unwrap()[0].clone();
        assert!(request.starts_with("get /blob?sig=1 ") && request.contains("range: bytes=5-"), "{request}");
        assert!(!request.contains("authorization"), "{request}");
    }

    #[tokio::test]
    async fn redirects_that_lead_nowhere_end() {
        let (circle, seen) = server(|own| redirect(&format!("http://{own}/again"))).await;
        assert!(get(circle).await.unwrap_err().to_string().contains("more than 5 times"));
        assert_eq!(seen.lock().unwrap().len(), MAX_REDIRECTS + 1);
        let (nowhere, _) = server(|_| redirect("::not an address::")).await;
        assert!(get(nowhere).await.unwrap_err().to_string().contains("redirects to no address"));
        let (relative, seen) = server(|_| redirect("/elsewhere")).await;
        assert!(get(relative).await.is_err());
        let request = seen.lock().unwrap()[1].clone();
        assert!(request.starts_with("get /elsewhere ") && request.contains("authorization"), "{request}");
    }

    #[test]
    fn this_machine_is_told_from_others() {
        let local = |text: &str| is_loopback(&text.parse().unwrap());
        assert!(local("localhost:5000") && local("127.0.0.2") && local("[::1]:5000"));
        assert!(!local("10.0.0.1:5000") && !local("localhost.example:5000") && !local("127.example"));
    }
}
