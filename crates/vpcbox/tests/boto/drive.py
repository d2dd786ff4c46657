"""Drives every action of a running vpcbox with boto3, signatures on; strict.py reads along.

Arguments: the status of the box as JSON. Ends with a word of what was seen; any assertion ends it with a non-zero status.
"""

import json
import sys
import time
import urllib.request

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError

import strict

box = json.load(open(sys.argv[1]))
checker = strict.Checker()


def client(**other):
    options = dict(
        endpoint_url=box["endpoint"], region_name=box["region"], aws_access_key_id="AKIDVPCBOXTEST",
        aws_secret_access_key="a-secret/with+signs=",
        config=Config(retries={"mode": "standard", "max_attempts": 3}, read_timeout=10),
    )
    made = boto3.client("ec2", **(options | other))
    checker.watch(made)
    return made


ec2 = client()
once = client(config=Config(retries={"mode": "standard", "total_max_attempts": 1}))
subnets = {s["name"]: s["id"] for s in box["subnets"]}
instances = {i["name"]: i["id"] for i in box["instances"]}


def knobs(**turned):
    body = json.dumps(turned).encode()
    urllib.request.urlopen(urllib.request.Request(box["endpoint"] + "/_vpcbox/knobs", data=body)).read()


def refused(code, call, status=400, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        found = (error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"])
        assert found == (code, status), f"expected {code} {status}, got {found}: {error}"
        return error.response["Error"]["Message"]
    raise AssertionError(f"{code} expected, the call went through")


def describe(eni):
    return ec2.describe_network_interfaces(NetworkInterfaceIds=[eni])["NetworkInterfaces"][0]


def until(what, condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.01)


def create(subnet="a", **more):
    return ec2.create_network_interface(SubnetId=subnets[subnet], **more)["NetworkInterface"]


def the_site_is_as_configured():
    vpc, = ec2.describe_vpcs(VpcIds=[box["vpc"]])["Vpcs"]
    assert vpc["CidrBlock"] == "10.0.0.0/16" and not vpc["IsDefault"]
    assert len(ec2.describe_vpcs()["Vpcs"]) == 1
    found = ec2.describe_subnets(Filters=[{"Name": "tag:Name", "Values": ["tin?"]}])["Subnets"]
    assert [s["SubnetId"] for s in found] == [subnets["tiny"]]
    assert found[0]["AvailableIpAddressCount"] == 10, found
    both = ec2.describe_subnets(SubnetIds=list(subnets.values()))["Subnets"]
    assert {s["AvailabilityZone"] for s in both} == {"us-west-2a", "us-west-2b"}
    groups = ec2.describe_security_groups()["SecurityGroups"]
    assert {g["GroupName"] for g in groups} == {"default", "web"}
    assert len(ec2.describe_security_groups(GroupNames=["web"])["SecurityGroups"]) == 1
    reservation, = ec2.describe_instances(InstanceIds=[instances["two"]])["Reservations"]
    instance, = reservation["Instances"]
    assert instance["InstanceType"] == "t3.micro" and instance["State"]["Name"] == "running"
    assert [g["GroupName"] for g in instance["SecurityGroups"]] == ["default", "web"]
    primary, = instance["NetworkInterfaces"]
    assert primary["Attachment"]["DeviceIndex"] == 0 and primary["Attachment"]["DeleteOnTermination"]
    assert len(ec2.describe_instances()["Reservations"]) == 2
    limits = ec2.describe_instance_types(InstanceTypes=["m5.large"])["InstanceTypes"][0]["NetworkInfo"]
    assert (limits["MaximumNetworkInterfaces"], limits["Ipv4AddressesPerInterface"]) == (3, 10)
    pages = ec2.get_paginator("describe_instance_types").paginate(PaginationConfig={"PageSize": 7})
    assert len({t["InstanceType"] for page in pages for t in page["InstanceTypes"]}) >= 16


def an_eni_lives_attached_detached_deleted():
    tags = [{"Key": "berth:instance-id", "Value": instances["one"]}, {"Key": "empty", "Value": ""}]
    made = create(
        Description="a <b> & c", Ipv6AddressCount=1, SecondaryPrivateIpAddressCount=2,
        TagSpecifications=[{"ResourceType": "network-interface", "Tags": tags}],
    )
    eni = made["NetworkInterfaceId"]
    assert made["Status"] == "available" and made["MacAddress"].startswith("02:") and made["SourceDestCheck"]
    assert len(made["PrivateIpAddresses"]) == 3 and made["PrivateIpAddresses"][0]["Primary"]
    assert len(made["Ipv6Addresses"]) == 1 and made["Description"] == "a <b> & c"
    assert {t["Key"]: t["Value"] for t in made["TagSet"]} == {"berth:instance-id": instances["one"], "empty": ""}
    dashed = made["PrivateIpAddress"].replace(".", "-")
    assert made["PrivateDnsName"] == f"ip-{dashed}.us-west-2.compute.internal"
    attached = ec2.attach_network_interface(NetworkInterfaceId=eni, InstanceId=instances["one"], DeviceIndex=1)
    attachment = attached["AttachmentId"]
    assert describe(eni)["Status"] == "attaching"
    refused("InvalidParameterValue", ec2.delete_network_interface, NetworkInterfaceId=eni)
    until("attached", lambda: describe(eni)["Attachment"]["Status"] == "attached")
    assert not describe(eni)["Attachment"]["DeleteOnTermination"]
    change = {"AttachmentId": attachment, "DeleteOnTermination": True}
    ec2.modify_network_interface_attribute(NetworkInterfaceId=eni, Attachment=change)
    ec2.modify_network_interface_attribute(NetworkInterfaceId=eni, SourceDestCheck={"Value": False})
    ec2.modify_network_interface_attribute(NetworkInterfaceId=eni, Description={"Value": "new"})
    web = ec2.describe_security_groups(GroupNames=["web"])["SecurityGroups"][0]["GroupId"]
    ec2.modify_network_interface_attribute(NetworkInterfaceId=eni, Groups=[web])
    now = describe(eni)
    assert now["Attachment"]["DeleteOnTermination"] and now["Description"] == "new"
    assert not now["SourceDestCheck"] and [g["GroupName"] for g in now["Groups"]] == ["web"]
    ec2.detach_network_interface(AttachmentId=attachment)
    assert describe(eni)["Status"] == "detaching"
    until("free", lambda: describe(eni)["Status"] == "available")
    assert "Attachment" not in describe(eni)
    refused("InvalidAttachmentID.NotFound", ec2.detach_network_interface, AttachmentId=attachment)
    ec2.delete_network_interface(NetworkInterfaceId=eni)
    refused("InvalidNetworkInterfaceID.NotFound", ec2.delete_network_interface, NetworkInterfaceId=eni)


def addresses_come_and_go():
    eni = create()["NetworkInterfaceId"]
    reply = ec2.assign_private_ip_addresses(NetworkInterfaceId=eni, SecondaryPrivateIpAddressCount=2)
    new = [a["PrivateIpAddress"] for a in reply["AssignedPrivateIpAddresses"]]
    assert len(new) == 2 and reply["NetworkInterfaceId"] == eni
    ec2.assign_private_ip_addresses(NetworkInterfaceId=eni, PrivateIpAddresses=["10.0.1.200"])
    twice = ec2.assign_private_ip_addresses(NetworkInterfaceId=eni, PrivateIpAddresses=["10.0.1.200"] * 2)
    assert [a["PrivateIpAddress"] for a in twice["AssignedPrivateIpAddresses"]] == ["10.0.1.200"]
    assert len(describe(eni)["PrivateIpAddresses"]) == 4
    ec2.unassign_private_ip_addresses(NetworkInterfaceId=eni, PrivateIpAddresses=new)
    left = [a["PrivateIpAddress"] for a in describe(eni)["PrivateIpAddresses"]]
    assert len(left) == 2 and left[1] == "10.0.1.200"
    found = ec2.describe_network_interfaces(Filters=[{"Name": "addresses.private-ip-address", "Values": ["10.0.1.200"]}])
    assert [e["NetworkInterfaceId"] for e in found["NetworkInterfaces"]] == [eni]
    other = create()["NetworkInterfaceId"]
    steal = dict(NetworkInterfaceId=other, PrivateIpAddresses=["10.0.1.200"])
    refused("InvalidIPAddress.InUse", ec2.assign_private_ip_addresses, **steal)
    ec2.assign_private_ip_addresses(AllowReassignment=True, **steal)
    assert len(describe(eni)["PrivateIpAddresses"]) == 1
    for each in (eni, other):
        ec2.delete_network_interface(NetworkInterfaceId=each)


def tags_are_set_shown_and_removed():
    eni = create()["NetworkInterfaceId"]
    ec2.create_tags(Resources=[eni, subnets["a"]], Tags=[{"Key": "k", "Value": "v"}, {"Key": "other", "Value": "ö<&>"}])
    found = ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": [eni]}])["Tags"]
    assert {t["Key"]: t["Value"] for t in found} == {"k": "v", "other": "ö<&>"}
    assert {t["ResourceType"] for t in found} == {"network-interface"}
    by_tag = ec2.describe_network_interfaces(Filters=[{"Name": "tag:k", "Values": ["v"]}])["NetworkInterfaces"]
    assert [e["NetworkInterfaceId"] for e in by_tag] == [eni]
    ec2.create_tags(Resources=[eni], Tags=[{"Key": "other", "Value": "v" * 256}])
    twice = dict(Resources=[eni], Tags=[{"Key": "k", "Value": "1"}, {"Key": "k", "Value": "2"}])
    refused("InvalidParameterValue", ec2.create_tags, **twice)
    ec2.delete_tags(Resources=[eni], Tags=[{"Key": "k", "Value": "another"}, {"Key": "other"}])
    assert describe(eni)["TagSet"] == [{"Key": "k", "Value": "v"}]
    ec2.delete_tags(Resources=[eni, subnets["a"]])
    ec2.delete_network_interface(NetworkInterfaceId=eni)


def pages_and_filters_find_all():
    made = {create(Description=f"page {n}")["NetworkInterfaceId"] for n in range(12)}
    filters = [{"Name": "description", "Values": ["page *"]}]
    pages = ec2.get_paginator("describe_network_interfaces").paginate(Filters=filters, PaginationConfig={"PageSize": 5})
    sizes = [page["NetworkInterfaces"] for page in pages]
    assert [len(s) for s in sizes] == [5, 5, 2]
    assert {e["NetworkInterfaceId"] for s in sizes for e in s} == made
    message = refused(
        "InvalidParameterValue", ec2.describe_network_interfaces, Filters=[{"Name": "colour", "Values": ["red"]}])
    assert message == "The filter 'colour' is invalid", message
    some = made.pop()
    ec2.delete_network_interface(NetworkInterfaceId=some)
    message = refused(
        "InvalidNetworkInterfaceID.NotFound", ec2.describe_network_interfaces, NetworkInterfaceIds=[some, *made])
    assert some in message
    for eni in made:
        ec2.delete_network_interface(NetworkInterfaceId=eni)


def limits_are_those_of_aws():
    first, second = create("tiny")["NetworkInterfaceId"], create("tiny")["NetworkInterfaceId"]
    two = dict(InstanceId=instances["two"])
    one = ec2.attach_network_interface(NetworkInterfaceId=first, DeviceIndex=1, **two)["AttachmentId"]
    refused("AttachmentLimitExceeded", ec2.attach_network_interface, NetworkInterfaceId=second, DeviceIndex=2, **two)
    refused("InvalidNetworkInterface.InUse", ec2.attach_network_interface, NetworkInterfaceId=first, DeviceIndex=2, **two)
    refused("InvalidParameterValue", ec2.attach_network_interface, NetworkInterfaceId=second, DeviceIndex=1, **two)
    other_zone = dict(NetworkInterfaceId=second, DeviceIndex=1, InstanceId=instances["one"])
    refused("InvalidParameterCombination", ec2.attach_network_interface, **other_zone)
    more = dict(NetworkInterfaceId=first, SecondaryPrivateIpAddressCount=2)
    refused("PrivateIpAddressLimitExceeded", ec2.assign_private_ip_addresses, **more)
    primary = ec2.describe_network_interfaces(Filters=[
        {"Name": "attachment.instance-id", "Values": [instances["two"]]},
        {"Name": "attachment.device-index", "Values": ["0"]},
    ])["NetworkInterfaces"][0]["Attachment"]["AttachmentId"]
    refused("OperationNotPermitted", ec2.detach_network_interface, AttachmentId=primary)
    ec2.detach_network_interface(AttachmentId=one)
    refused("IncorrectState", ec2.detach_network_interface, AttachmentId=one)
    made = [first, second]
    try:
        while True:
            made.append(create("tiny")["NetworkInterfaceId"])
    except ClientError as error:
        assert error.response["Error"]["Code"] == "InsufficientFreeAddressesInSubnet", error
    assert len(made) == 10
    left = ec2.describe_subnets(SubnetIds=[subnets["tiny"]])["Subnets"][0]["AvailableIpAddressCount"]
    assert left == 0, left
    until("free", lambda: describe(first)["Status"] == "available")
    for eni in made:
        ec2.delete_network_interface(NetworkInterfaceId=eni)


def a_client_token_makes_one_eni():
    token = "token-of-a-test"
    first = create(ClientToken=token, Description="one")
    again = create(ClientToken=token, Description="one")
    assert first["NetworkInterfaceId"] == again["NetworkInterfaceId"]
    mismatch = dict(SubnetId=subnets["a"], ClientToken=token, Description="two")
    refused("IdempotentParameterMismatch", ec2.create_network_interface, **mismatch)
    ec2.delete_network_interface(NetworkInterfaceId=first["NetworkInterfaceId"])
    dry = dict(SubnetId=subnets["a"], DryRun=True)
    refused("DryRunOperation", ec2.create_network_interface, status=412, **dry)


def faults_are_what_a_client_retries():
    def mine():
        found = ec2.describe_network_interfaces(Filters=[{"Name": "description", "Values": ["faulty"]}])
        return [e["NetworkInterfaceId"] for e in found["NetworkInterfaces"]]

    knobs(throttle=2)
    first = create(Description="faulty")
    knobs(lose_reply=[{"action": "CreateNetworkInterface"}])
    second = create(Description="faulty")  # botocore repeats it with the same token
    assert sorted(mine()) == sorted([first["NetworkInterfaceId"], second["NetworkInterfaceId"]])
    knobs(lose_reply=[{"action": "DeleteNetworkInterface"}])
    try:
        once.delete_network_interface(NetworkInterfaceId=second["NetworkInterfaceId"])
        raise AssertionError("a reply came")
    except HTTPClientError:
        pass
    assert mine() == [first["NetworkInterfaceId"]]
    knobs(fail=[{"action": "DeleteNetworkInterface", "code": "UnauthorizedOperation"}])
    eni = dict(NetworkInterfaceId=first["NetworkInterfaceId"])
    refused("UnauthorizedOperation", once.delete_network_interface, status=403, **eni)
    knobs(fail=[{"action": "*", "code": "InternalError"}])
    refused("InternalError", once.delete_network_interface, status=500, **eni)
    knobs(throttle=1)
    refused("RequestLimitExceeded", once.delete_network_interface, status=503, **eni)
    ec2.delete_network_interface(**eni)


def bad_signatures_are_refused():
    refused("AuthFailure", client(aws_access_key_id="AKIDNOBODY").describe_vpcs, status=401)
    refused("SignatureDoesNotMatch", client(aws_secret_access_key="wrong").describe_vpcs, status=403)
    refused("SignatureDoesNotMatch", client(region_name="eu-west-1").describe_vpcs, status=403)
    refused("AuthFailure", client(aws_session_token="stray").describe_vpcs, status=401)
    try:
        urllib.request.urlopen(box["endpoint"] + "/?Action=DescribeVpcs")
        raise AssertionError("unsigned and let in")
    except urllib.error.HTTPError as error:
        assert error.code == 403 and b"MissingAuthenticationToken" in error.read()


def bad_parameters_are_named():
    refused("InvalidNetworkInterfaceId.Malformed", ec2.delete_network_interface, NetworkInterfaceId="eni-x")
    refused("InvalidSubnetID.NotFound", ec2.create_network_interface, SubnetId="subnet-00000000")
    refused("InvalidGroup.NotFound", ec2.create_network_interface, SubnetId=subnets["a"], Groups=["sg-00000000"])
    refused("InvalidInstanceID.NotFound", ec2.describe_instances, InstanceIds=["i-00000000"])
    outside = dict(SubnetId=subnets["a"], PrivateIpAddress="10.0.2.9")
    refused("InvalidParameterValue", ec2.create_network_interface, **outside)
    no_ipv6 = dict(SubnetId=subnets["tiny"], Ipv6AddressCount=1)
    refused("InvalidParameterValue", ec2.create_network_interface, **no_ipv6)
    refused("InvalidAction", ec2.describe_volumes)


for scenario in (
    the_site_is_as_configured, an_eni_lives_attached_detached_deleted, addresses_come_and_go, tags_are_set_shown_and_removed,
    pages_and_filters_find_all, limits_are_those_of_aws, a_client_token_makes_one_eni, faults_are_what_a_client_retries,
    bad_signatures_are_refused, bad_parameters_are_named,
):
    scenario()

left = ec2.describe_network_interfaces()["NetworkInterfaces"]
assert len(left) == 2, "the two primaries"
assert not checker.problems, "\n" + "\n".join(sorted(set(checker.problems)))
assert len(checker.operations) == 16, sorted(checker.operations)
print(f"{len(checker.operations)} actions and {len(checker.codes)} error codes checked")
