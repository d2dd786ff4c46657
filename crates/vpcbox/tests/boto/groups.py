"""Drives the security groups of a running vpcbox with boto3; strict.py reads along.

Arguments: the status of the box as JSON. Ends with a word of what was seen; any assertion ends it with a non-zero status.
"""

import json
import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

import strict

box = json.load(open(sys.argv[1]))
strict.ALWAYS |= {
    "SecurityGroup": strict.ALWAYS["SecurityGroup"] | {"securityGroupArn", "tagSet"},
    "IpPermission": {"ipProtocol", "groups", "ipRanges", "ipv6Ranges", "prefixListIds"},
    "SecurityGroupRule": {
        "securityGroupRuleId", "groupId", "groupOwnerId", "isEgress", "ipProtocol", "fromPort", "toPort", "tagSet",
        "securityGroupRuleArn",
    },
    "RevokedSecurityGroupRule": {"securityGroupRuleId", "groupId", "isEgress", "ipProtocol", "fromPort", "toPort"},
    "CreateSecurityGroupResult": {"groupId", "tagSet", "securityGroupArn"},
    "AuthorizeSecurityGroupIngressResult": {"return", "securityGroupRuleSet"},
    "AuthorizeSecurityGroupEgressResult": {"return", "securityGroupRuleSet"},
    "RevokeSecurityGroupIngressResult": {"return", "revokedSecurityGroupRuleSet"},
    "RevokeSecurityGroupEgressResult": {"return", "revokedSecurityGroupRuleSet"},
    "DescribeNetworkInterfaceAttributeResult": {"networkInterfaceId"},
}
checker = strict.Checker()
ec2 = boto3.client(
    "ec2", endpoint_url=box["endpoint"], region_name=box["region"], aws_access_key_id="AKIDVPCBOXTEST",
    aws_secret_access_key="a-secret/with+signs=", config=Config(retries={"mode": "standard", "max_attempts": 3}),
)
checker.watch(ec2)
vpc, subnets = box["vpc"], {s["name"]: s["id"] for s in box["subnets"]}


