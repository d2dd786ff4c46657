//! The cloud port against a peer that answers exactly what a test wants: errors, silence, garbage, pages.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod peer;

use berth_ec2::{Ec2Cloud, Ec2Config};
use berth_types::{
    Chain,
    eni::{AttachmentStatus, CreateEni, EniStatus},
    ids::{AttachmentId, EniId},
    ports::{Cloud, CloudErrorKind},
};
use peer::{Answer, Peer, ec2_error, ec2_reply};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

const ENI: &str = "eni-0123456789abcdef0";
const ATTACHMENT: &str = "eni-attach-0123456789abcdef0";

fn cloud(url: &str) -> Ec2Cloud {
    Ec2Cloud::new(Ec2Config {
        ec2_endpoint: Some(url.into()),
        imds_endpoint: Some(url.into()),
        region: None,
        call_timeout: Duration::from_millis(500),
    })
    .unwrap()
}

async fn scripted(script: impl Fn(&str) -> Answer + Send + Sync + 'static) -> (Ec2Cloud, Peer) {
    let peer = Peer::start(Arc::new(script), true).await;
    (cloud(&peer.url), peer)
}

fn ok(op: &str, content: &str) -> Answer {
    Answer::Http(200, ec2_reply(op, content))
}

fn eni_xml(id: &str, extra: &str) -> String {
    format!(
        "<networkInterfaceId>{id}</networkInterfaceId><subnetId>subnet-0123456789abcdef0</subnetId>\
         <macAddress>02:00:00:00:00:07</macAddress><privateIpAddress>10.0.1.7</privateIpAddress>\
         <privateDnsName>ip-10-0-1-7.us-west-2.compute.internal</privateDnsName>\
         <groupSet><item><groupId>sg-0123456789abcdef0</groupId></item></groupSet>{extra}"
    )
}

fn attached_xml(index: u32) -> String {
    format!(
        "<status>in-use</status><attachment><attachmentId>{ATTACHMENT}</attachmentId><instanceId>i-0123456789abcdef0</instanceId>\
         <deviceIndex>{index}</deviceIndex><status>attached</status><deleteOnTermination>true</deleteOnTermination></attachment>"
    )
}

const SUBNETS: &str = "<subnetSet><item><subnetId>subnet-0123456789abcdef0</subnetId><cidrBlock>10.0.1.0/24</cidrBlock>\
    <ipv6CidrBlockAssociationSet><item><ipv6CidrBlock>fd00:1::/64</ipv6CidrBlock><ipv6CidrBlockState><state>associated</state>\
    </ipv6CidrBlockState></item></ipv6CidrBlockAssociationSet></item></subnetSet>";

fn is(body: &str, action: &str) -> bool {
    body.contains(&format!("Action={action}&"))
}

fn spec() -> CreateEni {
    CreateEni {
        token: "token-1".parse().unwrap(),
        subnet: "subnet-0123456789abcdef0".parse().unwrap(),
        security_groups: vec!["sg-0123456789abcdef0".parse().unwrap()],
        description: "berth".into(),
        tags: BTreeMap::from([("berth:intent".into(), "token-1".into())]),
        ipv6_addresses: 0,
    }
}

async fn delete_error(answer: Answer) -> CloudErrorKind {
    let (cloud, peer) = scripted(move |_| answer.clone()).await;
    let error = cloud.delete_eni(&ENI.parse().unwrap()).await.unwrap_err();
    assert_eq!(error.target, ENI);
    assert_eq!(peer.calls("DeleteNetworkInterface").len(), 1, "an act is sent once, whatever comes back");
    error.kind
}

#[tokio::test]
async fn the_instance_is_read_from_imds_and_its_limits_from_ec2() {
    let (cloud, _peer) = scripted(|body| {
        assert!(is(body, "DescribeInstanceTypes") && body.contains("InstanceType.1=m5.large"), "{body}");
        let info = "<networkInfo><maximumNetworkInterfaces>3</maximumNetworkInterfaces>\
            <ipv4AddressesPerInterface>10</ipv4AddressesPerInterface></networkInfo>";
        ok("DescribeInstanceTypes", &format!("<instanceTypeSet><item>{info}</item></instanceTypeSet>"))
    })
    .await;
    let facts = cloud.instance().await.unwrap();
    assert_eq!(
        (facts.instance_id.as_str(), facts.region.as_str(), facts.max_enis),
        ("i-0123456789abcdef0", "us-west-2", 3)
    );
    assert_eq!(
        (facts.availability_zone_id, facts.security_groups.len(), facts.max_ipv4_per_eni),
        (None, 2, 10)
    );
    assert_eq!(facts.primary_mac.to_string(), "02:00:00:00:00:01");
}

