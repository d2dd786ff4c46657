//! A small HTTP peer that plays IMDS properly and EC2 as each test tells it to.
//!
//! It is no emulator (that is vpcbox, which shares no code with this crate's other side): it is there for what an emulator is bad at, exact
//! errors, silence and garbage.

use std::sync::{Arc, Mutex};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// What EC2 answers to a call.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// Status and body.
    Http(u16, String),
    /// Nothing, for as long as the client waits.
    Silence,
    /// The connection is closed without a byte.
    HangUp,
}

/// Chooses the answer by the call's form body.
pub(crate) type Script = Arc<dyn Fn(&str) -> Answer + Send + Sync>;

/// The running peer; ends with the test's runtime.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Its URL, for both services.
    pub(crate) url: String,
    calls: Arc<Mutex<Vec<String>>>,
}

/// EC2's error body.
pub(crate) fn ec2_error(code: &str, message: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?><Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>\
         <RequestID>11111111-2222-4333-8444-555555555555</RequestID></Response>"
    )
}

/// EC2's reply with this content.
pub(crate) fn ec2_reply(op: &str, content: &str) -> String {
    format!(
        "<{op}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>1</requestId>{content}</{op}Response>"
    )
}

impl Peer {
    /// Starts the peer on a port of its own; IMDS knows a role or does not.
    pub(crate) async fn start(script: Script, role: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let calls = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&calls);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&script), Arc::clone(&seen), role));
            }
        });
        Self { url, calls }
    }

    /// The bodies of EC2's calls of this action, oldest first.
    pub(crate) fn calls(&self, action: &str) -> Vec<String> {
        let wanted = format!("Action={action}&");
        self.calls.lock().unwrap().iter().filter(|body| body.contains(&wanted)).cloned().collect()
    }
}

/// One request on one connection.
async fn serve(mut stream: TcpStream, script: Script, seen: Arc<Mutex<Vec<String>>>, role: bool) {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..head_end]).into_owned();
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_string));
    let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
    while bytes.len() < head_end + length {
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let body = String::from_utf8_lossy(&bytes[head_end..]).into_owned();
    let request_line = head.lines().next().unwrap_or_default().to_string();
    let answer = if request_line.starts_with("POST / ") {
        seen.lock().unwrap().push(body.clone());
        assert!(head.to_ascii_lowercase().contains("authorization: aws4-hmac-sha256"), "unsigned: {head}");
        script(&body)
    } else {
        imds(&request_line, role)
    };
    let (status, body) = match answer {
        Answer::Http(status, body) => (status, body),
        Answer::HangUp => return,
        Answer::Silence => return std::future::pending().await,
    };
    let reply = format!(
        "HTTP/1.1 {status} X\r\nconnection: close\r\nx-aws-ec2-metadata-token-ttl-seconds: 21600\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    // The client may have given up.
    drop(stream.write_all(reply.as_bytes()).await);
}

/// IMDS of an instance in a zone without a zone id.
fn imds(request_line: &str, role: bool) -> Answer {
    const MACS: &str = "/latest/meta-data/network/interfaces/macs/02:00:00:00:00:01";
    let path = request_line.split(' ').nth(1).unwrap_or_default();
    let body = match path {
        "/latest/api/token" => "token".to_string(),
        "/latest/dynamic/instance-identity/document" => r#"{"accountId":"111122223333","architecture":"x86_64",
            "availabilityZone":"us-west-2a","imageId":"ami-1","instanceId":"i-0123456789abcdef0","instanceType":"m5.large",
            "privateIp":"10.0.1.5","region":"us-west-2","version":"2017-09-30","billingProducts":null}"#
            .to_string(),
        "/latest/meta-data/mac" => "02:00:00:00:00:01".into(),
        path if path.contains("/iam/") && !role => return Answer::Http(404, "no role".into()),
        "/latest/meta-data/iam/security-credentials/" => "role".into(),
        "/latest/meta-data/iam/security-credentials/role" => r#"{"Code":"Success","Type":"AWS-HMAC","AccessKeyId":"AKIDEXAMPLE",
            "SecretAccessKey":"secret","Token":"session","Expiration":"2199-01-01T00:00:00Z","LastUpdated":"2026-01-01T00:00:00Z"}"#
            .to_string(),
        other => match other.strip_prefix(MACS) {
            Some("/vpc-id") => "vpc-0123456789abcdef0".into(),
            Some("/subnet-id") => "subnet-0123456789abcdef0".into(),
            Some("/security-group-ids") => "sg-0123456789abcdef0\nsg-0123456789abcdef1".into(),
            _ => return Answer::Http(404, "not here".into()),
        },
    };
    Answer::Http(200, body)
}