def refused(code, call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        assert error.response["Error"]["Code"] == code, f"expected {code}: {error}"
        return error.response["Error"]["Message"]
    raise AssertionError(f"{code} expected, the call went through")


def create(name, **more):
    return ec2.create_security_group(GroupName=name, Description=f"for {name}", VpcId=vpc, **more)["GroupId"]


def describe(group):
    found, = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    return found


def tcp(port, **peers):
    return {"IpProtocol": "tcp", "FromPort": port, "ToPort": port} | peers


def anywhere(description=None):
    return {"IpRanges": [{"CidrIp": "0.0.0.0/0"} | ({"Description": description} if description else {})]}


def the_groups_of_the_file_are_there():
    default, = ec2.describe_security_groups(GroupNames=["default"])["SecurityGroups"]
    assert default["VpcId"] == vpc
    own, = default["IpPermissions"]
    assert own["IpProtocol"] == "-1" and "FromPort" not in own
    assert [pair["GroupId"] for pair in own["UserIdGroupPairs"]] == [default["GroupId"]]
    out, = default["IpPermissionsEgress"]
    assert out["IpRanges"] == [{"CidrIp": "0.0.0.0/0"}] and out["Ipv6Ranges"] == [{"CidrIpv6": "::/0"}]
    refused("CannotDelete", ec2.delete_security_group, GroupId=default["GroupId"])


def a_group_is_made_found_and_deleted():
    tags = [{"ResourceType": "security-group", "Tags": [{"Key": "team", "Value": "blue"}]}]
    group = create("blue", TagSpecifications=tags)
    assert describe(group)["Tags"] == [{"Key": "team", "Value": "blue"}]
    assert describe(group)["SecurityGroupArn"].endswith(f":security-group/{group}")
    assert describe(group)["IpPermissions"] == [] and len(describe(group)["IpPermissionsEgress"]) == 1
    message = refused("InvalidGroup.Duplicate", ec2.create_security_group, GroupName="blue", Description="x", VpcId=vpc)
    assert message == f"The security group 'blue' already exists for VPC '{vpc}'", message
    make = dict(Description="x", VpcId=vpc)
    refused("InvalidParameterValue", ec2.create_security_group, GroupName="default", **make)
    refused("InvalidParameterValue", ec2.create_security_group, GroupName="sg-1", **make)
    refused("InvalidParameterValue", ec2.create_security_group, GroupName="ä", **make)
    refused("VPCIdNotSpecified", ec2.create_security_group, GroupName="red", Description="x")
    refused("InvalidVpcID.NotFound", ec2.create_security_group, GroupName="red", Description="x", VpcId="vpc-00000000")
    refused("DryRunOperation", ec2.create_security_group, GroupName="red", DryRun=True, **make)
    for name, value in (
        ("group-name", "bl*"), ("group-id", group), ("description", "for blue"), ("tag:team", "blue"), ("tag-key", "team"),
    ):
        filters = [{"Name": "vpc-id", "Values": [vpc]}, {"Name": name, "Values": [value]}]
        found = ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
        assert [g["GroupId"] for g in found] == [group], name
    refused("InvalidGroupId.Malformed", ec2.describe_security_groups, GroupIds=["sg-x"])
    message = refused("InvalidGroup.NotFound", ec2.describe_security_groups, GroupIds=["sg-00000000"])
    assert message == "The security group 'sg-00000000' does not exist", message
    refused("InvalidParameterValue", ec2.delete_security_group, GroupName="blue")
    assert ec2.delete_security_group(GroupId=group)["GroupId"] == group
    refused("InvalidGroup.NotFound", ec2.delete_security_group, GroupId=group)
    many = [create(f"many {n}") for n in range(12)]
    pages = ec2.get_paginator("describe_security_groups").paginate(
        Filters=[{"Name": "group-name", "Values": ["many *"]}], PaginationConfig={"PageSize": 5})
    sizes = [page["SecurityGroups"] for page in pages]
    assert [len(s) for s in sizes] == [5, 5, 2] and {g["GroupId"] for s in sizes for g in s} == set(many)
    for group in many:
        ec2.delete_security_group(GroupId=group)


def rules_are_made_shown_and_revoked():
    web, db = create("web servers"), create("db")
    tags = [{"ResourceType": "security-group-rule", "Tags": [{"Key": "why", "Value": "customers"}]}]
    made = ec2.authorize_security_group_ingress(GroupId=web, TagSpecifications=tags, IpPermissions=[
        tcp(80, Ipv6Ranges=[{"CidrIpv6": "::/0"}], **anywhere("the world")),
        {"IpProtocol": "icmp", "FromPort": 8, "ToPort": -1, **anywhere()},
        {"IpProtocol": "50", "IpRanges": [{"CidrIp": "10.0.7.7/16"}]},
    ])["SecurityGroupRules"]
    assert len(made) == 4 and all(r["SecurityGroupRuleId"].startswith("sgr-") and not r["IsEgress"] for r in made)
    assert [(r["IpProtocol"], r["FromPort"], r["ToPort"]) for r in made] == [
        ("tcp", 80, 80), ("tcp", 80, 80), ("icmp", 8, -1), ("50", -1, -1)]
    assert made[0]["Description"] == "the world" and made[3]["CidrIpv4"] == "10.0.0.0/16"
    assert made[0]["Tags"] == [{"Key": "why", "Value": "customers"}]
    shown = {p["IpProtocol"]: p for p in describe(web)["IpPermissions"]}
    assert shown["tcp"]["IpRanges"] == [{"CidrIp": "0.0.0.0/0", "Description": "the world"}]
    assert shown["tcp"]["Ipv6Ranges"] == [{"CidrIpv6": "::/0"}] and "FromPort" not in shown["50"]
    # The old form, and a reference.
    ec2.authorize_security_group_ingress(GroupId=db, IpProtocol="udp", FromPort=1, ToPort=9, CidrIp="10.0.0.0/8")
    pair = {"UserIdGroupPairs": [{"GroupId": web, "Description": "from web"}]}
    rule, = ec2.authorize_security_group_ingress(GroupId=db, IpPermissions=[tcp(5432, **pair)])["SecurityGroupRules"]
    assert rule["ReferencedGroupInfo"]["GroupId"] == web and rule["Description"] == "from web"
    refused("DependencyViolation", ec2.delete_security_group, GroupId=web)
    for name, value in (("ip-permission.group-id", web), ("ip-permission.cidr", "10.0.0.0/8"), ("ip-permission.to-port", "9")):
        found = ec2.describe_security_groups(Filters=[{"Name": name, "Values": [value]}])["SecurityGroups"]
        assert [g["GroupId"] for g in found] == [db], name

    of_db = {"Name": "group-id", "Values": [db]}
    listed = ec2.describe_security_group_rules(Filters=[of_db])["SecurityGroupRules"]
    assert len(listed) == 4 and sum(r["IsEgress"] for r in listed) == 2, listed
    one = ec2.describe_security_group_rules(SecurityGroupRuleIds=[rule["SecurityGroupRuleId"]])["SecurityGroupRules"]
    assert one == [rule]
    tagged = ec2.describe_security_group_rules(Filters=[{"Name": "tag:why", "Values": ["customers"]}])
    assert len(tagged["SecurityGroupRules"]) == 4
    refused("InvalidSecurityGroupRuleId.NotFound", ec2.describe_security_group_rules, SecurityGroupRuleIds=["sgr-00000000"])
    ec2.create_tags(Resources=[rule["SecurityGroupRuleId"]], Tags=[{"Key": "late", "Value": "x"}])
    kinds = {t["ResourceType"] for t in ec2.describe_tags(Filters=[{"Name": "key", "Values": ["late"]}])["Tags"]}
    assert kinds == {"security-group-rule"}

    ec2.modify_security_group_rules(GroupId=db, SecurityGroupRules=[{
        "SecurityGroupRuleId": rule["SecurityGroupRuleId"],
        "SecurityGroupRule": {"IpProtocol": "tcp", "FromPort": 5433, "ToPort": 5433, "CidrIpv4": "10.0.0.0/8"},
    }])
    one, = ec2.describe_security_group_rules(SecurityGroupRuleIds=[rule["SecurityGroupRuleId"]])["SecurityGroupRules"]
    assert one["FromPort"] == 5433 and "ReferencedGroupInfo" not in one
    gone = ec2.revoke_security_group_ingress(GroupId=db, SecurityGroupRuleIds=[rule["SecurityGroupRuleId"]])
    assert [r["CidrIpv4"] for r in gone["RevokedSecurityGroupRules"]] == ["10.0.0.0/8"]
    gone = ec2.revoke_security_group_ingress(GroupId=web, IpPermissions=[tcp(80, **anywhere())])
    assert [r["SecurityGroupRuleId"] for r in gone["RevokedSecurityGroupRules"]] == [made[0]["SecurityGroupRuleId"]]
    refused("InvalidPermission.NotFound", ec2.revoke_security_group_ingress, GroupId=web, IpPermissions=[tcp(80, **anywhere())])
    out = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}], "Ipv6Ranges": [{"CidrIpv6": "::/0"}]}
    assert len(ec2.revoke_security_group_egress(GroupId=db, IpPermissions=[out])["RevokedSecurityGroupRules"]) == 2
    assert describe(db)["IpPermissionsEgress"] == []
    ec2.authorize_security_group_egress(GroupId=db, IpPermissions=[tcp(443, UserIdGroupPairs=[{"GroupId": db}])])
    for group in (db, web):
        ec2.delete_security_group(GroupId=group)