#[tokio::test]
async fn enis_are_read_by_two_filters_over_all_pages_and_merged() {
    let (cloud, peer) = scripted(|body| {
        if is(body, "DescribeSubnets") {
            return ok("DescribeSubnets", SUBNETS);
        }
        assert!(!body.contains("NetworkInterfaceId.1"), "never by id: {body}");
        let (id, next, extra) = match (body.contains("attachment.instance-id"), body.contains("NextToken=")) {
            (false, false) => (ENI, "<nextToken>more</nextToken>", "<status>available</status>".to_string()),
            (false, true) => ("eni-0123456789abcdef1", "", "<status>available</status>".to_string()),
            (true, _) => (ENI, "", attached_xml(1)),
        };
        let item = eni_xml(id, &extra);
        ok(
            "DescribeNetworkInterfaces",
            &format!("<networkInterfaceSet><item>{item}</item></networkInterfaceSet>{next}"),
        )
    })
    .await;
    let enis = cloud.enis().await.unwrap();
    assert_eq!(enis.iter().map(|eni| eni.id.as_str()).collect::<Vec<_>>(), [ENI, "eni-0123456789abcdef1"]);
    let attachment = enis[0].attachment.as_ref().expect("the later answer wins");
    assert_eq!((attachment.device_index, attachment.status), (1, AttachmentStatus::Attached));
    assert_eq!(
        (enis[0].subnet_ipv4.to_string(), enis[0].subnet_ipv6.unwrap().to_string()),
        ("10.0.1.0/24".into(), "fd00:1::/64".into())
    );
    cloud.enis().await.unwrap();
    assert_eq!(peer.calls("DescribeSubnets").len(), 1, "blocks are remembered");
}

#[tokio::test]
async fn a_list_that_never_ends_is_an_error_and_no_half_list() {
    let (cloud, peer) =
        scripted(|_| ok("DescribeNetworkInterfaces", "<networkInterfaceSet/><nextToken>more</nextToken>"))
            .await;
    assert!(matches!(cloud.enis().await.unwrap_err().kind, CloudErrorKind::OutcomeUnknown(_)));
    assert_eq!(peer.calls("DescribeNetworkInterfaces").len(), 10);
}

#[tokio::test]
async fn a_create_carries_token_and_tags_and_its_pending_reply_is_read() {
    let (cloud, peer) = scripted(|body| {
        if is(body, "DescribeSubnets") {
            return ok("DescribeSubnets", SUBNETS);
        }
        let item = eni_xml(ENI, "<status>pending</status>");
        ok("CreateNetworkInterface", &format!("<networkInterface>{item}</networkInterface>"))
    })
    .await;
    let facts = cloud.create_eni(&spec()).await.unwrap();
    assert_eq!((facts.id.as_str(), facts.status), (ENI, EniStatus::Available));
    let calls = peer.calls("CreateNetworkInterface");
    for part in [
        "ClientToken=token-1",
        "SecurityGroupId.1=sg-0123456789abcdef0",
        "TagSpecification.1.ResourceType=network-interface",
        "TagSpecification.1.Tag.1.Key=berth%3Aintent",
    ] {
        assert!(calls[0].contains(part), "{part} in {}", calls[0]);
    }
}

#[tokio::test]
async fn an_unknown_subnet_is_refused_before_anything_is_created() {
    let (cloud, peer) = scripted(|_| ok("DescribeSubnets", "<subnetSet/>")).await;
    let error = cloud.create_eni(&spec()).await.unwrap_err();
    assert!(
        matches!(&error.kind, CloudErrorKind::Refused(text) if text.contains("InvalidSubnetID.NotFound")),
        "{error}"
    );
    assert_eq!(peer.calls("CreateNetworkInterface").len(), 0);
}

#[tokio::test]
async fn throttling_is_told_from_an_unknown_outcome() {
    let limit = ec2_error("RequestLimitExceeded", "Request limit exceeded.");
    let throttled = CloudErrorKind::Throttled("RequestLimitExceeded: Request limit exceeded.".into());
    assert_eq!(delete_error(Answer::Http(503, limit.clone())).await, throttled);
    assert_eq!(delete_error(Answer::Http(400, limit)).await, throttled);
    for answer in [
        Answer::Silence,
        Answer::HangUp,
        Answer::Http(500, "<html>".into()),
        Answer::Http(503, ec2_error("Unavailable", "")),
    ] {
        let shown = format!("{answer:?}");
        let kind = delete_error(answer).await;
        assert!(matches!(kind, CloudErrorKind::OutcomeUnknown(_)), "{shown}: {kind:?}");
    }
}

#[tokio::test]
async fn what_broke_a_connection_is_said_in_plain_words() {
    let (cloud, _peer) = scripted(|_| Answer::HangUp).await;
    let text = Chain(&cloud.enis().await.unwrap_err()).to_string();
    assert!(text.ends_with("the connection failed: connection closed before message completed"), "{text}");
    assert!(!text.contains("client error"), "{text}");
}

#[tokio::test]
async fn garbage_is_an_error_and_no_empty_list() {
    for garbage in ["", "garbage", "<html><body>captive portal</body></html>"] {
        let (cloud, _peer) = scripted(move |_| Answer::Http(200, garbage.into())).await;
        let error = cloud.enis().await.unwrap_err();
        assert!(matches!(error.kind, CloudErrorKind::OutcomeUnknown(_)), "{garbage}: {error}");
    }
}

