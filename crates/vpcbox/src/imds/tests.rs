//! The metadata service over a real socket, with requests written out by hand.

use super::*;
use std::{
    net::SocketAddr,
    sync::Mutex,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A world of one instance, whose facts a test may change.
struct World(Mutex<Option<ImdsInstance>>);

impl ImdsView for World {
    fn instance(&self, id: &str) -> Option<ImdsInstance> {
        self.0.lock().unwrap().clone().filter(|i| i.instance_id == id)
    }
    fn issue_credentials(&self, instance: &str) -> Option<ImdsCredentials> {
        self.instance(instance)?.role?;
        let updated: Timestamp = "2026-11-22T10:00:00.5Z".parse().unwrap();
        Some(ImdsCredentials {
            access_key_id: "ASIAEXAMPLE".into(),
            secret_access_key: "very-secret".into(),
            token: "session-token".into(),
            last_updated: updated,
            expiration: updated + Duration::from_secs(3600),
        })
    }
    fn seal(&self, document: &str) -> String {
        format!("sealed {} bytes", document.len())
    }
}

const PRIMARY: [u8; 6] = [0x02, 0xab, 0, 0, 0, 1];
const SECOND: [u8; 6] = [0x02, 0xab, 0, 0, 0, 2];

fn interface(mac: [u8; 6], device_number: u32, host: u8) -> ImdsInterface {
    ImdsInterface {
        mac,
        device_number,
        eni_id: format!("eni-0000000000000000{host}"),
        subnet_id: "subnet-00000000000000001".into(),
        subnet_ipv4: "10.0.1.0/24".parse().unwrap(),
        subnet_ipv6: None,
        vpc_id: "vpc-00000000000000001".into(),
        vpc_ipv4: vec!["10.0.0.0/16".parse().unwrap()],
        vpc_ipv6: vec![],
        ipv4: vec![Ipv4Addr::new(10, 0, 1, host)],
        ipv6: vec![],
        security_groups: vec![("sg-1".into(), "default".into()), ("sg-2".into(), "web".into())],
        owner_id: "111122223333".into(),
        hostname: format!("ip-10-0-1-{host}.us-west-2.compute.internal"),
    }
}

fn instance() -> ImdsInstance {
    ImdsInstance {
        instance_id: "i-00000000000000001".into(),
        instance_type: "m5.large".into(),
        ami_id: "ami-00000000000000001".into(),
        region: "us-west-2".into(),
        availability_zone: "us-west-2a".into(),
        availability_zone_id: "usw2-az1".into(),
        account: "111122223333".into(),
        mac: PRIMARY,
        hostname: "ip-10-0-1-7.us-west-2.compute.internal".into(),
        local_ipv4: Ipv4Addr::new(10, 0, 1, 7),
        role: Some("berth-node".into()),
        launched: "2026-11-22T09:00:00Z".parse().unwrap(),
        interfaces: vec![interface(PRIMARY, 0, 7)],
    }
}

struct Imds {
    address: SocketAddr,
    world: Arc<World>,
    task: JoinHandle<()>,
    shutdown: CancellationToken,
}

/// Starts a service on loopback.
fn start() -> Imds {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let world = Arc::new(World(Mutex::new(Some(instance()))));
    let shutdown = CancellationToken::new();
    let task = serve(listener, world.clone(), "i-00000000000000001".into(), shutdown.clone());
    Imds { address, world, task, shutdown }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Imds {
    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nHost: 169.254.169.254\r\nConnection: close\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_lowercase(), body: body.into() }
    }

    async fn token(&self) -> String {
        let headers = [("X-aws-ec2-metadata-token-ttl-seconds", "21600")];
        let answer = self.send("PUT", "/latest/api/token", &headers).await;
        assert_eq!(answer.status, 200);
        answer.body
    }

    async fn get(&self, path: &str) -> Answer {
        let token = self.token().await;
        self.send("GET", path, &[("X-aws-ec2-metadata-token", &token)]).await
    }
}

const META: &str = "/latest/meta-data/";

#[tokio::test]
async fn a_token_comes_with_its_time_to_live_in_a_header() {
    let imds = start();
    let answer =
        imds.send("PUT", "/latest/api/token", &[("X-aws-ec2-metadata-token-ttl-seconds", "60")]).await;
    assert_eq!((answer.status, answer.body.len()), (200, 56));
    assert!(answer.head.contains("x-aws-ec2-metadata-token-ttl-seconds: 60"), "{}", answer.head);
    assert!(answer.head.contains("content-type: text/plain"));
    let headers = [("X-aws-ec2-metadata-token", answer.body.as_str())];
    assert_eq!(imds.send("GET", "/latest/meta-data/instance-id", &headers).await.body, "i-00000000000000001");
}

#[tokio::test]
async fn requests_without_a_good_token_are_refused() {
    let imds = start();
    let other = start();
    let foreign = other.token().await;
    let path = "/latest/meta-data/instance-id";
    assert_eq!(imds.send("GET", path, &[]).await.status, 401);
    assert_eq!(imds.send("GET", "/latest/meta-data/nothing", &[]).await.status, 401);
    for token in ["", "nonsense", &foreign] {
        assert_eq!(imds.send("GET", path, &[("X-aws-ec2-metadata-token", token)]).await.status, 401);
    }
}

