//! Both registries, asked over plain sockets as any client would.

use super::*;
use berth_netns::ns::Netns;
use std::{io, net::SocketAddr, os::fd::AsRawFd, path::PathBuf, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Long for the loopback; a reply that never ends is told from one that is late.
const PATIENCE: Duration = Duration::from_secs(20);

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
    /// How reading ended.
    end: io::Result<()>,
}

impl Answer {
    fn digest(&self) -> String {
        Blob::new("", self.body.clone()).digest
    }
}

/// Asks once and reads until the connection ends or `enough` bytes of the body are there.
async fn get(address: SocketAddr, path: &str, headers: &str, enough: usize) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    let split = |bytes: &[u8]| bytes.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4);
    let end = loop {
        let body = split(&bytes).map_or(0, |at| bytes.len() - at);
        if body >= enough {
            break Ok(());
        }
        match timeout(PATIENCE, stream.read_buf(&mut bytes)).await.expect("the reply moves on") {
            Ok(0) => break Ok(()),
            Ok(_) => {}
            Err(error) => break Err(error),
        }
    };
    let at = split(&bytes).unwrap_or(bytes.len());
    let head = String::from_utf8_lossy(&bytes[..at]).to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or_default();
    Answer { status, head, body: bytes[at..].to_vec(), end }
}

async fn whole(address: SocketAddr, path: &str, headers: &str) -> Answer {
    get(address, path, headers, usize::MAX).await
}

fn web() -> ImageSource {
    let config = serde_json::json!({"Cmd": ["sh"]});
    ImageSource::new().config(config).file("noise", &noise(100_000, 1)).unwrap()
}

#[tokio::test]
async fn the_real_registry_serves_what_was_pushed() {
    let registry = Registry::start(&Options::default()).unwrap();
    let digest = registry.push("team/web", "1", &web()).unwrap();
    let accept = "Accept: application/vnd.oci.image.manifest.v1+json\r\n";
    for reference in ["1", &digest] {
        let path = format!("/v2/team/web/manifests/{reference}");
        let manifest = whole(registry.address(), &path, accept).await;
        assert_eq!((manifest.status, manifest.digest()), (200, digest.clone()), "{}", registry.log());
    }
    let layer = &web().build().unwrap().layers[0];
    let blob = whole(registry.address(), &format!("/v2/team/web/blobs/{}", layer.digest), "").await;
    assert_eq!(blob.digest(), layer.digest);
    registry.delete("team/web", &digest).unwrap();
    assert_eq!(whole(registry.address(), "/v2/team/web/manifests/1", accept).await.status, 404);
    let both = [web(), web().architecture("s390x").docker()];
    let index = registry.push_index("team/web", "both", &both).unwrap();
    let accept = "Accept: application/vnd.oci.image.index.v1+json\r\n";
    let served = whole(registry.address(), "/v2/team/web/manifests/both", accept).await;
    assert_eq!(served.digest(), index);
}

#[tokio::test]
async fn the_real_registry_lets_in_who_knows_the_password_and_outlives_its_process() {
    let mut registry = Registry::start(&Options { login: Login::Htpasswd, ..Options::default() }).unwrap();
    registry.push("web", "1", &web()).unwrap();
    let path = "/v2/web/manifests/1";
    let asked = whole(registry.address(), path, "").await;
    assert!(asked.status == 401 && asked.head.contains("basic realm"), "{}", asked.head);
    registry.kill().unwrap();
    assert!(TcpStream::connect(registry.address()).await.is_err());
    registry.run().unwrap();
    let header = format!("Authorization: {BASIC}\r\nAccept: application/vnd.oci.image.manifest.v1+json\r\n");
    assert_eq!(whole(registry.address(), path, &header).await.status, 200);
}

#[tokio::test]
async fn the_real_registry_runs_in_a_network_namespace() {
    let netns = Netns::create().unwrap();
    let up = netns.run(|| std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status());
    assert!(up.unwrap().unwrap().success());
    let fd = std::os::fd::AsFd::as_fd(&netns).as_raw_fd();
    let path = PathBuf::from(format!("/proc/{}/fd/{fd}", std::process::id()));
    let registry = Registry::start_in(Some(&path), "127.0.0.1:5000".parse().unwrap()).unwrap();
    registry.push("web", "1", &web()).unwrap();
    assert_eq!(registry.reference("web", "1"), "127.0.0.1:5000/web:1");
}

#[tokio::test]
async fn the_bad_registry_is_right_until_it_is_told_otherwise() {
    let registry = BadRegistry::start().await.unwrap();
    let image = registry.add("web", "1", &web()).unwrap();
    let layer = &image.layers[0];
    let path = format!("/v2/web/blobs/{}", layer.digest);
    let address = registry.address();
    assert_eq!(whole(address, "/v2/web/manifests/1", "").await.digest(), image.manifest.digest);
    assert_eq!(whole(address, &path, "").await.digest(), layer.digest);
    let part = whole(address, &path, "Range: bytes=99000-\r\n").await;
    assert_eq!((part.status, &part.body[..]), (206, &layer.bytes[99_000..]));
    assert_eq!(registry.fetches(&layer.digest)[1].range.as_deref(), Some("bytes=99000-"));
    registry.fail(Target::Blobs, Fault::NoRanges);
    let all = whole(address, &path, "Range: bytes=99000-\r\n").await;
    assert_eq!((all.status, all.digest()), (200, layer.digest.clone()));
    assert_eq!(whole(address, "/v2/web/manifests/2", "").await.status, 404);
    let index = registry.add_index("web", "both", &[web(), web().architecture("s390x")]).unwrap();
    assert_eq!(whole(address, "/v2/web/manifests/both", "").await.digest(), index);
}