def wrong_rules_are_refused():
    group = create("strict")
    call = lambda *permissions: dict(GroupId=group, IpPermissions=list(permissions))
    let_in = ec2.authorize_security_group_ingress
    let_in(**call(tcp(22, **anywhere())))
    message = refused("InvalidPermission.Duplicate", let_in, **call(tcp(22, **anywhere())))
    assert message == 'the specified rule "peer: 0.0.0.0/0, TCP, from port: 22, to port: 22, ALLOW" already exists', message
    refused("InvalidParameterValue", let_in, **call(tcp(23, **anywhere()), tcp(23, **anywhere())))
    refused("InvalidPermission.Malformed", let_in, **call(tcp(22)))
    refused("InvalidParameterValue", let_in, **call(tcp(70000, **anywhere())))
    refused("InvalidParameterValue", let_in, **call({"IpProtocol": "tcp", **anywhere()}))
    refused("InvalidParameterValue", let_in, **call({"IpProtocol": "tpc", **anywhere()}))
    message = refused("InvalidParameterValue", let_in, **call(tcp(22, IpRanges=[{"CidrIp": "10.0.0.0/99"}])))
    assert message == "CIDR block 10.0.0.0/99 is malformed", message
    refused("InvalidGroup.NotFound", let_in, **call(tcp(22, UserIdGroupPairs=[{"GroupId": "sg-00000000"}])))
    refused("InvalidGroup.NotFound", let_in, GroupId="sg-00000000", IpPermissions=[tcp(22, **anywhere())])
    refused("InvalidParameterValue", let_in, GroupName="strict", IpPermissions=[tcp(22, **anywhere())])
    refused("MissingParameter", let_in, IpPermissions=[tcp(22, **anywhere())])
    let_in(**call(*[tcp(port, **anywhere()) for port in range(100, 159)]))
    refused("RulesPerSecurityGroupLimitExceeded", let_in, **call(tcp(160, **anywhere())))
    assert len(describe(group)["IpPermissions"]) == 60
    ec2.delete_security_group(GroupId=group)