#[tokio::test]
async fn bad_token_requests_are_refused() {
    let imds = start();
    let ttl = "X-aws-ec2-metadata-token-ttl-seconds";
    for bad in ["0", "21601", "abc", ""] {
        assert_eq!(imds.send("PUT", "/latest/api/token", &[(ttl, bad)]).await.status, 400, "{bad}");
    }
    assert_eq!(imds.send("PUT", "/latest/api/token", &[]).await.status, 400);
    let proxied = [(ttl, "60"), ("X-Forwarded-For", "10.0.0.9")];
    assert_eq!(imds.send("PUT", "/latest/api/token", &proxied).await.status, 403);
    let wrong = imds.send("GET", "/latest/api/token", &[]).await;
    assert_eq!(wrong.status, 405);
    assert!(wrong.head.contains("allow: options, put"));
    assert_eq!(imds.send("POST", "/latest/meta-data/", &[]).await.status, 405);
}

#[tokio::test]
async fn directories_are_listed_as_the_real_service_prints_them() {
    let imds = start();
    for (path, listing) in [
        ("/latest/", "dynamic\nmeta-data"),
        ("/latest/dynamic/", "instance-identity/"),
        (
            META,
            "ami-id\nhostname\niam/\ninstance-id\ninstance-life-cycle\ninstance-type\nlocal-hostname\n\
             local-ipv4\nmac\nnetwork/\nplacement/\nsecurity-groups\nservices/",
        ),
        ("/latest/meta-data/network/interfaces/macs/", "02:ab:00:00:00:01/"),
        ("/latest/meta-data/network/interfaces/macs", "02:ab:00:00:00:01/"),
        ("/latest/meta-data/placement/availability-zone/", "us-west-2a"),
        ("/latest/meta-data/placement/", "availability-zone\navailability-zone-id\nregion"),
        ("/latest/meta-data/iam/security-credentials/", "berth-node"),
    ] {
        let answer = imds.get(path).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, listing), "{path}");
    }
}

#[tokio::test]
async fn values_are_plain_text_without_a_newline() {
    let imds = start();
    for (path, value) in [
        ("instance-type", "m5.large"),
        ("ami-id", "ami-00000000000000001"),
        ("mac", "02:ab:00:00:00:01"),
        ("local-ipv4", "10.0.1.7"),
        ("local-hostname", "ip-10-0-1-7.us-west-2.compute.internal"),
        ("hostname", "ip-10-0-1-7.us-west-2.compute.internal"),
        ("placement/availability-zone", "us-west-2a"),
        ("placement/availability-zone-id", "usw2-az1"),
        ("placement/region", "us-west-2"),
        ("services/domain", "amazonaws.com"),
        ("security-groups", "default\nweb"),
    ] {
        assert_eq!(imds.get(&format!("{META}{path}")).await.body, value, "{path}");
    }
}

#[tokio::test]
async fn an_interface_shows_its_facts_and_omits_what_it_does_not_have() {
    let imds = start();
    let base = format!("{META}network/interfaces/macs/02:ab:00:00:00:01");
    for (path, value) in [
        ("device-number", "0"),
        ("interface-id", "eni-00000000000000007"),
        ("local-ipv4s", "10.0.1.7"),
        ("subnet-id", "subnet-00000000000000001"),
        ("subnet-ipv4-cidr-block", "10.0.1.0/24"),
        ("vpc-id", "vpc-00000000000000001"),
        ("vpc-ipv4-cidr-block", "10.0.0.0/16"),
        ("vpc-ipv4-cidr-blocks", "10.0.0.0/16"),
        ("security-group-ids", "sg-1\nsg-2"),
        ("security-groups", "default\nweb"),
        ("owner-id", "111122223333"),
        ("local-hostname", "ip-10-0-1-7.us-west-2.compute.internal"),
        ("mac", "02:ab:00:00:00:01"),
    ] {
        assert_eq!(imds.get(&format!("{base}/{path}")).await.body, value, "{path}");
    }
    for absent in ["ipv6s", "subnet-ipv6-cidr-blocks", "vpc-ipv6-cidr-blocks", "public-ipv4s"] {
        assert_eq!(imds.get(&format!("{base}/{absent}")).await.status, 404, "{absent}");
    }
    // Some clients encode the colons.
    let encoded = format!("{META}network/interfaces/macs/02%3Aab%3A00%3A00%3A00%3A01/device-number");
    assert_eq!(imds.get(&encoded).await.body, "0");
}

