"""Checks every reply of a botocore client against botocore's own service model, far more strictly than botocore does.

botocore reads a misspelt element as absent, and `True` as False. The Rust SDK does not, nor do users. So: the root's name and
namespace, no element that the model does not know, lists of <item>, lower-case booleans, integers, ISO-8601 times with
milliseconds and Z, enum values, and the elements that EC2 always sends.
"""

import re
import uuid
import xml.etree.ElementTree as ET

NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"
TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")

# The model marks nothing as required. These are the elements that real replies have never been seen without.
ALWAYS = {
    "NetworkInterface": {
        "availabilityZone", "description", "groupSet", "interfaceType", "macAddress", "networkInterfaceId", "ownerId",
        "privateDnsName", "privateIpAddress", "privateIpAddressesSet", "requesterManaged", "sourceDestCheck", "status",
        "subnetId", "tagSet", "vpcId", "ipv6AddressesSet",
    },
    "NetworkInterfaceAttachment": {
        "attachTime", "attachmentId", "deleteOnTermination", "deviceIndex", "networkCardIndex", "instanceOwnerId", "status",
    },
    "NetworkInterfacePrivateIpAddress": {"primary", "privateIpAddress"},
    "Subnet": {
        "availabilityZone", "availabilityZoneId", "availableIpAddressCount", "cidrBlock", "defaultForAz",
        "mapPublicIpOnLaunch", "ownerId", "state", "subnetArn", "subnetId", "vpcId", "ipv6CidrBlockAssociationSet",
    },
    "Vpc": {"cidrBlock", "cidrBlockAssociationSet", "dhcpOptionsId", "instanceTenancy", "isDefault", "ownerId", "state", "vpcId"},
    "SecurityGroup": {"groupDescription", "groupId", "groupName", "ipPermissions", "ipPermissionsEgress", "ownerId", "vpcId"},
    "Instance": {
        "amiLaunchIndex", "architecture", "imageId", "instanceId", "instanceState", "instanceType", "launchTime", "monitoring",
        "networkInterfaceSet", "placement", "privateDnsName", "privateIpAddress", "subnetId", "vpcId", "groupSet",
    },
    "InstanceTypeInfo": {"instanceType", "memoryInfo", "networkInfo", "processorInfo", "vCpuInfo"},
    "NetworkInfo": {
        "defaultNetworkCardIndex", "enaSupport", "ipv4AddressesPerInterface", "ipv6AddressesPerInterface", "maximumNetworkCards",
        "maximumNetworkInterfaces", "networkCards",
    },
    "TagDescription": {"key", "resourceId", "resourceType", "value"},
}


class Checker:
    def __init__(self):
        self.problems = []
        self.operations = set()
        self.codes = set()

    def watch(self, client):
        client.meta.events.register("after-call.ec2", self.reply)

    def say(self, where, what):
        self.problems.append(f"{where}: {what}")

    def reply(self, http_response, model, **_):
        name = model.name
        headers = {key.lower(): value for key, value in http_response.headers.items()}
        if "content-encoding" in headers:
            self.say(name, "the reply is compressed")
        request_id = headers.get("x-amzn-requestid")
        root = ET.fromstring(http_response.content)
        if http_response.status_code >= 300:
            self.error(name, root, request_id)
            return
        self.operations.add(name)
        if root.tag != f"{{{NAMESPACE}}}{name}Response":
            self.say(name, f"root element {root.tag}")
        fields = {local(child): child for child in root}
        if fields.pop("requestId").text != request_id:
            self.say(name, "request ids of header and body differ")
        if model.output_shape is None:
            if fields["return"].text != "true" or len(fields) != 1:
                self.say(name, f"expected <return>true</return>, found {sorted(fields)}")
            return
        self.members(name, model.output_shape, [child for child in root if local(child) != "requestId"])

    def error(self, name, root, request_id):
        # Exactly this shape, or the SDKs lose the code.
        shape = [local(root)] + [local(child) for child in root]
        error = list(list(root)[0])[0]
        if shape != ["Response", "Errors", "RequestID"] or local(error) != "Error":
            self.say(name, f"error of shape {shape}")
        if [local(child) for child in error] != ["Code", "Message"]:
            self.say(name, "an error is Code and Message")
        self.codes.add(error[0].text)
        if str(uuid.UUID(root[1].text)) != request_id:
            self.say(name, "request ids of header and error differ")

    def members(self, where, shape, children):
        known = {member.serialization.get("name", key): member for key, member in shape.members.items()}
        seen = set()
        for child in children:
            element = local(child)
            if element not in known:
                self.say(where, f"<{element}> is not in {shape.name}")
            elif element in seen:
                self.say(where, f"<{element}> twice")
            else:
                seen.add(element)
                self.value(f"{where}/{element}", known[element], child)
        for missing in ALWAYS.get(shape.name, set()) - seen:
            self.say(where, f"<{missing}> is missing in {shape.name}")

    def value(self, where, shape, element):
        kind = shape.type_name
        if kind == "structure":
            self.members(where, shape, list(element))
        elif kind == "list":
            item = shape.member.serialization.get("name", "item")
            for child in element:
                if local(child) != item:
                    self.say(where, f"list element <{local(child)}>, expected <{item}>")
                self.value(f"{where}[]", shape.member, child)
            if (element.text or "").strip():
                self.say(where, "text in a list")
        else:
            self.scalar(where, shape, element)

    def scalar(self, where, shape, element):
        text, kind = element.text or "", shape.type_name
        if len(element):
            self.say(where, "elements in a scalar")
        elif kind == "boolean" and text not in ("true", "false"):
            self.say(where, f"boolean {text!r}")
        elif kind in ("integer", "long") and not re.fullmatch(r"-?\d+", text):
            self.say(where, f"integer {text!r}")
        elif kind == "timestamp" and not TIME.match(text):
            self.say(where, f"time {text!r}")
        elif kind == "string" and getattr(shape, "enum", None) and text not in shape.enum:
            self.say(where, f"{text!r} is not a {shape.name}")


def local(element):
    return element.tag.rsplit("}", 1)[-1]
