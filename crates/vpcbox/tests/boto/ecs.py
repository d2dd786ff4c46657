"""Drives every operation of a running vpcbox's ECS with boto3, signatures on; strict_json.py reads along.

Arguments: the status of the box as JSON, the vpcbox program. ecs_agent.py plays the agent inside an instance. Ends with a word of
what was seen; any assertion ends it with a non-zero status.
"""

import json
import os
import subprocess
import sys
import time
import urllib.request

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError

import strict_json

box = json.load(open(sys.argv[1]))
here = os.path.dirname(os.path.abspath(__file__))
subnets = {s["name"]: s["id"] for s in box["subnets"]}


def client(**other):
    config = Config(retries={"mode": "standard", "total_max_attempts": 1}, read_timeout=10)
    options = dict(
        endpoint_url=box["endpoint"], region_name=box["region"], aws_access_key_id="AKIDVPCBOXTEST",
        aws_secret_access_key="a-secret/with+signs=", config=config,
    )
    return boto3.client("ecs", **(options | other))


ecs = client()
checker = strict_json.attach(ecs)
seen = set()


def knobs(**turned):
    body = json.dumps(turned).encode()
    urllib.request.urlopen(urllib.request.Request(box["endpoint"] + "/_vpcbox/knobs", data=body)).read()


def refused(code, call, words="", **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        assert error.response["Error"]["Code"] == code, f"expected {code}, got {error}"
        assert words in str(error), f"expected {words!r}, got {error}"
        seen.add(code)
        return error.response
    raise AssertionError(f"{code} expected, the call went through")


def until(what, condition):
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert agent.poll() is None, "the agent has ended"
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.02)
    return found


def network(subnet="a", **more):
    return {"awsvpcConfiguration": {"subnets": [subnets[subnet]], **more}}


def run(family, **more):
    return ecs.run_task(cluster="demo", taskDefinition=family, **({"networkConfiguration": network()} | more))


def task(arn):
    return ecs.describe_tasks(cluster="demo", tasks=[arn], include=["TAGS"])["tasks"][0]


def reaches(arn, status):
    return until(f"{arn} {status}", lambda: (now := task(arn))["lastStatus"] == status and now)


def clusters_come_and_go():
    ecs.create_cluster(clusterName="spare", tags=[{"key": "team", "value": "red"}])
    shown, = ecs.describe_clusters(clusters=["spare"], include=["TAGS", "SETTINGS"])["clusters"]
    assert shown["status"] == "ACTIVE" and shown["tags"] == [{"key": "team", "value": "red"}]
    assert ecs.describe_clusters(clusters=["none"])["failures"][0]["reason"] == "MISSING"
    pages = ecs.get_paginator("list_clusters").paginate(PaginationConfig={"PageSize": 1})
    assert len([arn for page in pages for arn in page["clusterArns"]]) == 2
    assert ecs.delete_cluster(cluster="spare")["cluster"]["status"] == "INACTIVE"
    refused("InvalidParameterException", ecs.list_tasks, "The referenced cluster was inactive", cluster="spare")
    refused("ClusterNotFoundException", ecs.delete_cluster, cluster="none")
    refused("InvalidParameterException", run, "No Container Instances were found in your cluster.", family="web")


def an_instance_is_found_and_tagged(instance):
    assert ecs.list_container_instances(cluster="demo", status="ACTIVE")["containerInstanceArns"] == [instance]
    ecs.tag_resource(resourceArn=instance, tags=[{"key": "rack", "value": "7"}])
    found = ecs.describe_container_instances(cluster="demo", containerInstances=[instance, "none"], include=["TAGS"])
    shown, = found["containerInstances"]
    assert shown["tags"] == [{"key": "rack", "value": "7"}] and shown["agentConnected"]
    assert shown["versionInfo"]["agentVersion"] == "0.1"
    assert [r["integerValue"] for r in shown["remainingResources"]][:2] == [2048, 4096]
    assert found["failures"][0]["reason"] == "MISSING"
    assert ecs.list_tags_for_resource(resourceArn=instance)["tags"] == [{"key": "rack", "value": "7"}]
    ecs.untag_resource(resourceArn=instance, tagKeys=["rack"])
    mine = [{"name": "zone", "value": "x", "targetType": "container-instance", "targetId": instance}]
    ecs.put_attributes(cluster="demo", attributes=mine)
    listed = ecs.list_attributes(cluster="demo", targetType="container-instance", attributeName="zone")
    assert listed["attributes"] == mine
    ecs.delete_attributes(cluster="demo", attributes=mine)
    refused("TargetNotFoundException", ecs.put_attributes, cluster="demo", attributes=[{"name": "a", "targetId": "none"}])