#[tokio::test]
async fn a_code_that_nobody_knows_is_refused_with_its_own_words() {
    let kind = delete_error(Answer::Http(400, ec2_error("BrandNewCode", "no way"))).await;
    assert_eq!(kind, CloudErrorKind::Refused("BrandNewCode: no way".into()));
}

#[tokio::test]
async fn what_is_gone_counts_as_deleted_and_detached() {
    let (cloud, _peer) = scripted(|body| {
        let code = if is(body, "DeleteNetworkInterface") {
            "InvalidNetworkInterfaceID.NotFound"
        } else {
            "InvalidAttachmentID.NotFound"
        };
        Answer::Http(400, ec2_error(code, "does not exist"))
    })
    .await;
    cloud.delete_eni(&ENI.parse().unwrap()).await.unwrap();
    cloud.detach_eni(&ATTACHMENT.parse().unwrap()).await.unwrap();
}

#[tokio::test]
async fn an_attach_that_was_done_before_answers_its_attachment() {
    let (cloud, _peer) = scripted(|body| match () {
        () if is(body, "AttachNetworkInterface") => Answer::Http(
            400,
            ec2_error("InvalidParameterValue", "Interface: [eni-1] in use. It is currently in use"),
        ),
        () if is(body, "DescribeSubnets") => ok("DescribeSubnets", SUBNETS),
        () => {
            let item = eni_xml(ENI, &attached_xml(1));
            ok(
                "DescribeNetworkInterfaces",
                &format!("<networkInterfaceSet><item>{item}</item></networkInterfaceSet>"),
            )
        }
    })
    .await;
    let eni: EniId = ENI.parse().unwrap();
    assert_eq!(cloud.attach_eni(&eni, 1).await.unwrap(), ATTACHMENT.parse::<AttachmentId>().unwrap());
    assert!(
        matches!(cloud.attach_eni(&eni, 2).await.unwrap_err().kind, CloudErrorKind::InUse(_)),
        "another index"
    );
}

#[tokio::test]
async fn a_detach_under_way_counts_as_taken_and_an_attach_under_way_does_not() {
    for (status, taken) in [("detaching", true), ("attaching", false)] {
        let (cloud, _peer) = scripted(move |body| {
            if is(body, "DetachNetworkInterface") {
                return Answer::Http(400, ec2_error("IncorrectState", "not now"));
            }
            let extra = attached_xml(1).replace("<status>attached<", &format!("<status>{status}<"));
            let item = eni_xml(ENI, &extra);
            ok(
                "DescribeNetworkInterfaces",
                &format!("<networkInterfaceSet><item>{item}</item></networkInterfaceSet>"),
            )
        })
        .await;
        let result = cloud.detach_eni(&ATTACHMENT.parse().unwrap()).await;
        assert_eq!(result.is_ok(), taken, "{status}: {result:?}");
    }
}

#[tokio::test]
async fn tags_without_a_value_are_removed() {
    let (cloud, peer) = scripted(|body| {
        ok(if is(body, "CreateTags") { "CreateTags" } else { "DeleteTags" }, "<return>true</return>")
    })
    .await;
    let tags = BTreeMap::from([("set".to_string(), Some("1".to_string())), ("gone".to_string(), None)]);
    cloud.tag_eni(&ENI.parse().unwrap(), &tags).await.unwrap();
    assert!(peer.calls("CreateTags")[0].contains("Tag.1.Key=set&Tag.1.Value=1"));
    let removed = &peer.calls("DeleteTags")[0];
    assert!(removed.contains("Tag.1.Key=gone") && !removed.contains("Value"), "{removed}");
}

#[tokio::test]
async fn imds_that_does_not_answer_is_asked_again_at_the_next_call() {
    let closed = cloud("http://127.0.0.1:9");
    for _ in 0..2 {
        let error = closed.instance().await.unwrap_err();
        assert!(matches!(error.kind, CloudErrorKind::OutcomeUnknown(_)), "{error}");
        assert_eq!(error.op, "read IMDS");
    }
}

#[tokio::test]
async fn an_instance_without_a_role_says_so_and_sends_nothing() {
    let peer = Peer::start(Arc::new(|_| Answer::HangUp), false).await;
    let error = cloud(&peer.url).delete_eni(&ENI.parse().unwrap()).await.unwrap_err();
    let text = Chain(&error).to_string();
    assert!(
        matches!(error.kind, CloudErrorKind::OutcomeUnknown(_)) && text.contains("credentials"),
        "{text}"
    );
    assert_eq!(peer.calls("DeleteNetworkInterface").len(), 0);
}

#[test]
fn an_endpoint_that_is_no_url_is_refused_at_once() {
    for endpoint in ["10.0.0.1:80", "ftp://x", "http://", "http://a b"] {
        let config = Ec2Config { ec2_endpoint: Some(endpoint.into()), ..Ec2Config::default() };
        let error = Ec2Cloud::new(config).unwrap_err();
        assert!(error.to_string().contains("http:// or https://"), "{error}");
    }
}
