//! EC2's replies as a client reads them.

use super::{
    filters::{Filters, matches},
    *,
};
use crate::samples::{ONE_INSTANCE, config};
use proptest::prelude::*;

fn now() -> Timestamp {
    "2026-11-22T15:42:23.5Z".parse().unwrap()
}

fn world() -> World {
    World::new(&config(ONE_INSTANCE), "seed", now()).unwrap()
}

fn call(world: &mut World, query: &str) -> Result<String, ApiError> {
    let mut params = Params::parse(query.as_bytes())?;
    let action = action(&mut params)?;
    answer(action, params, world, now(), "request").map(|body| String::from_utf8(body).unwrap())
}

fn code(world: &mut World, query: &str) -> String {
    call(world, query).expect_err(query).code.into_owned()
}

/// The texts of all elements of a name.
fn texts(xml: &str, name: &str) -> Vec<String> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    xml.split(&open).skip(1).filter_map(|rest| Some(rest.split_once(&close)?.0.to_owned())).collect()
}

fn create(world: &mut World, more: &str) -> String {
    let query = format!("Action=CreateNetworkInterface&SubnetId=subnet-0123456789abcdef0{more}");
    texts(&call(world, &query).unwrap(), "networkInterfaceId").remove(0)
}

#[test]
fn bad_parameters_have_their_codes() {
    let mut world = world();
    let table = [
        ("Version=2016-11-15", "MissingParameter"),
        ("Action=TerminateInstances", "InvalidAction"),
        ("Action=AttachNetworkInterface", "MissingParameter"),
        ("Action=DeleteNetworkInterface&NetworkInterfaceId=", "MissingParameter"),
        ("Action=DeleteNetworkInterface&NetworkInterfaceId=eni-xyz", "InvalidNetworkInterfaceId.Malformed"),
        (
            "Action=DeleteNetworkInterface&NetworkInterfaceId=eni-00000000",
            "InvalidNetworkInterfaceID.NotFound",
        ),
        ("Action=DetachNetworkInterface&AttachmentId=eni-attach-00000000", "InvalidAttachmentID.NotFound"),
        ("Action=CreateNetworkInterface&SubnetId=subnet-00000000", "InvalidSubnetID.NotFound"),
        (
            "Action=CreateNetworkInterface&SubnetId=subnet-0123456789abcdef0&SecurityGroupId.1=sg-00000000",
            "InvalidGroup.NotFound",
        ),
        ("Action=DescribeInstances&InstanceId.1=i-00000000", "InvalidInstanceID.NotFound"),
        ("Action=DescribeInstanceTypes&InstanceType.1=t9.giga", "InvalidInstanceType"),
        ("Action=DescribeVpcs&VpcId.1=vpc-00000000", "InvalidVpcID.NotFound"),
        ("Action=DescribeNetworkInterfaces&MaxResults=abc", "InvalidParameterValue"),
        ("Action=DescribeNetworkInterfaces&MaxResults=4", "InvalidParameterValue"),
        ("Action=DescribeNetworkInterfaces&MaxResults=1001", "InvalidParameterValue"),
        ("Action=DescribeNetworkInterfaces&NextToken=beef", "InvalidNextToken"),
        ("Action=DescribeNetworkInterfaces&Typo=1", "UnknownParameter"),
        ("Action=DescribeNetworkInterfaces&DryRun=maybe", "InvalidParameterValue"),
        ("Action=DescribeNetworkInterfaces&DryRun=true", "DryRunOperation"),
        (
            "Action=DescribeNetworkInterfaces&NetworkInterfaceId.1=eni-00000000&MaxResults=5",
            "InvalidParameterCombination",
        ),
        ("Action=CreateTags&ResourceId.1=vol-00000000&Tag.1.Key=a", "InvalidID"),
        ("Action=CreateTags&Tag.1.Key=a", "MissingParameter"),
    ];
    for (query, expected) in table {
        assert_eq!(code(&mut world, query), expected, "{query}");
    }
}