def a_task_runs_and_is_stopped(instance):
    started = run("web", startedBy="me", tags=[{"key": "k", "value": "v"}], group="mine", count=1, referenceId="r")
    arn, = [t["taskArn"] for t in started["tasks"]]
    assert started["failures"] == [] and started["tasks"][0]["lastStatus"] == "PROVISIONING"
    shown = reaches(arn, "RUNNING")
    assert shown["connectivity"] == "CONNECTED" and shown["containerInstanceArn"] == instance
    details = {d["name"]: d["value"] for d in shown["attachments"][0]["details"]}
    assert details["networkInterfaceId"].startswith("eni-") and details["macAddress"].startswith("02:")
    assert shown["containers"][0]["networkInterfaces"][0]["privateIpv4Address"] == details["privateIPv4Address"]
    assert shown["attachments"][0]["status"] == "ATTACHED"
    assert shown["createdAt"] <= shown["pullStoppedAt"] <= shown["startedAt"]
    assert ecs.list_tasks(cluster="demo", startedBy="me", family="web")["taskArns"] == [arn]
    stopping = ecs.stop_task(cluster="demo", task=arn, reason="enough")["task"]
    assert (stopping["desiredStatus"], stopping["stopCode"]) == ("STOPPED", "UserInitiated")
    shown = reaches(arn, "STOPPED")
    assert shown["stoppedReason"] == "enough" and shown["stoppingAt"] <= shown["stoppedAt"]
    assert ecs.list_tasks(cluster="demo", desiredStatus="STOPPED")["taskArns"] == [arn]
    refused("InvalidParameterException", ecs.stop_task, "The referenced task was not found.", cluster="demo", task="none")
    assert ecs.describe_tasks(cluster="demo", tasks=["none"])["failures"][0]["reason"] == "MISSING"


def ends_are_told_apart(instance):
    started = ecs.start_task(
        cluster="demo", taskDefinition="job", containerInstances=[instance], networkConfiguration=network())
    shown = reaches(started["tasks"][0]["taskArn"], "STOPPED")
    assert shown["stopCode"] == "EssentialContainerExited" and shown["containers"][0]["exitCode"] == 3
    assert shown["stoppedReason"] == "Essential container in task exited"
    shown = reaches(run("bad")["tasks"][0]["taskArn"], "STOPPED")
    assert shown["stopCode"] == "TaskFailedToStart" and shown["stoppedReason"].startswith("CannotPullContainerError")


def a_task_that_waits_says_why_and_the_rest_find_no_place(instance):
    arn = run("slow")["tasks"][0]["taskArn"]
    waiting = until("a reason", lambda: (now := task(arn))["containers"][0].get("reason") and now)
    assert (waiting["lastStatus"], waiting["containers"][0]["reason"]) == ("PROVISIONING", "no free slot")
    full = run("slow", count=2)
    assert len(full["tasks"]) == 1 and full["failures"] == [{"arn": instance, "reason": "RESOURCE:ENI"}]
    ecs.update_container_instances_state(cluster="demo", containerInstances=[instance], status="DRAINING")
    refused("InvalidParameterException", run, "No Container Instances were found", family="slow")
    ecs.update_container_instances_state(cluster="demo", containerInstances=[instance], status="ACTIVE")
    knobs(ecs={"agent_silence_ms": 0})
    # The agent polls all the time, but nothing is late enough for a silence of nothing.
    assert run("slow")["failures"] == [{"arn": instance, "reason": "AGENT"}]
    knobs(ecs={"agent_silence_ms": 90000})
    for arn in ecs.list_tasks(cluster="demo")["taskArns"]:
        ecs.stop_task(cluster="demo", task=arn)
        reaches(arn, "STOPPED")


