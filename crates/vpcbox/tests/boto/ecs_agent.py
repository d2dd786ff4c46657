"""Plays an ECS agent that polls, inside an instance of a running vpcbox, with the credentials of the instance's IMDS.

Arguments: endpoint, cluster. It registers, takes the tasks that ECS gives its instance, reports them as their family says, and ends
when its instance has been deregistered. strict_json.py reads every reply along.

    web   runs until it is stopped       job   runs and exits with 3
    bad   cannot pull its image          slow  waits, and says why
"""

import json
import sys
import time
import urllib.request

import boto3
from botocore.config import Config

import strict_json

IMDS = "http://169.254.169.254/latest/"
REGION = "us-west-2"
# What today's definitions of the tests require, all of which a real agent registers.
CAPABILITIES = [
    "ecs.capability.task-eni", "com.amazonaws.ecs.capability.docker-remote-api.1.17",
    "com.amazonaws.ecs.capability.docker-remote-api.1.18", "com.amazonaws.ecs.capability.docker-remote-api.1.19",
    "com.amazonaws.ecs.capability.docker-remote-api.1.21",
]
endpoint, cluster = sys.argv[1:]


def imds(path):
    ttl = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    asked = urllib.request.Request(IMDS + "api/token", headers=ttl, method="PUT")
    token = urllib.request.urlopen(asked).read().decode()
    asked = urllib.request.Request(IMDS + path, headers={"X-aws-ec2-metadata-token": token})
    return urllib.request.urlopen(asked).read().decode()


def client(service):
    config = Config(retries={"mode": "standard", "max_attempts": 3}, read_timeout=10)
    return boto3.client(service, endpoint_url=endpoint, region_name=REGION, config=config)


ecs, ec2 = client("ecs"), client("ec2")
strict_json.attach(ecs)
document = imds("dynamic/instance-identity/document")
sent = [{"name": name} for name in CAPABILITIES] + [{"name": "ecs.os-type", "value": "linux"}]
registered = ecs.register_container_instance(
    cluster=cluster,
    instanceIdentityDocument=document,
    instanceIdentityDocumentSignature=imds("dynamic/instance-identity/signature"),
    totalResources=[
        {"name": "CPU", "type": "INTEGER", "integerValue": 2048},
        {"name": "MEMORY", "type": "INTEGER", "integerValue": 4096},
        {"name": "PORTS", "type": "STRINGSET", "stringSetValue": ["22", "51678"]},
        {"name": "PORTS_UDP", "type": "STRINGSET", "stringSetValue": []},
    ],
    attributes=sent,
    versionInfo={"agentVersion": "0.1", "dockerVersion": "none"},
)["containerInstance"]
held = {attribute["name"]: attribute.get("value") for attribute in registered["attributes"]}
assert all(held[attribute["name"]] == attribute.get("value") for attribute in sent), held
assert held["ecs.availability-zone"] == "us-west-2a" and registered["agentConnected"]
me = registered["containerInstanceArn"]
endpoints = ecs.discover_poll_endpoint(cluster=cluster, containerInstance=me)
assert endpoints["endpoint"].startswith(endpoint), endpoints


def report(task, **more):
    assert ecs.submit_task_state_change(cluster=cluster, task=task, **more)["acknowledgment"] == "ACK"


def containers(task, status, **more):
    return [{"containerName": c["name"], "status": status, **more} for c in task["containers"]]


def take(task):
    """Does for a new task what its family says; whether it goes on running."""
    arn, family = task["taskArn"], task["taskDefinitionArn"].split("/")[-1].split(":")[0]
    if family == "slow":
        report(arn, status="PENDING", containers=containers(task, "PENDING", reason="no free slot"))
        return True
    attachment = task["attachments"][0]
    lease(arn, attachment)
    region, account = me.split(":")[3:5]
    attached = f"arn:aws:ecs:{region}:{account}:attachment/{attachment['id']}"
    report(arn, attachments=[{"attachmentArn": attached, "status": "ATTACHED"}])
    now = time.time()
    if family == "bad":
        report(arn, status="STOPPED", reason="", containers=containers(
            task, "STOPPED", reason="CannotPullContainerError: no such image"))
        return give_back(arn)
    report(arn, status="RUNNING", reason="", pullStartedAt=now - 1, pullStoppedAt=now,
           containers=containers(task, "RUNNING", runtimeId="r-1", imageDigest="sha256:00", networkBindings=[]))
    if family == "job":
        report(arn, status="STOPPED", reason="", executionStoppedAt=now, containers=containers(task, "STOPPED", exitCode=3))
        return give_back(arn)
    return True


def lease(task, attachment):
    """Gives the task an ENI as the attachment asks for one, an old one if there is one."""
    wanted = {detail["name"]: detail["value"] for detail in attachment["details"]}
    groups = wanted["securityGroups"].split(",")
    if free:
        leased[task] = free.pop()
        ec2.modify_network_interface_attribute(NetworkInterfaceId=leased[task], Groups=groups)
    else:
        made = ec2.create_network_interface(SubnetId=wanted["subnetId"], Groups=groups)
        leased[task] = made["NetworkInterface"]["NetworkInterfaceId"]
        instance = json.loads(document)["instanceId"]
        ec2.attach_network_interface(NetworkInterfaceId=leased[task], InstanceId=instance, DeviceIndex=len(leased))
    ec2.create_tags(Resources=[leased[task]], Tags=[{"Key": "agent:task", "Value": task}])


def give_back(task):
    """A task has ended; it does not go on running."""
    if task in leased:
        free.append(leased.pop(task))
        ec2.delete_tags(Resources=free[-1:], Tags=[{"Key": "agent:task"}])
    return False


leased, free = {}, []
known, deadline = {}, time.monotonic() + 300
while time.monotonic() < deadline:
    mine, = ecs.describe_container_instances(cluster=cluster, containerInstances=[me])["containerInstances"]
    if mine["status"] == "INACTIVE":
        sys.exit(0)
    wanted = ecs.list_tasks(cluster=cluster, containerInstance=me, desiredStatus="RUNNING")["taskArns"]
    new = [arn for arn in wanted if arn not in known]
    for task in ecs.describe_tasks(cluster=cluster, tasks=new)["tasks"] if new else []:
        ecs.describe_task_definition(taskDefinition=task["taskDefinitionArn"])
        known[task["taskArn"]] = take(task)
    for arn in [arn for arn, runs in known.items() if runs and arn not in wanted]:
        report(arn, status="STOPPED", reason="")
        known[arn] = give_back(arn)
    time.sleep(0.05)
sys.exit("nobody deregistered the instance in time")