#[tokio::test]
async fn every_fault_is_what_it_says() {
    let registry = BadRegistry::start().await.unwrap();
    let image = registry.add("web", "1", &web()).unwrap();
    let layer = &image.layers[0];
    let (manifest, blob) = ("/v2/web/manifests/1".to_owned(), format!("/v2/web/blobs/{}", layer.digest));
    let of = async |fault: Fault, path: &str, enough: usize| {
        registry.heal();
        registry.fail(Target::Everything, fault);
        get(registry.address(), path, "", enough).await
    };
    let wrong = of(Fault::WrongBytes, &blob, usize::MAX).await;
    assert!(wrong.body.len() == layer.bytes.len() && wrong.digest() != layer.digest);
    let wrong = of(Fault::WrongBytes, &manifest, usize::MAX).await;
    assert!(serde_json::from_slice::<serde_json::Value>(&wrong.body).is_ok());
    assert_ne!(wrong.digest(), image.manifest.digest);
    let lie = of(Fault::WrongDigestHeader, &manifest, usize::MAX).await;
    assert!(lie.head.contains("sha256:00000000") && lie.digest() == image.manifest.digest);
    let short = of(Fault::Truncated(50_000), &blob, usize::MAX).await;
    assert!(short.head.contains(&format!("content-length: {}", layer.bytes.len())));
    assert_eq!((short.body.len(), short.end.is_ok()), (50_000, true));
    let reset = of(Fault::Reset(50_000), &blob, usize::MAX).await;
    assert_eq!(reset.end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    let stalled = of(Fault::Stall(50_000), &blob, 50_000).await;
    assert_eq!(stalled.body.len(), 50_000);
    let dripped = of(Fault::Drip(50_000, Duration::from_millis(1)), &blob, usize::MAX).await;
    assert_eq!(dripped.digest(), layer.digest);
    assert!(of(Fault::Endless, &blob, 2_000_000).await.body.len() >= 2_000_000);
    assert_eq!(of(Fault::Huge, &manifest, usize::MAX).await.body.len(), 10 << 20);
    for (fault, status, words) in [
        (Fault::Denied, 403, "DENIED"),
        (Fault::Unknown, 404, "MANIFEST_UNKNOWN"),
        (Fault::TooMany(7), 429, "retry-after: 7"),
        (Fault::Status(502), 502, ""),
        (Fault::LoginLoop, 401, "scope=\"repository:web:pull\""),
    ] {
        let answer = of(fault, &manifest, usize::MAX).await;
        let text = format!("{}{}", answer.head, String::from_utf8_lossy(&answer.body));
        assert!(answer.status == status && text.contains(words), "{fault:?}: {text}");
    }
}

#[tokio::test]
async fn a_fault_can_be_for_a_few_requests_and_for_one_digest() {
    let registry = BadRegistry::start().await.unwrap();
    let image = registry.add("web", "1", &web()).unwrap();
    registry.fail_times(Target::Digest(image.config.digest.clone()), Fault::Status(500), 2);
    let config = format!("/v2/web/blobs/{}", image.config.digest);
    let mut seen = Vec::new();
    for path in [&config, "/v2/web/manifests/1", &config, &config] {
        seen.push(whole(registry.address(), path, "").await.status);
    }
    assert_eq!(seen, [500, 200, 500, 200]);
    assert_eq!(registry.asked().iter().map(|a| a.status).collect::<Vec<_>>(), seen);
}

#[tokio::test]
async fn it_vanishes_in_the_middle_and_comes_back_where_it_was() {
    let mut registry = BadRegistry::start().await.unwrap();
    let image = registry.add("web", "1", &web()).unwrap();
    let path = format!("/v2/web/blobs/{}", image.layers[0].digest);
    registry.fail(Target::Blobs, Fault::Vanish(30_000));
    let cut = whole(registry.address(), &path, "").await;
    assert!(cut.body.len() < image.layers[0].bytes.len());
    let address = registry.address();
    let refused = timeout(PATIENCE, async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
    refused.await.expect("connections are refused");
    registry.heal();
    registry.come_back().await.unwrap();
    assert_eq!(whole(address, &path, "").await.digest(), image.layers[0].digest);
}

#[tokio::test]
async fn a_token_is_given_for_the_password_and_expires() {
    let registry = BadRegistry::start().await.unwrap();
    registry.add("web", "1", &web()).unwrap();
    registry.require_token();
    let address = registry.address();
    let asked = whole(address, "/v2/web/manifests/1", "").await;
    assert!(asked.status == 401 && asked.head.contains(&format!("bearer realm=\"http://{address}/token\"")));
    assert_eq!(whole(address, "/token", "").await.status, 401);
    let token = whole(address, "/token", &format!("Authorization: {BASIC}\r\n")).await;
    assert!(String::from_utf8_lossy(&token.body).contains("token-1"));
    let shown = "Authorization: Bearer token-1\r\n";
    assert_eq!(whole(address, "/v2/web/manifests/1", shown).await.status, 200);
    registry.require_token();
    assert_eq!(whole(address, "/v2/web/manifests/1", shown).await.status, 401);
}
