"""Checks every reply of a JSON 1.1 service against the service model that botocore ships, far more strictly than botocore does.

botocore passes over members that it does not know, takes a text where a number is due, and has no opinion on enum values. The
Rust SDK and users have. So: no member that the model does not know, no null, no member twice, the JSON type of each shape,
integers in the range of their type, times as seconds since 1970, enum values, members that the model requires or that ECS is
never seen without, and errors whose name the operation knows.

    problems = check("DescribeTasks", body)      one reply's body
    checker = attach(boto3.client("ecs"))        every reply from now on: a bad one raises ModelViolation out of the call
    checker = attach(awscli_driver.session)      the same for the CLI, see aws_strict.py
"""

import base64
import binascii
import json
import re
import uuid

import botocore.session

CONTENT_TYPE = "application/x-amz-json-1.1"
# Seconds from 2001 to 2286: milliseconds or minutes are far outside.
TIMES = (1e9, 1e10)
RANGES = {"integer": 2**31, "long": 2**63}

# What the front door of every AWS service answers, which no operation's model names.
COMMON_ERRORS = {
    "AccessDeniedException", "ExpiredTokenException", "IncompleteSignature", "InternalFailure", "InvalidSignatureException",
    "MissingAuthenticationTokenException", "RequestEntityTooLargeException", "SerializationException", "ServiceUnavailable",
    "ServiceUnavailableException", "ThrottlingException", "UnknownOperationException", "UnrecognizedClientException",
    "ValidationException",
}

# The model requires next to nothing of outputs. These are the members that real replies have never been seen without.
ALWAYS = {
    "Attachment": {"id", "type", "status", "details"},
    "Attribute": {"name"},
    "Cluster": {
        "clusterArn", "clusterName", "status", "registeredContainerInstancesCount", "runningTasksCount", "pendingTasksCount",
        "activeServicesCount", "statistics", "tags", "settings", "capacityProviders", "defaultCapacityProviderStrategy",
    },
    "Container": {"containerArn", "taskArn", "name", "image", "lastStatus", "networkInterfaces", "healthStatus", "cpu"},
    "ContainerDefinition": {
        "name", "image", "cpu", "portMappings", "essential", "environment", "mountPoints", "volumesFrom", "systemControls",
    },
    "ContainerInstance": {
        "containerInstanceArn", "ec2InstanceId", "version", "versionInfo", "remainingResources", "registeredResources", "status",
        "agentConnected", "runningTasksCount", "pendingTasksCount", "attributes", "registeredAt", "attachments", "tags",
    },
    "Failure": {"reason"},
    "KeyValuePair": {"name"},
    "NetworkInterface": {"attachmentId", "privateIpv4Address"},
    "PortMapping": {"protocol"},
    "Resource": {"name", "type", "doubleValue", "longValue", "integerValue"},
    "Tag": {"key", "value"},
    "Task": {
        "attachments", "attributes", "clusterArn", "containers", "cpu", "createdAt", "desiredStatus", "enableExecuteCommand",
        "group", "lastStatus", "launchType", "memory", "overrides", "tags", "taskArn", "taskDefinitionArn", "version",
    },
    "TaskDefinition": {
        "taskDefinitionArn", "containerDefinitions", "family", "revision", "volumes", "status", "placementConstraints",
        "compatibilities", "registeredAt", "registeredBy",
    },
    "TaskOverride": {"containerOverrides", "inferenceAcceleratorOverrides"},
    "Volume": {"name"},
}


class ModelViolation(Exception):
    """A reply that the service's model does not allow."""


def check(operation, raw, service="ecs"):
    """The problems of a successful reply's body."""
    checker = Checker(service)
    checker.body(operation, raw)
    return checker.problems


def attach(target, service="ecs"):
    """Checks every reply that a client (or all clients of a botocore session) gets, those that are retried too."""
    checker = Checker(service)
    register = target.register if hasattr(target, "register") else target.meta.events.register
    # Before botocore reads it: some lies make it fail by itself, with a word about something else.
    register(f"before-parse.{service}", checker.received)
    return checker


