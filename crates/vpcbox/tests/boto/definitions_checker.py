"""Shows that strict_json.py can fail: a good reply passes, and each way of doctoring it is found, by itself and out of a call.

Needs no box: a hook answers in the network's place. Ends with a word of what was found; any assertion ends it with a non-zero status.
"""

import copy
import io
import json
import uuid

import boto3
from awscli.clidriver import create_clidriver
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.exceptions import ClientError

import strict_json

GOOD = {
    "taskDefinition": {
        "taskDefinitionArn": "arn:aws:ecs:us-west-2:123456789012:task-definition/web:1",
        "family": "web", "revision": 1, "status": "ACTIVE", "networkMode": "awsvpc", "cpu": "256", "memory": "512",
        "volumes": [{"name": "v", "efsVolumeConfiguration": {"fileSystemId": "fs-1"}}], "placementConstraints": [],
        "compatibilities": ["EC2"], "registeredAt": 1800000000.125, "registeredBy": "arn:aws:iam::123456789012:user/operator",
        "containerDefinitions": [{
            "name": "app", "image": "busybox", "cpu": 0, "memory": 64, "essential": True, "environment": [], "mountPoints": [],
            "volumesFrom": [], "systemControls": [], "portMappings": [{"containerPort": 80, "protocol": "tcp"}],
            "dockerLabels": {"a": "b"}, "ulimits": [{"name": "nofile", "softLimit": 1, "hardLimit": 2}],
        }],
    },
    "tags": [{"key": "team", "value": "red"}],
}
REMOVED = object()
DEFINITION, CONTAINER = ("taskDefinition",), ("taskDefinition", "containerDefinitions", 0)
# Where, what instead, and a part of what the checker must say.
LIES = [
    (("colour",), "red", "'colour' is not in DescribeTaskDefinitionResponse"),
    ((*CONTAINER, "Name"), "app", "'Name' is not in ContainerDefinition"),
    ((*DEFINITION, "revision"), 1.0, "1.0 is no integer"),
    ((*DEFINITION, "revision"), "1", '"1" is no integer'),
    ((*DEFINITION, "revision"), True, "true is no integer"),
    ((*DEFINITION, "revision"), 2**31, "is no integer"),
    ((*DEFINITION, "cpu"), 256, "256 is no string"),
    ((*DEFINITION, "networkMode"), "overlay", "'overlay' is not a NetworkMode"),
    ((*DEFINITION, "compatibilities"), ["LAMBDA"], "'LAMBDA' is not a Compatibility"),
    ((*DEFINITION, "compatibilities"), "EC2", "is no list"),
    ((*DEFINITION, "registeredAt"), "2027-01-15T08:00:00Z", "is no timestamp"),
    ((*DEFINITION, "registeredAt"), 1800000000125, "is no timestamp"),
    ((*DEFINITION, "registeredAt"), REMOVED, "'registeredAt' is missing in TaskDefinition"),
    ((*DEFINITION, "pidMode"), None, "null is no string"),
    ((*DEFINITION, "volumes", 0, "efsVolumeConfiguration", "fileSystemId"), REMOVED, "'fileSystemId' is missing"),
    (DEFINITION, [], "[] is no structure"),
    ((*CONTAINER, "essential"), "true", '"true" is no boolean'),
    ((*CONTAINER, "essential"), 1, "1 is no boolean"),
    ((*CONTAINER, "dockerLabels"), [], "[] is no map"),
    ((*CONTAINER, "dockerLabels", "a"), 1, "1 is no string"),
    ((*CONTAINER, "ulimits", 0, "hardLimit"), REMOVED, "'hardLimit' is missing in Ulimit"),
    (("tags", 0, "key"), "a*b", "'a*b' is not of the form"),
    (("tags", 0, "value"), REMOVED, "'value' is missing in Tag"),
]


def doctored(path, lie):
    reply = copy.deepcopy(GOOD)
    place = reply
    for step in path[:-1]:
        place = place[step]
    if lie is REMOVED:
        del place[path[-1]]
    else:
        place[path[-1]] = lie
    return json.dumps(reply).encode()


class Raw(io.BytesIO):
    def stream(self, **_):
        yield self.read()


def answering(body, status=200, **headers):
    """A hook that answers every request in the network's place."""
    headers = {"Content-Type": "application/x-amz-json-1.1", "x-amzn-RequestId": str(uuid.uuid4())} | headers
    headers = {name: value for name, value in headers.items() if value is not None}
    return lambda request, **_: AWSResponse(request.url, status, headers, Raw(body))


def call(body, **how):
    """One call of a boto3 client that gets this reply."""
    client = boto3.client(
        "ecs", region_name="us-west-2", endpoint_url="http://127.0.0.1:1", aws_access_key_id="a", aws_secret_access_key="s",
        config=Config(retries={"total_max_attempts": 1}),
    )
    client.meta.events.register("before-send.ecs", answering(body, **how))
    checker = strict_json.attach(client)
    client.describe_task_definition(taskDefinition="web")
    return checker


def violates(part, act):
    try:
        act()
    except strict_json.ModelViolation as violation:
        assert part in str(violation), f"expected {part!r}, found {violation}"
        return
    raise AssertionError(f"{part!r} was not found")


good = json.dumps(GOOD).encode()
assert strict_json.check("DescribeTaskDefinition", good) == []
assert call(good).operations == {"DescribeTaskDefinition"}
for path, lie, part in LIES:
    body = doctored(path, lie)
    problems = strict_json.check("DescribeTaskDefinition", body)
    assert len(problems) == 1 and part in problems[0], f"{path} = {lie}: expected {part!r}, found {problems}"
    violates(part, lambda: call(body))

violates("no JSON", lambda: call(b"<html/>"))
violates("no JSON", lambda: call(b""))
violates("member 'tags' twice", lambda: call(good[:-1] + b', "tags": []}'))
violates("NaN is not JSON", lambda: call(good.replace(b"1800000000.125", b"NaN")))
violates("content type", lambda: call(good, **{"Content-Type": "application/json"}))
violates("request id", lambda: call(good, **{"x-amzn-RequestId": "7"}))
violates("request id", lambda: call(good, **{"x-amzn-RequestId": None}))


def error(**members):
    return json.dumps(members).encode()


violates("not an error of DescribeTaskDefinition", lambda: call(error(__type="ConflictException", message="m"), status=400))
violates("an error is __type and message", lambda: call(error(code="ClientException", message="m"), status=400))
violates("an error is __type and message", lambda: call(error(__type="ClientException", Message="m"), status=400))
violates("'colour' is not in ClientException", lambda: call(error(__type="ClientException", message="m", colour=1), status=400))
violates("message ''", lambda: call(error(__type="ClientException", message=""), status=400))
try:
    call(error(__type="ClientException", message="Unable to describe task definition."), status=400)
    raise AssertionError("the error was swallowed")
except ClientError as refused:
    assert refused.response["Error"]["Code"] == "ClientException"


def cli(body):
    """The status of the CLI when it gets this reply."""
    driver = create_clidriver()
    driver.session.set_credentials("a", "s")
    driver.session.register("before-send.ecs", answering(body))
    strict_json.attach(driver.session)
    return driver.main([
        "ecs", "describe-task-definition", "--task-definition", "web", "--region", "us-west-2", "--endpoint-url",
        "http://127.0.0.1:1", "--query", "taskDefinition.family",
    ])


assert cli(good) == 0
assert cli(doctored((*DEFINITION, "revision"), "1")) == 255
print(f"{len(LIES)} lies found")
