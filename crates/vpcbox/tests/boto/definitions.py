"""Drives the task definitions of a running vpcbox with boto3, signatures on; strict_json.py reads along.

Arguments: the status of the box as JSON. Ends with a word of what was seen; any assertion ends it with a non-zero status.
"""

import json
import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

import strict_json

box = json.load(open(sys.argv[1]))
ecs = boto3.client(
    "ecs", endpoint_url=box["endpoint"], region_name=box["region"], aws_access_key_id="AKIDVPCBOXTEST",
    aws_secret_access_key="a-secret/with+signs=", config=Config(parameter_validation=False, read_timeout=10),
)
checker = strict_json.attach(ecs)

# Every member that an agent with ENIs has a use for.
FULL = {
    "family": "web",
    "networkMode": "awsvpc",
    "taskRoleArn": "arn:aws:iam::123456789012:role/task",
    "executionRoleArn": "arn:aws:iam::123456789012:role/execution",
    "cpu": "1 vCPU",
    "memory": "2GB",
    "requiresCompatibilities": ["EC2"],
    "runtimePlatform": {"cpuArchitecture": "X86_64", "operatingSystemFamily": "LINUX"},
    "volumes": [{"name": "scratch"}, {"name": "host", "host": {"sourcePath": "/srv"}}],
    "placementConstraints": [{"type": "memberOf", "expression": "attribute:ecs.os-type == linux"}],
    "tags": [{"key": "team", "value": "red"}],
    "containerDefinitions": [
        {
            "name": "app", "image": "busybox:1", "cpu": 128, "memory": 256, "memoryReservation": 64, "essential": True,
            "entryPoint": ["sh", "-c"], "command": ["exec httpd -f"], "user": "nobody", "workingDirectory": "/tmp",
            "environment": [{"name": "A", "value": "1"}], "secrets": [{"name": "S", "valueFrom": "parameter"}],
            "portMappings": [{"containerPort": 80}, {"containerPort": 53, "protocol": "udp", "name": "dns"}],
            "mountPoints": [{"sourceVolume": "scratch", "containerPath": "/scratch", "readOnly": False}],
            "dependsOn": [{"containerName": "side", "condition": "HEALTHY"}], "startTimeout": 30, "stopTimeout": 5,
            "restartPolicy": {"enabled": True, "ignoredExitCodes": [0], "restartAttemptPeriod": 60},
            "ulimits": [{"name": "nofile", "softLimit": 1024, "hardLimit": 4096}], "readonlyRootFilesystem": True,
            "linuxParameters": {
                "initProcessEnabled": True, "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
                "tmpfs": [{"containerPath": "/run", "size": 16, "mountOptions": ["ro"]}], "sharedMemorySize": 64,
            },
            "dockerLabels": {"a": "b"}, "systemControls": [{"namespace": "net.core.somaxconn", "value": "1024"}],
            "logConfiguration": {"logDriver": "json-file", "options": {"max-size": "1m"}},
        },
        {
            "name": "side", "image": "busybox:1", "memory": 64, "essential": False,
            "healthCheck": {"command": ["CMD-SHELL", "true"], "startPeriod": 1}, "volumesFrom": [],
        },
    ],
}