def an_eni_has_groups_and_a_check():
    groups = [create(f"of an eni {n}") for n in range(6)]
    made = ec2.create_network_interface(SubnetId=subnets["a"], Groups=groups[:2])["NetworkInterface"]
    eni = made["NetworkInterfaceId"]
    assert [g["GroupId"] for g in made["Groups"]] == groups[:2]
    refused("DependencyViolation", ec2.delete_security_group, GroupId=groups[0])
    change = ec2.modify_network_interface_attribute
    too_many = dict(NetworkInterfaceId=eni, Groups=groups)
    refused("SecurityGroupsPerInterfaceLimitExceeded", change, **too_many)
    refused("SecurityGroupsPerInterfaceLimitExceeded", ec2.create_network_interface, SubnetId=subnets["a"], Groups=groups)
    refused("InvalidGroup.NotFound", change, NetworkInterfaceId=eni, Groups=["sg-00000000"])
    change(NetworkInterfaceId=eni, Groups=groups[5:])
    change(NetworkInterfaceId=eni, SourceDestCheck={"Value": False})
    show = lambda attribute: ec2.describe_network_interface_attribute(NetworkInterfaceId=eni, Attribute=attribute)
    assert [g["GroupId"] for g in show("groupSet")["Groups"]] == groups[5:]
    assert show("sourceDestCheck")["SourceDestCheck"] == {"Value": False}
    assert show("description")["Description"] == {"Value": ""} and "Attachment" not in show("attachment")
    found = ec2.describe_network_interfaces(Filters=[{"Name": "group-id", "Values": groups[5:]}])["NetworkInterfaces"]
    assert [e["NetworkInterfaceId"] for e in found] == [eni]
    ec2.delete_network_interface(NetworkInterfaceId=eni)
    for group in groups:
        ec2.delete_security_group(GroupId=group)


for scenario in (
    the_groups_of_the_file_are_there, a_group_is_made_found_and_deleted, rules_are_made_shown_and_revoked,
    wrong_rules_are_refused, an_eni_has_groups_and_a_check,
):
    scenario()

assert len(ec2.describe_security_groups()["SecurityGroups"]) == 2, "those of the file"
assert not checker.problems, "\n" + "\n".join(sorted(set(checker.problems)))
print(f"{len(checker.operations)} actions and {len(checker.codes)} error codes checked")