#[test]
fn an_unknown_filter_is_refused_by_name() {
    let query = "Action=DescribeNetworkInterfaces&Filter.1.Name=attachment.state&Filter.1.Value.1=x";
    let error = call(&mut world(), query).unwrap_err();
    assert_eq!(error.to_string(), "InvalidParameterValue: The filter 'attachment.state' is invalid");
    assert_eq!(error.status(), http::StatusCode::BAD_REQUEST);
}

#[test]
fn all_filters_must_match_and_any_value_of_each() {
    let mut world = world();
    let first = create(
        &mut world,
        "&Description=web+1&TagSpecification.1.ResourceType=network-interface&TagSpecification.1.Tag.1.Key=k&TagSpecification.1.Tag.1.Value=v",
    );
    let second = create(&mut world, "&Description=web+2");
    let mut find = |filters: &[(&str, &[&str])]| {
        let mut query = "Action=DescribeNetworkInterfaces".to_owned();
        for (n, (name, values)) in filters.iter().enumerate() {
            query += &format!("&Filter.{}.Name={name}", n + 1);
            for (m, value) in values.iter().enumerate() {
                query += &format!("&Filter.{}.Value.{}={value}", n + 1, m + 1);
            }
        }
        let found = texts(&call(&mut world, &query).unwrap(), "networkInterfaceId");
        (found.contains(&first), found.contains(&second), found.len())
    };
    assert_eq!(find(&[]), (true, true, 3), "with the instance's primary");
    assert_eq!(find(&[("description", &["web*"])]), (true, true, 2));
    assert_eq!(find(&[("description", &["web ?"]), ("tag:k", &["v", "w"])]), (true, false, 1));
    assert_eq!(find(&[("tag-key", &["k"])]), (true, false, 1));
    assert_eq!(find(&[("tag:k", &["x"])]), (false, false, 0));
    assert_eq!(find(&[("status", &["available"])]), (true, true, 2));
    assert_eq!(find(&[("attachment.instance-id", &["i-0123456789abcdef0"])]), (false, false, 1));
    assert_eq!(
        find(&[("attachment.status", &["attached"]), ("attachment.device-index", &["0"])]),
        (false, false, 1)
    );
    assert_eq!(
        find(&[("subnet-id", &["subnet-0123456789abcdef0"]), ("requester-managed", &["true"])]),
        (false, false, 0)
    );
}

#[test]
fn pages_follow_each_other_without_gap_or_double() {
    let mut world = world();
    let mut made: Vec<_> = (0..12).map(|_| create(&mut world, "")).collect();
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let query = format!(
            "Action=DescribeNetworkInterfaces&MaxResults=5&NextToken={token}&Filter.1.Name=status&Filter.1.Value.1=available"
        );
        let page = call(&mut world, &query).unwrap();
        seen.extend(texts(&page, "networkInterfaceId"));
        match texts(&page, "nextToken").pop() {
            Some(next) => token = next,
            None => break,
        }
        // Created in between: it may be seen or not, but it disturbs nothing else.
        if seen.len() == 5 {
            create(&mut world, "");
        }
    }
    made.sort();
    let mut once = seen.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), seen.len());
    assert!(made.iter().all(|id| seen.contains(id)));
}

#[test]
fn a_reply_has_the_shape_that_the_strictest_client_reads() {
    let mut world = world();
    let eni = create(&mut world, "&Description=a%26b%3Cc%01&ClientToken=token-1");
    let reply =
        call(&mut world, &format!("Action=DescribeNetworkInterfaces&NetworkInterfaceId.1={eni}")).unwrap();
    let start = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
        <DescribeNetworkInterfacesResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>request</requestId>\
        <networkInterfaceSet><item>";
    assert!(reply.starts_with(start), "{reply}");
    assert!(reply.contains("<description>a&amp;b&lt;c</description>"), "no control characters: {reply}");
    assert!(reply.contains("<requesterManaged>false</requesterManaged>"));
    assert!(
        reply.contains("<privateDnsName>ip-10-0-1-5.us-west-2.compute.internal</privateDnsName>"),
        "{reply}"
    );
    let instances = call(&mut world, "Action=DescribeInstances").unwrap();
    assert!(instances.contains("<launchTime>2026-11-22T15:42:23.500Z</launchTime>"), "{instances}");
    let attach = format!(
        "Action=AttachNetworkInterface&NetworkInterfaceId={eni}&InstanceId=i-0123456789abcdef0&DeviceIndex=1"
    );
    let attached = texts(&call(&mut world, &attach).unwrap(), "attachmentId");
    assert!(attached[0].starts_with("eni-attach-"));
}