class Checker:
    def __init__(self, service="ecs"):
        self.model = botocore.session.get_session().get_service_model(service)
        self.problems = []
        self.operations = set()
        self.codes = set()

    def say(self, where, what):
        self.problems.append(f"{where}: {what}")

    def received(self, operation_model, response_dict, **_):
        before = len(self.problems)
        self.reply(operation_model.name, response_dict["status_code"], response_dict["headers"], response_dict["body"])
        if new := self.problems[before:]:
            raise ModelViolation("; ".join(new))

    def reply(self, operation, status, headers, raw):
        headers = {key.lower(): value for key, value in headers.items()}
        if "content-encoding" in headers:
            self.say(operation, "the reply is compressed")
        if headers.get("content-type") != CONTENT_TYPE:
            self.say(operation, f"content type {headers.get('content-type')!r}")
        try:
            uuid.UUID(headers.get("x-amzn-requestid", ""))
        except ValueError:
            self.say(operation, f"request id {headers.get('x-amzn-requestid')!r}")
        if status == 200:
            self.operations.add(operation)
            self.body(operation, raw)
        else:
            self.error(operation, status, raw)

    def error(self, operation, status, raw):
        body = self.parse(operation, raw)
        if not isinstance(body, dict) or not {"__type", "message"} <= set(body):
            self.say(operation, f"an error is __type and message, not {body!r}")
            return
        code, message = body["__type"], body["message"]
        modelled = {shape.name: shape for shape in self.model.operation_model(operation).error_shapes}
        if code not in COMMON_ERRORS | set(modelled):
            self.say(operation, f"{code!r} is not an error of {operation}")
        if not isinstance(message, str) or not message:
            self.say(operation, f"message {message!r} of {code}")
        if not 400 <= status < 600:
            self.say(operation, f"{code} with HTTP {status}")
        more = {name: value for name, value in body.items() if name not in ("__type", "message")}
        members = modelled[code].members if code in modelled else {}
        for name, value in more.items():
            if name not in members:
                self.say(operation, f"{name!r} is not in {code}")
            else:
                self.value(f"{code}.{name}", members[name], value)
        self.codes.add(code)

    def body(self, operation, raw):
        shape = self.model.operation_model(operation).output_shape
        body = self.parse(operation, raw)
        if shape is not None and body is not None:
            self.value(operation, shape, body)

    def parse(self, operation, raw):
        def members(pairs):
            names = [name for name, _ in pairs]
            for name in {name for name in names if names.count(name) > 1}:
                self.say(operation, f"member {name!r} twice")
            return dict(pairs)

        def constant(text):
            self.say(operation, f"{text} is not JSON")
            return 0

        try:
            return json.loads(raw, object_pairs_hook=members, parse_constant=constant)
        except ValueError as error:
            self.say(operation, f"no JSON: {error}")
            return None

    def value(self, where, shape, value):
        kind = shape.type_name
        if kind == "structure":
            self.structure(where, shape, value)
        elif kind == "list":
            if not isinstance(value, list):
                return self.wrong(where, kind, value)
            for index, item in enumerate(value):
                self.value(f"{where}[{index}]", shape.member, item)
        elif kind == "map":
            if not isinstance(value, dict):
                return self.wrong(where, kind, value)
            for key, item in value.items():
                self.scalar(f"{where} key", shape.key, key)
                self.value(f"{where}.{key}", shape.value, item)
        else:
            self.scalar(where, shape, value)

    def structure(self, where, shape, value):
        if not isinstance(value, dict):
            return self.wrong(where, "structure", value)
        for name, item in value.items():
            if name not in shape.members:
                self.say(where, f"{name!r} is not in {shape.name}")
            else:
                self.value(f"{where}.{name}", shape.members[name], item)
        if shape.metadata.get("union") and len(value) != 1:
            self.say(where, f"a {shape.name} has one member")
        for missing in sorted((ALWAYS.get(shape.name, set()) | set(shape.required_members)) - set(value)):
            self.say(where, f"{missing!r} is missing in {shape.name}")

    def scalar(self, where, shape, value):
        kind = shape.type_name
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if kind == "boolean":
            fits = isinstance(value, bool)
        elif kind in RANGES:
            fits = number and isinstance(value, int) and -RANGES[kind] <= value < RANGES[kind]
        elif kind in ("float", "double"):
            fits = number
        elif kind == "timestamp":
            fits = number and TIMES[0] < value < TIMES[1]
        elif kind == "blob":
            fits = isinstance(value, str) and is_base64(value)
        else:
            fits = isinstance(value, str)
        if not fits:
            return self.wrong(where, kind, value)
        if kind == "string":
            self.text(where, shape, value)

    def text(self, where, shape, value):
        if getattr(shape, "enum", None) and value not in shape.enum:
            self.say(where, f"{value!r} is not a {shape.name}")
        # The model gives some texts a form, in a dialect of which Python lacks the classes of letters.
        pattern = shape.metadata.get("pattern")
        if pattern and not re.fullmatch(pattern.replace("\\p{L}\\p{Z}\\p{N}", r"\w\s"), value):
            self.say(where, f"{value!r} is not of the form {pattern}")

    def wrong(self, where, kind, value):
        self.say(where, f"{json.dumps(value)[:80]} is no {kind}")


def is_base64(text):
    try:
        base64.b64decode(text, validate=True)
        return True
    except binascii.Error:
        return False