def refused(code, part, call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        found = error.response["Error"]
        assert found["Code"] == code and part in found["Message"], f"expected {code} {part!r}, found {found}"
        return
    raise AssertionError(f"{code} expected, the call went through")


# What is registered is answered, described and registered again the same.
reply = ecs.register_task_definition(**FULL)
first = reply["taskDefinition"]
assert reply["tags"] == FULL["tags"]
assert (first["revision"], first["status"], first["cpu"], first["memory"]) == (1, "ACTIVE", "1024", "2048")
assert first["taskDefinitionArn"].endswith(":task-definition/web:1") and first["registeredBy"].startswith("arn:aws:iam::")
app, side = first["containerDefinitions"]
assert app["portMappings"][0] == {"containerPort": 80, "hostPort": 80, "protocol": "tcp"}
assert side["healthCheck"]["interval"] == 30 and side["cpu"] == 0
names = {attribute["name"] for attribute in first["requiresAttributes"]}
assert {"ecs.capability.task-eni", "ecs.capability.container-ordering", "com.amazonaws.ecs.capability.task-iam-role"} <= names
described = ecs.describe_task_definition(taskDefinition="web", include=["TAGS"])
assert described["taskDefinition"] == first and described["tags"] == FULL["tags"]
assert "tags" not in ecs.describe_task_definition(taskDefinition="web:1")
takes = ecs.meta.service_model.operation_model("RegisterTaskDefinition").input_shape.members
again = ecs.register_task_definition(**{name: value for name, value in first.items() if name in takes})["taskDefinition"]
assert again["revision"] == 2 and again["containerDefinitions"] == first["containerDefinitions"]

# Lists, in pages and by family.
small = {"family": "api", "containerDefinitions": [{"name": "a", "image": "b", "memory": 6}]}
for _ in range(3):
    ecs.register_task_definition(**small)
pages = ecs.get_paginator("list_task_definitions").paginate(PaginationConfig={"PageSize": 2})
names = [arn.rsplit("/", 1)[1] for page in pages for arn in page["taskDefinitionArns"]]
assert names == ["api:1", "api:2", "api:3", "web:1", "web:2"], names
down = ecs.list_task_definitions(familyPrefix="web", sort="DESC")["taskDefinitionArns"]
assert [arn.rsplit("/", 1)[1] for arn in down] == ["web:2", "web:1"]
assert ecs.list_task_definition_families(status="ACTIVE")["families"] == ["api", "web"]

# Tags of a definition.
arn = first["taskDefinitionArn"]
ecs.tag_resource(resourceArn=arn, tags=[{"key": "cost", "value": "low"}])
ecs.untag_resource(resourceArn=arn, tagKeys=["team"])
assert ecs.list_tags_for_resource(resourceArn=arn)["tags"] == [{"key": "cost", "value": "low"}]

# The end of a definition.
gone = ecs.deregister_task_definition(taskDefinition=arn)["taskDefinition"]
assert gone["status"] == "INACTIVE" and gone["deregisteredAt"].timestamp() > 1e9
assert ecs.describe_task_definition(taskDefinition=arn)["taskDefinition"] == gone
assert ecs.list_task_definitions(status="INACTIVE")["taskDefinitionArns"] == [arn]
deleted = ecs.delete_task_definitions(taskDefinitions=["web:1", "web:2", "web:9"])
assert [d["status"] for d in deleted["taskDefinitions"]] == ["DELETE_IN_PROGRESS"]
assert [f["arn"] for f in deleted["failures"]] == ["web:2", "web:9"]

# Refusals, as boto3 reads them.
refused("ClientException", "Unable to describe task definition.", ecs.describe_task_definition, taskDefinition="web:9")
refused("ClientException", "Family can not be blank.", ecs.register_task_definition, family="")
refused("ClientException", "Container list cannot be empty.", ecs.register_task_definition, family="x")
refused("SerializationException", "can not be converted", ecs.register_task_definition, family=7)
refused("InvalidParameterException", "Tags can not be empty.", ecs.register_task_definition, **(small | {"tags": []}))
refused("InvalidParameterException", "Invalid token.", ecs.list_task_definitions, nextToken="x")
ports = [{"name": "a", "image": "b", "memory": 6, "portMappings": [{"containerPort": 80, "hostPort": 81}]}]
refused(
    "ClientException", "the host ports and container ports in port mappings must match", ecs.register_task_definition,
    family="x", networkMode="awsvpc", containerDefinitions=ports,
)

print(f"{len(checker.operations)} operations, {len(checker.codes)} errors")