def a_call_made_twice_is_one(instance):
    first = run("slow", clientToken="token-1")["tasks"][0]["taskArn"]
    assert run("slow", clientToken="token-1")["tasks"][0]["taskArn"] == first
    answer = refused("ConflictException", run, family="slow", clientToken="token-1", count=2)
    assert answer["resourceIds"] == [first]
    # A lost reply is found again by the token that botocore makes up.
    patient = client(config=Config(retries={"mode": "standard", "max_attempts": 3}, read_timeout=10))
    strict_json.attach(patient)
    knobs(lose_reply=[{"action": "RunTask"}])
    patient.run_task(cluster="demo", taskDefinition="slow", networkConfiguration=network())
    tasks = ecs.list_tasks(cluster="demo", containerInstance=instance)["taskArns"]
    assert len(tasks) == 2, tasks
    for arn in tasks:
        ecs.stop_task(cluster="demo", task=arn)
        reaches(arn, "STOPPED")


def faults_are_as_told():
    knobs(ecs={"throttle": 1})
    refused("ThrottlingException", ecs.list_clusters)
    knobs(fail=[{"action": "ecs:*", "code": "ServerException"}])
    refused("ServerException", ecs.list_clusters)
    knobs(ecs={"outage": True})
    try:
        ecs.list_clusters()
        raise AssertionError("ECS answered while it was away")
    except HTTPClientError:
        pass
    knobs(ecs={"outage": False})
    ecs.list_clusters()


def strangers_are_kept_out():
    for code, other in [
        ("UnrecognizedClientException", {"aws_access_key_id": "AKIDNOBODY"}),
        ("InvalidSignatureException", {"aws_secret_access_key": "wrong"}),
    ]:
        stranger = client(**other)
        strict_json.attach(stranger)
        refused(code, stranger.list_clusters)


def reports_are_checked(instance):
    arn = run("slow")["tasks"][0]["taskArn"]
    attachment = f"arn:aws:ecs:us-west-2:123456789012:attachment/{task(arn)['attachments'][0]['id']}"
    ecs.submit_attachment_state_changes(
        cluster="demo", attachments=[{"attachmentArn": attachment, "status": "ATTACHED"}])
    ecs.submit_container_state_change(cluster="demo", task=arn, containerName="app", status="RUNNING", runtimeId="r")
    shown = task(arn)
    assert (shown["lastStatus"], shown["containers"][0]["lastStatus"]) == ("PENDING", "RUNNING")
    refused("InvalidParameterException", ecs.submit_task_state_change, "not found", cluster="demo", task="none")
    refused("InvalidParameterException", ecs.deregister_container_instance, "Found running tasks on the instance.",
            cluster="demo", containerInstance=instance)
    gone = ecs.deregister_container_instance(cluster="demo", containerInstance=instance, force=True)
    assert gone["containerInstance"]["status"] == "INACTIVE"
    assert task(arn)["stoppedReason"] == "Container instance deregistration forced by user"


for family in ("web", "job", "bad", "slow"):
    ecs.register_task_definition(
        family=family, networkMode="awsvpc", containerDefinitions=[{"name": "app", "image": "x:1", "memory": 64}])
assert len(ecs.list_task_definition_families()["families"]) == 4
assert len(ecs.list_task_definitions()["taskDefinitionArns"]) == 4
clusters_come_and_go()
# Before the agent is there, whose calls would use the faults up.
faults_are_as_told()
strangers_are_kept_out()
command = [sys.argv[2], "exec", "--name", box["name"], "one", "--", sys.executable, "-B", os.path.join(here, "ecs_agent.py")]
agent = subprocess.Popen([*command, f"http://127.0.0.1:{box['port']}", "demo"])
try:
    instance, = until("registered", lambda: ecs.list_container_instances(cluster="demo")["containerInstanceArns"])
    ecs.discover_poll_endpoint(cluster="demo", containerInstance=instance)
    an_instance_is_found_and_tagged(instance)
    a_task_runs_and_is_stopped(instance)
    ends_are_told_apart(instance)
    a_task_that_waits_says_why_and_the_rest_find_no_place(instance)
    a_call_made_twice_is_one(instance)
    reports_are_checked(instance)
    assert agent.wait(60) == 0
finally:
    agent.kill()
ecs.deregister_task_definition(taskDefinition="bad:1")
ecs.delete_task_definitions(taskDefinitions=["bad:1"])
print(f"{len(checker.operations)} operations, {len(seen)} errors: {' '.join(sorted(checker.operations))}")