#[tokio::test]
async fn the_tree_grows_with_an_attached_interface() {
    let imds = start();
    let mut second = interface(SECOND, 1, 8);
    second.ipv6 = vec!["2001:db8::8".parse().unwrap(), "2001:db8::9".parse().unwrap()];
    second.subnet_ipv6 = Some("2001:db8::/64".parse().unwrap());
    imds.world.0.lock().unwrap().as_mut().unwrap().interfaces.push(second);
    let base = format!("{META}network/interfaces/macs/");
    assert_eq!(imds.get(&base).await.body, "02:ab:00:00:00:01/\n02:ab:00:00:00:02/");
    assert_eq!(imds.get(&format!("{base}02:ab:00:00:00:02/ipv6s")).await.body, "2001:db8::8\n2001:db8::9");
    assert_eq!(
        imds.get(&format!("{base}02:ab:00:00:00:02/subnet-ipv6-cidr-blocks")).await.body,
        "2001:db8::/64"
    );
}

#[tokio::test]
async fn what_is_not_there_is_answered_with_the_real_services_page() {
    let imds = start();
    for path in
        ["/latest/meta-data/spot/instance-action", "/latest/user-data", "/nothing", "/latest/meta-data/mac/x"]
    {
        let answer = imds.get(path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.body.contains("<title>404 - Not Found</title>") && answer.head.contains("text/html"));
    }
    *imds.world.0.lock().unwrap() = None;
    assert_eq!(imds.get("/latest/meta-data/mac").await.status, 404);
}

#[tokio::test]
async fn the_roles_credentials_are_a_document() {
    let imds = start();
    let body = imds.get("/latest/meta-data/iam/security-credentials/berth-node").await.body;
    let document: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        document,
        serde_json::json!({
            "Code": "Success", "LastUpdated": "2026-11-22T10:00:00Z", "Type": "AWS-HMAC",
            "AccessKeyId": "ASIAEXAMPLE", "SecretAccessKey": "very-secret", "Token": "session-token",
            "Expiration": "2026-11-22T11:00:00Z",
        })
    );
    let info: serde_json::Value =
        serde_json::from_str(&imds.get("/latest/meta-data/iam/info").await.body).unwrap();
    assert_eq!(info["InstanceProfileArn"], "arn:aws:iam::111122223333:instance-profile/berth-node");
    assert_eq!(imds.get("/latest/meta-data/iam/security-credentials/other").await.status, 404);

    imds.world.0.lock().unwrap().as_mut().unwrap().role = None;
    assert_eq!(imds.get("/latest/meta-data/iam/security-credentials/").await.status, 404);
}

#[tokio::test]
async fn the_identity_document_is_complete() {
    let imds = start();
    let body = imds.get("/latest/dynamic/instance-identity/document").await.body;
    let document: serde_json::Value = serde_json::from_str(&body).unwrap();
    let signature = imds.get("/latest/dynamic/instance-identity/signature").await.body;
    assert_eq!(signature, format!("sealed {} bytes", body.len()), "of this very document");
    for (key, value) in [
        ("accountId", "111122223333"),
        ("availabilityZone", "us-west-2a"),
        ("imageId", "ami-00000000000000001"),
        ("instanceId", "i-00000000000000001"),
        ("instanceType", "m5.large"),
        ("pendingTime", "2026-11-22T09:00:00Z"),
        ("privateIp", "10.0.1.7"),
        ("region", "us-west-2"),
        ("version", "2017-09-30"),
    ] {
        assert_eq!(document[key], value, "{key}");
    }
    assert!(document["billingProducts"].is_null() && document.get("billingProducts").is_some());
}

#[tokio::test]
async fn an_open_connection_does_not_hold_up_the_shutdown() {
    let imds = start();
    let mut idle = TcpStream::connect(imds.address).await.unwrap();
    idle.write_all(b"GET /latest/").await.unwrap();
    assert_eq!(imds.get("/latest/meta-data/instance-id").await.status, 200);
    imds.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(5), imds.task).await.unwrap().unwrap();
    assert!(TcpStream::connect(imds.address).await.is_err(), "the listener is closed");
}

#[test]
fn a_token_ends_when_its_time_is_over() {
    use ::http::{HeaderMap, Method, StatusCode};
    let server =
        http::Server::new(Arc::new(World(Mutex::new(Some(instance())))), "i-00000000000000001".into());
    let (now, mut headers) = (Instant::now(), HeaderMap::new());
    headers.insert("x-aws-ec2-metadata-token-ttl-seconds", "10".parse().unwrap());
    let token = server.answer(&Method::PUT, "/latest/api/token", &headers, now).body;
    headers.insert("x-aws-ec2-metadata-token", token.parse().unwrap());
    let ask = |seconds| {
        let reply = server.answer(
            &Method::GET,
            "/latest/meta-data/mac",
            &headers,
            now + Duration::from_millis(seconds),
        );
        (reply.status, reply.ttl)
    };
    assert_eq!(ask(9_500), (StatusCode::OK, Some(1)));
    assert_eq!(ask(10_000), (StatusCode::UNAUTHORIZED, None));
}

#[test]
fn debug_output_holds_no_secret() {
    let world = World(Mutex::new(Some(instance())));
    let shown = format!("{:?}", world.issue_credentials("i-00000000000000001").unwrap());
    assert!(!shown.contains("very-secret") && !shown.contains("session-token"), "{shown}");
}