#[test]
fn an_error_has_the_only_shape_whose_code_every_client_finds() {
    let body = ApiError::new("Some.Code", "a < b").body("id");
    let text = String::from_utf8(body).unwrap();
    let expected = "<Response><Errors><Error><Code>Some.Code</Code><Message>a &lt; b</Message></Error></Errors>\
        <RequestID>id</RequestID></Response>";
    assert!(text.ends_with(expected), "{text}");
}

#[test]
fn modify_takes_one_kind_of_attribute() {
    let mut world = world();
    let eni = create(&mut world, "");
    let modify =
        |more: &str| format!("Action=ModifyNetworkInterfaceAttribute&NetworkInterfaceId={eni}{more}");
    assert_eq!(code(&mut world, &modify("")), "InvalidParameterCombination");
    let two = modify("&Description.Value=x&SourceDestCheck.Value=false");
    assert_eq!(code(&mut world, &two), "InvalidParameterCombination");
    let without = modify("&Attachment.DeleteOnTermination=true");
    assert_eq!(code(&mut world, &without), "MissingParameter");
    call(&mut world, &modify("&SourceDestCheck.Value=false")).unwrap();
    let reply =
        call(&mut world, &format!("Action=DescribeNetworkInterfaces&NetworkInterfaceId.1={eni}")).unwrap();
    assert_eq!(texts(&reply, "sourceDestCheck"), ["false"]);
}

#[test]
fn wildcards_match_as_in_ec2() {
    for (pattern, text, expected) in [
        ("", "", true),
        ("*", "", true),
        ("a*c", "abbc", true),
        ("a*c", "abbd", false),
        ("a?c", "abc", true),
        ("a?c", "ac", false),
        ("*a*b*", "xaxbx", true),
        ("a\\*", "a*", true),
        ("a\\*", "ab", false),
        ("berth:*", "berth:i-1:x", true),
    ] {
        assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
    }
}

proptest! {
    #[test]
    fn a_text_matches_itself_escaped_and_any_star(text in "\\PC{0,40}", before in "\\PC{0,10}") {
        let escaped: String = text.chars().flat_map(|c| ['\\', c]).collect();
        prop_assert!(matches(&escaped, &text));
        let starred = format!("*{}*", escaped);
        let around = format!("{}{}{}", before, text, before);
        prop_assert!(matches(&starred, &around));
    }

    #[test]
    fn any_body_is_answered(body in prop::collection::vec(any::<u8>(), 0..200), n in 0..ACTIONS.len()) {
        let mut text = format!("Action={}&", ACTIONS[n].0).into_bytes();
        text.extend(body);
        let mut params = Params::parse(&text).unwrap();
        if let Ok(action) = action(&mut params) {
            let _refused_or_not = answer(action, params, &mut world(), now(), "id");
        }
    }

    #[test]
    fn any_filter_is_taken_or_refused(name in "[a-z:.-]{1,20}", value in "\\PC{0,20}") {
        let body = form_urlencoded::Serializer::new(String::new())
            .append_pair("Filter.1.Name", &name)
            .append_pair("Filter.1.Value.1", &value)
            .finish();
        let mut params = Params::parse(body.as_bytes()).unwrap();
        let taken = Filters::take(&mut params, &["status"]);
        let known = name == "status" || name == "tag-key" || name.starts_with("tag:");
        prop_assert_eq!(taken.is_ok(), known);
    }
}
